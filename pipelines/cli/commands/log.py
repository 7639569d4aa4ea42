"""`statecast log info | export | prune | delete`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from pipelines.cli import project
from pipelines.cli.command import Session, command
from pipelines.cli.console import Steps, table
from pipelines.errors import UsageError

PATIENCE = 24 * 3600.0
"""Seconds that a server has to prune its log."""
_PARQUET = (".parquet", ".pq", ".parq")
Name = Annotated[
    str | None, typer.Option(help="Whose log, where STATECAST_MODELS names several models.")
]
Server = Annotated[
    str | None, typer.Option(help="Have this server do it, while it runs: its base URL.")
]


def install(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="The observation log.", no_args_is_help=True)
    app.add_typer(group, name="log", rich_help_panel="Data")

    @command(group, "log info")
    def info(session: Session, name: Name = None) -> None:
        """Where the log is, what it holds, and what was pruned; a server may run."""
        from pipelines.cli import launch as serving

        told = serving.offline.describe(serving.log_of(project.find(session.config), name))
        session.console.result(told, table("", "", rows=_facts(told)))

    @command(group, "log export")
    def export(
        session: Session,
        path: Annotated[Path, typer.Argument(help="The Parquet file to write.")],
        since: Annotated[str | None, typer.Option(help="First ds.")] = None,
        until: Annotated[str | None, typer.Option(help="Last ds.")] = None,
        series: Annotated[
            list[str] | None, typer.Option(help="Only this series; repeat for more.")
        ] = None,
        full: Annotated[
            bool, typer.Option("--full", help="Every revision, and when it was recorded.")
        ] = False,
        overwrite: Annotated[
            bool, typer.Option("--overwrite", help="Replace PATH if it is there.")
        ] = False,
        name: Name = None,
    ) -> None:
        """Write the log to a Parquet file that can be trained on or read in; a server may run."""
        _check_target(path, overwrite=overwrite)
        from pipelines.cli import launch as serving

        settings = serving.log_of(project.find(session.config), name)
        with _bar(session, "export") as told:
            try:
                counts = serving.offline.export_log(
                    settings,
                    path,
                    unique_ids=series or (),
                    since=since,
                    until=until,
                    full=full,
                    told=told,
                )
            except OSError as error:
                raise UsageError(f"cannot write: {error.strerror}", where=str(path)) from error
        session.console.result(
            {"path": str(path), **counts},
            f"{path}: {counts['rows']:,} rows of {counts['series']:,} series",
        )

    @command(group, "log prune")
    def prune(
        session: Session,
        keep_steps: Annotated[
            int | None, typer.Option(min=1, help="So many last steps of each series stay.")
        ] = None,
        before: Annotated[str | None, typer.Option(help="What lies before this ds goes.")] = None,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Only count what would go.")
        ] = False,
        model: Annotated[
            str | None, typer.Option(help="The model that goes on; default the one served.")
        ] = None,
        vacuum: Annotated[
            bool, typer.Option(help="Give the space back to the disk (SQLite).")
        ] = True,
        name: Name = None,
        server: Server = None,
    ) -> None:
        """
        Take older steps out of the log; forecasts of the model stay what they are.

        A state stays for each series, so a replay goes on from there. What is taken out cannot
        be corrected any more, and a model trained later never sees it: export it first.
        """
        if (keep_steps is None) == (before is None):
            raise UsageError(
                "give exactly one of --keep-steps and --before",
                help="statecast log prune --keep-steps 1000 --dry-run",
            )
        rule = {"keep_steps": keep_steps, "before": before}
        if server is not None:
            told = _ask_to_prune(server, name, rule, dry_run=dry_run)
        else:
            told = _prune(session, rule, name, model, dry_run=dry_run, vacuum=vacuum)
        done = "would go" if dry_run else "taken out"
        session.console.result(
            {"dry_run": dry_run, **told},
            f"{told['rows']:,} rows ({told['steps']:,} steps) of {told['series']:,} series {done}",
        )

    @command(group, "log delete")
    def delete(
        session: Session,
        unique_ids: Annotated[list[str], typer.Argument(metavar="UNIQUE_ID...")],
        name: Name = None,
        server: Server = None,
    ) -> None:
        """Forget series for good: observations, revisions, states."""
        if server is not None:
            from pipelines.cli.http_client import base_url, call

            base = base_url(server, name)
            rows = sum(
                call(base, f"/v1/series/{quote(unique_id)}", method="DELETE")["rows"]
                for unique_id in dict.fromkeys(unique_ids)
            )
        else:
            from pipelines.cli import launch as serving

            settings = serving.log_of(project.find(session.config), name)
            rows = serving.offline.delete_series(settings, unique_ids)
        session.console.result(
            {"unique_ids": unique_ids, "rows": rows},
            f"{len(unique_ids):,} series deleted, {rows:,} rows",
        )


@contextmanager
def _bar(session: Session, label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that begins once it is known how much there is to do."""
    bars: list[Steps] = []
    with ExitStack() as stack:

        def told(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(session.console.progress(label, total)))
            bars[0](done)

        yield told


def _check_target(path: Path, *, overwrite: bool) -> None:
    if path.suffix not in _PARQUET:
        raise UsageError(
            f"expected a Parquet file, found {path.suffix or 'no suffix'}",
            where=str(path),
            help=f"call it {path.with_suffix('.parquet').name}",
        )
    if path.exists() and not overwrite:
        raise UsageError(
            "this file is there already",
            where=str(path),
            help="--overwrite replaces it, or choose another name",
        )


def _ask_to_prune(
    server: str, name: str | None, rule: dict[str, Any], *, dry_run: bool
) -> dict[str, Any]:
    from pipelines.cli.http_client import base_url, call

    before = rule["before"]
    if before is not None and before.removeprefix("-").isdecimal():
        rule = {**rule, "before": int(before)}
    asked = {**rule, "dry_run": dry_run}
    return call(base_url(server, name), "/v1/log:prune", asked, timeout=PATIENCE)


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

    from pipelines.cli import launch as serving

    found = project.find(session.config)
    settings = serving.log_of(found, name)
    steps, before = rule["keep_steps"], rule["before"]
    if dry_run:
        return asdict(serving.offline.prune_preview(settings, steps=steps, before=before))
    bundle = None if model else serving.in_service(settings)
    if bundle is None:
        from pipelines.cli.model_choice import choose_bundle

        bundle, told = choose_bundle(found, model or settings.model)
    else:
        told = f"in service last ({bundle.digest[:12]})"
    session.console.step("model", told)
    with _bar(session, "prune") as bar:
        return asdict(
            serving.offline.prune_log(
                settings, bundle, steps=steps, before=before, vacuum=vacuum, told=bar
            )
        )


def _facts(told: dict[str, Any]) -> list[tuple[object, ...]]:
    pruned = f"{told['pruned_steps']:,} steps of {told['pruned_series']:,} series"
    return [
        ("place", told["place"]),
        ("schema", told["schema"]),
        ("freq", told["freq"]),
        ("series", f"{told['series']:,}"),
        ("rows", f"{told['rows']:,}"),
        ("span", f"{told['first_ds']} to {told['last_ds']}" if told["rows"] else "nothing yet"),
        ("size", f"{told['bytes'] / 2**20:,.1f} MiB"),
        ("pruned", pruned if told["pruned_series"] else "nothing"),
    ]
