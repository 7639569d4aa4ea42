"""Scores that every model of a benchmark is measured by."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.accuracy.cases import Case
from benchmarks.accuracy.scoring import QUANTILES, quantile_columns, score
from forecast.errors import MissingValues


@pytest.fixture
def scored():
    """Return a case of three series, one of zero scale, with gaps in both parts, and forecasts."""
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
    forecasts = test[["unique_id", "ds"]].assign(m=rng.gamma(2.0, 5.0, 12))
    for level, width in ((50, 2.0), (80, 4.0), (90, 5.0), (95, 6.0)):
        forecasts[f"m-lo-{level}"], forecasts[f"m-hi-{level}"] = (
            forecasts["m"] - width,
            forecasts["m"] + width,
        )
    forecasts["m_ql0.5"] = forecasts["m"] - 0.5
    case = Case(name="toy", train=train, test=test, freq=1, horizon=4, season_length=2)
    return case, forecasts


def test_scores_equal_their_formulas(scored):
    """Absolute errors use the median, squared ones the mean; missing values are left out."""
    case, forecasts = scored

    scores = score(forecasts, case, ["m"])["m"]

    y, mean = case.test["y"].to_numpy(), forecasts["m"].to_numpy()
    median = forecasts["m_ql0.5"].to_numpy()
    total = np.nansum(np.abs(y))
    assert scores["wape"] == pytest.approx(np.nansum(np.abs(y - median)) / total)
    losses = []
    for q in QUANTILES:
        width = {0.5: -0.5, 0.25: 2.0, 0.1: 4.0, 0.05: 5.0, 0.025: 6.0}[round(min(q, 1 - q), 3)]
        f = mean + (width if q >= 0.5 else -width)
        losses.append(np.nansum(np.maximum(q * (y - f), (q - 1) * (y - f))))
    assert scores["crps"] == pytest.approx(2 * np.mean(losses) / total)

    absolute, squared = [], []
    for row in (0, 1):
        past = case.train["y"].to_numpy().reshape(3, 16)[row]
        change, part = past[2:] - past[:-2], slice(4 * row, 4 * row + 4)
        scale = np.nanmean(np.abs(change)), np.nanmean(change**2)
        absolute.append(np.nanmean(np.abs(y - median)[part]) / scale[0])
        squared.append(np.sqrt(np.nanmean((y - mean)[part] ** 2) / scale[1]))
    assert scores["mase"] == pytest.approx(np.mean(absolute))
    assert scores["rmsse"] == pytest.approx(np.mean(squared))


def test_incomplete_and_duplicate_forecasts_are_refused(scored):
    """A model needs exactly one forecast for every step of the test."""
    case, forecasts = scored

    with pytest.raises(MissingValues, match="flatter"):
        score(forecasts.iloc[1:], case, ["m"])
    with pytest.raises(pd.errors.MergeError):
        score(pd.concat([forecasts, forecasts[:1]]), case, ["m"])


def test_model_without_quantiles_is_scored_at_its_point_forecast(scored):
    """The scaled CRPS is then the pooled WAPE, and there is no coverage."""
    case, forecasts = scored

    scores = score(forecasts[["unique_id", "ds", "m"]], case, ["m"])["m"]

    assert scores["crps"] == pytest.approx(scores["wape"])
    assert "coverage_80" not in scores
    assert quantile_columns(forecasts, "m")[0.025] == "m-lo-95"
