"""Backtests, metrics and the baselines to beat."""
