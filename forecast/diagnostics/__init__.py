"""
Diagnostics of a trained model: what it remembers, how it learned, where its errors are.

Each module returns small tables. Nothing else in `forecast` depends on them.
"""
