"""Artifacts shown to a person: documents, samples, loss masks."""
