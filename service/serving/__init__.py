"""Which model answers, and how the next one takes its place."""
