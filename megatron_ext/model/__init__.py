"""The hybrid stack layer by layer, with its scan and its kernels."""
