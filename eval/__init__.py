"""Evaluation: weights to numbers. The only room that imports evaluation harnesses."""
