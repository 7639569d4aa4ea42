"""Accuracy of forecasts on public data sets: the sets, the scores and the runs."""
