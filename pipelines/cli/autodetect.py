"""What a table seems to be: columns, frequency, kind and roles, each with the reason why."""

import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forecast.config import Config, DataConfig, Kind
from forecast.data import io, validation
from forecast.errors import DataError
from pipelines.cli.date_formats import find_date_formats, has_dates

_IDS = (
    "unique_id",
    "id",
    "item_id",
    "series_id",
    "series",
    "store",
    "item",
    "sku",
    "ticker",
    "symbol",
    "product",
    "name",
    "key",
)
_TIMES = (
    "ds",
    "date",
    "datetime",
    "timestamp",
    "time",
    "day",
    "week",
    "month",
    "period",
    "date_time",
    "ts",
)
_TARGETS = (
    "y",
    "sales",
    "value",
    "target",
    "close",
    "quantity",
    "demand",
    "units",
    "turnover",
    "amount",
    "qty",
    "volume",
)
_PLANNED = re.compile(
    r"price|promo|deal|feat|discount|holiday|event|campaign|weekend|open_|is_|planned|markdown",
    re.IGNORECASE,
)
_PRICES = re.compile(r"(adj|adjusted)?_?(close|price)", re.IGNORECASE)
_NUMBERED = re.compile(r"(id|_?nbr|_no|number|code|store|shop|dept|department)$", re.IGNORECASE)
_INDEX = re.compile(r"^(|id|index|row|unnamed: ?\d+|row_?(id|number|names?))$", re.IGNORECASE)
_SAMPLE = 200_000
KINDS = '"positive", "count" (many zeros), "real" (may be negative), "price", "volatility"'


@dataclass(slots=True)
class Guess:
    """Settings for `statecast.toml`, and the reason of each."""

    values: dict[str, dict[str, Any]] = field(default_factory=lambda: {"project": {}, "data": {}})
    reasons: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    def note(self, table: str, key: str, value: Any, reason: str) -> None:
        """Set a key, and say why."""
        self.values[table][key] = value
        self.reasons[key] = (
            f"{value!r}: {reason}"
            if not isinstance(value, list)
            else (f"{', '.join(value) or 'none'}: {reason}")
        )


def blank() -> Guess:
    """Nothing known: the defaults, all of them commented."""
    return Guess()


def detect(source: str) -> Guess:
    """
    Look at a table and guess.

    Raises:
        DataError: It cannot be read.
    """
    found = Guess()
    frame = io.read_table(source)
    columns = [str(name) for name in frame.columns]
    found.note("project", "source", source, "the file given")
    stem = re.sub(r"[^a-z0-9_-]+", "_", Path(source).stem.lower()).strip("_") or "statecast"
    found.note("project", "name", stem, "after the file")
    folder = "data" if not Path("data/mlflow.db").exists() else f"data/{stem}"
    if folder != "data":
        found.note("project", "data_dir", folder, "data/ holds other models already")
    time_col = _find_time(frame, columns, found)
    named = _find_names(frame, columns, time_col, stem, found)
    columns = [c for c in columns if c in named or not _counts_rows(frame[c])]
    target = _find_target(frame, columns, time_col, named, found)
    if time_col is not None and target is not None:
        data = _settings(found)
        frame = io.read_table(frame, data=data)
        if data.id_col in frame.columns:
            _roles(frame, columns, found, id_col=data.id_col, keys={data.id_col, time_col, target})
            _frequency(frame, found)
    return found


def _settings(found: Guess) -> DataConfig:
    """What was found so far."""
    return Config.from_dict({"data": found.values["data"]}).data


def _find(columns: list[str], wanted: tuple[str, ...], exclude: set[str | None]) -> str | None:
    lower = {c.lower(): c for c in reversed(columns) if c not in exclude}
    return next((lower[name] for name in wanted if name in lower), None)


def _find_time(frame: pd.DataFrame, columns: list[str], found: Guess) -> str | None:
    dated = [
        c for c in columns if pd.api.types.is_datetime64_any_dtype(frame[c]) or has_dates(frame[c])
    ]
    name = _find(dated, _TIMES, exclude=set()) or _find(columns, _TIMES[:1], exclude=set())
    name = name or next(iter(dated), None) or _find(columns, _TIMES, exclude=set())
    if name is None:
        found.reasons["time_col"] = "no column looks like a date: set it by hand"
    else:
        found.note("data", "time_col", name, "holds the stamps")
        how, *others = find_date_formats(frame[name]) or [""]
        if how:
            doubt = f"; or {others[0]}?" if others else ""
            why = f"as in {frame[name].dropna().iat[0]}{doubt}"
            found.note("data", "time_format", how, why)
    return name


