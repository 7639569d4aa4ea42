"""Jobs that run end to end."""
