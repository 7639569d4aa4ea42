"""
Options shared by the commands, and how a command is run.

Exit codes: 0 success, 1 negative result, 2 usage, configuration or data, 3 something cannot be
reached, 70 a bug, 130 interrupted.
"""

import contextlib
import errno
import functools
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from forecast.errors import ForecastError
from pipelines.cli.console import Console
from pipelines.errors import NotInstalled, ServerRefused, UnusableFile

P = ParamSpec("P")

OK, NO, USAGE, UNREACHABLE, BUG, INTERRUPTED = 0, 1, 2, 3, 70, 130
_NO_CODES = ("series.unknown", "model.unknown", "model.no_previous")
_UNREACHABLE_CODES = ("service.unreachable", "registry.unavailable", "service.not_ready")
_FILE_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOTDIR,
    errno.EISDIR,
}
"""Errors of a disk or its permissions; any other operating system error is a bug."""
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Options of every command.
COMMON = "Common options"
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Settings file to use instead of statecast.toml.", rich_help_panel=COMMON
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document to stdout.", rich_help_panel=COMMON)
]
QuietOption = Annotated[
    bool,
    typer.Option("-q", "--quiet", help="Print only errors to stderr.", rich_help_panel=COMMON),
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "-v", "--verbose", help="Print the traceback of a bug to stderr.", rich_help_panel=COMMON
    ),
]
NoColorOption = Annotated[
    bool,
    typer.Option("--no-color", help="Print plain text without colours.", rich_help_panel=COMMON),
]

# Options of several commands.
DataArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="CSV or Parquet file, or SQLAlchemy URL; default: source in statecast.toml.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(help="Bundle directory, alias or version; default: the champion."),
]
HorizonOption = Annotated[
    int | None,
    typer.Option(
        "--h", min=1, help="Steps to forecast; default: all that the model was trained for."
    ),
]
FreqOption = Annotated[
    str | None, typer.Option(help="Pandas offset, integer step, or exchange such as XNYS.")
]
FillOption = Annotated[
    str | None, typer.Option(help="Treatment of missing steps: refuse, zero, forward or mask.")
]
KindOption = Annotated[
    str | None,
    typer.Option(help="Kind of data: auto, positive, count, real, price or volatility."),
]
QueryOption = Annotated[str | None, typer.Option(help="SQL query, if the source is a database.")]
WindowsOption = Annotated[int | None, typer.Option(min=1, help="Number of backtest cutoffs.")]
BaselinesOption = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated list of SeasonalNaive, Drift, AutoETS, AutoTheta, CrostonOptimized, "
        "TSB and HistGradientBoosting."
    ),
]
MaxStepsOption = Annotated[int | None, typer.Option(min=1, help="Number of optimiser steps.")]


def parse_freq(text: str | None) -> str | int | None:
    """Return `--freq` as `data.freq` expects it: an integer step as a number."""
    return int(text) if text is not None and text.lstrip("-").isdigit() else text


