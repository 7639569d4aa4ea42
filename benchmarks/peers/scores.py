"""Scores of a peer's forecasts: those of every model, OWA on the sets of M4, WRMSSE on M5."""

from pathlib import Path

import pandas as pd

from benchmarks.accuracy import m4, m5, scoring
from benchmarks.accuracy.cases import Case
from benchmarks.records import find


def score(
    case: Case, table: pd.DataFrame, model: str, data: Path, *, val: bool
) -> dict[str, float]:
    """
    Every score of one model.

    Args:
        case: What was forecast.
        table: The test with the forecasts `model`, `model-lo-80`, ..., `model_ql0.5`, ...
        model: Its name in the table.
        data: Where the sets are: Naive2 of M4 and the weights of M5 are read from there.
        val: The case was cut at the horizon before the test.
    """
    values = scoring.score(table, case, [model])[model]
    if case.name.startswith("m4_"):
        return {"owa": owa(case, table, model, data, val=val), **values}
    if case.name == "m5":
        levels = m5.read_levels(find(data, "m5"), m5.read_static(data), m5.dense(case.train))
        return {**m5.score(m5.dense(case.test), m5.dense(table, model), levels), **values}
    return values


def owa(case: Case, table: pd.DataFrame, model: str, data: Path, *, val: bool) -> float:
    """OWA over the official Naive2, at the median where the model gives one."""
    cut = m4.CASES[case.name.removeprefix("m4_")]
    _, test = m4.load(find(data, "m4"), cut, val=val)
    median = f"{model}_ql0.5"
    forecasts = table[["unique_id", "ds"]].assign(
        **{model: table[median if median in table.columns else model]}
    )
    both = test.merge(forecasts, on=["unique_id", "ds"], validate="1:1")
    return m4.score(both, case.train, cut, ("Naive2", model))[model]["owa"]
