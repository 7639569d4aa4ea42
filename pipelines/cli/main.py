"""
The `statecast` command.

Neither this module nor the top of a module in `commands/` imports torch, pandas or MLflow, so that
`statecast --help` starts fast.
"""

import importlib.metadata
import sys
from typing import Annotated

import typer

from pipelines.cli.command import (
    INTERRUPTED,
    USAGE,
    ConfigOption,
    JsonOption,
    NoColorOption,
    QuietOption,
    VerboseOption,
)
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
Train stateful LSTM and GRU forecasters on many time series, and serve their forecasts.

First steps: [bold]statecast demo[/bold] trains and serves a model of bundled sales data. With your
own data, run [bold]statecast init --from sales.csv[/bold], then [bold]statecast train[/bold] and
[bold]statecast serve[/bold].
"""
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
app = typer.Typer(
    name="statecast",
    help=HELP,
    rich_markup_mode="rich",
    no_args_is_help=False,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line and exit; the entry point of the `statecast` script."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except typer.TyperException as error:
        sys.exit(_report_usage_error(error))


def _report_usage_error(error: typer.TyperException) -> int:
    """Print a mistake in the command line like every other error, and return its exit code."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "statecast"
    format_message = getattr(error, "format_message", None)
    message: str = format_message() if callable(format_message) else str(error)
    console = Console(command=path.removeprefix("statecast").strip(), json="--json" in sys.argv)
    console.print_error(UsageError(message.rstrip("."), help=f"{path} --help"))
    return USAGE


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"statecast {importlib.metadata.version('statecast')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def store_common_options(
    ctx: typer.Context,
    config: ConfigOption = None,
    json_: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Keep the options given before a command; without a command, print the help."""
    ctx.obj = {
        "config": config,
        "json_": json_,
        "quiet": quiet,
        "verbose": verbose,
        "no_color": no_color,
    }
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


for module in COMMANDS:
    module.install(app)


if __name__ == "__main__":
    main()
