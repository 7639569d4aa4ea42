"""
Training: from a panel of series to a trained bundle. The entry point is `train.train`.

Only `forecast.diagnostics`, `forecast.forecaster` and the packages outside `forecast` import it; it
stands beside `forecast.inference`, and neither imports the other.
"""
