"""Causal features of each series, O(1) a step."""
