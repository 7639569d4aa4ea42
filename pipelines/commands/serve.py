"""`statecast serve`."""

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forecast.errors import ConfigError
from pipelines import project
from pipelines.commands.train import stop
from pipelines.common import Session, command
from pipelines.errors import NotInstalled

if TYPE_CHECKING:
    from service.settings import Settings

Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="0 takes any free port.")]


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "serve", rich_help_panel="Forecasts")
    def serve(
        session: Session,
        host: Host = None,
        port: Port = None,
        next_port: Annotated[
            bool, typer.Option("--next-port", help="Take the next port when this is busy.")
        ] = False,
        model: Annotated[
            str | None, typer.Option(help="models:/NAME@ALIAS, or the directory of a bundle.")
        ] = None,
    ) -> None:
        """
        Serve forecasts over HTTP until interrupted.

        The first start reads [project] source into the observation log, so that every series is
        warm. STATECAST_* variables set the rest.
        """
        found = project.find(session.config)
        settings = settings_of(
            found, host=host, port=port, model=model, next_port=next_port or None
        )

        def on_ready(url: str) -> None:
            session.console.step("serve", f"{url}   docs {url}/docs")
            session.console.say("Ctrl-C stops it.")

        run(session, settings, on_ready)


def settings_of(found: project.Found, **options: Any) -> "Settings":
    """
    The server's settings: options, then the environment, then the project's.

    Raises:
        ConfigError: A value does not fit.
    """
    try:
        from pydantic import ValidationError

        from service.settings import Settings
    except ImportError as error:
        raise NotInstalled(
            f"the server is not installed: {error}", help="pip install 'statecast[server]'"
        ) from error
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    given["data_dir"] = found.data_dir
    given.setdefault("tracking_uri", found.tracking_uri)
    if "STATECAST_MODEL" not in os.environ:
        given.setdefault("model", f"models:/{found.project.name}@champion")
    source = found.project.source
    if source and "STATECAST_SEED_DATA" not in os.environ and Path(source).is_file():
        given.setdefault("seed_data", Path(source))
    try:
        return Settings(**given)
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}"
            for e in error.errors(include_url=False, include_input=False)
        )
        raise ConfigError(f"the server's settings do not fit: {told}") from None


def run(session: Session, settings: "Settings", on_ready: Callable[[str], None]) -> None:
    """Serve; Ctrl-C and SIGTERM are the usual way to end it, so they end it well."""
    from service import server

    signal.signal(signal.SIGTERM, stop)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(settings, on_ready=on_ready)
    session.console.say("stopped")
