"""Detect the columns, frequency, kind and covariate roles of a table, and say why."""

import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forecast.config import Config, DataConfig, Kind
from forecast.data import io, validation
from forecast.data.columns import USUAL_NAMES
from forecast.errors import DataError
from pipelines.cli.date_formats import find_date_formats, has_dates

_IDS = ("unique_id", *USUAL_NAMES["id_col"])
_TIMES = ("ds", *USUAL_NAMES["time_col"])
_TARGETS = ("y", *(name for name in USUAL_NAMES["target_col"] if name != "price"))
"""Usual names of targets; a price beside sales is a covariate."""
_PLANNED = re.compile(
    r"price|promo|deal|feat|discount|holiday|event|campaign|weekend|open_|is_|planned|markdown",
    re.IGNORECASE,
)
"""Names of covariates whose values are usually known in advance."""
_PRICES = re.compile(r"(adj|adjusted)?_?(close|price)", re.IGNORECASE)
"""Names of targets that are prices."""
_NUMBERED = re.compile(r"(id|_?nbr|_no|number|code|store|shop|dept|department)$", re.IGNORECASE)
"""Names of numeric columns that may identify a series."""
_INDEX = re.compile(r"^(|id|index|row|unnamed: ?\d+|row_?(id|number|names?))$", re.IGNORECASE)
"""Names of a column that may be a row index."""
_SAMPLE = 200_000
"""Number of first rows that are checked before, or instead of, the whole table."""
_HEADER = (
    "# Settings of Statecast for this folder; `statecast train` and the other commands read them.",
    "# Options of a command and variables such as STATECAST_TRAIN__SEED override them.",
    "",
)
_TEMPLATE = {
    "project": (
        ("source", '"sales.csv"', "file, or SQLAlchemy URL together with query"),
        ("name", '"statecast"', "name of the registered model"),
        ("data_dir", '"data"', "folder of models, databases and checkpoints"),
        ("windows", "2", "number of backtest cutoffs"),
        ("min_gain", "0.0", "gain over the champion required for promotion: 0.02 is 2 %"),
    ),
    "data": (
        ("id_col", '"unique_id"', "column that identifies the series"),
        ("id_from", '["store", "item"]', "columns that identify the series together"),
        ("only_series", '"sales"', "name of the series if no column identifies it"),
        ("time_col", '"ds"', "column of timestamps"),
        ("time_format", '"%d.%m.%Y"', "format of timestamps that are not ISO 8601"),
        ("target_col", '"y"', "column to forecast"),
        ("freq", '"D"', "pandas offset, integer step, or exchange such as XNYS"),
        (
            "kind",
            '"auto"',
            '"positive", "count" (many zeros), "real" (may be negative), "price" or "volatility"',
        ),
        ("static", "[]", "covariates that are constant within a series"),
        ("known_future", "[]", "covariates known over the whole horizon: price, promotion"),
        ("past_only", "[]", "covariates known only up to the cutoff"),
        ("fill", '"refuse"', 'missing steps: "zero", "forward" or "mask"'),
        ("holidays", '"US"', "country whose public holidays are a covariate"),
    ),
    "model": (
        ("horizon", "12", "steps ahead; the default depends on the frequency"),
        ("cell", '"lstm"', '"gru", "rnn_tanh" or "rnn_relu"'),
        ("hidden_size", "64", "size of the hidden state"),
        ("members", "1", "networks in the ensemble; 4 for a small panel"),
    ),
    "train": (
        ("max_steps", "1000", "optimiser steps; by default 16 passes over the data"),
        ("seed", "0", "random seed"),
    ),
}
"""By table, each setting in the file: its key, the value shown in its comment, an explanation."""


@dataclass(slots=True)
class DetectedSettings:
    """Settings for `statecast.toml`; empty if there is no table to detect them from."""

    values: dict[str, dict[str, Any]] = field(default_factory=lambda: {"project": {}, "data": {}})
    """Settings by table and key."""
    reasons: dict[str, str] = field(default_factory=dict)
    """By key, why it has its value or why none was detected."""

    def add(self, table: str, key: str, value: Any, reason: str) -> None:
        """Set a key and give the reason."""
        self.values[table][key] = value
        text = (", ".join(value) or "none") if isinstance(value, list) else repr(value)
        self.reasons[key] = f"{text}: {reason}"

    def to_data_config(self) -> DataConfig:
        """Return the data settings detected so far, and the defaults of all others."""
        return Config.from_dict({"data": self.values["data"]}).data

    def to_toml(self) -> str:
        """Return the text of `statecast.toml`; settings that were not detected are comments."""
        values = {**self.values["project"], **self.values["data"]}
        lines = [*_HEADER]
        for table, entries in _TEMPLATE.items():
            lines.append(f"[{table}]")
            for key, default, comment in entries:
                if key in values:
                    lines.append(f"{key} = {_format_value(values[key])}  # {comment}")
                else:
                    lines.append(f"# {key} = {default}  # {comment}")
            lines.append("")
        return "\n".join(lines)


