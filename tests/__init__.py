"""Tests, as a package: veRL installs a folder of this name, which would come first."""
