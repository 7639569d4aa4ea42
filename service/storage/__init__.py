"""The observation log in SQLite or PostgreSQL."""
