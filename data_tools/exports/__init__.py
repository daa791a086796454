"""Packs and blends as other trainers read them, and data set cards."""
