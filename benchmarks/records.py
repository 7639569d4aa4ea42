"""Print results as JSON lines on stdout and progress on stderr, for every benchmark."""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forecast.config import Config
from forecast.training.progress import TrainEvent


def emit(benchmark: str, case: str, model: str, metric: str, value: float, seconds: float) -> None:
    """Print one result; `seconds` is the time that the model took to train and to forecast."""
    record = {
        "benchmark": benchmark,
        "case": case,
        "model": model,
        "metric": metric,
        "value": float(f"{value:.7g}"),
        "seconds": round(seconds, 3),
    }
    print(json.dumps(record), flush=True)


def note(text: str) -> None:
    """Print a line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """Print training events, one about every `every` seconds and the last one."""

    def __init__(self, every: float = 10.0) -> None:
        self.every, self.last = every, time.perf_counter()

    def __call__(self, event: TrainEvent) -> None:
        """Print the event unless another was printed less than `every` seconds ago."""
        if event.step < event.steps and time.perf_counter() - self.last < self.every:
            return
        self.last = time.perf_counter()
        val = "" if event.val_loss is None else f"  val {event.val_loss:.4f}"
        note(
            f"  step {event.step}/{event.steps}  loss {event.loss:.4f}{val}  "
            f"{event.observations_per_s:,.0f} observations/s  {event.seconds:.0f} s"
        )


def with_settings(tables: Mapping[str, Any], assignments: list[str]) -> Config:
    """
    Return the configuration of a benchmark, overridden by `table.key=value` assignments.

    Values are JSON, or text if they are not.

    >>> with_settings({"model": {"horizon": 6}}, ["model.cell=gru", "train.seed=3"]).train.seed
    3
    """
    merged = {name: dict(table) for name, table in tables.items()}
    for assignment in assignments:
        path, _, text = assignment.partition("=")
        table, _, key = path.partition(".")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        merged.setdefault(table, {})[key] = value
    return Config.from_dict(merged, where="--set")


def add_set_option(parser: argparse.ArgumentParser, help: str) -> None:
    """Add `--set TABLE.KEY=VALUE`, whose values `with_settings` reads."""
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help=help)


def find_folder(data: Path, name: str) -> Path:
    """
    Return the folder `name` in `data`; `data` may also be that folder itself.

    Raises:
        SystemExit: There is no such folder.
    """
    for folder in (data / name, data):
        if folder.is_dir() and folder.name == name:
            return folder
    raise SystemExit(f"no folder {name!r} in {data}; give --data the folder that holds it")
