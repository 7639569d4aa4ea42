"""
Observations on their way into the log and the live states: planned, written, applied.

May be imported by `service.replay` and the packages above it.
"""
