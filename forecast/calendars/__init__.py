"""Arithmetic of frequencies: stamps of a series, steps between them, and inference of `freq`."""
