"""Looks at data and says where it came from. Writes nothing."""
