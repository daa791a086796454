"""Reinforcement learning with verifiable rewards. Empty until GRPO through veRL is built."""