def _find_names(
    frame: pd.DataFrame, columns: list[str], time_col: str | None, stem: str, found: Guess
) -> tuple[str, ...]:
    """The column, or the few together, that with the stamps tell every row from every other."""
    lower = {c.lower(): c for c in reversed(columns) if c != time_col}
    likely = [lower[name] for name in _IDS if name in lower]
    likely += [c for c in _texts(frame, columns, {time_col}) if c not in likely]
    likely += [c for c in lower.values() if c not in likely and _NUMBERED.search(c)]
    if time_col is not None:
        once = not frame[time_col].duplicated().any()
        most = 1 if once else len(frame) / 2  # more are no series, they number the rows
        few = [c for c in likely if frame[c].nunique() <= most]
        for count in (1, 2, 3):
            for some in itertools.combinations(few[:6], count):
                if not _tell_apart(frame, [*some, time_col]):
                    continue
                if count == 1:
                    found.note("data", "id_col", some[0], "names the series")
                    return some
                together = sorted(some, key=columns.index)
                if frame.groupby(together, observed=True).ngroups <= most:
                    found.note("data", "id_from", together, "name the series together")
                    return some
        if once:
            found.note("data", "only_series", stem, "no column names the series, no stamp repeats")
            return ()
    if not likely:
        found.reasons["id_col"] = "no column names the series, and stamps repeat: add one"
        return ()
    doubt = "its rows share stamps: repeated, or another column is needed to name the series"
    found.note("data", "id_col", likely[0], "names the series" if time_col is None else doubt)
    return (likely[0],)


def _tell_apart(frame: pd.DataFrame, names: list[str]) -> bool:
    """Whether no two rows have all of these in common; often the first rows answer that."""
    return not any(part.duplicated(names).any() for part in (frame.head(_SAMPLE), frame))


def _texts(frame: pd.DataFrame, columns: list[str], exclude: set[str | None]) -> list[str]:
    return [
        c
        for c in columns
        if c not in exclude
        and not pd.api.types.is_numeric_dtype(frame[c])
        and not pd.api.types.is_datetime64_any_dtype(frame[c])
    ]


def _counts_rows(column: pd.Series) -> bool:
    """Whether a column is an index that was written with the rows."""
    if not (_INDEX.search(str(column.name)) and pd.api.types.is_integer_dtype(column)):
        return False
    return bool((column.diff().iloc[1:] == 1).all())


def _find_target(
    frame: pd.DataFrame,
    columns: list[str],
    time_col: str | None,
    named: tuple[str, ...],
    found: Guess,
) -> str | None:
    """By its name, or the first column of numbers; that each column is a series is asked."""
    keys = {time_col, *named}
    numbers = [c for c in columns if c not in keys and pd.api.types.is_numeric_dtype(frame[c])]
    target = _find(columns, _TARGETS, exclude=keys)
    why = "what to forecast"
    if target is None and len(numbers) > 1 and "only_series" in found.values["data"]:
        why = (
            f"the first of {len(numbers):,} columns of numbers; is each of them a series? "
            f'df.melt({time_col!r}, var_name="unique_id", value_name="y")'
        )
    if target is None and numbers:
        target = numbers[0]
    if target is not None:
        found.note("data", "target_col", target, why)
    return target


def _roles(
    frame: pd.DataFrame, columns: list[str], found: Guess, *, id_col: str, keys: set[str | None]
) -> None:
    """Columns that are one value a series are static; of the others, names tell."""
    sample = frame.head(_SAMPLE)
    static: list[str] = []
    planned: list[str] = []
    past: list[str] = []
    for name in columns:
        if name in keys:
            continue
        if bool((sample.groupby(id_col, observed=True)[name].nunique(dropna=False) == 1).all()):
            static.append(name)
        elif pd.api.types.is_numeric_dtype(frame[name]) and frame[name].notna().all():
            (planned if _PLANNED.search(name) else past).append(name)
    one = frame[id_col].nunique() < 2
    if static and not one:
        found.note("data", "static", static, "one value in each series")
    if planned:
        found.note("data", "known_future", planned, "by its name decided ahead of time: check this")
    if past:
        found.note("data", "past_only", past, "numbers not known ahead of time")


