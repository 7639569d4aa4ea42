"""
Other forecasting libraries on the same cases, each run in a process of its own.

The `run_*.py` scripts and `exchange.py` run in the environment of the peers, without this project.
"""
