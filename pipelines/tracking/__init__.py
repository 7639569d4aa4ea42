"""
MLflow: the store of runs and registered models, the model flavor and the pages.

Only this package imports MLflow. It may be imported by all other packages of `pipelines`.
"""
