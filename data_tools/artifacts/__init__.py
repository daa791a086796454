"""What lies at a path: the kind of an artifact, and readers of blends and prefixes."""
