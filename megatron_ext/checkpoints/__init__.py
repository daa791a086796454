"""Checkpoints: files, tables of what they hold, saving in the background."""
