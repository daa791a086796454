"""A checkpoint as a language model, and number formats emulated on a CPU."""
