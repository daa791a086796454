"""Recipes: what a study makes, stated as typed data. No data is opened here and no torch is imported."""
