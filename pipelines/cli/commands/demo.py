"""`statecast demo`: train on bundled data and serve the model. `make run` calls it."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import pipelines

if TYPE_CHECKING:
    from pipelines.tracking.ui import MlflowPages
from pipelines.cli.command import (
    BaselinesOption,
    MaxStepsOption,
    Session,
    command,
    parse_baselines,
)
from pipelines.cli.commands.serve import HostOption, PortOption, serve_until_interrupted
from pipelines.cli.project import ResolvedProject, resolve_project
from pipelines.errors import Unreachable, UsageError

DATA = Path(pipelines.__file__).parents[1] / "examples" / "data" / "monthly_retail.parquet"
HORIZON = 12
STATIC = ("state", "industry")


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "demo", rich_help_panel="Start here")
    def demo(
        session: Session,
        host: HostOption = None,
        port: PortOption = None,
        mlflow_port: Annotated[
            int, typer.Option(min=0, max=65535, help="Port of the MLflow pages; 0 disables them.")
        ] = 5000,
        max_steps: MaxStepsOption = None,
        baselines: BaselinesOption = None,
    ) -> None:
        """Train on bundled sales data, then serve the API, its docs and the MLflow pages."""
        if not DATA.is_file():
            raise UsageError(
                "the bundled data are not installed",
                where=str(DATA),
                help="run this in a checkout, or use your own data: statecast init --from FILE",
            )
        settings = _resolve_settings(max_steps)
        _train_once(session, settings, parse_baselines(baselines))
        _serve(session, settings, host=host, port=port, mlflow_port=mlflow_port)


def _resolve_settings(max_steps: int | None) -> ResolvedProject:
    """Return settings from the environment alone; a statecast.toml in this folder is ignored."""
    options = {
        "project.source": str(DATA),
        "project.name": "statecast",
        "data.freq": "MS",
        "data.kind": "positive",
        "data.static": STATIC,
        "model.horizon": HORIZON,
        "train.max_steps": max_steps,
    }
    return resolve_project(None, options, start=Path("/"))


def _train_once(
    session: Session, settings: ResolvedProject, baselines: tuple[str, ...] | None
) -> None:
    """Train and promote a model, unless there is a champion."""
    from pipelines.cli.commands.models import open_store
    from pipelines.cli.commands.train import build_job, run_training

    store = open_store(settings)
    champion = None if store is None else store.find(settings.project.name, "champion")
    if champion is not None:
        session.console.print_step(
            "model",
            f"skipped training: {champion.name} v{champion.version} is already champion",
        )
        return
    job = replace(build_job(settings), baselines=baselines, resume=None)
    outcome = run_training(session, job, resume_command="statecast demo")
    if outcome.change is None:
        raise UsageError(
            f"the model was not promoted: {outcome.verdict.reason}",
            help="train longer: raise --max-steps",
        )


def _serve(
    session: Session,
    settings: ResolvedProject,
    *,
    host: str | None,
    port: int | None,
    mlflow_port: int,
) -> None:
    from contextlib import nullcontext

    from pipelines.cli import launch
    from pipelines.tracking.ui import MlflowPages

    requested = launch.build_server_settings(settings, host=host, port=port, next_port=True)
    server_settings = launch.choose_free_port(requested)
    if requested.port not in (0, server_settings.port):
        session.console.warn(
            f"port {requested.port} is in use: the API listens on {server_settings.port} instead"
        )
    pages = None
    if mlflow_port and settings.tracking_uri.startswith("sqlite:"):
        pages = MlflowPages(settings.tracking_uri, settings.data_dir, port=mlflow_port)
        if pages.port != mlflow_port:
            session.console.warn(
                f"port {mlflow_port} is in use: the MLflow pages are on {pages.port} instead"
            )

    def on_ready(url: str) -> None:
        base_url = launch.list_base_urls(server_settings, url)[0]
        # In a thread: waiting for the MLflow pages must not hold up the server.
        threading.Thread(
            target=_print_addresses, args=(session, base_url, pages), daemon=True
        ).start()

    with pages or nullcontext():
        serve_until_interrupted(session, server_settings, on_ready)


def _print_addresses(session: Session, url: str, pages: "MlflowPages | None") -> None:
    """Print where the API and the MLflow pages are, and requests to try."""
    console = session.console
    requests = _make_curl_lines(url)
    mlflow = None if pages is None else pages.url
    lines = [
        "",
        f"API         {url}",
        f"API docs    {url}/docs",
        *([f"MLflow      {mlflow}  (starts in a few seconds)"] if mlflow else []),
        "",
        "Request a forecast, report an observation, request the forecast again:",
        "",
        *requests,
        "",
    ]
    console.print_result(
        {"api": url, "docs": f"{url}/docs", "mlflow": mlflow, "try": requests}, "\n".join(lines)
    )
    console.say("Press Ctrl-C to stop everything.")
    if pages is not None and not pages.wait():
        console.warn(f"the MLflow pages do not answer: see {pages.log}")


def _make_curl_lines(url: str) -> list[str]:
    """Return two shell commands: a forecast and an observation of the first live series."""
    from pipelines.cli.http_client import call

    try:
        unique_id = call(url, "/v1/series?limit=1")["series"][0]["unique_id"]
        forecast = call(url, "/v1/forecasts", {"unique_ids": [unique_id], "h": 1})["forecasts"][0]
    except (Unreachable, KeyError, IndexError):
        return []
    observation = {
        "unique_id": unique_id,
        "ds": forecast["ds"][0],
        "y": round(1.2 * forecast["statecast"][0], 1),
    }
    return [
        _make_curl_line(url, "/v1/forecasts", {"unique_ids": [unique_id], "h": 3, "level": [80]}),
        _make_curl_line(url, "/v1/observations", {"observations": [observation]}),
    ]


def _make_curl_line(url: str, path: str, body: dict[str, Any]) -> str:
    text = json.dumps(body, separators=(",", ":")).replace("'", "'\\''")
    return f"curl -s {url}{path} -H 'content-type: application/json' -d '{text}'"
