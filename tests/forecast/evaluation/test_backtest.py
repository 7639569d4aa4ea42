"""A backtest in one pass equals separate forecasts from each cutoff."""

from dataclasses import replace

import numpy as np
import pytest

from forecast.data.splits import cutoff_lengths, history
from forecast.errors import TooShort
from forecast.evaluation.backtest import backtest
from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up


def test_one_pass_equals_a_cold_start_at_each_cutoff(bundle, panel):
    """States that are moved on give the same forecasts as a warm-up over the whole history."""
    frame = backtest(bundle, panel, horizon=6, n_windows=4, step_size=3, levels=(80,))

    known = cutoff_lengths(panel, horizon=6, n_windows=4, step_size=3)
    for lengths, (_, part) in zip(known, frame.groupby("cutoff"), strict=True):
        cold = forecast(bundle, warm_up(bundle, panel.head(lengths)), quantiles=(0.1, 0.9))
        columns = part[["statecast", "statecast-lo-80", "statecast-hi-80"]].to_numpy()
        np.testing.assert_allclose(columns, cold.reshape(-1, 3), rtol=1e-5)


def test_values_after_a_cutoff_do_not_reach_its_forecasts(bundle, panel):
    """Noise after the first cutoff changes none of its forecasts."""
    noisy = replace(panel, values=panel.values.copy())
    for end in panel.indptr[1:]:
        noisy.values[end - 12 : end] = 1e9

    before = backtest(bundle, panel, horizon=6, n_windows=3, step_size=3)
    after = backtest(bundle, noisy, horizon=6, n_windows=3, step_size=3)

    first = before["cutoff"] == before["cutoff"].min()
    columns = [name for name in before if name.startswith("statecast")]
    np.testing.assert_array_equal(
        before.loc[first, columns].to_numpy(), after.loc[first, columns].to_numpy()
    )


def test_targets_and_cutoffs_are_those_of_the_data(bundle, panel, retail):
    """`y` is the value at its stamp, and the cutoff is 1 to `h` months before it."""
    frame = backtest(bundle, panel, horizon=6, n_windows=2, step_size=1)

    merged = frame.merge(retail, on=["unique_id", "ds"], suffixes=("", "_true"))
    months = (frame["ds"].dt.year - frame["cutoff"].dt.year) * 12 + (
        frame["ds"].dt.month - frame["cutoff"].dt.month
    )

    assert len(merged) == len(frame) == 2 * 6 * panel.num_series
    np.testing.assert_array_equal(merged["y"], merged["y_true"])
    assert months.tolist() == list(range(1, 7)) * (2 * panel.num_series)


def test_training_sees_exactly_what_precedes_the_first_cutoff(panel):
    """Three windows of six steps, two apart, hold out ten steps of every series."""
    seen = history(panel, horizon=6, n_windows=3, step_size=2)

    np.testing.assert_array_equal(panel.lengths - seen.lengths, 10)


def test_more_windows_than_the_history_holds_are_refused(panel):
    """The error counts the series that are too short."""
    with pytest.raises(TooShort, match="12 of 12 series have nothing before"):
        cutoff_lengths(panel, horizon=6, n_windows=500, step_size=1)
