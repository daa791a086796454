"""Asks a model: prompts, generation, held-out loss, lm-eval."""