def parse_baselines(text: str | None) -> tuple[str, ...] | None:
    """
    Return the names in `--baselines`, with the seasonal naive, which the gate always needs.

    >>> parse_baselines("Drift"), parse_baselines(None)
    (('SeasonalNaive', 'Drift'), None)
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    return tuple(dict.fromkeys(("SeasonalNaive", *names)))


class Interrupted(KeyboardInterrupt):
    """The command was interrupted; `lines` say what was saved and how to resume."""

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.lines = lines


class Session:
    """A running command: its console, and the settings file given with `--config`."""

    def __init__(self, console: Console, config: Path | None) -> None:
        self.console = console
        self.config = config


def command(
    app: typer.Typer, name: str, **settings: Any
) -> Callable[[Callable[Concatenate[Session, P], None]], Callable[P, None]]:
    """
    Register a function as a command with the common options and our exit codes.

    The function receives a `Session` as its first argument; its other parameters are the options
    and arguments of the command. It raises `typer.Exit` to end with an exit code of its own.
    """

    def register(body: Callable[Concatenate[Session, P], None]) -> Callable[P, None]:
        @functools.wraps(body)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            session = _open_session(name, kwargs)
            with _interrupt_on_signals():
                code = _run(session.console, lambda: body(session, *args, **kwargs))
            if code != OK:
                raise typer.Exit(code)

        own_parameters = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
        parameters = [*own_parameters, *_list_common_parameters()]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        app.command(name.rsplit(" ", 1)[-1], **settings)(run)
        return run

    return register


def _list_common_parameters() -> list[inspect.Parameter]:
    options: list[tuple[str, Any, Any]] = [
        ("ctx", typer.Context, inspect.Parameter.empty),
        ("config", ConfigOption, None),
        ("json_", JsonOption, False),
        ("quiet", QuietOption, False),
        ("verbose", VerboseOption, False),
        ("no_color", NoColorOption, False),
    ]
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(name, kind, default=default, annotation=annotation)
        for name, annotation, default in options
    ]


def _open_session(name: str, options: dict[str, Any]) -> Session:
    """Take the common options out of `options`, and add those given before the command."""
    given_before: dict[str, Any] = options.pop("ctx").find_root().obj or {}
    config = options.pop("config", None) or given_before.get("config")
    flags = {
        flag: bool(options.pop(flag, False) or given_before.get(flag, False))
        for flag in ("json_", "quiet", "verbose", "no_color")
    }
    console = Console(
        command=name,
        json=flags["json_"],
        quiet=flags["quiet"],
        verbose=flags["verbose"],
        color=not flags["no_color"],
    )
    return Session(console, config)


@contextlib.contextmanager
def _interrupt_on_signals() -> Iterator[None]:
    """Treat SIGTERM and a closed terminal like Ctrl-C, and ignore all of them after the first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, _interrupt_once) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _interrupt_once(*_: object) -> None:
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run(console: Console, body: Callable[[], None]) -> int:
    """Run a command, report its errors and return its exit code."""
    try:
        body()
    except typer.Exit as end:
        return end.exit_code
    except ForecastError as error:
        return _report_error(console, error)
    except KeyboardInterrupt as interrupt:
        lines = interrupt.lines if isinstance(interrupt, Interrupted) else ()
        console.say("interrupted" if lines else "interrupted: nothing was saved")
        for line in lines:
            console.say(f"  {line}")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except ModuleNotFoundError as error:
        return _report_error(
            console,
            NotInstalled(
                f"{error.name} is not installed",
                help="pip install 'statecast[trainer]' for training and MLflow, "
                "'statecast[server]' to serve",
            ),
        )
    except OSError as error:
        if error.errno not in _FILE_ERRNOS:
            return _report_bug(console, error)
        return _report_error(
            console,
            UnusableFile(
                error.strerror or str(error),
                where=str(error.filename or ""),
                help="free disk space or fix the permissions; continue a training with --resume",
            ),
        )
    except Exception as error:  # noqa: BLE001 - the outermost layer reports a bug without a traceback
        return _report_bug(console, error)
    return OK


def _report_error(console: Console, error: ForecastError) -> int:
    """Print an error and return its exit code; error codes of the service count like ours."""
    console.print_error(error)
    if isinstance(error, ServerRefused) and error.status >= 500:
        return UNREACHABLE
    if error.code in _UNREACHABLE_CODES:
        return UNREACHABLE
    return NO if error.code in _NO_CODES else USAGE


def _report_bug(console: Console, error: Exception) -> int:
    """Print an unexpected error, with its traceback if `--verbose` is given."""
    console.print_error(
        ForecastError(
            f"{type(error).__name__}: {error}",
            help="this is a bug in Statecast; run again with --verbose for the traceback",
        )
    )
    if console.verbose:
        import traceback

        console.say("".join(traceback.format_exception(error)))
    return BUG
