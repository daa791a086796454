"""The procedural corpus of the laptop study: families, writers, base text, evaluation items."""
