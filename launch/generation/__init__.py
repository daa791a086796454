"""Commands that ask a model about documents and keep what it writes."""
