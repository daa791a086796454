"""Where a budget goes: a surrogate of scores, the next block, comparisons on fresh seeds."""
