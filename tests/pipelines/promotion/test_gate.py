"""The gate decides whether a model may go into service, and gives the reason."""

import math
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from forecast.config import Kind
from pipelines.promotion.gate import METRICS, NOISE, incomparable, judge

scores = st.floats(0.01, 10)


def test_first_model_must_only_beat_the_seasonal_naive():
    """Without a champion, a better score than the seasonal naive is enough."""
    verdict = judge(0.8, seasonal_naive=1.0, champion=None)

    assert verdict.promote
    assert verdict.reason == "no champion to beat; 20.0% below the seasonal naive (MASE 0.800)"


def test_model_no_better_than_the_seasonal_naive_is_refused():
    """A model that does not beat the seasonal naive is refused however bad the champion is."""
    verdict = judge(1.0, seasonal_naive=1.0, champion=5.0)

    assert not verdict.promote
    assert "seasonal naive" in verdict.reason


def test_equal_score_does_not_replace_the_champion():
    """The same model trained again is not promoted."""
    verdict = judge(0.8, seasonal_naive=1.0, champion=0.8)

    assert not verdict.promote
    assert verdict.reason == "not better than the champion (MASE 0.800 -> 0.800)"


def test_gain_below_the_required_one_is_refused_with_both_numbers():
    """The reason has the actual and the required gain."""
    verdict = judge(0.80, seasonal_naive=1.0, champion=0.82, min_gain=0.05)

    assert not verdict.promote
    assert "2.4%" in verdict.reason
    assert "5.0%" in verdict.reason


def test_score_that_is_not_finite_is_refused():
    """A model that could not be scored never goes into service."""
    assert not judge(math.nan, seasonal_naive=1.0, champion=None).promote
    assert not judge(math.inf, seasonal_naive=1.0, champion=None).promote


def test_nan_score_of_baseline_or_champion_is_refused():
    """No model is promoted over a score that is NaN."""
    assert not judge(0.5, seasonal_naive=math.nan, champion=None).promote
    assert not judge(0.5, seasonal_naive=1.0, champion=math.nan).promote


def test_champion_that_cannot_be_scored_stays():
    """A champion that cannot be compared is not replaced."""
    verdict = incomparable("it forecasts freq='MS', and the data have 'D'")

    assert not verdict.promote
    assert "freq='MS'" in verdict.reason


@given(scores, scores, scores, st.floats(0, 0.5))
def test_promoted_model_is_better_than_both(challenger, naive, champion, min_gain):
    """For all scores: promotion means below the naive, and below the champion by the gain."""
    verdict = judge(challenger, seasonal_naive=naive, champion=champion, min_gain=min_gain)

    is_better = challenger < naive and challenger < champion
    is_enough = 1 - challenger / champion >= max(min_gain, NOISE)
    assert verdict.promote == (is_better and is_enough)


def test_each_kind_has_the_metric_that_separates_its_models():
    """A price is judged by its intervals, a count by squared error; the reason names the metric."""
    assert [METRICS.get(kind, "mase") for kind in get_args(Kind)[1:]] == [
        "mase",
        "rmse",
        "mase",
        "msis",
        "msis",
    ]

    verdict = judge(7.5, seasonal_naive=9.0, champion=8.0, metric=METRICS["price"])

    assert verdict.promote
    assert "(MSIS 8.000 -> 7.500)" in verdict.reason
