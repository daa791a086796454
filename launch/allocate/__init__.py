"""`frontload allocate QUESTION`: plans a question, runs block after block, registers, validates."""
