"""`statecast log info | export | prune | delete`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    from rich.table import Table
from pipelines.cli.command import Session, command
from pipelines.cli.console import ProgressCallback, make_table
from pipelines.cli.project import resolve_project
from pipelines.errors import UsageError

PRUNE_TIMEOUT = 24 * 3600.0
"""Seconds to wait for a server to prune its log."""
_PARQUET = (".parquet", ".pq", ".parq")
NameOption = Annotated[
    str | None,
    typer.Option(help="Model whose log to use, if STATECAST_MODELS names several models."),
]
ServerOption = Annotated[
    str | None, typer.Option(help="Base URL of a running server that does the work.")
]


def install(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Inspect, export and prune the observation log.", no_args_is_help=True)
    app.add_typer(group, name="log", rich_help_panel="Data")

    @command(group, "log info")
    def info(session: Session, name: NameOption = None) -> None:
        """
        Show where the log is, what it holds, and what was pruned.

        A server may be running.
        """
        from pipelines.cli import launch

        server_settings = launch.build_log_settings(resolve_project(session.config), name)
        report = launch.log_admin.describe(server_settings)
        session.console.print_result(report, _make_table(report))

    @command(group, "log export")
    def export(
        session: Session,
        path: Annotated[Path, typer.Argument(help="Parquet file to write.")],
        since: Annotated[str | None, typer.Option(help="First ds to export.")] = None,
        until: Annotated[str | None, typer.Option(help="Last ds to export.")] = None,
        series: Annotated[
            list[str] | None, typer.Option(help="Export only this series; repeatable.")
        ] = None,
        full: Annotated[
            bool,
            typer.Option("--full", help="Export every revision with the time it was recorded."),
        ] = False,
        overwrite: Annotated[
            bool, typer.Option("--overwrite", help="Replace an existing file.")
        ] = False,
        name: NameOption = None,
    ) -> None:
        """
        Write the log to a Parquet file that can be used for training or imported again.

        A server may be running.
        """
        _check_target(path, overwrite=overwrite)
        from pipelines.cli import launch

        server_settings = launch.build_log_settings(resolve_project(session.config), name)
        with _track_progress(session, "export") as report_progress:
            try:
                counts = launch.log_admin.export_log(
                    server_settings,
                    path,
                    unique_ids=series or (),
                    since=since,
                    until=until,
                    full=full,
                    on_progress=report_progress,
                )
            except OSError as error:
                raise UsageError(
                    f"cannot write the file: {error.strerror}", where=str(path)
                ) from error
        session.console.print_result(
            {"path": str(path), **counts},
            f"wrote {path} ({counts['rows']:,} rows of {counts['series']:,} series)",
        )

    @command(group, "log prune")
    def prune(
        session: Session,
        keep_steps: Annotated[
            int | None, typer.Option(min=1, help="Number of last steps to keep of each series.")
        ] = None,
        before: Annotated[str | None, typer.Option(help="Remove the steps before this ds.")] = None,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Only count what would be removed.")
        ] = False,
        model: Annotated[
            str | None,
            typer.Option(
                help="Model that continues from the pruned log: bundle directory, alias or "
                "version; default: the model that was served last."
            ),
        ] = None,
        vacuum: Annotated[
            bool, typer.Option(help="Return the free space of the file to the disk (SQLite).")
        ] = True,
        name: NameOption = None,
        server: ServerOption = None,
    ) -> None:
        """
        Remove old steps from the log without changing the forecasts of the model.

        One state per series is kept, from which a replay continues. Removed steps can no longer be
        corrected, and no model can be trained on them: export them first.
        """
        if (keep_steps is None) == (before is None):
            raise UsageError(
                "give exactly one of --keep-steps and --before",
                help="for example statecast log prune --keep-steps 1000 --dry-run",
            )
        rule = {"keep_steps": keep_steps, "before": before}
        if server is not None:
            counts = _prune_on_server(server, name, rule, dry_run=dry_run)
        else:
            counts = _prune(session, rule, name, model, dry_run=dry_run, vacuum=vacuum)
        outcome = "would be removed" if dry_run else "removed"
        session.console.print_result(
            {"dry_run": dry_run, **counts},
            f"{counts['rows']:,} rows ({counts['steps']:,} steps) of {counts['series']:,} series "
            f"{outcome}",
        )

    @command(group, "log delete")
    def delete(
        session: Session,
        unique_ids: Annotated[list[str], typer.Argument(metavar="UNIQUE_ID...")],
        name: NameOption = None,
        server: ServerOption = None,
    ) -> None:
        """Delete series permanently: observations, revisions and states."""
        if server is not None:
            from pipelines.cli.http_client import base_url, call

            url = base_url(server, name)
            rows = sum(
                call(url, f"/v1/series/{quote(unique_id)}", method="DELETE")["rows"]
                for unique_id in dict.fromkeys(unique_ids)
            )
        else:
            from pipelines.cli import launch

            server_settings = launch.build_log_settings(resolve_project(session.config), name)
            rows = launch.log_admin.delete_series(server_settings, unique_ids)
        session.console.print_result(
            {"unique_ids": unique_ids, "rows": rows},
            f"deleted {len(unique_ids):,} series ({rows:,} rows)",
        )


@contextmanager
def _track_progress(session: Session, label: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress from the first report on, because only that says how much there is to do."""
    callbacks: list[ProgressCallback] = []
    with ExitStack() as stack:

        def report(done: int, total: int) -> None:
            if not callbacks:
                progress = session.console.track_progress(label, total)
                callbacks.append(stack.enter_context(progress))
            callbacks[0](done)

        yield report


