"""Jobs of a cluster: Slurm scripts of training and GRPO, and their submission."""
