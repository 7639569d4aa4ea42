"""
Diagnostics of a trained model: what it remembers, how it learned, where its errors are.

Each module returns small tables. May be imported by pipelines; nothing else in `forecast` uses it.
"""
