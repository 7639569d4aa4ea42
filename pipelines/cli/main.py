"""
The `statecast` command: reads options, calls one function, prints one result.

Nothing heavy is imported here or at the top of `commands/`: `statecast --help` answers at once.
"""

import importlib.metadata
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.command import INTERRUPTED, USAGE
from pipelines.cli.commands import (
    backtest,
    data,
    demo,
    diagnose,
    doctor,
    forecast,
    init,
    log,
    models,
    observe,
    runs,
    serve,
    train,
)
from pipelines.cli.console import Console
from pipelines.errors import UsageError

HELP = """
Train stateful LSTM and GRU forecasters on many series, and serve them from live states.

First steps: [bold]statecast demo[/bold] shows the whole on bundled sales data;
[bold]statecast init --from sales.csv[/bold], then [bold]statecast train[/bold] and
[bold]statecast serve[/bold] do it with your own.
"""
app = typer.Typer(
    name="statecast",
    help=HELP,
    rich_markup_mode="rich",
    no_args_is_help=False,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"statecast {importlib.metadata.version('statecast')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings file instead of statecast.toml.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only errors on stderr.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more on stderr.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="Plain text.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    ctx.obj = {
        "config": config,
        "json_": json_,
        "quiet": quiet,
        "verbose": verbose,
        "no_color": no_color,
    }
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


COMMANDS = (
    demo,
    init,
    data,
    train,
    backtest,
    diagnose,
    forecast,
    observe,
    serve,
    log,
    models,
    runs,
    doctor,
)
for module in COMMANDS:
    module.install(app)


def main() -> None:
    """Entry point of the `statecast` script."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except typer.TyperException as error:
        sys.exit(_misused(error))


def _misused(error: typer.TyperException) -> int:
    """A command line that cannot be read, told like every other error."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "statecast"
    speak = getattr(error, "format_message", None)
    told: str = speak() if callable(speak) else str(error)
    console = Console(command=path.removeprefix("statecast").strip(), json="--json" in sys.argv)
    console.fail(UsageError(told.rstrip("."), help=f"{path} --help"))
    return USAGE


if __name__ == "__main__":
    main()
