"""Addresses of databases and servers, as they may be told and recorded."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlalchemy


_SECRET = ("password", "passfile", "secret", "token")


def redact_url(address: "str | sqlalchemy.URL") -> str:
    """
    An address without its secrets, wherever they stand; a path as it is.

    >>> redact_url("postgresql://bob:hunter2@host/sales?sslmode=require&password=hunter2")
    'postgresql://bob:***@host/sales?sslmode=require'
    >>> redact_url("sales.csv")
    'sales.csv'
    """
    if isinstance(address, str) and "://" not in address:
        return address
    import sqlalchemy

    if isinstance(address, str):
        scheme, mark, rest = address.partition("://")
        try:
            address = sqlalchemy.make_url(address)
        except (sqlalchemy.exc.ArgumentError, ValueError):  # whatever it is, not with its secrets
            return f"{scheme}{mark}{rest.rpartition('@')[2].partition('?')[0]}"
    secret = [name for name in address.query if any(word in name.lower() for word in _SECRET)]
    return address.difference_update_query(secret).render_as_string(hide_password=True)
