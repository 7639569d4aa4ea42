"""
Networks: weights only, with the state as argument and result, and the conformal correction.

May be imported by `forecast.bundle` and everything above it.
"""