def _check_target(path: Path, *, overwrite: bool) -> None:
    if path.suffix not in _PARQUET:
        raise UsageError(
            f"expected a Parquet file, found {path.suffix or 'no suffix'}",
            where=str(path),
            help=f"name it {path.with_suffix('.parquet').name}",
        )
    if path.exists() and not overwrite:
        raise UsageError(
            "the file already exists",
            where=str(path),
            help="add --overwrite to replace it, or choose another name",
        )


def _prune_on_server(
    server: str, name: str | None, rule: dict[str, Any], *, dry_run: bool
) -> dict[str, Any]:
    from pipelines.cli.http_client import base_url, call

    before = rule["before"]
    if before is not None and before.removeprefix("-").isdecimal():
        rule = {**rule, "before": int(before)}
    body = {**rule, "dry_run": dry_run}
    return call(base_url(server, name), "/v1/log:prune", body, timeout=PRUNE_TIMEOUT)


def _prune(
    session: Session,
    rule: dict[str, Any],
    name: str | None,
    model: str | None,
    *,
    dry_run: bool,
    vacuum: bool,
) -> dict[str, Any]:
    from dataclasses import asdict

    from pipelines.cli import launch

    settings = resolve_project(session.config)
    server_settings = launch.build_log_settings(settings, name)
    steps, before = rule["keep_steps"], rule["before"]
    if dry_run:
        return asdict(launch.log_admin.prune_preview(server_settings, steps=steps, before=before))
    bundle = None if model else launch.load_served_bundle(server_settings)
    if bundle is None:
        from pipelines.cli.model_choice import load_chosen_bundle

        bundle, description = load_chosen_bundle(settings, model or server_settings.model)
    else:
        description = f"the one served last ({bundle.digest[:12]})"
    session.console.print_step("model", description)
    with _track_progress(session, "prune") as report_progress:
        pruned = launch.log_admin.prune_log(
            server_settings,
            bundle,
            steps=steps,
            before=before,
            vacuum=vacuum,
            on_progress=report_progress,
        )
    return asdict(pruned)


def _make_table(report: dict[str, Any]) -> "Table":
    span = f"{report['first_ds']} to {report['last_ds']}" if report["rows"] else "empty"
    pruned = f"{report['pruned_steps']:,} steps of {report['pruned_series']:,} series"
    rows: list[tuple[object, ...]] = [
        ("place", report["place"]),
        ("schema", report["schema"]),
        ("freq", report["freq"]),
        ("series", f"{report['series']:,}"),
        ("rows", f"{report['rows']:,}"),
        ("span", span),
        ("size", f"{report['bytes'] / 2**20:,.1f} MiB"),
        ("pruned", pruned if report["pruned_series"] else "nothing"),
    ]
    return make_table("", "", rows=rows)
