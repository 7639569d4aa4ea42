"""Live states in memory and the thread that computes them."""
