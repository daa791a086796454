"""An allocation's question: a budget, the lattice of ways to spend it, what decides, the money."""
