"""Watches a run from outside: metrics, logs, checkpoints, steps that do not end."""
