"""Reinforcement learning with verifiable rewards: GRPO through veRL, and the reward."""
