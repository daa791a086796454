"""What a model is asked to write about documents, and which of its replies are kept. No model."""
