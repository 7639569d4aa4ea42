"""
The log's schema, version by version; an older log is brought up to date where it lies.

Each version is one script of Alembic. All that a log needs is done in one transaction: a process
killed in the midst leaves the log as it was.
"""

import threading
from collections.abc import Callable

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from service.errors import LogError

FIRST = "0001"
"""What logs had before versions were noted by Alembic."""
_ONE_AT_A_TIME = threading.Lock()
"""Alembic's `op` is one for the whole process, and logs are opened from several threads."""


def upgrade(connection: sa.Connection, place: str, *, note: Callable[[str], None]) -> None:
    """
    Make the tables, or bring those there are up to date, inside the connection's transaction.

    Args:
        connection: In a transaction that nobody else writes beside.
        place: For messages.
        note: Told what is done to a log that holds something.

    Raises:
        LogError: A newer release, or another program, made these tables.
    """
    config, scripts = _scripts()
    newest = scripts.get_current_head()
    here = MigrationContext.configure(connection)
    found = here.get_current_revision()
    tables = set(sa.inspect(connection).get_table_names())
    if found is None and {"meta", "series", "observation"} <= tables:
        here.stamp(scripts, FIRST)
        found = FIRST
    elif found is None and tables & {"meta", "series", "observation"}:
        raise LogError(
            "this database has tables of another program",
            where=place,
            help="name a database of its own in STATECAST_DATABASE_URL",
        )
    known = {script.revision for script in scripts.walk_revisions()}
    if found is not None and found not in known:
        raise LogError(
            f"the log has schema version {found}; this release reads up to {newest}",
            where=place,
            help="use the release that wrote it, or a newer one",
        )
    if found == newest:
        return
    if found is not None:
        note(f"bringing the log from schema version {found} to {newest}: {place}")
    steps = scripts._upgrade_revs("head", found or "base")  # as Alembic's own command does
    with _ONE_AT_A_TIME, EnvironmentContext(config, scripts, fn=lambda *_: steps) as environment:
        environment.configure(connection=connection, transactional_ddl=False)
        environment.run_migrations()


def version(connection: sa.Connection) -> str | None:
    """Which schema a log has."""
    return MigrationContext.configure(connection).get_current_revision()


def need_newest(connection: sa.Connection, place: str) -> None:
    """
    For those who only read.

    Raises:
        LogError: The log has another schema than this release reads.
    """
    found, newest = version(connection), _scripts()[1].get_current_head()
    if found != newest:
        raise LogError(
            f"the log has schema version {found}; this release reads {newest}",
            where=place,
            help="the server brings an older log up to date when it starts; a newer one needs a "
            "newer release",
        )


def _scripts() -> tuple[Config, ScriptDirectory]:
    config = Config()
    config.set_main_option("script_location", "service:storage/migrations")
    return config, ScriptDirectory.from_config(config)
