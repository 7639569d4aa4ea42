"""Observations into the log and the live states."""
