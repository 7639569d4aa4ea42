"""Scores of a hierarchy equal their formulas, computed in loops over series and groups."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.accuracy import m5
from forecast.evaluation.hierarchy import (
    Level,
    absolute_scales,
    change_scales,
    group_sums,
    weighted_pinball,
    wrmsse,
)


@pytest.fixture
def rng():
    """Return a random generator with a fixed seed."""
    return np.random.default_rng(0)


def test_wrmsse_equals_its_formula(rng):
    """Errors are summed by group, scaled and weighted."""
    y, forecast = rng.poisson(3.0, (6, 5)).astype(float), rng.gamma(3.0, 1.0, (6, 5))
    codes = np.array([0, 2, 1, 2, 0, 0])
    weights, scales = np.array([0.5, 0.2, 0.3]), np.array([2.0, 1.0, 4.0])

    scores = wrmsse(y, forecast, [Level(codes=codes, weights=weights, scales=scales)])

    expected = 0.0
    for group in range(3):
        error = sum(y[i] - forecast[i] for i in range(6) if codes[i] == group)
        expected += weights[group] * np.sqrt(np.mean(error**2)) / scales[group]
    assert scores[0] == pytest.approx(expected)


def test_errors_of_opposite_sign_cancel_in_the_sum(rng):
    """The total has no error although both of its series have one."""
    y = rng.poisson(3.0, (2, 7)).astype(float)
    forecast = y + np.array([[1.0], [-1.0]])
    total = Level(codes=np.zeros(2, int), weights=np.ones(1), scales=np.ones(1))
    bottom = Level(codes=np.arange(2), weights=np.full(2, 0.5), scales=np.ones(2))

    assert wrmsse(y, forecast, [total, bottom]) == pytest.approx([0.0, 1.0])


def test_a_group_without_a_scale_is_left_out(rng):
    """Its weight goes to the other groups, and the score stays finite."""
    y = rng.poisson(3.0, (2, 7)).astype(float)
    level = Level(codes=np.arange(2), weights=np.full(2, 0.5), scales=np.array([1.0, np.nan]))

    assert wrmsse(y, y + 2.0, [level]) == pytest.approx([2.0])


def test_scales_begin_with_the_first_sale(rng):
    """They equal a loop over the days without the zeros before the first sale."""
    history = rng.poisson(1.0, (5, 40)).astype(float)
    history[1, :25] = history[3] = 0.0

    squared, absolute = change_scales(history), absolute_scales(history)

    for i in (0, 1, 2, 4):
        sales = history[i, np.flatnonzero(history[i])[0] :]
        steps = [sales[t] - sales[t - 1] for t in range(1, len(sales))]
        assert squared[i] == pytest.approx(np.sqrt(np.mean(np.square(steps))))
        assert absolute[i] == pytest.approx(np.mean(np.abs(steps)))
    assert np.isnan(squared[3])
    assert np.isnan(absolute[3])


def test_the_pinball_loss_is_zero_for_an_exact_forecast_and_linear_in_its_error(rng):
    """A forecast of quantile q costs q if it is too low by 1, and 1 - q if too high by 1."""
    y = rng.poisson(3.0, (3, 4)).astype(float)
    options = {"weights": np.array([0.5, 0.3, 0.2]), "scales": np.array([2.0, 2.0, np.nan])}

    assert weighted_pinball(y, y[..., None], [0.9], **options) == 0.0
    assert weighted_pinball(y, y[..., None] - 1, [0.9], **options) == pytest.approx(0.45)
    assert weighted_pinball(y, y[..., None] + 1, [0.9], **options) == pytest.approx(0.05)


@pytest.fixture
def shops(tmp_path, rng):
    """Return a folder of M5 files, static columns and sales of two items in four stores."""
    rows = [
        (f"{item}_{store}", item, item[:-4], "FOODS", store, store[:2])
        for item in ("FOODS_1_001", "FOODS_2_001")
        for store in ("CA_1", "CA_2", "TX_1", "TX_2")
    ]
    keys = ["unique_id", "item_id", "dept_id", "cat_id", "store_id", "state_id"]
    static = pd.DataFrame(rows, columns=keys).assign(weight_l12=np.float32(1 / 8))
    official = []
    for number, names in m5.KEYS.items():
        if number < 12:
            groups = static[list(names)].drop_duplicates().to_numpy() if names else [["Total"]]
            for first, *rest in groups:
                official.append((f"Level{number}", first, rest[0] if rest else "X"))
    table = pd.DataFrame(official, columns=["level_id", "agg_level_1", "agg_level_2"])
    table["weight"] = 1 / table.groupby("level_id")["level_id"].transform("size")
    table["rmsse_scale"] = np.arange(len(table)) + 1.0
    table.to_parquet(tmp_path / "weights_levels.parquet")
    table[table["level_id"].str.len() == 6].to_parquet(tmp_path / "rmsse_scale_levels.parquet")
    return tmp_path, static, rng.poisson(2.0, (8, 60)).astype(float)


def test_levels_are_matched_with_their_weights_and_scales(shops):
    """Levels up to 9 have the official scales; others are scaled by the history."""
    folder, static, history = shops

    levels = m5.read_levels(folder, static, history)

    assert [len(level.weights) for level in levels.values()] == [1, 2, 4, 1, 2, 2, 4, 4, 8, 2, 4, 8]
    assert all(level.weights.sum() == pytest.approx(1.0) for level in levels.values())
    table = pd.read_parquet(folder / "rmsse_scale_levels.parquet")
    row = table.query("level_id == 'Level9' and agg_level_1 == 'TX_1' and agg_level_2 == 'FOODS_2'")
    group = levels[9].codes[static["unique_id"].tolist().index("FOODS_2_001_TX_1")]
    assert levels[9].scales[group] == row["rmsse_scale"].item()
    items = group_sums(history, levels[10].codes, 2)
    assert levels[10].scales == pytest.approx(change_scales(items))


def test_the_benchmark_stops_if_naive_differs_from_its_published_score(shops):
    """A wrong data file or formula is detected before any model is scored."""
    levels = m5.read_levels(*shops)

    with pytest.raises(SystemExit, match="as published"):
        m5.check_published(shops[2], shops[2][:, :28], levels)


def test_m5_baselines_equal_their_definitions():
    """They repeat the last day, the last week, the mean of 28 days, or that of each weekday."""
    history = np.arange(35.0)[None]

    assert m5.baseline("Naive", history, 7).tolist() == [[34.0] * 7]
    assert m5.baseline("SeasonalNaive", history, 14)[0, 7] == 28.0
    assert m5.baseline("Mean28", history, 7)[0, 0] == np.arange(7, 35).mean()
    assert m5.baseline("WeekdayMean", history, 7)[0, 0] == np.mean([7, 14, 21, 28])
