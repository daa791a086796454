"""A rank's side: its seat, its beats, and the watch for ranks that hang."""
