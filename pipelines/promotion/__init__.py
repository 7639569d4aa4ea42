"""
Decides whether a challenger replaces the champion: backtest plan, comparison, gate and decision.

May be imported by `pipelines.reporting`, `pipelines.workflows` and `pipelines.cli`.
"""
