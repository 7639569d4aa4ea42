"""`statecast doctor`."""

import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from forecast.errors import ForecastError
from pipelines.cli.command import NO, Session, command
from pipelines.cli.console import make_table
from pipelines.cli.project import ResolvedProject, resolve_project

OK, WARN, FAIL = "ok", "warn", "fail"
REQUIRED = ("torch", "pandas", "pyarrow", "safetensors")
EXTRAS = {
    "mlflow": "trainer",
    "statsforecast": "trainer",
    "plotly": "trainer",
    "fastapi": "server",
    "uvicorn": "server",
}
"""Optional packages, and the extra that installs each."""
MIN_FREE_BYTES = 2**30
"""Disk space that should be free for models and databases."""


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one check, and how to fix a problem."""

    status: str
    what: str
    found: str
    fix: str = ""


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "doctor", rich_help_panel="Start here")
    def doctor(
        session: Session,
        port: Annotated[int, typer.Option(help="Port to check.")] = 8000,
    ) -> None:
        """
        Check packages, settings, data, databases, MLflow and the port.

        The exit code is 1 if a check fails.
        """
        checks = list(_run_checks(session, port))
        rows: list[tuple[object, ...]] = [
            (check.status, check.what, check.found, check.fix and f"-> {check.fix}")
            for check in checks
        ]
        failures = sum(check.status == FAIL for check in checks)
        session.console.print_result(
            {"healthy": not failures, "checks": [asdict(check) for check in checks]},
            make_table("", "", "", "", rows=rows),
        )
        if failures:
            session.console.say(f"{failures} check{'' if failures == 1 else 's'} failed")
            raise typer.Exit(NO)
        session.console.say("no check failed")


def _run_checks(session: Session, port: int) -> Iterator[Check]:
    yield Check(OK, "Python", f"{platform.python_version()}, {os.cpu_count()} CPUs")
    yield from _check_packages()
    try:
        settings = resolve_project(session.config)
    except ForecastError as error:
        yield Check(FAIL, "settings", error.message, error.help or error.where)
        settings = resolve_project(None, environ={}, start=Path("/"))
    else:
        file = settings.file or "defaults: no statecast.toml here or above"
        yield Check(OK, "settings", str(file))
    yield _check_data_dir(settings.data_dir)
    if settings.project.source:
        yield _catch_errors("data", lambda: _check_source(settings))
    yield _catch_errors("MLflow", lambda: _check_registry(settings))
    yield _check_log(settings.data_dir / "observations.db")
    # A server of several models keeps one log per model.
    yield from map(_check_log, sorted(settings.data_dir.glob("*/observations.db")))
    yield _check_port(port)


def _check_packages() -> Iterator[Check]:
    from importlib.metadata import PackageNotFoundError, version

    for name in (*REQUIRED, *EXTRAS):
        try:
            yield Check(OK, name, version(name))
        except PackageNotFoundError:
            extra = EXTRAS.get(name)
            fix = f"pip install 'statecast[{extra}]'" if extra else "pip install statecast"
            yield Check(WARN if extra else FAIL, name, "not installed", fix)


def _check_data_dir(folder: Path) -> Check:
    existing = folder.resolve()
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK):
        fix = "choose another folder: data_dir in statecast.toml, or STATECAST_DATA_DIR"
        return Check(FAIL, "data folder", f"{folder} is not writable", fix)
    free_bytes = shutil.disk_usage(existing).free
    status = f"{folder}, {free_bytes / 2**30:.1f} GiB free"
    if free_bytes < MIN_FREE_BYTES:
        return Check(WARN, "data folder", status, "free disk space")
    return Check(OK, "data folder", status)


def _check_source(settings: ResolvedProject) -> Check:
    from forecast.data import validation
    from forecast.data.future_covariates import read_history
    from forecast.redact import redact_url

    source = str(settings.project.source)
    history, _ = read_history(source, settings.config.data, query=settings.project.query)
    report = validation.report(history, settings.config.data)
    size = f"{redact_url(source)}: {report['series']:,} series, {report['rows']:,} rows"
    if report["problems"]:
        message = f"{size}, {len(report['problems'])} problems"
        return Check(FAIL, "data", message, "statecast data check")
    return Check(OK, "data", size)


def _check_registry(settings: ResolvedProject) -> Check:
    from forecast.errors import BundleError, UnknownModel
    from pipelines.cli.commands.models import open_store
    from pipelines.tracking import flavor

    store = open_store(settings)
    if store is None:
        return Check(WARN, "MLflow", "no store yet", "statecast train FILE")
    champion = store.find(settings.project.name, "champion")
    if champion is None:
        message = f"no champion of {settings.project.name!r}"
        fix = "statecast train, or statecast models promote VERSION"
        return Check(WARN, "MLflow", message, fix)
    message = f"champion: {champion.name} v{champion.version}"
    try:
        flavor.load_model(f"models:/{champion.name}/{champion.version}", store)
    except (BundleError, UnknownModel) as error:
        fix = "statecast models rollback; or statecast train, then statecast models promote VERSION"
        return Check(FAIL, "MLflow", f"{message} cannot be loaded: {error.message}", fix)
    return Check(OK, "MLflow", message)


def _check_log(path: Path) -> Check:
    import sqlite3

    if not path.exists():
        return Check(OK, "observations", "no log yet: the server creates it on its first start")
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


def _check_port(port: int) -> Check:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            fix = f"if another program uses it: statecast serve --port {port + 1}"
            return Check(WARN, "port", f"{port} is in use", fix)
    return Check(OK, "port", f"{port} is free")


def _catch_errors(what: str, check: Callable[[], Check]) -> Check:
    """Run a check, and turn an error or a missing package into its result."""
    try:
        return check()
    except ForecastError as error:
        return Check(FAIL, what, error.message, error.help)
    except ImportError as error:
        return Check(WARN, what, f"not installed: {error}", "pip install 'statecast[trainer]'")
