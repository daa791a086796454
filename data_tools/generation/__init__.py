"""Requests to a model about documents, and which of its replies are kept. No model."""
