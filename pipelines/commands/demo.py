"""`statecast demo`: the whole on bundled data, in one command. `make run` calls it."""

import json
import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

import pipelines
from pipelines import project
from pipelines.commands import serve
from pipelines.commands.train import stop
from pipelines.common import Refused, Session, command
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
    ) -> None:
        """Train on bundled sales data and serve it: API, its docs and MLflow's pages."""
        signal.signal(signal.SIGTERM, stop)
        if not DATA.is_file():
            raise UsageError(
                "the bundled data are not here", where=str(DATA),
                help="run it in a checkout, or train on your own: statecast init --from FILE",
            )  # fmt: skip
        found = _settings(max_steps)
        _train_once(session, found)
        _serve(session, found, host=host, port=port, mlflow_port=mlflow_port)


def _settings(max_steps: int | None) -> project.Found:
    """The demo's own: of the environment only, whatever statecast.toml is here."""
    options = {
        "project.source": str(DATA), "project.name": "statecast", "data.freq": "MS",
        "data.kind": "positive", "data.static": STATIC, "model.horizon": HORIZON,
        "train.max_steps": max_steps,
    }  # fmt: skip
    return project.find(None, options, start=Path("/"))


def _train_once(session: Session, found: project.Found) -> None:
    """Train, unless a champion is in the registry."""
    from pipelines.commands.models import open_store
    from pipelines.commands.train import run_training

    store = open_store(session, found)
    champion = None if store is None else store.find(found.project.name, "champion")
    if champion is not None:
        told = f"{champion.name} v{champion.version} is champion: nothing to train"
        session.console.step("model", told)
        return
    try:
        run_training(session, found, show=False)
    except Refused:
        raise UsageError(
            "the model is not better than the seasonal naive, so there is nothing to serve",
            help="give it more --max-steps",
        ) from None


def _serve(
    session: Session, found: project.Found, *, host: str | None, port: int | None, mlflow_port: int
) -> None:
    from contextlib import nullcontext

    from pipelines.pages import MlflowPages
    from service.server import bind

    settings = serve.settings_of(found, host=host, port=port, next_port=True)
    probe = bind(settings)
    taken = probe.getsockname()[1]
    probe.close()
    if settings.port not in (0, taken):
        session.console.warn(f"port {settings.port} is busy: the API listens on {taken} instead")
    settings = settings.model_copy(update={"port": taken})
    pages = None
    if mlflow_port and found.tracking_uri.startswith("sqlite:"):
        pages = MlflowPages(found.tracking_uri, found.data_dir, port=mlflow_port)
        if pages.port != mlflow_port:
            said = f"port {mlflow_port} is busy: MLflow's pages are on {pages.port} instead"
            session.console.warn(said)
    with pages or nullcontext():
        told = _Told(session, found, pages)
        serve.run(session, settings, told.start)


class _Told:
    """Says where everything is, once it answers; in a thread of its own."""

    def __init__(self, session: Session, found: project.Found, pages: Any) -> None:
        self.session, self.found, self.pages = session, found, pages

    def start(self, url: str) -> None:
        threading.Thread(target=self._tell, args=(url,), daemon=True).start()

    def _tell(self, url: str) -> None:
        console = self.session.console
        lines = curl_lines(url)
        mlflow = None if self.pages is None else self.pages.url
        text = [
            "", f"API         {url}", f"API docs    {url}/docs",
            *([f"MLflow      {mlflow}  (up in a few seconds)"] if mlflow else []),
            "", "Ask for a forecast, report what happened, ask again:", "", *lines, "",
        ]  # fmt: skip
        document = {"api": url, "docs": f"{url}/docs", "mlflow": mlflow, "try": lines}
        console.result(document, "\n".join(text))
        console.say("Ctrl-C stops everything.")
        if self.pages is not None and not self.pages.wait():
            console.warn(f"MLflow's pages do not answer: see {self.pages.log}")


def curl_lines(url: str) -> list[str]:
    """A forecast and an observation of the first live series, that work as pasted."""
    from pipelines.client import call

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
