"""`statecast models list | show | promote | rollback`."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipelines.tracking.registry import Change
    from pipelines.tracking.store import Tracking, Version
from pipelines.cli.command import Session, command
from pipelines.cli.console import Console, make_table
from pipelines.cli.project import ResolvedProject, resolve_project

NameArgument = Annotated[
    str | None, typer.Argument(help="Registered model; default: name in statecast.toml.")
]


def install(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="List, show and promote registered models.", no_args_is_help=True)
    app.add_typer(group, name="models", rich_help_panel="Models")

    @command(group, "models list")
    def list_(session: Session) -> None:
        """List every version with its aliases, status and verdict."""
        store = open_store(resolve_project(session.config))
        versions = store.versions() if store else []
        columns = ("model", "version", "aliases", "status", "created", "run", "reason")
        rows = [_make_row(version) for version in versions]
        session.console.print_result(
            {"models": [_make_document(version) for version in versions]},
            make_table(*columns, rows=rows, right=("version",)) if rows else None,
        )
        if not rows:
            session.console.say("no model is registered yet")
            session.console.suggest("statecast train FILE")

    @command(group, "models show")
    def show(
        session: Session,
        which: Annotated[
            str, typer.Argument(help="ALIAS, VERSION, NAME@ALIAS or NAME/VERSION.")
        ] = "champion",
    ) -> None:
        """Show what a version is, what it was trained on, and its scores."""
        _show(session, which)

    @command(group, "models promote")
    def promote(
        session: Session,
        version: Annotated[str, typer.Argument(help="VERSION, ALIAS, NAME/VERSION or NAME@ALIAS.")],
    ) -> None:
        """Make a version the champion; the current champion becomes `previous`."""
        from pipelines.cli.model_choice import parse_model_name
        from pipelines.tracking import registry

        settings = resolve_project(session.config)
        name, which = parse_model_name(version, settings.project.name)
        store = require_store(settings)
        number = store.version(name, which).version
        _print_change(session.console, registry.promote(store, name, number))

    @command(group, "models rollback")
    def rollback(session: Session, name: NameArgument = None) -> None:
        """Make the previous champion the champion again."""
        from pipelines.tracking import registry

        settings = resolve_project(session.config)
        store = require_store(settings)
        change = registry.rollback(store, name or settings.project.name)
        _print_change(session.console, change)


def open_store(settings: ResolvedProject) -> "Tracking | None":
    """Open the MLflow store; return None if there is none yet."""
    if not settings.has_tracking_store():
        return None
    from pipelines.tracking.store import Tracking

    return Tracking(settings.tracking_uri, settings.data_dir / "artifacts")


def require_store(settings: ResolvedProject) -> "Tracking":
    """
    Open the MLflow store.

    Raises:
        UnknownModel: There is no store yet.
    """
    from forecast.errors import UnknownModel

    store = open_store(settings)
    if store is None:
        raise UnknownModel(
            "no model is registered yet", where=settings.tracking_uri, help="statecast train FILE"
        )
    return store


def _show(session: Session, which: str) -> None:
    from pipelines.cli.model_choice import parse_model_name
    from pipelines.tracking import flavor

    settings = resolve_project(session.config)
    store = require_store(settings)
    version = store.version(*parse_model_name(which, settings.project.name))
    bundle = flavor.load_model(f"models:/{version.name}/{version.version}", store)
    config, facts, mase = bundle.config, bundle.facts, bundle.scores.get("mase")
    document = {
        **_make_document(version),
        "digest": bundle.digest,
        "facts": facts,
        "scores": bundle.scores,
        "config": config.to_dict(),
    }
    rows: list[tuple[object, ...]] = [
        ("model", f"{version.name} v{version.version}"),
        ("aliases", ", ".join(version.aliases) or "none"),
        ("verdict", version.tags.get("gate.reason", "")),
        ("trained on", f"{facts['series']:,} series, {facts['rows']:,} rows to {facts['cutoff']}"),
        ("forecasts", f"{bundle.horizon} steps, freq {config.data.freq}, kind {config.data.kind}"),
        ("known future", ", ".join(config.data.known_future) or "none"),
        ("network", f"{config.model.cell}, {config.model.num_layers} x {config.model.hidden_size}"),
        ("MASE", "" if mase is None else f"{mase:.3f}"),
        ("run", version.run_id),
        ("digest", bundle.digest),
    ]
    session.console.print_result(document, make_table("", "", rows=rows))


def _print_change(console: Console, change: "Change") -> None:
    document = {"model": change.name, "champion": change.champion, "previous": change.previous}
    previous = f" (previously version {change.previous})" if change.previous else ""
    console.print_result(
        document, f"{change.name}: version {change.champion} is now champion{previous}"
    )
    console.suggest("statecast serve", f"statecast models rollback {change.name}")


def _make_row(version: "Version") -> tuple[object, ...]:
    return (
        version.name,
        version.version,
        ", ".join(version.aliases),
        version.tags.get("validation_status", ""),
        _format_time(version.created),
        version.run_id[:8],
        version.tags.get("gate.reason", ""),
    )


def _make_document(version: "Version") -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "aliases": list(version.aliases),
        "run_id": version.run_id,
        "created": _format_time(version.created),
        "tags": version.tags,
    }


def _format_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
