"""Scores of a peer's forecasts: those of any model, plus OWA on M4 and WRMSSE on M5."""

from pathlib import Path

import pandas as pd

from benchmarks.accuracy import m4, m5, scoring
from benchmarks.accuracy.cases import Case
from benchmarks.records import find_folder


def score(
    case: Case, table: pd.DataFrame, model: str, data: Path, *, val: bool
) -> dict[str, float]:
    """
    Return every score of a model.

    Args:
        case: The case that was forecast.
        table: The test with the forecasts `model`, `model-lo-80`, ..., `model_ql0.5`, ...
        model: The name of the model in the table.
        data: The folder of the sets, with Naive2 of M4 and the weights of M5.
        val: Whether the case was cut at the horizon before the test.
    """
    values = scoring.score(table, case, [model])[model]
    if case.name.startswith("m4_"):
        return {"owa": owa(case, table, model, data, val=val), **values}
    if case.name == "m5":
        levels = m5.read_levels(find_folder(data, "m5"), m5.read_static(data), m5.dense(case.train))
        return {**m5.score(m5.dense(case.test), m5.dense(table, model), levels), **values}
    return values


def owa(case: Case, table: pd.DataFrame, model: str, data: Path, *, val: bool) -> float:
    """Return the OWA relative to the official Naive2, at the median if the model has one."""
    m4_case = m4.CASES[case.name.removeprefix("m4_")]
    _, test = m4.load(find_folder(data, "m4"), m4_case, val=val)
    median = f"{model}_ql0.5"
    forecasts = table[["unique_id", "ds"]].assign(
        **{model: table[median if median in table.columns else model]}
    )
    scored = test.merge(forecasts, on=["unique_id", "ds"], validate="1:1")
    return m4.score(scored, case.train, m4_case, ("Naive2", model))[model]["owa"]
