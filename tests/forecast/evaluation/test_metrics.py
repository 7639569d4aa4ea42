"""Every score equals a slow loop that transcribes its formula, and leaves nothing out unsaid."""

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
    """The first series of the bundled retail data, as a long frame."""
    frame = pd.read_parquet(RETAIL)[["unique_id", "ds", "y"]]
    return frame[frame["unique_id"].isin(sorted(frame["unique_id"].unique())[:num_series])]


def backtest(frame: pd.DataFrame, *, n_windows: int, step_size: int = 4) -> pd.DataFrame:
    """Last value and a shrunk last value as models `flat` and `low`, with crude intervals."""
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
    """All scores of one window, a loop and a formula each."""
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
    """Per series the mean over its cutoffs of `slow_scores`."""
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
    """Vectorised over series and cutoffs, the scores are those of the plain formulas."""
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


def test_steps_without_a_value_count_for_nothing():
    """NaN in `y`, in the test part and in the history, leaves both out of every mean."""
    frame = retail(3).reset_index(drop=True)
    cv = backtest(frame, n_windows=2)
    cv.loc[::5, "y"] = np.nan
    frame.loc[::7, "y"] = np.nan

    fast = metrics.by_series(cv, frame, season_length=12, levels=(80, 95))

    fast = fast.set_index(["model", "unique_id", "metric"])["value"].sort_index()
    for name, expected in slow_evaluate(cv, frame, "flat", 12).items():
        assert fast["flat", name].to_dict() == pytest.approx(expected, rel=1e-9)


def test_the_table_is_the_mean_over_series():
    """`evaluate` averages `by_series` with equal weight on every series."""
    frame = retail()
    cv = backtest(frame, n_windows=2)

    total = metrics.evaluate(cv, frame, season_length=12, levels=(80, 95))

    each = metrics.by_series(cv, frame, season_length=12, levels=(80, 95))
    means = each.groupby(["metric", "model"])["value"].mean()
    actual = total.set_index(["metric", "model"])["value"]
    pd.testing.assert_series_equal(actual.sort_index(), means.sort_index())
    assert (total["series"] == 5).all()
    assert (total["excluded"] == 0).all()


def test_scores_by_horizon_average_to_the_whole():
    """The means of MASE, sMAPE, coverage and MSIS over the steps ahead are those of `evaluate`."""
    frame = retail()
    cv = backtest(frame, n_windows=2)

    steps = metrics.by_horizon(cv, frame, season_length=12, levels=(80, 95))

    total = metrics.evaluate(cv, frame, season_length=12, levels=(80, 95))
    total = total.set_index(["metric", "model"])["value"]
    assert sorted(steps["horizon"].unique()) == list(range(1, HORIZON + 1))
    means = steps.groupby(["metric", "model"])["value"].mean()
    for metric in ("mase", "smape", "coverage_80", "coverage_95", "msis"):
        assert means[metric].to_dict() == pytest.approx(total[metric].to_dict())


def test_scores_at_one_step_are_those_of_that_step_alone():
    """Step 2 of `by_horizon` is what the rows two steps after each cutoff give."""
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


def test_a_constant_history_is_left_out_of_scaled_scores_and_counted():
    """A series that repeats itself has no scale: no infinite mean, and the table says so."""
    frame = retail(3)
    first = frame["unique_id"].iloc[0]
    cv = backtest(frame, n_windows=1)
    frame.loc[frame["unique_id"] == first, "y"] = 7.0

    total = metrics.evaluate(cv, frame, season_length=12, levels=(95,)).set_index("metric")

    each = metrics.by_series(cv, frame, season_length=12, models=["flat"])
    scaled = each[each["metric"] == "mase"].set_index("unique_id")["value"]
    assert np.isnan(scaled[first])
    assert total.loc["mase", "excluded"].tolist() == [1, 1]
    assert total.loc["msis", "excluded"].tolist() == [1, 1]
    assert total.loc["smape", "excluded"].tolist() == [0, 0]
    assert np.isfinite(total.loc["mase", "value"]).all()


def test_a_series_without_history_is_left_out_and_counted():
    """A new series can be scored by sMAPE but not by MASE."""
    frame = retail(2)
    cv = backtest(frame, n_windows=1)
    known = frame[frame["unique_id"] != frame["unique_id"].iloc[0]]

    total = metrics.evaluate(cv, known, season_length=12).set_index("metric")

    assert total.loc["mase", "excluded"].tolist() == [1, 1]
    assert total.loc["smape", "series"].tolist() == [2, 2]


