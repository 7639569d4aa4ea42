"""Stateful recurrent forecasting of many series."""
