"""NeMo-Skills in an environment of its own: made from a lock file, then asked to evaluate."""
