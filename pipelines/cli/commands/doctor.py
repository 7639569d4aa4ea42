"""`statecast doctor`."""

import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from forecast.errors import ForecastError
from pipelines.cli import project
from pipelines.cli.command import Refused, Session, command
from pipelines.cli.console import table

OK, WARN, FAIL = "ok", "warn", "fail"
NEEDED = ("torch", "pandas", "pyarrow", "safetensors")
OPTIONAL = {
    "mlflow": "trainer",
    "statsforecast": "trainer",
    "plotly": "trainer",
    "fastapi": "server",
    "uvicorn": "server",
}
ROOM = 2**30
"""Bytes that should be free for models and databases."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, and how to repair it."""

    status: str
    what: str
    found: str
    fix: str = ""


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "doctor", rich_help_panel="Start here")
    def doctor(
        session: Session,
        port: Annotated[int, typer.Option(help="Port to look at.")] = 8000,
    ) -> None:
        """Check packages, settings, data, databases, MLflow and ports; exit 1 on a fault."""
        checks = list(_checks(session, port))
        rows: list[tuple[object, ...]] = [
            (check.status, check.what, check.found, check.fix and f"-> {check.fix}")
            for check in checks
        ]
        failed = sum(check.status == FAIL for check in checks)
        document = {
            "healthy": not failed,
            "checks": [
                {"status": c.status, "what": c.what, "found": c.found, "fix": c.fix} for c in checks
            ],
        }
        session.console.result(document, table("", "", "", "", rows=rows))
        if failed:
            session.console.say(f"{failed} to repair")
            raise Refused
        session.console.say("all is well")


def _checks(session: Session, port: int) -> Iterator[Check]:
    yield _python()
    yield from _packages()
    try:
        found = project.find(session.config)
    except ForecastError as error:
        yield Check(FAIL, "settings", error.message, error.help or error.where)
        found = project.find(None, environ={}, start=Path("/"))
    else:
        file = found.file or "defaults: no statecast.toml here or above"
        yield Check(OK, "settings", str(file))
    yield _data_dir(found.data_dir)
    if found.project.source:
        yield _attempt("data", lambda: _source(found), session)
    yield _attempt("MLflow", lambda: _registry(session, found), session)
    logs = found.data_dir.glob("*/observations.db")  # of several models
    yield from map(_log, [found.data_dir / "observations.db", *sorted(logs)])
    yield _port(port)


def _python() -> Check:
    return Check(OK, "Python", f"{platform.python_version()}, {os.cpu_count()} CPUs")


def _packages() -> Iterator[Check]:
    from importlib.metadata import PackageNotFoundError, version

    for name in (*NEEDED, *OPTIONAL):
        try:
            yield Check(OK, name, version(name))
        except PackageNotFoundError:
            extra = OPTIONAL.get(name)
            fix = f"pip install 'statecast[{extra}]'" if extra else "pip install statecast"
            yield Check(WARN if extra else FAIL, name, "not installed", fix)


def _data_dir(folder: Path) -> Check:
    nearest = folder.resolve()
    while not nearest.exists():
        nearest = nearest.parent
    if not os.access(nearest, os.W_OK):
        fix = "choose another: data_dir in statecast.toml, or STATECAST_DATA_DIR"
        return Check(FAIL, "data folder", f"{folder} cannot be written", fix)
    free = shutil.disk_usage(nearest).free
    told = f"{folder}, {free / ROOM:.1f} GiB free"
    if free < ROOM:
        return Check(WARN, "data folder", told, "make room")
    return Check(OK, "data folder", told)


def _source(found: project.ResolvedProject) -> Check:
    from forecast.data import validation
    from forecast.data.future_covariates import read_history
    from forecast.redact import redact_url

    source = str(found.project.source)
    history, _ = read_history(source, found.config.data, query=found.project.query)
    report = validation.report(history, found.config.data)
    told = f"{redact_url(source)}: {report['series']:,} series, {report['rows']:,} rows"
    if report["problems"]:
        return Check(
            FAIL, "data", f"{told}, {len(report['problems'])} problems", "statecast data check"
        )
    return Check(OK, "data", told)


def _registry(session: Session, found: project.ResolvedProject) -> Check:
    from forecast.errors import BundleError, UnknownModel
    from pipelines.cli.commands.models import open_store
    from pipelines.tracking import flavor

    store = open_store(session, found)
    if store is None:
        return Check(WARN, "MLflow", "no store here yet", "statecast train FILE")
    champion = store.find(found.project.name, "champion")
    if champion is None:
        told = f"no champion of {found.project.name!r}"
        return Check(WARN, "MLflow", told, "statecast train, or statecast models promote VERSION")
    told = f"champion: {champion.name} v{champion.version}"
    try:
        flavor.load_model(f"models:/{champion.name}/{champion.version}", store)
    except (BundleError, UnknownModel) as error:
        fix = "statecast models rollback; or statecast train, then statecast models promote VERSION"
        return Check(FAIL, "MLflow", f"{told} cannot be read: {error.message}", fix)
    return Check(OK, "MLflow", told)


def _log(path: Path) -> Check:
    import sqlite3

    if not path.exists():
        return Check(OK, "observations", "none yet: the first start of the server makes the log")
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=2)
        try:
            (count,) = connection.execute("SELECT count(*) FROM series").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        return Check(FAIL, "observations", f"{path}: {error}", "restore it from a backup")
    return Check(OK, "observations", f"{path}: {count:,} series")


def _port(port: int) -> Check:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            fix = f"statecast serve --port {port + 1}, if it is not ours"
            return Check(WARN, "port", f"{port} is in use", fix)
    return Check(OK, "port", f"{port} is free")


def _attempt(what: str, look: Callable[[], Check], session: Session) -> Check:
    """A check that may fail in any way that users should read about."""
    try:
        return look()
    except ForecastError as error:
        return Check(FAIL, what, error.message, error.help)
    except ImportError as error:
        return Check(WARN, what, f"not installed: {error}", "pip install 'statecast[trainer]'")
