"""Scores to effects: cells, spreads, contrasts, expressions."""
