"""
Calendars: from a frequency such as `B` or `MS` to timestamps, step numbers and season lengths.

May be imported by `forecast.data` and the layers above it, and by service and pipelines.
"""
