"""A study file to its stages: what it may say, what must hold, what it expands to."""
