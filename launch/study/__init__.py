"""A study in a store: plan, price, run."""
