"""GRPO on the nodes of a cluster: checks, Ray's nodes, the trainer's keeper."""
