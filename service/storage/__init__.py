"""
The observation log in SQLite or PostgreSQL: schema, transactions, retention, export.

May be imported by every other package of `service`.
"""
