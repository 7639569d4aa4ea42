"""Write a case for the process of a peer, run it, and read its forecasts."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.accuracy.cases import Case
from benchmarks.peers.catalogue import SCRIPTS
from benchmarks.peers.exchange import MEDIAN, QUANTILES, Task

LEVELS = {80: ("0.1", "0.9"), 95: ("0.025", "0.975")}
PERIODS = {24: "h", 7: "D", 5: "B", 52: "W-SUN", 12: "M", 4: "Q"}
SEASONS = {"h": (24, 168), "D": (7,), "W": (52,), "M": (12,), "Q": (4,)}
MANY_ZEROS = 0.3
"""Share of zeros from which whole numbers are treated as counts."""


class PeerFailed(Exception):
    """A peer made no usable forecast; the message gives the reason in one line."""


def write(case: Case, model: str, folder: Path, *, budget_s: float | None) -> None:
    """
    Write everything that the peer may know into the folder.

    A step without a value is 0 if the set has `fill="zero"`. Otherwise it has the value before it,
    and `observed` is False.
    """
    known = list(case.known_future)
    y = case.train["y"]
    train = case.train[["unique_id", "ds", "y", *known]].assign(observed=y.notna())
    if y.isna().any():
        values = train.groupby("unique_id", sort=False)["y"]
        train["y"] = y.fillna(0.0) if case.fill == "zero" else values.ffill().fillna(values.bfill())
        train["observed"] |= case.fill == "zero"
    static = case.static
    if static is None:
        static = pd.DataFrame({"unique_id": case.train["unique_id"].unique()})
    real = [c for c in static.select_dtypes("number").columns if c != "unique_id"]
    categorical = [c for c in static.columns if c not in ("unique_id", *real)]
    codes = {name: pd.factorize(static[name], sort=True)[0] for name in categorical}
    make_task(case, train, model, codes, tuple(real), budget_s=budget_s).write(folder)
    future = case.test[["unique_id", "ds", *known]]
    tables = {"train": train, "future": future, "static": static.assign(**codes)}
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)


def make_task(
    case: Case,
    train: pd.DataFrame,
    model: str,
    codes: Mapping[str, np.ndarray],
    real: tuple[str, ...],
    *,
    budget_s: float | None,
) -> Task:
    """Return the task of a peer: the frequency, the seasons and the roles of the columns."""
    freq = case.freq
    if isinstance(freq, int):
        seasons = case.seasons or ()
        period = PERIODS[seasons[0]] if seasons else "Y"
    else:
        period = {"MS": "M", "QS": "Q", "YS": "Y"}.get(freq, freq)
        seasons = case.seasons or SEASONS.get(period.split("-")[0], ())
    y = train["y"].to_numpy()
    counts = bool((y == 0).mean() >= MANY_ZEROS and (y >= 0).all() and (y % 1 == 0).all())
    return Task(
        case=case.name,
        model=model,
        horizon=case.horizon,
        freq=freq,
        period=period,
        season_length=case.season_length,
        seasons=tuple(sorted(seasons)),
        known_future=case.known_future,
        static_real=real,
        static_categories={name: int(code.max()) + 1 for name, code in codes.items()},
        counts=counts,
        budget_s=budget_s,
    )


def call(python: Path, model: str, folder: Path, *, limit_s: float) -> dict[str, Any]:
    """
    Run the peer on one thread and return its report of the run.

    Raises:
        PeerFailed: The peer exited with an error, or did not end within `limit_s` seconds.
    """
    script = Path(__file__).with_name(SCRIPTS[model])
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    settings = dict.fromkeys((*threads, "NIXTLA_NUMBA_RELEASE_GIL"), "1") | {
        "NIXTLA_NUMBA_CACHE": "1"
    }
    with (folder / "log.txt").open("w") as log:
        try:
            process = subprocess.run(
                [python.absolute(), script.absolute(), folder.absolute()],
                cwd=folder,
                env=os.environ | settings,
                timeout=limit_s,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PeerFailed(f"given up after {limit_s:.0f} s") from error
    if process.returncode != 0:
        lines = (folder / "log.txt").read_text().strip().splitlines() or ["no output"]
        raise PeerFailed(f"exit status {process.returncode}: {lines[-1][:300]}")
    report: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return report


def read(case: Case, model: str, forecasts: pd.DataFrame) -> pd.DataFrame:
    """
    Return the test with the peer's forecasts: `model`, `model-lo-80`, ..., `model_ql0.5`, ...

    The point forecast is the mean if the peer has one, else the median. If no training value is
    negative, forecasts are clipped at 0, as a user would do.

    Raises:
        PeerFailed: A step of the test has no finite forecast.
    """
    test = case.test[["unique_id", "ds", "y"]]
    names = [c for c in forecasts.columns if c not in ("unique_id", "ds")]
    table = test.merge(forecasts, how="left", on=["unique_id", "ds"], validate="1:1")
    values = table[names].astype(np.float64)
    has_no_forecast = ~np.isfinite(values.to_numpy()).all(axis=1)
    if has_no_forecast.any():
        raise PeerFailed(
            f"{int(has_no_forecast.sum())} of {len(table)} steps have no finite forecast"
        )
    if case.train["y"].min() >= 0:
        values = values.clip(lower=0.0)
    columns = {model: values["mean" if "mean" in names else MEDIAN]}
    for level, (low, high) in LEVELS.items():
        if low in names and high in names:
            columns |= {f"{model}-lo-{level}": values[low], f"{model}-hi-{level}": values[high]}
    columns |= {f"{model}_ql{q}": values[str(q)] for q in QUANTILES if str(q) in names}
    return pd.concat([test.reset_index(drop=True), pd.DataFrame(columns)], axis=1)
