"""The `statecast` command line. It may import `forecast`, `pipelines` and `service`."""
