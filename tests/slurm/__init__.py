"""A real Slurm of two nodes on this machine, and what jobs of ours do on it."""
