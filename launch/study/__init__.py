"""A study in a store: plan, price, run, show, explain, compare, report."""
