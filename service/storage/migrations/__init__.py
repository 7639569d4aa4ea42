"""
Migrations of the log's schema: an older log is upgraded in place when it is opened.

Each version is an Alembic script. All scripts that a log needs run in one transaction, so a process
that is killed during a migration leaves the log as it was.
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
"""Schema of logs that were written before Alembic recorded versions."""
_ALEMBIC_LOCK = threading.Lock()
"""Alembic's `op` is shared by the whole process, and logs are opened from several threads."""


def upgrade(connection: sa.Connection, place: str, *, note: Callable[[str], None]) -> None:
    """
    Create the tables, or upgrade existing ones, inside the connection's transaction.

    Args:
        connection: Connection in a transaction; nobody else may write meanwhile.
        place: Place of the log, for messages.
        note: Called with a message before a log with content is upgraded.

    Raises:
        LogError: The tables were made by a newer release or by another program.
    """
    config, scripts = _scripts()
    newest = scripts.get_current_head()
    context = MigrationContext.configure(connection)
    current = context.get_current_revision()
    tables = set(sa.inspect(connection).get_table_names())
    if current is None and {"meta", "series", "observation"} <= tables:
        context.stamp(scripts, FIRST)
        current = FIRST
    elif current is None and tables & {"meta", "series", "observation"}:
        raise LogError(
            "this database has tables of another program",
            where=place,
            help="name a database of its own in STATECAST_DATABASE_URL",
        )
    known = {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        raise LogError(
            f"the log has schema version {current}; this release reads up to {newest}",
            where=place,
            help="use the release that wrote it, or a newer one",
        )
    if current == newest:
        return
    if current is not None:
        note(f"upgrading the log from schema version {current} to {newest}: {place}")
    steps = scripts._upgrade_revs("head", current or "base")  # As Alembic's own command does.
    with _ALEMBIC_LOCK, EnvironmentContext(config, scripts, fn=lambda *_: steps) as environment:
        environment.configure(connection=connection, transactional_ddl=False)
        environment.run_migrations()


def version(connection: sa.Connection) -> str | None:
    """Return the schema version of a log."""
    return MigrationContext.configure(connection).get_current_revision()


def need_newest(connection: sa.Connection, place: str) -> None:
    """
    Check that a log that is only read has the newest schema.

    Raises:
        LogError: It has another schema.
    """
    current, newest = version(connection), _scripts()[1].get_current_head()
    if current != newest:
        raise LogError(
            f"the log has schema version {current}; this release reads {newest}",
            where=place,
            help="a server upgrades an older log when it starts; a newer log needs a newer release",
        )


def _scripts() -> tuple[Config, ScriptDirectory]:
    config = Config()
    config.set_main_option("script_location", "service:storage/migrations")
    return config, ScriptDirectory.from_config(config)
