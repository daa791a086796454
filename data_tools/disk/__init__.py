"""Bytes on the disk: files, digests, locks and renames, seeds, the .bin/.idx pair."""