def _frequency(frame: pd.DataFrame, found: Guess) -> None:
    try:
        report = validation.report(frame, data := _settings(found))
    except DataError as error:
        found.problem = error.message
        found.reasons["freq"] = f"unknown: {error.message}"
        return
    if report["freq"] is not None:
        steps = f"{report['rows']:,} rows in {report['series']:,} series"
        found.note("data", "freq", report["freq"], f"the step between stamps of {steps}")
    found.note("data", "kind", *_kind(report, data.target_col))
    for problem in report["problems"]:
        if problem["code"] == "data.gap":
            found.reasons["fill"] = f"steps are missing: {problem['help']}"


def _kind(report: dict[str, Any], target: str) -> tuple[Kind, str]:
    """The kind of data, and why: values tell three of them, a column's name a fourth."""
    zeros, kind = report["zero_share"], report["kind"]
    if kind == "real":
        return kind, "some values are negative"
    if kind == "count":
        return kind, (
            f"none negative and {zeros:.1%} are 0: the mean is forecast (to forecast the median "
            'set "positive")'
        )
    if zeros == 0 and _PRICES.fullmatch(target):
        return "price", (
            f"{target} by its name: the last value is forecast, with learned intervals (to "
            'forecast the level set "positive")'
        )
    return kind, f"none negative, {zeros:.1%} are 0"


def to_toml(found: Guess) -> str:
    """The file, with every other setting there as a comment."""
    values = {**found.values["project"], **found.values["data"]}
    lines = [
        "# Settings of Statecast for this folder. Options of a command win over them, and so do",
        "# variables such as STATECAST_TRAIN__SEED. `statecast train` reads this file.",
        "",
        "[project]",
        *_entry("source", values, '"sales.csv"', "file, or SQLAlchemy URL with query"),
        *_entry("name", values, '"statecast"', "of the registered model"),
        *_entry("data_dir", values, '"data"', "folder of models, databases, checkpoints"),
        *_entry("windows", values, "2", "cutoffs of the backtest"),
        *_entry("min_gain", values, "0.0", "gain over the champion a promotion needs: 0.02 is 2 %"),
        "",
        "[data]",
        *_entry("id_col", values, '"unique_id"', "names the series"),
        *_entry("id_from", values, '["store", "item"]', "name the series together"),
        *_entry("only_series", values, '"sales"', "its name, where no column names series"),
        *_entry("time_col", values, '"ds"', "stamps"),
        *_entry("time_format", values, '"%d.%m.%Y"', "of stamps that are not ISO 8601"),
        *_entry("target_col", values, '"y"', "what to forecast"),
        *_entry("freq", values, '"D"', "pandas offset, integer step, or exchange such as XNYS"),
        *_entry("kind", values, '"auto"', KINDS),
        *_entry("static", values, "[]", "one value a series"),
        *_entry("known_future", values, "[]", "known ahead for all the horizon: price, promotion"),
        *_entry("past_only", values, "[]", "known up to the cutoff only"),
        *_entry("fill", values, '"refuse"', 'missing steps: "zero", "forward", "mask"'),
        *_entry("holidays", values, '"US"', "country whose public holidays matter"),
        "",
        "[model]",
        *_entry("horizon", values, "12", "steps ahead; by default that of the frequency"),
        *_entry("cell", values, '"lstm"', '"gru", "rnn_tanh", "rnn_relu"'),
        *_entry("hidden_size", values, "64", "width of the state"),
        *_entry("members", values, "1", "networks that forecast as one; 4 if the panel is small"),
        "",
        "[train]",
        *_entry("max_steps", values, "1000", "optimiser steps; by default 16 passes over the data"),
        *_entry("seed", values, "0", "of everything random"),
        "",
    ]
    return "\n".join(lines)


def _entry(key: str, values: dict[str, Any], default: str, comment: str) -> list[str]:
    if key in values:
        return [f"{key} = {_toml(values[key])}  # {comment}"]
    return [f"# {key} = {default}  # {comment}"]


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | np.number):
        return str(value)
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
