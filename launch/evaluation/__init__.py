"""The commands of eval: benchmarks asked of a checkpoint, and the rows that they are made of."""
