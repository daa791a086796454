"""Recipes of one command each: a blend, a curation, a training, a GRPO run."""
