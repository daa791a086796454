"""Where an artifact comes from: its machine, the command and version that make it; its names."""
