"""Observations move the states of a Forecaster, fill gaps as declared and create new series."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from forecast.config import DataConfig
from forecast.errors import LateValues, MissingSteps
from forecast.forecaster import Forecaster


def test_observing_moves_the_states_and_keeps_the_weights(retail, quick, tmp_path):
    """A loaded forecaster continues from its saved states; a refused batch changes nothing."""
    last = retail.groupby("unique_id").tail(3).index
    forecaster = Forecaster(h=6, config=quick).fit(retail.drop(last))
    before = forecaster.predict()

    forecaster.save(tmp_path / "f")
    loaded = Forecaster.load(tmp_path / "f")
    pd.testing.assert_frame_equal(loaded.predict(level=[80]), forecaster.predict(level=[80]))
    forecaster.observe(retail.loc[last])
    loaded.observe(retail.loc[last])

    after = forecaster.predict()
    assert (after.groupby("unique_id")["ds"].min() > retail["ds"].max()).all()
    assert not np.allclose(after["statecast"], before["statecast"])
    pd.testing.assert_frame_equal(loaded.predict(), after)
    with pytest.raises(LateValues):
        forecaster.observe(retail.loc[last])
    with pytest.raises(MissingSteps):
        forecaster.observe(retail.loc[last].assign(ds=lambda f: f["ds"] + pd.DateOffset(years=1)))
    pd.testing.assert_frame_equal(forecaster.predict(), after)


def test_a_new_series_begins_cold(retail, quick):
    """A series that training has not seen is observed and then forecast beside the others."""
    ids = sorted(retail["unique_id"].unique())
    forecaster = Forecaster(h=6, config=quick).fit(retail[retail["unique_id"] != ids[0]])

    forecaster.observe(retail[retail["unique_id"] == ids[0]])
    frame = forecaster.predict()

    assert sorted(frame["unique_id"].unique()) == ids
    y = retail.loc[retail["unique_id"] == ids[0], "y"].iloc[-12:].mean()
    assert frame.loc[frame["unique_id"] == ids[0], "statecast"].mean() == pytest.approx(y, rel=0.3)


@pytest.mark.parametrize(
    ("kind", "fill"),
    [
        ("auto", "zero"),
        ("count", "zero"),
        ("auto", "forward"),
        ("count", "forward"),
        ("real", "forward"),
        ("auto", "mask"),
        ("count", "mask"),
    ],
)
def test_new_observations_may_begin_with_missing_values(retail, quick, kind, fill):
    """Missing values are filled from the last value of the state, as within one longer table."""
    last = retail.groupby("unique_id").tail(5).index
    lost = retail.loc[last].groupby("unique_id").nth([0, 1, 3]).index
    holes = retail.assign(y=retail["y"].where(~retail.index.isin(lost)))
    config = replace(quick, data=DataConfig(kind=kind, fill=fill))
    forecaster, twin = (Forecaster(h=6, config=config).fit(retail.drop(last)) for _ in range(2))

    forecaster.observe(holes.loc[last])
    filled = {"zero": holes.fillna({"y": 0.0}), "forward": holes.ffill(), "mask": holes}[fill]
    for _, step in filled.loc[last].groupby("ds"):
        twin.observe(step)

    assert forecaster.predict()["ds"].min() > retail["ds"].max()
    pd.testing.assert_frame_equal(forecaster.predict(), twin.predict(), rtol=1e-4)


@pytest.mark.parametrize("fill", ["zero", "forward", "mask"])
def test_missing_steps_before_new_ones_are_filled_as_declared(retail, quick, fill):
    """The forecasts equal those after observing explicit rows for the missing steps."""
    series = retail["unique_id"].unique()[:3]
    frame = retail[retail["unique_id"].isin(series)]
    ahead = frame.groupby("unique_id").tail(4)
    late = ahead[ahead["unique_id"] == series[1]].iloc[:3].index
    config = replace(quick, data=replace(quick.data, fill=fill))
    sparse, whole = (Forecaster(h=6, config=config).fit(frame.drop(ahead.index)) for _ in range(2))
    last = frame[frame["unique_id"] == series[1]]["y"].iloc[-5]
    filled = {"zero": 0.0, "forward": last, "mask": np.nan}[fill]

    sparse.observe(ahead.drop(late))
    whole.observe(ahead.assign(y=ahead["y"].mask(ahead.index.isin(late), filled)))

    pd.testing.assert_frame_equal(sparse.predict(level=[80]), whole.predict(level=[80]))


def test_a_gap_is_refused_if_the_fill_policy_is_refuse(retail, quick):
    """Without a fill policy, observations that leave a gap after the state are an error."""
    forecaster = Forecaster(h=6, config=quick).fit(retail)
    later = retail.groupby("unique_id").tail(1)
    later = later.assign(ds=later["ds"] + pd.DateOffset(months=3))

    with pytest.raises(MissingSteps, match="do not continue after the last step"):
        forecaster.observe(later)


def test_integer_ids_stay_integers_until_a_series_has_a_name(retail, quick):
    """Floats with whole values name the same series as the integers."""
    numbers = {name: i for i, name in enumerate(retail["unique_id"].unique())}
    frame = retail.assign(unique_id=retail["unique_id"].map(numbers))
    history = frame.groupby("unique_id").head(-2)
    forecaster = Forecaster(h=6, config=quick).fit(history)
    before = forecaster.predict()

    forecaster.cross_validation(retail)
    again = forecaster.predict()
    forecaster.observe(frame.drop(history.index).astype({"unique_id": float}))
    moved = forecaster.predict()
    named = forecaster.observe(history[history["unique_id"] == 0].assign(unique_id="12345-B"))

    pd.testing.assert_frame_equal(again, before)
    assert moved["unique_id"].tolist() == before["unique_id"].tolist()
    assert (moved["ds"] > before["ds"]).all()
    assert "12345-B" in named.predict()["unique_id"].tolist()


def test_static_columns_in_the_frame_are_read_when_a_series_is_new(retail, quick):
    """They may be columns of the observations or of a table of their own."""
    config = replace(quick, data=replace(quick.data, static=("shop",)))
    shops = {name: f"shop {i % 2}" for i, name in enumerate(retail["unique_id"].unique())}
    frame = retail.assign(shop=retail["unique_id"].map(shops))
    new = frame[frame["unique_id"] == frame["unique_id"].iloc[0]].assign(unique_id="new")
    codes = []
    for tables in ((new,), (new.drop(columns="shop"), new[["unique_id", "shop"]].head(1))):
        forecaster = Forecaster(h=6, config=config).fit(frame).observe(*tables)
        codes.append(forecaster.states_.static[-1].tolist())

    assert codes[0] == codes[1] == [1.0]
