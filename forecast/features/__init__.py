"""
Causal features of each series, updated in constant time for each step.

May be imported by `forecast.models` and the layers above it. Training and serving compute features
only here.
"""
