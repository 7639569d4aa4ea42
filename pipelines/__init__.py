"""
Training jobs, the promotion of models, their tracking in MLflow, and the command line.

Pipelines build on `forecast`. Only `pipelines.cli` may import `service`.
"""
