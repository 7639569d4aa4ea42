"""
Output of a command: its result goes to stdout, everything else to stderr.

With `--json`, stdout holds one JSON document: the result or the error. If stderr is not a
terminal, it has no colours, and a progress bar becomes one line for every 10 % of the work.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from forecast.errors import ForecastError

DOCS = "docs/errors.md"
WIDTH_WITHOUT_TERMINAL = 200


class ProgressCallback(Protocol):
    """Report that `done` units of some work are finished."""

    def __call__(self, done: int, note: str = "") -> None: ...


@dataclass(slots=True)
class Console:
    """
    Write to the two output streams of a command.

    Args:
        command: Name of the command; repeated in the JSON document.
        json: Write one JSON document to stdout instead of text.
        quiet: Write only errors to stderr.
        verbose: Write the traceback of an unexpected error to stderr.
        color: Allow colours on a terminal.
    """

    command: str
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    color: bool = True
    _out: RichConsole = field(init=False)
    _err: RichConsole = field(init=False)

    def __post_init__(self) -> None:
        self._out = _open_stream(stderr=False, color=self.color)
        self._err = _open_stream(stderr=True, color=self.color)

    def print_result(self, document: dict[str, Any], text: RenderableType | None = None) -> None:
        """Write the result to stdout: `document` with `--json`, otherwise `text`."""
        if self.json:
            self._write_json({"command": self.command, **document})
        elif isinstance(text, str):
            self._out.print(text, markup=False, highlight=False, soft_wrap=True)
        elif text is not None and self._out.is_terminal:
            self._out.print(text)
        elif text is not None:
            with self._out.capture() as lines:
                self._out.print(text)
            sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines.get().splitlines()))

    def print_raw(self, text: str) -> None:
        """Write file content, such as CSV, to stdout unchanged."""
        sys.stdout.write(text)

    def say(self, text: str) -> None:
        """Write a line about the work to stderr."""
        if not self.quiet:
            self._err.print(text, markup=False, highlight=False, soft_wrap=True)

    def print_step(self, label: str, text: str, seconds: float | None = None) -> None:
        """Write one step of the work to stderr: its label, its outcome and its duration."""
        if self.quiet:
            return
        duration = "" if seconds is None else f"  [dim]{format_duration(seconds)}[/dim]"
        line = f"  [bold cyan]{escape(f'{label:<11} ')}[/bold cyan]{escape(text)}{duration}"
        self._err.print(line, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Write a warning to stderr."""
        if not self.quiet:
            line = f"[yellow]warning:[/yellow] {escape(text)}"
            self._err.print(line, highlight=False, soft_wrap=True)

    def suggest(self, *commands: str) -> None:
        """Write the commands that a user usually runs next to stderr."""
        if self.quiet or self.json:
            return
        for i, command in enumerate(commands):
            lead = "next:" if i == 0 else "     "
            line = f"[dim]{lead}[/dim] {escape(command)}"
            self._err.print(line, highlight=False, soft_wrap=True)

    def print_error(self, error: ForecastError) -> None:
        """Write an error to stderr, and with `--json` to stdout as well."""
        problem = {
            "code": error.code,
            "message": error.message,
            "where": error.where,
            "help": error.help,
        }
        self.print_problem(**problem)
        if self.json:
            problem["docs"] = make_docs_link(error.code)
            self._write_json({"command": self.command, "error": problem})

    def print_problem(self, code: str, message: str, where: str = "", help: str = "") -> None:
        """Write one problem to stderr: what is wrong, where, what to do and where to read more."""
        lines = [f"[bold red]error\\[{escape(code)}][/bold red]: {escape(message)}"]
        if where:
            lines.append(f"  --> {escape(where)}")
        for i, part in enumerate(help.splitlines()):
            lines.append(f"  {'help:' if i == 0 else '     '} {escape(part)}")
        lines.append(f"  [dim]docs: {make_docs_link(code)}[/dim]")
        for line in lines:
            self._err.print(line, highlight=False, soft_wrap=True)

    @contextmanager
    def track_progress(self, label: str, total: int) -> Iterator[ProgressCallback]:
        """Show the progress of `total` units of work; yield the callback that reports it."""
        if self.quiet or total <= 0:
            yield lambda done, note="": None
        elif self._err.is_terminal:
            yield from self._show_bar(label, total)
        else:
            yield _report_tenths(self, label, total)

    def _show_bar(self, label: str, total: int) -> Iterator[ProgressCallback]:
        columns = (
            TextColumn("  [bold cyan]{task.description:<12}[/bold cyan]"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}  {task.fields[note]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._err, transient=True) as bar:
            task = bar.add_task(label, total=total, note="")
            yield lambda done, note="": bar.update(task, completed=done, note=escape(note))

    def _write_json(self, document: dict[str, Any]) -> None:
        text = json.dumps(document, indent=2, default=_to_json_value, allow_nan=False)
        sys.stdout.write(f"{text}\n")


def make_table(*columns: str, rows: list[tuple[object, ...]], right: tuple[str, ...] = ()) -> Table:
    """Return a table without borders; align the columns named in `right` to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    return table


def format_duration(seconds: float) -> str:
    """
    Return a duration as short text.

    >>> format_duration(0.34), format_duration(41.2), format_duration(185)
    ('0.3s', '41s', '3m 05s')
    """
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    if seconds < 60:
        return f"{seconds:.0f}s"
    return f"{int(seconds) // 60}m {int(seconds) % 60:02d}s"


def make_docs_link(code: str) -> str:
    """
    Return the link to the documentation of an error code.

    >>> make_docs_link("data.gap")
    'docs/errors.md#datagap'
    """
    return f"{DOCS}#{code.replace('.', '')}"


def _report_tenths(console: Console, label: str, total: int) -> ProgressCallback:
    """Return a callback that writes one line for every 10 % of the work."""
    start, last_tenth = time.monotonic(), -1

    def report(done: int, note: str = "") -> None:
        nonlocal last_tenth
        tenth = 10 * done // total
        if tenth > last_tenth:
            last_tenth = tenth
            share = f"{10 * tenth:3d} %  step {done} of {total}"
            suffix = f"  {note}" if note else ""
            console.print_step(label, f"{share}{suffix}", time.monotonic() - start)

    return report


def _open_stream(*, stderr: bool, color: bool) -> RichConsole:
    console = RichConsole(stderr=stderr, no_color=not color, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_WITHOUT_TERMINAL
    return console


def _to_json_value(value: object) -> object:
    """Convert a NumPy scalar to a number, and a path or timestamp to text."""
    item = getattr(value, "item", None)
    if callable(item):
        return item()
    return str(value)
