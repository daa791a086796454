"""Runs strangers' programs under limits, out of reach of this machine, and grades their replies."""
