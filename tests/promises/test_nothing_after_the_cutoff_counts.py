"""Promise 5: nothing after the cutoff can change a forecast."""

from dataclasses import replace

import pytest

from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up


@pytest.mark.parametrize("noise", [0.0, 1e9])
def test_nothing_after_the_cutoff_changes_a_forecast(bundle, panel, noise):
    """Noise or missing values after the cutoff give the same bytes."""
    cut = panel.lengths - 12
    changed = replace(panel, values=panel.values.copy(), observed=panel.observed.copy())
    for begin, end in zip(panel.indptr[:-1] + cut, panel.indptr[1:], strict=True):
        changed.values[begin:end] = noise
        changed.observed[begin:end] = noise != 0

    before = forecast(bundle, warm_up(bundle, panel.head(cut)), quantiles=(0.1, 0.9))
    after = forecast(bundle, warm_up(bundle, changed.head(cut)), quantiles=(0.1, 0.9))

    assert before.tobytes() == after.tobytes()
