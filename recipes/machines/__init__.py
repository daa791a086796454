"""Where a stage runs: placements, GPUs, number formats, and what must hold there."""
