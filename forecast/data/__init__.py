"""
Tables: read, checked and laid out as a `Panel` of series; locators of what was refused.

May be imported by `forecast.features` and the layers above it, and by service and pipelines.
"""
