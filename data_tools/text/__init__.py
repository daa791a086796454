"""Text and ids: any tokenizer, rows with turns, words."""
