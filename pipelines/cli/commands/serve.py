"""`statecast serve`."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.settings import Settings
from pipelines.cli import project
from pipelines.cli.command import Session, command

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
        from pipelines.cli import launch as serving

        settings = serving.settings_of(
            found, host=host, port=port, model=model, next_port=next_port or None
        )

        def on_ready(url: str) -> None:
            for base in serving.base_urls(settings, url):
                session.console.step("serve", f"{base}   docs {base}/docs")
            session.console.say("Ctrl-C stops it.")

        run(session, settings, on_ready)


def run(session: Session, settings: "Settings", on_ready: Callable[[str], None]) -> None:
    """Serve; Ctrl-C and SIGTERM are the usual way to end it, so they are no failure."""
    from pipelines.cli import launch as serving

    with contextlib.suppress(KeyboardInterrupt):
        serving.run(settings, on_ready)
    session.console.say("stopped")
