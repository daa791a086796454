"""Process groups of a layout, gloo, and Megatron's configuration objects."""
