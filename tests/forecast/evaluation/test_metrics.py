"""Every score equals its formula in a slow loop, and excluded series are counted."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast.errors import MissingColumns, MissingValues
from forecast.evaluation import metrics

RETAIL = "examples/data/monthly_retail.parquet"
HORIZON = 6


def retail(num_series: int = 5) -> pd.DataFrame:
    """Return the first series of the bundled retail data as a long frame."""
    frame = pd.read_parquet(RETAIL)[["unique_id", "ds", "y"]]
    return frame[frame["unique_id"].isin(sorted(frame["unique_id"].unique())[:num_series])]


def backtest(frame: pd.DataFrame, *, n_windows: int, step_size: int = 4) -> pd.DataFrame:
    """Forecast the last value (`flat`) and 90 % of it (`low`), with crude intervals."""
    rows = []
    for name, series in frame.groupby("unique_id"):
        stamps, y = series["ds"].to_numpy(), series["y"].to_numpy(np.float64)
        for window in range(n_windows):
            cut = len(y) - HORIZON - step_size * window
            rows += [
                {
                    "unique_id": name,
                    "ds": stamps[cut + step],
                    "cutoff": stamps[cut - 1],
                    "y": y[cut + step],
                    "flat": y[cut - 1],
                    "low": 0.9 * y[cut - 1],
                }
                for step in range(HORIZON)
            ]
    cv = pd.DataFrame(rows)
    for model, width in (("flat", 0.05), ("low", 0.2)):
        for level, factor in ((80, 1.0), (95, 1.7)):
            cv[f"{model}-lo-{level}"] = cv[model] * (1 - width * factor)
            cv[f"{model}-hi-{level}"] = cv[model] * (1 + width * factor)
    return cv


def slow_scores(window: pd.DataFrame, known: list[float], model: str, m: int) -> dict[str, float]:
    """Compute all scores of one window by their formulas, in loops."""
    steps = [row for row in window.to_dict("records") if not np.isnan(row["y"])]
    h = len(steps)
    changes = [abs(known[t] - known[t - m]) for t in range(m, len(known))]
    changes = [change for change in changes if not np.isnan(change)]
    scale = sum(changes) / len(changes) if sum(changes) > 0 else float("nan")
    score = {"mase": 0.0, "smape": 0.0, "rmse": 0.0, "msis": 0.0}
    score |= {"coverage_80": 0.0, "coverage_95": 0.0}
    for row in steps:
        y, f = row["y"], row[model]
        score["mase"] += abs(y - f) / scale / h
        score["smape"] += 200 * abs(y - f) / (abs(y) + abs(f)) / h
        score["rmse"] += (y - f) ** 2 / h
        for level in (80, 95):
            lo, hi = row[f"{model}-lo-{level}"], row[f"{model}-hi-{level}"]
            score[f"coverage_{level}"] += (1 if lo <= y <= hi else 0) / h
        missed = (lo - y if y < lo else 0.0) + (y - hi if y > hi else 0.0)
        score["msis"] += (hi - lo + 2 / 0.05 * missed) / scale / h
    score["rmse"] = score["rmse"] ** 0.5
    wrong = sum(abs(row["y"] - row[model]) for row in steps)
    score["wape"] = wrong / sum(abs(row["y"]) for row in steps)
    return score


def slow_evaluate(
    cv: pd.DataFrame, history: pd.DataFrame, model: str, m: int
) -> dict[str, dict[str, float]]:
    """Average `slow_scores` over the cutoffs of each series."""
    scores: dict[str, dict[str, float]] = {}
    for name, series in cv.groupby("unique_id"):
        windows = []
        for cutoff, window in series.groupby("cutoff"):
            past = history[(history["unique_id"] == name) & (history["ds"] <= cutoff)]
            windows.append(slow_scores(window, past.sort_values("ds")["y"].tolist(), model, m))
        scores[str(name)] = pd.DataFrame(windows).mean().to_dict()
    return scores


@pytest.mark.parametrize("season_length", [1, 12])
def test_every_score_equals_its_formula_in_a_loop(season_length):
    """The order of rows does not matter."""
    frame = retail()
    cv = backtest(frame, n_windows=3)
    shuffled = frame.sample(frac=1.0, random_state=0)

    fast = metrics.by_series(
        cv.sample(frac=1.0, random_state=1), shuffled, season_length=season_length, levels=(80, 95)
    )

    fast = fast.set_index(["model", "unique_id", "metric"])["value"].sort_index()
    for model in ("flat", "low"):
        for name, expected in slow_evaluate(cv, frame, model, season_length).items():
            actual = fast[model, name].to_dict()
            assert actual == pytest.approx(expected, rel=1e-9)


def test_steps_without_a_value_are_left_out():
    """NaN in the `y` of the backtest or of the history enters no mean."""
    frame = retail(3).reset_index(drop=True)
    cv = backtest(frame, n_windows=2)
    cv.loc[::5, "y"] = np.nan
    frame.loc[::7, "y"] = np.nan

    fast = metrics.by_series(cv, frame, season_length=12, levels=(80, 95))

    fast = fast.set_index(["model", "unique_id", "metric"])["value"].sort_index()
    for name, expected in slow_evaluate(cv, frame, "flat", 12).items():
        assert fast["flat", name].to_dict() == pytest.approx(expected, rel=1e-9)


def test_evaluate_averages_over_series():
    """`evaluate` is the mean of `by_series` with equal weights."""
    frame = retail()
    cv = backtest(frame, n_windows=2)

    total = metrics.evaluate(cv, frame, season_length=12, levels=(80, 95))

    scores = metrics.by_series(cv, frame, season_length=12, levels=(80, 95))
    means = scores.groupby(["metric", "model"])["value"].mean()
    actual = total.set_index(["metric", "model"])["value"]
    pd.testing.assert_series_equal(actual.sort_index(), means.sort_index())
    assert (total["series"] == 5).all()
    assert (total["excluded"] == 0).all()


def test_scores_by_horizon_average_to_the_total():
    """Means over the steps ahead equal `evaluate` for all metrics that are not pooled."""
    frame = retail()
    cv = backtest(frame, n_windows=2)

    steps = metrics.by_horizon(cv, frame, season_length=12, levels=(80, 95))

    total = metrics.evaluate(cv, frame, season_length=12, levels=(80, 95))
    total = total.set_index(["metric", "model"])["value"]
    assert sorted(steps["horizon"].unique()) == list(range(1, HORIZON + 1))
    means = steps.groupby(["metric", "model"])["value"].mean()
    for metric in ("mase", "smape", "coverage_80", "coverage_95", "msis"):
        assert means[metric].to_dict() == pytest.approx(total[metric].to_dict())


def test_scores_at_one_horizon_use_only_that_step():
    """Step 2 of `by_horizon` equals the scores of the rows two steps after each cutoff."""
    frame = retail()
    cv = backtest(frame, n_windows=2)
    second = cv[cv.groupby(["unique_id", "cutoff"]).cumcount() == 1]

    steps = metrics.by_horizon(cv, frame, season_length=12, models=["low"])

    steps = steps[steps["horizon"] == 2].set_index("metric")["value"]
    wrong = (second["y"] - second["low"]).abs()
    assert steps["rmse"] == pytest.approx(np.sqrt((wrong**2).mean()))
    assert steps["wape"] == pytest.approx(wrong.sum() / second["y"].sum())
    total = metrics.evaluate(second, frame, season_length=12, models=["low"])
    assert steps["mase"] == pytest.approx(total.set_index("metric").loc["mase", "value"])


def test_a_constant_history_is_excluded_from_scaled_scores():
    """A constant series has no scale; `excluded` counts it, and means stay finite."""
    frame = retail(3)
    first = frame["unique_id"].iloc[0]
    cv = backtest(frame, n_windows=1)
    frame.loc[frame["unique_id"] == first, "y"] = 7.0

    total = metrics.evaluate(cv, frame, season_length=12, levels=(95,)).set_index("metric")

    scores = metrics.by_series(cv, frame, season_length=12, models=["flat"])
    scaled = scores[scores["metric"] == "mase"].set_index("unique_id")["value"]
    assert np.isnan(scaled[first])
    assert total.loc["mase", "excluded"].tolist() == [1, 1]
    assert total.loc["msis", "excluded"].tolist() == [1, 1]
    assert total.loc["smape", "excluded"].tolist() == [0, 0]
    assert np.isfinite(total.loc["mase", "value"]).all()


def test_a_series_without_history_is_excluded_from_scaled_scores():
    """It has an sMAPE but no MASE, and `excluded` counts it."""
    frame = retail(2)
    cv = backtest(frame, n_windows=1)
    known = frame[frame["unique_id"] != frame["unique_id"].iloc[0]]

    total = metrics.evaluate(cv, known, season_length=12).set_index("metric")

    assert total.loc["mase", "excluded"].tolist() == [1, 1]
    assert total.loc["smape", "series"].tolist() == [2, 2]


def test_integer_ids_match_ids_that_are_text():
    """The backtest may name series by integers and the history by text."""
    frame = retail(2)
    numbers = dict(zip(frame["unique_id"].unique(), (7, 8), strict=True))
    frame["unique_id"] = frame["unique_id"].map(numbers)
    cv = backtest(frame, n_windows=1)
    as_text = frame.assign(unique_id=frame["unique_id"].astype(str))

    scores = [metrics.mase(cv, ["flat"], history, season_length=12) for history in (frame, as_text)]

    pd.testing.assert_frame_equal(*scores)
    assert scores[1]["flat"].notna().all()


def test_history_after_the_cutoff_changes_no_score():
    """Noise in the history after every cutoff leaves scaled scores unchanged."""
    frame = retail()
    cv = backtest(frame, n_windows=1)
    later = frame["ds"] > frame["unique_id"].map(cv.groupby("unique_id")["cutoff"].min())

    before = metrics.evaluate(cv, frame, season_length=12, levels=(95,))
    frame.loc[later, "y"] = 1e9
    after = metrics.evaluate(cv, frame, season_length=12, levels=(95,))

    pd.testing.assert_frame_equal(before, after)


def test_without_cutoffs_the_history_ends_before_the_first_step():
    """A table with one window for each series needs no column `cutoff`."""
    frame = retail()
    cv = backtest(frame, n_windows=1)

    expected = metrics.evaluate(cv, frame, season_length=12, levels=(80, 95))
    actual = metrics.evaluate(cv.drop(columns="cutoff"), frame, season_length=12, levels=(80, 95))

    pd.testing.assert_frame_equal(actual, expected)


def test_single_scores_agree_with_evaluate():
    """The means over windows of each score function are the values of `evaluate`."""
    frame = retail()
    cv = backtest(frame, n_windows=1)

    total = metrics.evaluate(cv, frame, season_length=12, levels=(80, 95))

    total = total.set_index(["metric", "model"])["value"]
    models = ["flat", "low"]
    single = {
        "mase": metrics.mase(cv, models, frame, season_length=12),
        "msis": metrics.msis(cv, models, frame, season_length=12),
        "smape": metrics.smape(cv, models),
        "wape": metrics.wape(cv, models),
        "rmse": metrics.rmse(cv, models),
        "coverage_80": metrics.coverage(cv, models, level=80),
    }
    for metric, scores in single.items():
        assert set(scores["unique_id"]) == set(cv["unique_id"])
        assert scores[models].mean().to_dict() == pytest.approx(total[metric].to_dict())


def test_owa_of_the_reference_is_one():
    """OWA averages the ratios of the mean sMAPE and MASE to those of Naive2."""
    frame = retail()
    cv = backtest(frame, n_windows=2).rename(columns={"flat": "Naive2"})

    total = metrics.evaluate(cv, frame, season_length=12, models=["Naive2", "low"])

    value = total.set_index(["metric", "model"])["value"]
    relative = [value[m, "low"] / value[m, "Naive2"] for m in ("smape", "mase")]
    assert value["owa", "Naive2"] == pytest.approx(1.0)
    assert value["owa", "low"] == pytest.approx(sum(relative) / 2)


def test_there_is_no_owa_without_its_reference():
    """Without Naive2 among the models, the table has no row `owa`."""
    frame = retail(2)

    total = metrics.evaluate(backtest(frame, n_windows=1), frame, season_length=12)

    assert "owa" not in set(total["metric"])


def test_a_model_without_intervals_has_no_interval_scores():
    """Only models with both ends of an interval get coverage and MSIS."""
    frame = retail(2)
    cv = backtest(frame, n_windows=1).drop(columns=["low-lo-80", "low-hi-95"])

    total = metrics.evaluate(cv, frame, season_length=12, models=["flat", "low"], levels=(80, 95))

    scored = total[total["metric"].isin(["coverage_80", "coverage_95", "msis"])]
    assert set(scored["model"]) == {"flat"}


@given(
    y=st.lists(st.floats(0, 1e6), min_size=1, max_size=8),
    f=st.floats(0, 1e6),
)
def test_smape_stays_within_its_range(y, f):
    """M4's sMAPE of any forecast lies between 0 and 200, also where both values are 0."""
    cv = pd.DataFrame({"unique_id": "a", "ds": range(len(y)), "y": y, "flat": f})

    score = float(metrics.smape(cv, ["flat"])["flat"].iloc[0])

    assert 0 <= score <= 200 + 1e-9


