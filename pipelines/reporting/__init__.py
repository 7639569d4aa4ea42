"""Figures and diagnosis of a run."""
