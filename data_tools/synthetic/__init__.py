"""The procedural corpus of the laptop study: task families, writers, base text, evaluation items."""