@pytest.mark.parametrize("column", ["flat", "flat-hi-80"])
def test_a_forecast_that_is_nan_is_refused(column):
    """The error names model, series and step; dropping the row would favour the model."""
    frame = retail(2)
    cv = backtest(frame, n_windows=1)
    cv.loc[3, column] = np.nan

    with pytest.raises(MissingValues) as caught:
        metrics.evaluate(cv, frame, season_length=12, levels=(80,))

    assert f"1 of 12 forecasts of {column!r}" in str(caught.value)
    assert repr(cv.loc[3, "unique_id"]) in caught.value.where


def test_an_unknown_model_is_refused():
    """The error names the missing model and lists the columns of the table."""
    frame = retail(2)

    with pytest.raises(MissingColumns, match=r"'high' is not in the table .*'flat', 'low'"):
        metrics.evaluate(backtest(frame, n_windows=1), frame, season_length=12, models=["high"])


def test_integer_steps_are_scored_like_dates():
    """Integer positions in place of stamps give the same scores."""
    frame = retail()
    cv = backtest(frame, n_windows=2)
    stamps = np.sort(frame["ds"].unique())

    expected = metrics.evaluate(cv, frame, season_length=12, levels=(95,))
    for table in (frame, cv):
        table["ds"] = np.searchsorted(stamps, table["ds"])
    cv["cutoff"] = np.searchsorted(stamps, cv["cutoff"])
    actual = metrics.evaluate(cv, frame, season_length=12, levels=(95,))

    pd.testing.assert_frame_equal(actual, expected)
