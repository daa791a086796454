"""A solvable model of pretraining, SFT and outcome supervision: closed forms, checks, curves."""
