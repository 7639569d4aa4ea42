"""`statecast serve`."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.settings import Settings
from pipelines.cli.command import Session, command
from pipelines.cli.project import resolve_project

HostOption = Annotated[str | None, typer.Option(help="Address to listen on.")]
PortOption = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port to listen on; 0 means any free port."),
]


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "serve", rich_help_panel="Forecasts")
    def serve(
        session: Session,
        host: HostOption = None,
        port: PortOption = None,
        next_port: Annotated[
            bool,
            typer.Option("--next-port", help="Use the next free port if this one is in use."),
        ] = False,
        model: Annotated[
            str | None, typer.Option(help="models:/NAME@ALIAS, or the directory of a bundle.")
        ] = None,
    ) -> None:
        """
        Serve forecasts over HTTP until interrupted.

        The first start imports source in statecast.toml into the observation log, so that every
        series has a state. STATECAST_* variables set all other options.
        """
        settings = resolve_project(session.config)
        from pipelines.cli import launch

        server_settings = launch.build_server_settings(
            settings, host=host, port=port, model=model, next_port=next_port or None
        )

        def on_ready(url: str) -> None:
            for base_url in launch.list_base_urls(server_settings, url):
                session.console.print_step("serve", f"{base_url}   docs {base_url}/docs")
            session.console.say("Press Ctrl-C to stop.")

        serve_until_interrupted(session, server_settings, on_ready)


def serve_until_interrupted(
    session: Session, server_settings: "Settings", on_ready: Callable[[str], None]
) -> None:
    """Serve until Ctrl-C or SIGTERM, which are the normal way to stop and not an error."""
    from pipelines.cli import launch

    with contextlib.suppress(KeyboardInterrupt):
        launch.run_server(server_settings, on_ready)
    session.console.say("stopped")
