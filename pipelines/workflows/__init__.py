"""
Jobs that run end to end: train, backtest, decide, register.

May be imported by `pipelines.cli` only.
"""