def test_series_are_the_same_as_numbers_and_as_text():
    """The backtest may name them one way and the history the other."""
    frame = retail(2)
    numbers = dict(zip(frame["unique_id"].unique(), (7, 8), strict=True))
    frame["unique_id"] = frame["unique_id"].map(numbers)
    cv = backtest(frame, n_windows=1)
    as_text = frame.assign(unique_id=frame["unique_id"].astype(str))

    told = [metrics.mase(cv, ["flat"], history, season_length=12) for history in (frame, as_text)]

    pd.testing.assert_frame_equal(*told)
    assert told[1]["flat"].notna().all()


def test_nothing_after_the_cutoff_reaches_a_score():
    """Noise in the history after every cutoff changes no scaled score."""
    frame = retail()
    cv = backtest(frame, n_windows=1)
    later = frame["ds"] > frame["unique_id"].map(cv.groupby("unique_id")["cutoff"].min())

    before = metrics.evaluate(cv, frame, season_length=12, levels=(95,))
    frame.loc[later, "y"] = 1e9
    after = metrics.evaluate(cv, frame, season_length=12, levels=(95,))

    pd.testing.assert_frame_equal(before, after)


def test_without_cutoffs_the_history_ends_before_the_first_step():
    """A table of one window a series needs no `cutoff` column."""
    frame = retail()
    cv = backtest(frame, n_windows=1)

    expected = metrics.evaluate(cv, frame, season_length=12, levels=(80, 95))
    actual = metrics.evaluate(cv.drop(columns="cutoff"), frame, season_length=12, levels=(80, 95))

    pd.testing.assert_frame_equal(actual, expected)


def test_single_scores_agree_with_the_table():
    """`mase`, `msis`, `smape`, `wape`, `rmse`, `coverage` of each window are those of the table."""
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
    """OWA compares means over series, and the reference with itself gives 1."""
    frame = retail()
    cv = backtest(frame, n_windows=2).rename(columns={"flat": "Naive2"})

    total = metrics.evaluate(cv, frame, season_length=12, models=["Naive2", "low"])

    value = total.set_index(["metric", "model"])["value"]
    relative = [value[m, "low"] / value[m, "Naive2"] for m in ("smape", "mase")]
    assert value["owa", "Naive2"] == pytest.approx(1.0)
    assert value["owa", "low"] == pytest.approx(sum(relative) / 2)


def test_there_is_no_owa_without_its_reference():
    """Without Naive2 among the models the table holds no `owa`."""
    frame = retail(2)

    total = metrics.evaluate(backtest(frame, n_windows=1), frame, season_length=12)

    assert "owa" not in set(total["metric"])


def test_a_model_without_intervals_has_no_interval_scores():
    """Coverage is given for the models that forecast intervals, and only those."""
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
    """Whatever is forecast, M4's sMAPE lies between 0 and 200, two zeros included."""
    cv = pd.DataFrame({"unique_id": "a", "ds": range(len(y)), "y": y, "flat": f})

    score = float(metrics.smape(cv, ["flat"])["flat"].iloc[0])

    assert 0 <= score <= 200 + 1e-9


@pytest.mark.parametrize("column", ["flat", "flat-hi-80"])
def test_a_forecast_that_is_no_number_is_refused(column):
    """A NaN forecast is an error that names model, series and step, not a better average."""
    frame = retail(2)
    cv = backtest(frame, n_windows=1)
    cv.loc[3, column] = np.nan

    with pytest.raises(MissingValues) as caught:
        metrics.evaluate(cv, frame, season_length=12, levels=(80,))

    assert f"1 of 12 forecasts of {column!r}" in str(caught.value)
    assert repr(cv.loc[3, "unique_id"]) in caught.value.where


def test_an_unknown_model_is_refused_with_what_there_is():
    """A model that was not forecast is named beside the columns that are there."""
    frame = retail(2)

    with pytest.raises(MissingColumns, match=r"'high' is not in the table .*'flat', 'low'"):
        metrics.evaluate(backtest(frame, n_windows=1), frame, season_length=12, models=["high"])


def test_integer_steps_are_scored_like_dates():
    """Positions instead of stamps give the same scores."""
    frame = retail()
    cv = backtest(frame, n_windows=2)
    stamps = np.sort(frame["ds"].unique())

    expected = metrics.evaluate(cv, frame, season_length=12, levels=(95,))
    for table in (frame, cv):
        table["ds"] = np.searchsorted(stamps, table["ds"])
    cv["cutoff"] = np.searchsorted(stamps, cv["cutoff"])
    actual = metrics.evaluate(cv, frame, season_length=12, levels=(95,))

    pd.testing.assert_frame_equal(actual, expected)
