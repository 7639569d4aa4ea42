"""
From a trained model and observations to forecasts: states, observing, forecasting, sampling.

Backtests, the service and logged models all forecast through this package.
"""
