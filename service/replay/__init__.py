"""The log back into states."""
