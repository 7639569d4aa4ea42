"""
Backtests, scores and baselines.

Diagnostics, the `Forecaster`, pipelines and benchmarks use it; it trains and forecasts through
`forecast.training` and `forecast.inference`.
"""
