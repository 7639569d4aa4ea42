"""MLflow: runs, registry, flavor."""
