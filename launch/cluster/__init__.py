"""Jobs of a cluster: Slurm scripts, their submission, and every stage of a study as a job."""
