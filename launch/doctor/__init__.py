"""`frontload doctor`: what this machine, or every node of a job, has and lacks."""
