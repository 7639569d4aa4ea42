"""`statecast models list | show | promote | rollback`."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipelines.tracking.registry import Change
    from pipelines.tracking.store import Tracking, Version
from pipelines.cli import project
from pipelines.cli.command import Session, command
from pipelines.cli.console import Console, table

Name = Annotated[str | None, typer.Argument(help="Registered model; default: [project] name.")]


def install(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="The registry, and the model in service.", no_args_is_help=True)
    app.add_typer(group, name="models", rich_help_panel="Models")

    @command(group, "models list")
    def list_(session: Session) -> None:
        """Every version with its aliases, scores and verdict."""
        tracking = open_store(session)
        versions = tracking.versions() if tracking else []
        rows = [_row(version) for version in versions]
        columns = ("model", "version", "aliases", "status", "created", "run", "reason")
        session.console.result(
            {"models": [_document(version) for version in versions]},
            table(*columns, rows=rows, right=("version",)) if rows else None,
        )
        if not rows:
            session.console.say("no model is registered yet")
            session.console.then("statecast train FILE")

    @command(group, "models show")
    def show(
        session: Session,
        which: Annotated[
            str, typer.Argument(help="ALIAS, VERSION, NAME@ALIAS or NAME/VERSION.")
        ] = "champion",
    ) -> None:
        """What one version is, was trained on, and scored."""
        _show(session, which)

    @command(group, "models promote")
    def promote(
        session: Session,
        version: Annotated[str, typer.Argument(help="VERSION, ALIAS, NAME/VERSION or NAME@ALIAS.")],
    ) -> None:
        """Put a version into service; the one before becomes `previous`."""
        from pipelines.cli.model_choice import split_name
        from pipelines.tracking import registry as publish

        found = project.find(session.config)
        name, which = split_name(version, found.project.name)
        tracking = need_store(session, found)
        chosen = tracking.version(name, which)
        _changed(session.console, publish.promote(tracking, name, chosen.version))

    @command(group, "models rollback")
    def rollback(session: Session, name: Name = None) -> None:
        """Put the previous champion back."""
        from pipelines.tracking import registry as publish

        found = project.find(session.config)
        tracking = need_store(session, found)
        change = publish.rollback(tracking, name or found.project.name)
        _changed(session.console, change)


def open_store(session: Session, found: project.ResolvedProject | None = None) -> "Tracking | None":
    """MLflow's store, or None when there is none here yet."""
    from pathlib import Path

    found = found or project.find(session.config)
    database = found.tracking_uri.removeprefix("sqlite:///")
    if found.tracking_uri.startswith("sqlite:///") and not Path(database).exists():
        return None
    from pipelines.tracking.store import Tracking

    return Tracking(found.tracking_uri, found.data_dir / "artifacts")


def need_store(session: Session, found: project.ResolvedProject) -> "Tracking":
    """MLflow's store, or a message that there is no model yet."""
    from forecast.errors import UnknownModel

    tracking = open_store(session, found)
    if tracking is None:
        raise UnknownModel(
            "no model is registered yet: there is no registry here",
            where=found.tracking_uri,
            help="statecast train FILE",
        )
    return tracking


def _show(session: Session, which: str) -> None:
    from pipelines.cli.model_choice import split_name
    from pipelines.tracking import flavor

    found = project.find(session.config)
    tracking = need_store(session, found)
    name, mark = split_name(which, found.project.name)
    version = tracking.version(name, mark)
    bundle = flavor.load_model(f"models:/{name}/{version.version}", tracking)
    config = bundle.config
    document = {
        **_document(version),
        "digest": bundle.digest,
        "facts": bundle.facts,
        "scores": bundle.scores,
        "config": config.to_dict(),
    }
    facts = bundle.facts
    rows: list[tuple[object, ...]] = [
        ("model", f"{version.name} v{version.version}"),
        ("aliases", ", ".join(version.aliases) or "none"),
        ("verdict", version.tags.get("gate.reason", "")),
        ("trained on", f"{facts['series']:,} series, {facts['rows']:,} rows to {facts['cutoff']}"),
        ("forecasts", f"{bundle.horizon} steps of freq {config.data.freq}, {config.data.kind}"),
        ("needs", ", ".join(config.data.known_future) or "no future covariates"),
        ("network", f"{config.model.cell}, {config.model.num_layers} x {config.model.hidden_size}"),
        ("MASE", _number(bundle.scores.get("mase"))),
        ("run", version.run_id),
        ("digest", bundle.digest),
    ]
    session.console.result(document, table("", "", rows=rows))


def _changed(console: Console, change: "Change") -> None:
    document = {"model": change.name, "champion": change.champion, "previous": change.previous}
    before = f" (before: version {change.previous})" if change.previous else ""
    console.result(document, f"{change.name}: version {change.champion} is champion{before}")
    console.then("statecast serve", f"statecast models rollback {change.name}")


def _row(version: "Version") -> tuple[object, ...]:
    return (
        version.name,
        version.version,
        ", ".join(version.aliases),
        version.tags.get("validation_status", ""),
        _when(version.created),
        version.run_id[:8],
        version.tags.get("gate.reason", ""),
    )


def _document(version: "Version") -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "aliases": list(version.aliases),
        "run_id": version.run_id,
        "created": _when(version.created),
        "tags": version.tags,
    }


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
