"""A study's corpus: of a user's own files, with evaluation items; and its mixes as curations."""
