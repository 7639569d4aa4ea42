"""Removal of secrets from addresses that messages show and runs record."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlalchemy


_SECRETS = ("password", "passfile", "secret", "token")


def redact_url(address: "str | sqlalchemy.URL") -> str:
    """
    Return the address of a database or server without its secrets; a path is returned unchanged.

    The password is replaced by `***`, and parameters that may hold a secret are removed.

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
        except (sqlalchemy.exc.ArgumentError, ValueError):
            # Not a valid URL: drop whatever may be credentials or parameters.
            return f"{scheme}{mark}{rest.rpartition('@')[2].partition('?')[0]}"
    secrets = [name for name in address.query if any(word in name.lower() for word in _SECRETS)]
    return address.difference_update_query(secrets).render_as_string(hide_password=True)
