"""`frontload allocate`: plans a question, runs block after block, registers, validates."""
