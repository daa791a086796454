"""Recipes: what a study makes, stated as typed data. Opens no data and imports no torch."""
