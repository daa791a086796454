"""Phases of pretraining as exact token windows over seeded document streams."""
