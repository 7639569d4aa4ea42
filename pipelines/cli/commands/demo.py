"""`statecast demo`: the whole on bundled data, in one command. `make run` calls it."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import pipelines

if TYPE_CHECKING:
    from pipelines.tracking.ui import MlflowPages
from pipelines.cli import project
from pipelines.cli.command import Session, command
from pipelines.cli.commands import serve
from pipelines.cli.commands.train import Baselines, named
from pipelines.errors import Unreachable, UsageError

DATA = Path(pipelines.__file__).parents[1] / "examples" / "data" / "monthly_retail.parquet"
HORIZON = 12
STATIC = ("state", "industry")


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "demo", rich_help_panel="Start here")
    def demo(
        session: Session,
        host: serve.Host = None,
        port: serve.Port = None,
        mlflow_port: Annotated[
            int, typer.Option(min=0, max=65535, help="Of MLflow's pages; 0 leaves them out.")
        ] = 5000,
        max_steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
        baselines: Baselines = None,
    ) -> None:
        """Train on bundled sales data and serve it: API, its docs and MLflow's pages."""
        if not DATA.is_file():
            raise UsageError(
                "the bundled data are not here",
                where=str(DATA),
                help="run it in a checkout, or train on your own: statecast init --from FILE",
            )
        found = _settings(max_steps)
        _train_once(session, found, named(baselines))
        _serve(session, found, host=host, port=port, mlflow_port=mlflow_port)


def _settings(max_steps: int | None) -> project.ResolvedProject:
    """The demo's own: of the environment only, whatever statecast.toml is here."""
    options = {
        "project.source": str(DATA),
        "project.name": "statecast",
        "data.freq": "MS",
        "data.kind": "positive",
        "data.static": STATIC,
        "model.horizon": HORIZON,
        "train.max_steps": max_steps,
    }
    return project.find(None, options, start=Path("/"))


def _train_once(
    session: Session, found: project.ResolvedProject, baselines: tuple[str, ...] | None
) -> None:
    """Train, unless a champion is in the registry."""
    from pipelines.cli.commands.models import open_store
    from pipelines.cli.commands.train import job_of, run_training

    store = open_store(session, found)
    champion = None if store is None else store.find(found.project.name, "champion")
    if champion is not None:
        told = f"{champion.name} v{champion.version} is champion: nothing to train"
        session.console.step("model", told)
        return
    job = replace(job_of(found), baselines=baselines, resume=None)
    outcome = run_training(session, job, again="statecast demo")
    if outcome.change is None:
        raise UsageError(
            f"the model may not serve: {outcome.verdict.reason}", help="give it more --max-steps"
        )


def _serve(
    session: Session,
    found: project.ResolvedProject,
    *,
    host: str | None,
    port: int | None,
    mlflow_port: int,
) -> None:
    from contextlib import nullcontext

    from pipelines.cli import launch as serving
    from pipelines.tracking.ui import MlflowPages

    wanted = serving.settings_of(found, host=host, port=port, next_port=True)
    settings = serving.with_free_port(wanted)
    if wanted.port not in (0, settings.port):
        told = f"port {wanted.port} is busy: the API listens on {settings.port} instead"
        session.console.warn(told)
    pages = None
    if mlflow_port and found.tracking_uri.startswith("sqlite:"):
        pages = MlflowPages(found.tracking_uri, found.data_dir, port=mlflow_port)
        if pages.port != mlflow_port:
            said = f"port {mlflow_port} is busy: MLflow's pages are on {pages.port} instead"
            session.console.warn(said)
    with pages or nullcontext():
        teller = _Told(session, pages)
        serve.run(session, settings, lambda url: teller.start(serving.base_urls(settings, url)[0]))


class _Told:
    """Says where everything is, once it answers; in a thread of its own."""

    def __init__(self, session: Session, pages: "MlflowPages | None") -> None:
        self.session, self.pages = session, pages

    def start(self, url: str) -> None:
        threading.Thread(target=self._tell, args=(url,), daemon=True).start()

    def _tell(self, url: str) -> None:
        console = self.session.console
        lines = curl_lines(url)
        mlflow = None if self.pages is None else self.pages.url
        text = [
            "",
            f"API         {url}",
            f"API docs    {url}/docs",
            *([f"MLflow      {mlflow}  (up in a few seconds)"] if mlflow else []),
            "",
            "Ask for a forecast, report what happened, ask again:",
            "",
            *lines,
            "",
        ]
        document = {"api": url, "docs": f"{url}/docs", "mlflow": mlflow, "try": lines}
        console.result(document, "\n".join(text))
        console.say("Ctrl-C stops everything.")
        if self.pages is not None and not self.pages.wait():
            console.warn(f"MLflow's pages do not answer: see {self.pages.log}")


def curl_lines(url: str) -> list[str]:
    """A forecast and an observation of the first live series, that work as pasted."""
    from pipelines.cli.http_client import call

    try:
        first = call(url, "/v1/series?limit=1")["series"][0]["unique_id"]
        ahead = call(url, "/v1/forecasts", {"unique_ids": [first], "h": 1})["forecasts"][0]
    except (Unreachable, KeyError, IndexError):
        return []
    seen = {"unique_id": first, "ds": ahead["ds"][0], "y": round(1.2 * ahead["statecast"][0], 1)}
    ask = {"unique_ids": [first], "h": 3, "level": [80]}
    return [
        _curl(url, "/v1/forecasts", ask),
        _curl(url, "/v1/observations", {"observations": [seen]}),
    ]


def _curl(url: str, path: str, body: dict[str, Any]) -> str:
    text = json.dumps(body, separators=(",", ":")).replace("'", "'\\''")
    return f"curl -s {url}{path} -H 'content-type: application/json' -d '{text}'"
