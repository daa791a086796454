"""Starts veRL's trainer: its settings, inputs, processes and refusals."""
