"""YAML text to a typed value that knows the file and line of each field."""
