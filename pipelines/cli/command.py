"""
What all commands share: the common options, and what becomes of an error.

Exit codes: 0 done, 1 the answer is no, 2 usage, configuration or data, 3 something cannot be
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
COMMON = "Common options"
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_UNREACHABLE = ("service.unreachable", "registry.unavailable", "service.not_ready")
_FILE_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOTDIR,
    errno.EISDIR,
}
"""What a disk or its rights refuse; any other error of the system is a bug of ours."""
_NO = ("series.unknown", "model.unknown", "model.no_previous")
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Settings file instead of statecast.toml.", rich_help_panel=COMMON
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=COMMON)
]
QuietOption = Annotated[
    bool, typer.Option("-q", "--quiet", help="Only errors on stderr.", rich_help_panel=COMMON)
]
VerboseOption = Annotated[
    bool, typer.Option("-v", "--verbose", help="Say more on stderr.", rich_help_panel=COMMON)
]
NoColorOption = Annotated[
    bool, typer.Option("--no-color", help="Plain text.", rich_help_panel=COMMON)
]


class Refused(Exception):
    """The command did its work, its answer is printed, and the answer is no."""

    def __init__(self, code: int = NO) -> None:
        super().__init__(code)
        self.code = code


class Interrupted(KeyboardInterrupt):
    """Interrupted, with what was saved and how to go on."""

    def __init__(self, *saved: str) -> None:
        super().__init__(*saved)
        self.saved = saved


class Session:
    """One command being run: its console, and the settings that were found for it."""

    def __init__(self, console: Console, config: Path | None) -> None:
        self.console = console
        self.config = config


def command(
    app: typer.Typer, name: str, **settings: Any
) -> Callable[[Callable[Concatenate[Session, P], None]], Callable[P, None]]:
    """
    Register a function as a command that has the common options and our exit codes.

    The function gets a `Session` first; its other parameters are the command's own.
    """

    def register(body: Callable[Concatenate[Session, P], None]) -> Callable[P, None]:
        @functools.wraps(body)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            session = open_session(name, kwargs)
            with _stoppable():
                code = _run(session.console, lambda: body(session, *args, **kwargs))
            if code != OK:
                raise typer.Exit(code)

        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
        parameters = [*own, *_common_parameters()]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        app.command(name.rsplit(" ", 1)[-1], **settings)(run)
        return run

    return register


def _common_parameters() -> list[inspect.Parameter]:
    empty = inspect.Parameter.empty
    options: list[tuple[str, Any, Any]] = [
        ("ctx", typer.Context, empty),
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


def open_session(name: str, options: dict[str, Any]) -> Session:
    """Take the common options out of `options`; what stood before the command counts too."""
    before: dict[str, Any] = options.pop("ctx").find_root().obj or {}
    config = options.pop("config", None) or before.get("config")
    flags = {
        flag: bool(options.pop(flag, False) or before.get(flag, False))
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
def _stoppable() -> Iterator[None]:
    """Inside, SIGTERM and a closed terminal act as Ctrl-C; an impatient second one does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(*_: object) -> None:
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run(console: Console, body: Callable[[], None]) -> int:
    try:
        body()
    except Refused as answer:
        return answer.code
    except ForecastError as error:
        console.fail(error)
        return exit_code(error)
    except KeyboardInterrupt as stop:
        saved = isinstance(stop, Interrupted)
        console.say("interrupted" if saved else "interrupted: nothing was saved")
        for line in getattr(stop, "saved", ()):
            console.say(f"  {line}")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except ModuleNotFoundError as error:
        missing = _not_installed(error)
        console.fail(missing)
        return exit_code(missing)
    except OSError as error:
        if error.errno not in _FILE_ERRORS:
            _tell_bug(console, error)
            return BUG
        unusable = UnusableFile(
            error.strerror or str(error),
            where=str(error.filename or ""),
            help="make room, or give the right to write there; a training that was stopped by it "
            "goes on with --resume",
        )
        console.fail(unusable)
        return exit_code(unusable)
    except Exception as error:  # noqa: BLE001 - the outermost layer: a bug is said, not shown raw
        _tell_bug(console, error)
        return BUG
    return OK


def exit_code(error: ForecastError) -> int:
    """The exit code that stands for an error; codes of the service count as ours do."""
    if isinstance(error, ServerRefused) and error.status >= 500:
        return UNREACHABLE
    if error.code in _UNREACHABLE:
        return UNREACHABLE
    return NO if error.code in _NO else USAGE


def _not_installed(error: ModuleNotFoundError) -> ForecastError:
    """A package that only some extra brings; our own modules are always there."""
    return NotInstalled(
        f"{error.name} is not installed",
        help="pip install 'statecast[trainer]' for training and MLflow, 'statecast[server]' to "
        "serve",
    )


def _tell_bug(console: Console, error: Exception) -> None:
    bug = ForecastError(
        f"{type(error).__name__}: {error}",
        help="this is a bug in Statecast; run again with --verbose for the traceback",
    )
    console.fail(bug)
    if console.verbose:
        import traceback

        console.say("".join(traceback.format_exception(error)))