def detect(source: str) -> DetectedSettings:
    """
    Read a table and detect its settings.

    Raises:
        DataError: The table cannot be read.
    """
    detected = DetectedSettings()
    frame = io.read_table(source)
    columns = [str(name) for name in frame.columns]
    detected.add("project", "source", source, "the given file")
    stem = re.sub(r"[^a-z0-9_-]+", "_", Path(source).stem.lower()).strip("_") or "statecast"
    detected.add("project", "name", stem, "from the file name")
    if Path("data/mlflow.db").exists():
        detected.add("project", "data_dir", f"data/{stem}", "data/ already holds other models")
    time_col = _detect_time_column(frame, columns, detected)
    id_columns = _detect_id_columns(frame, columns, time_col, stem, detected)
    columns = [c for c in columns if c in id_columns or not _is_row_number(frame[c])]
    target = _detect_target(frame, columns, time_col, id_columns, detected)
    if time_col is not None and target is not None:
        data = detected.to_data_config()
        frame = io.read_table(frame, data=data)
        if data.id_col in frame.columns:
            covariates = [c for c in columns if c not in {data.id_col, time_col, target}]
            _detect_roles(frame, covariates, data.id_col, detected)
            _detect_frequency_and_kind(frame, detected)
    return detected


def _detect_time_column(
    frame: pd.DataFrame, columns: list[str], detected: DetectedSettings
) -> str | None:
    """Return the column of timestamps: one that holds dates is preferred over a matching name."""
    dated = [
        c for c in columns if pd.api.types.is_datetime64_any_dtype(frame[c]) or has_dates(frame[c])
    ]
    name = _match_name(dated, _TIMES) or _match_name(columns, _TIMES[:1])
    name = name or next(iter(dated), None) or _match_name(columns, _TIMES)
    if name is None:
        detected.reasons["time_col"] = "no column looks like a date; set it by hand"
        return None
    detected.add("data", "time_col", name, "holds the timestamps")
    if formats := find_date_formats(frame[name]):
        reason = f"as in {frame[name].dropna().iat[0]}"
        if len(formats) > 1:
            reason += f"; it could also be {formats[1]}"
        detected.add("data", "time_format", formats[0], reason)
    return name


def _detect_id_columns(
    frame: pd.DataFrame,
    columns: list[str],
    time_col: str | None,
    stem: str,
    detected: DetectedSettings,
) -> tuple[str, ...]:
    """Return up to three columns that identify the series: with the timestamp, every row."""
    by_lower_name = {c.lower(): c for c in reversed(columns) if c != time_col}
    candidates = [by_lower_name[name] for name in _IDS if name in by_lower_name]
    candidates += [c for c in _list_text_columns(frame, columns, time_col) if c not in candidates]
    candidates += [c for c in by_lower_name.values() if c not in candidates and _NUMBERED.search(c)]
    if time_col is not None:
        timestamps_are_unique = not frame[time_col].duplicated().any()
        # A column with more distinct values than this numbers the rows: it does not name series.
        max_series = 1 if timestamps_are_unique else len(frame) / 2
        usable = [c for c in candidates if frame[c].nunique() <= max_series]
        for count in (1, 2, 3):
            for names in itertools.combinations(usable[:6], count):
                if not _are_rows_unique(frame, [*names, time_col]):
                    continue
                if count == 1:
                    detected.add("data", "id_col", names[0], "identifies the series")
                    return names
                ordered = sorted(names, key=columns.index)
                if frame.groupby(ordered, observed=True).ngroups <= max_series:
                    detected.add("data", "id_from", ordered, "identify the series together")
                    return names
        if timestamps_are_unique:
            reason = "no column identifies a series, and no timestamp repeats"
            detected.add("data", "only_series", stem, reason)
            return ()
    if not candidates:
        detected.reasons["id_col"] = (
            "no column identifies a series, but timestamps repeat; add such a column"
        )
        return ()
    reason = "identifies the series"
    if time_col is not None:
        reason = (
            "some of its rows share timestamps: they are duplicates, or another column is needed "
            "to identify the series"
        )
    detected.add("data", "id_col", candidates[0], reason)
    return (candidates[0],)


