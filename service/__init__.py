"""
The forecast server: HTTP over requests, over live states, over the observation log.

It imports `forecast` and is imported by `pipelines.cli` only, which starts it.
"""
