"""
Figures and diagnoses of a run, as plain values that MLflow and the pages can show.

May be imported by `pipelines.workflows` and `pipelines.cli`.
"""
