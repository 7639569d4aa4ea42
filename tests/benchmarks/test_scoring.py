"""Scores of forecasts that every model of a benchmark is measured by."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.accuracy.cases import Case
from benchmarks.accuracy.scoring import QUANTILES, quantile_columns, score
from forecast.errors import MissingValues


def scored():
    """A case of three series, one without a scale, with gaps in both parts."""
    rng = np.random.default_rng(0)
    y = rng.gamma(2.0, 5.0, (3, 20))
    y[2, :16] = 4.0
    y[1, 5] = y[0, 17] = np.nan
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(["a", "b", "c"], 20),
            "ds": np.tile(np.arange(20), 3),
            "y": y.ravel(),
        }
    )
    train, test = (frame[keep].reset_index(drop=True) for keep in (frame.ds < 16, frame.ds >= 16))
    made = test[["unique_id", "ds"]].assign(m=rng.gamma(2.0, 5.0, 12))
    for level, width in ((50, 2.0), (80, 4.0), (90, 5.0), (95, 6.0)):
        made[f"m-lo-{level}"], made[f"m-hi-{level}"] = made["m"] - width, made["m"] + width
    made["m_ql0.5"] = made["m"] - 0.5
    case = Case(name="toy", train=train, test=test, freq=1, horizon=4, season_length=2)
    return case, made


def test_scores_are_the_formulas():
    """Absolute errors at the median, squared ones at the point; steps without a value left out."""
    case, made = scored()

    found = score(made, case, ["m"])["m"]

    y, mean = case.test["y"].to_numpy(), made["m"].to_numpy()
    median = made["m_ql0.5"].to_numpy()
    total = np.nansum(np.abs(y))
    assert found["wape"] == pytest.approx(np.nansum(np.abs(y - median)) / total)
    losses = []
    for q in QUANTILES:
        width = {0.5: -0.5, 0.25: 2.0, 0.1: 4.0, 0.05: 5.0, 0.025: 6.0}[round(min(q, 1 - q), 3)]
        f = mean + (width if q >= 0.5 else -width)
        losses.append(np.nansum(np.maximum(q * (y - f), (q - 1) * (y - f))))
    assert found["crps"] == pytest.approx(2 * np.mean(losses) / total)

    absolute, squared = [], []
    for row in (0, 1):
        past = case.train["y"].to_numpy().reshape(3, 16)[row]
        change, part = past[2:] - past[:-2], slice(4 * row, 4 * row + 4)
        scale = np.nanmean(np.abs(change)), np.nanmean(change**2)
        absolute.append(np.nanmean(np.abs(y - median)[part]) / scale[0])
        squared.append(np.sqrt(np.nanmean((y - mean)[part] ** 2) / scale[1]))
    assert found["mase"] == pytest.approx(np.mean(absolute))
    assert found["rmsse"] == pytest.approx(np.mean(squared))


def test_a_model_is_scored_on_every_step_or_not_at_all():
    """A table that leaves steps out is refused, so is one with a step twice."""
    case, made = scored()

    with pytest.raises(MissingValues, match="flatter"):
        score(made.iloc[1:], case, ["m"])
    with pytest.raises(pd.errors.MergeError):
        score(pd.concat([made, made[:1]]), case, ["m"])


def test_a_model_without_quantiles_is_scored_at_its_point():
    """Then the scaled CRPS is the pooled WAPE, and there is no coverage."""
    case, made = scored()

    found = score(made[["unique_id", "ds", "m"]], case, ["m"])["m"]

    assert found["crps"] == pytest.approx(found["wape"])
    assert "coverage_80" not in found
    assert quantile_columns(made, "m")[0.025] == "m-lo-95"
