"""One training or GRPO run in a folder of its own."""