def _detect_target(
    frame: pd.DataFrame,
    columns: list[str],
    time_col: str | None,
    id_columns: tuple[str, ...],
    detected: DetectedSettings,
) -> str | None:
    """Return the column to forecast: one with a usual name, else the first numeric column."""
    keys = {time_col, *id_columns}
    numeric = [c for c in columns if c not in keys and pd.api.types.is_numeric_dtype(frame[c])]
    target = _match_name([c for c in columns if c not in keys], _TARGETS)
    reason = "the values to forecast"
    if target is None and numeric:
        target = numeric[0]
        if len(numeric) > 1 and "only_series" in detected.values["data"]:
            reason = (
                f"the first of {len(numeric):,} numeric columns; if each of them is a series, "
                f'reshape the table: df.melt({time_col!r}, var_name="unique_id", value_name="y")'
            )
    if target is not None:
        detected.add("data", "target_col", target, reason)
    return target


def _detect_roles(
    frame: pd.DataFrame, columns: list[str], id_col: str, detected: DetectedSettings
) -> None:
    """Sort covariates into static ones, those known in advance (by name) and past-only ones."""
    sample = frame.head(_SAMPLE)
    static: list[str] = []
    known_future: list[str] = []
    past_only: list[str] = []
    for name in columns:
        if bool((sample.groupby(id_col, observed=True)[name].nunique(dropna=False) == 1).all()):
            static.append(name)
        elif pd.api.types.is_numeric_dtype(frame[name]) and frame[name].notna().all():
            (known_future if _PLANNED.search(name) else past_only).append(name)
    if static and frame[id_col].nunique() > 1:
        detected.add("data", "static", static, "constant within each series")
    if known_future:
        reason = "the name suggests values known in advance; check this"
        detected.add("data", "known_future", known_future, reason)
    if past_only:
        detected.add("data", "past_only", past_only, "numeric, assumed not to be known in advance")


def _detect_frequency_and_kind(frame: pd.DataFrame, detected: DetectedSettings) -> None:
    data = detected.to_data_config()
    try:
        report = validation.report(frame, data)
    except DataError as error:
        detected.reasons["freq"] = f"unknown: {error.message}"
        return
    if report["freq"] is not None:
        size = f"{report['rows']:,} rows in {report['series']:,} series"
        detected.add("data", "freq", report["freq"], f"the step between timestamps of {size}")
    detected.add("data", "kind", *_choose_kind(report, data.target_col))
    for problem in report["problems"]:
        if problem["code"] == "data.gap":
            detected.reasons["fill"] = f"steps are missing: {problem['help']}"


def _choose_kind(report: dict[str, Any], target: str) -> tuple[Kind, str]:
    """Return the kind and the reason; it follows from the values, except for price (by name)."""
    zero_share, kind = report["zero_share"], report["kind"]
    if kind == "real":
        return kind, "some values are negative"
    if kind == "count":
        return kind, (
            f"no value is negative and {zero_share:.1%} are 0: the mean is forecast (set "
            '"positive" to forecast the median)'
        )
    if zero_share == 0 and _PRICES.fullmatch(target):
        return "price", (
            f"the name {target} suggests a price: the last value is forecast, with learned "
            'intervals (set "positive" to forecast the level)'
        )
    return kind, f"no value is negative and {zero_share:.1%} are 0"


def _match_name(columns: list[str], names: tuple[str, ...]) -> str | None:
    """Return the column that matches the first of `names`, regardless of case."""
    by_lower_name = {c.lower(): c for c in reversed(columns)}
    return next((by_lower_name[name] for name in names if name in by_lower_name), None)


def _list_text_columns(frame: pd.DataFrame, columns: list[str], time_col: str | None) -> list[str]:
    return [
        c
        for c in columns
        if c != time_col
        and not pd.api.types.is_numeric_dtype(frame[c])
        and not pd.api.types.is_datetime64_any_dtype(frame[c])
    ]


def _are_rows_unique(frame: pd.DataFrame, columns: list[str]) -> bool:
    """Return whether no two rows agree in all `columns`; the first rows often answer that."""
    return not any(part.duplicated(columns).any() for part in (frame.head(_SAMPLE), frame))


def _is_row_number(column: pd.Series) -> bool:
    """Return whether a column is an index that was written to the file with the rows."""
    if not (_INDEX.search(str(column.name)) and pd.api.types.is_integer_dtype(column)):
        return False
    return bool((column.diff().iloc[1:] == 1).all())


def _format_value(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, list):
        return "[" + ", ".join(_format_value(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | np.number):
        return str(value)
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
