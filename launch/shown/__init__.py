"""What people read of a study: plans, states, keys, reports, comparisons."""
