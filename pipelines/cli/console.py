"""
Where a command writes: its result to stdout, everything else to stderr.

`--json` turns the result, or the error, into one JSON document on stdout. Without a terminal
there are no bars and no colours: long work prints a line each 10 %.
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


class Steps(Protocol):
    """A piece of long work that reports how far it is."""

    def __call__(self, done: int, note: str = "") -> None: ...


@dataclass(slots=True)
class Console:
    """
    The two streams of a command.

    Args:
        command: The command's name, which `--json` repeats.
        json: One JSON document instead of text on stdout.
        quiet: Nothing on stderr except errors.
        verbose: More on stderr: tracebacks of bugs, where settings come from.
        color: False writes plain text even to a terminal.
    """

    command: str
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    color: bool = True
    _out: RichConsole = field(init=False)
    _err: RichConsole = field(init=False)

    def __post_init__(self) -> None:
        self._out = _rich(stderr=False, color=self.color)
        self._err = _rich(stderr=True, color=self.color)

    @property
    def interactive(self) -> bool:
        """Whether a person watches: bars and questions make sense."""
        return self._err.is_terminal and not self.quiet

    def result(self, document: dict[str, Any], text: RenderableType | None = None) -> None:
        """Write the command's result: `document` with `--json`, else `text`."""
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

    def raw(self, text: str) -> None:
        """Write file-like content (CSV) to stdout untouched."""
        sys.stdout.write(text)

    def say(self, text: str = "") -> None:
        """Say something about the work, on stderr."""
        if not self.quiet:
            self._err.print(text, markup=False, highlight=False, soft_wrap=True)

    def step(self, label: str, text: str, seconds: float | None = None) -> None:
        """One finished piece of work: its label, what came out, and how long it took."""
        if self.quiet:
            return
        took = f"  [dim]{elapsed(seconds)}[/dim]" if seconds is not None else ""
        line = f"  [bold cyan]{escape(f'{label:<11} ')}[/bold cyan]{escape(text)}{took}"
        self._err.print(line, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Something the user should know, on stderr."""
        if not self.quiet:
            line = f"[yellow]warning:[/yellow] {escape(text)}"
            self._err.print(line, highlight=False, soft_wrap=True)

    def then(self, *commands: str) -> None:
        """The commands that usually follow."""
        if self.quiet or self.json:
            return
        for i, command in enumerate(commands):
            lead = "next:" if i == 0 else "     "
            line = f"[dim]{lead}[/dim] {escape(command)}"
            self._err.print(line, highlight=False, soft_wrap=True)

    def fail(self, error: ForecastError) -> None:
        """Print an error: to stderr for people, and with `--json` to stdout as well."""
        told = {"code": error.code, "message": error.message, "where": error.where}
        self.problem(**told, help=error.help)
        if self.json:
            problem = {**told, "help": error.help, "docs": docs_of(error.code)}
            self._write_json({"command": self.command, "error": problem})

    def problem(self, code: str, message: str, where: str = "", help: str = "") -> None:
        """One thing that is wrong: what, where, what to do, and where to read on."""
        lines = [f"[bold red]error\\[{escape(code)}][/bold red]: {escape(message)}"]
        if where:
            lines.append(f"  --> {escape(where)}")
        for i, part in enumerate(help.splitlines()):
            lines.append(f"  {'help:' if i == 0 else '     '} {escape(part)}")
        lines.append(f"  [dim]docs: {docs_of(code)}[/dim]")
        for line in lines:
            self._err.print(line, highlight=False, soft_wrap=True)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Steps]:
        """A bar on a terminal, else a line each 10 %; yields what to call with steps done."""
        if self.quiet or total <= 0:
            yield lambda done, note="": None
        elif self._err.is_terminal:
            yield from self._bar(label, total)
        else:
            yield _lines(self, label, total)

    def _bar(self, label: str, total: int) -> Iterator[Steps]:
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
        sys.stdout.write(json.dumps(document, indent=2, default=_plain, allow_nan=False) + "\n")


def docs_of(code: str) -> str:
    """
    Where an error is explained.

    >>> docs_of("data.gap")
    'docs/errors.md#datagap'
    """
    return f"{DOCS}#{code.replace('.', '')}"


def table(*columns: str, rows: list[tuple[object, ...]], right: tuple[str, ...] = ()) -> Table:
    """A table without frames; the columns named in `right` are numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        made.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    return made


def elapsed(seconds: float) -> str:
    """
    A duration as people say it.

    >>> elapsed(0.34), elapsed(41.2), elapsed(185)
    ('0.3s', '41s', '3m 05s')
    """
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    if seconds < 60:
        return f"{seconds:.0f}s"
    return f"{int(seconds) // 60}m {int(seconds) % 60:02d}s"


def _lines(console: Console, label: str, total: int) -> Steps:
    """Report by lines: one each 10 % of the way."""
    started, last = time.monotonic(), -1

    def report(done: int, note: str = "") -> None:
        nonlocal last
        tenth = 10 * done // total
        if tenth > last:
            last = tenth
            share = f"{10 * tenth:3d} %  step {done} of {total}"
            tail = f"  {note}" if note else ""
            console.step(label, f"{share}{tail}", time.monotonic() - started)

    return report


def _rich(*, stderr: bool, color: bool) -> RichConsole:
    console = RichConsole(stderr=stderr, no_color=not color, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_WITHOUT_TERMINAL
    return console


def _plain(value: object) -> object:
    """Paths, stamps and NumPy scalars as JSON knows them."""
    item = getattr(value, "item", None)
    if callable(item):
        return item()
    return str(value)
