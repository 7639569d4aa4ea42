"""Diagnostics give the known results for models and data built for the test."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from forecast.config import Config, DataConfig, ModelConfig, TrainConfig
from forecast.data.panel import Panel
from forecast.data.validation import validate
from forecast.diagnostics.attribution import PARTS, attribution
from forecast.diagnostics.carry_gain import (
    CARRIED,
    RESET,
    WINDOWED,
    carry_gain,
    panel_frame,
    reset_before,
    train_both_ways,
)
from forecast.diagnostics.error_tables import error_tables
from forecast.diagnostics.gradients import clipping, gradient_profile, profile, state_gradients
from forecast.diagnostics.memory import memory_profile, series_units
from forecast.errors import ConfigError, TooShort
from forecast.evaluation.backtest import backtest
from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up
from forecast.inference.output import MODEL
from forecast.models.recurrent import RecurrentStack
from forecast.training.progress import TrainEvent
from forecast.training.train import train


def quick(**model: object) -> Config:
    """Return settings for a training run of about a second on `counts`."""
    return Config(
        data=DataConfig(freq="D", kind="count", season_lengths=(7,), known_future=("promo",)),
        model=ModelConfig(hidden_size=8, horizon=4, **model),
        train=TrainConfig(max_steps=30, chunk_length=8),
    )


@pytest.fixture(scope="module")
def counts() -> Panel:
    """Return counts with many zeros, and with a covariate that adds ten."""
    rng = np.random.default_rng(0)
    promo = rng.random(480) < 0.2
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(["a", "b", "c", "d"], 120),
            "ds": np.tile(pd.date_range("2024-01-01", periods=120), 4),
            "promo": promo,
            "y": rng.poisson(0.7, 480) + 10.0 * promo,
        }
    )
    return Panel.from_frame(validate(frame, DataConfig(known_future=("promo",), kind="count")))


@pytest.fixture(scope="module")
def count_bundle(counts):
    """Return a model trained on the counts without their last four steps."""
    return train(counts.head(counts.lengths - 4), quick()).bundle


def test_memory_of_one_lag_is_the_change_of_the_forecast(bundle, panel):
    """A direct change of the value changes the forecast by the number in the table."""
    lag, horizon = 5, 3
    one = panel.take([2])
    memory = memory_profile(bundle, one, horizon=horizon, lags=[lag], num_series=1)

    history = one.head(one.lengths - horizon)
    unit = series_units(history, 12)[0]
    values = history.values.copy()
    values[-1 - lag] += unit
    before, after = (
        forecast(bundle, warm_up(bundle, p), horizon=horizon)[..., 0]
        for p in (history, replace(history, values=values))
    )

    assert memory.table["lag"].tolist() == [0, lag]
    expected = np.abs(after - before).mean() / unit
    assert memory.table["total"].iloc[1] == pytest.approx(expected, rel=1e-5)
    assert memory.num_series == 1


def test_the_reach_of_memory_is_where_the_dependence_stays_small(bundle, panel):
    """The dependence is below 1 % from the reach on, and not just before it."""
    memory = memory_profile(bundle, panel)

    share = memory.table.set_index("lag")["share"]
    assert memory.reach is not None
    assert (share[share.index >= memory.reach] < 0.01).all()
    assert share[share.index < memory.reach].iloc[-1] >= 0.01
    assert share.iloc[0] == 1
    assert (memory.table["network"] > 0).any()


def test_a_network_without_memory_depends_on_the_past_only_through_filters(bundle, panel):
    """With all recurrent weights at 0, nothing reaches the forecast through the state."""
    forgetful = replace(bundle, network=_forgetful(bundle))

    memory = memory_profile(forgetful, panel, lags=[1, 4, 9], num_series=3)

    assert (memory.table["network"] < 1e-7).all()
    assert memory.network_reach == 0
    np.testing.assert_allclose(memory.table["total"], memory.table["filters"], rtol=1e-5)


def test_memory_needs_two_steps_before_the_cutoff(bundle, panel):
    """Series that are only one step longer than the horizon are too short."""
    with pytest.raises(TooShort, match="two steps before its last 6"):
        memory_profile(bundle, panel.head(np.full(panel.num_series, 7)))


def test_gradients_through_time_are_those_of_autograd():
    """The last gradient is that of the loss; an earlier one equals autograd of the fused call."""
    torch.manual_seed(0)
    stack = RecurrentStack("gru", 3, 4, 1, 0.0)
    inputs = torch.randn(2, 5, 3)
    state = stack.initial_state(2)

    hidden, cell = state_gradients(stack, inputs, state, lambda h: 2 * h.sum(1))

    assert hidden.shape == (5, 1)
    assert hidden[0, 0] == pytest.approx(2 * 4**0.5)
    assert not cell.any()
    with torch.no_grad():
        _, middle = stack(inputs[:, :3], state)
    start = middle.hidden.clone().requires_grad_()
    outputs, _ = stack(inputs[:, 3:], replace(middle, hidden=start))
    (expected,) = torch.autograd.grad(2 * outputs[:, -1].sum(), start)
    assert hidden[2, 0] == pytest.approx(expected.norm(dim=-1).mean().item(), rel=1e-5)


@pytest.mark.parametrize(("scale", "flow"), [(0.01, "vanishing"), (6.0, "exploding")])
def test_small_recurrent_weights_vanish_and_large_ones_explode(scale, flow):
    """A ReLU network without negative values multiplies the gradient by its weights."""
    torch.manual_seed(0)
    stack = RecurrentStack("rnn_relu", 3, 4, 1, 0.0)
    with torch.no_grad():
        stack.layers.weight_hh_l0.copy_(scale * torch.eye(4))
        stack.layers.weight_ih_l0.abs_()

    norms = state_gradients(stack, torch.rand(2, 8, 3), stack.initial_state(2), lambda h: h.sum(1))

    assert profile(*norms, chunk_length=8).flow == {1: flow}
    ratio = profile(*norms, chunk_length=8).table["ratio"]
    np.testing.assert_allclose(ratio, scale ** np.arange(8.0), rtol=1e-4)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_gradient_profile_has_a_row_for_each_step_and_layer(counts, cell):
    """It reaches four chunks back; an LSTM has a column for its cell state."""
    config = quick(num_layers=2, cell=cell)
    trained = train(counts, replace(config, train=replace(config.train, max_steps=10))).bundle

    gradients = gradient_profile(trained, counts)

    assert len(gradients.table) == 4 * 8 * 2
    assert gradients.table["back"].max() == 31
    assert set(gradients.flow) == {1, 2}
    assert ("cell" in gradients.table) == (cell == "lstm")
    first = gradients.table[gradients.table["back"] == 0].set_index("layer")
    assert first["hidden"][1] == 0, "the heads read the last layer alone"
    assert first["hidden"][2] > 0


def test_a_gradient_blocked_by_the_shrinkage_is_classified_as_none(bundle, panel):
    """A model that forecasts its best skip alone sends no gradient to the network."""
    shrunk = train(panel, replace(bundle.config, data=replace(bundle.config.data, kind="price")))

    assert gradient_profile(shrunk.bundle, panel).flow == {1: "none"}


def test_a_windowed_model_has_a_memory_of_its_window_and_no_gradient_profile(panel, config):
    """The memory profile reaches the window only, and the gradient profile is refused."""
    stateless = replace(config.train, stateful=False, chunk_length=8)
    windowed = train(panel, replace(config, train=stateless)).bundle

    memory = memory_profile(windowed, panel, lags=[0, 3, 200], num_series=4)

    assert memory.table["network"].iloc[1] > 1e-5
    with pytest.raises(ConfigError, match="reads windows of 8 steps anew"):
        gradient_profile(windowed, panel)


def test_the_share_of_clipped_steps_weights_events_by_their_steps():
    """It counts steps instead of events, also for the last quarter of the run."""

    def event(step: int, clipped: float, norm: float) -> TrainEvent:
        return TrainEvent(
            step=step,
            steps=100,
            epoch=0,
            loss=1.0,
            quantile_loss=1.0,
            grad_norm=norm,
            clipped=clipped,
            epoch_loss=None,
            val_loss=None,
            observations_per_s=1.0,
            seconds=1.0,
        )

    summary = clipping([event(60, 0.5, 3.0), event(80, 0.0, 0.5), event(100, 1.0, 2.0)], limit=1.0)

    assert summary.clipped == pytest.approx(0.6 * 0.5 + 0.2 * 1.0)
    assert summary.clipped_late == pytest.approx(0.5)
    assert summary.max_grad_norm == 3.0


def test_a_reset_clears_the_hidden_state_and_no_filter(bundle, panel):
    """A reset at step 0 changes nothing; a later one changes only the hidden state."""
    carried = warm_up(bundle, panel)

    never = reset_before(bundle, panel, panel.lengths, 0 * panel.lengths)
    late = reset_before(bundle, panel, panel.lengths, panel.lengths - 3)

    np.testing.assert_allclose(never.hidden, carried.hidden, atol=1e-6)
    np.testing.assert_allclose(late.scalars, carried.scalars)
    assert np.abs(late.hidden - carried.hidden).max() > 1e-3


def test_the_carried_column_equals_the_backtest(bundle, panel):
    """Both have the same cutoffs, and the gain compares the two errors."""
    gain = carry_gain(bundle, panel, n_windows=3, step_size=2)

    cv = backtest(bundle, panel, horizon=6, n_windows=3, step_size=2, levels=())
    merged = gain.cv.merge(cv, on=["unique_id", "ds", "cutoff"], validate="1:1")
    np.testing.assert_allclose(merged[CARRIED], merged[MODEL], rtol=1e-5)
    assert (gain.cv[CARRIED] != gain.cv[RESET]).any()
    scores = gain.scores.set_index("way")
    expected = 1 - scores["mase"][CARRIED] / scores["mase"][RESET]
    assert scores["gain"][RESET] == pytest.approx(expected)
    assert scores["gain"][CARRIED] == 0


def test_a_carried_state_gains_nothing_if_a_chunk_holds_the_whole_history(bundle, panel):
    """The reset at the first step of each series has no effect."""
    gain = carry_gain(bundle, panel, n_windows=2, chunk_length=int(panel.lengths.max()))

    assert gain.scores["gain"].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_both_ways_of_training_are_scored_at_the_same_cutoffs(panel, config):
    """The carried column equals a backtest of stateful training; the windowed one differs."""
    gain = train_both_ways(panel, config, n_windows=2)

    known = panel.head(panel.lengths - 12)
    cv = backtest(train(known, config).bundle, panel, horizon=6, n_windows=2, step_size=6)
    assert gain.scores["way"].tolist() == [CARRIED, WINDOWED]
    merged = gain.cv.merge(cv, on=["unique_id", "ds", "cutoff"], validate="1:1")
    np.testing.assert_allclose(merged[CARRIED], merged[MODEL], rtol=1e-5)
    assert (gain.cv[WINDOWED] != gain.cv[CARRIED]).any()


def test_worst_series_and_groups_come_first_with_their_bias(bundle, panel):
    """A series that is forecast a quarter too high comes first, and so does its group."""
    cv = backtest(bundle, panel, horizon=6, n_windows=2, step_size=6, levels=())
    worst = panel.ids[3]
    high = cv["unique_id"] == worst
    cv.loc[high, MODEL] = 1.25 * cv.loc[high, "y"]
    groups = pd.DataFrame(
        {"state": ["north" if name == worst else "south" for name in panel.ids], "code": panel.ids},
        index=panel.ids,
    )

    errors = error_tables(cv, panel_frame(panel, bundle), season_length=12, groups=groups)

    top = errors.by_series.iloc[0]
    assert errors.worst[0] == top["unique_id"] == worst
    assert top["bias"] == pytest.approx(0.25)
    assert errors.by_series["share"].sum() == pytest.approx(1)
    state = errors.by_group[errors.by_group["column"] == "state"]
    assert state["group"].tolist() == ["north", "south"]
    assert state["series"].tolist() == [1, 11]
    assert state["share"].iloc[0] == pytest.approx(top["share"])


def test_a_column_with_many_values_gives_no_groups(bundle, panel):
    """A column with more than fifty values is left out of the table of groups."""
    cv = backtest(bundle, panel, horizon=6, n_windows=1, step_size=6, levels=())
    many = pd.concat([cv.assign(unique_id=cv["unique_id"] + str(i)) for i in range(5)])
    history = panel_frame(panel, bundle)
    history = pd.concat([history.assign(unique_id=history["unique_id"] + str(i)) for i in range(5)])
    names = many["unique_id"].unique()
    groups = pd.DataFrame({"code": names}, index=names)

    errors = error_tables(many, history, season_length=12, groups=groups)

    assert len(errors.by_series) == 60
    assert errors.by_group.empty


def test_parts_add_up_to_the_forecast_on_the_log_scale(bundle, panel):
    """The sum equals the forecast in the unit of `y`, for every series and step."""
    table = attribution(bundle, panel)

    cv = backtest(bundle, panel, horizon=6, n_windows=1, step_size=1, levels=())
    np.testing.assert_allclose(table[MODEL], cv[MODEL])
    np.testing.assert_allclose(table[list(PARTS)].sum(axis=1), table[MODEL])
    assert bundle.spec.filters.space == "log"
    assert table["correction"].abs().max() > 0
    assert (table["skip"] > 0).all()


def test_without_shrinkage_the_guard_part_is_zero(bundle, panel):
    """The other parts then add up to the forecast, up to rounding."""
    network = copy.deepcopy(bundle.network)
    network.point.trust.fill_(1.0)

    parts = attribution(replace(bundle, network=network), panel)

    assert parts["guard"].abs().max() < 1e-4 * parts[MODEL].abs().max()


def test_the_covariate_part_of_counts_follows_the_covariate(count_bundle, counts):
    """The parts add up although effects multiply, and promoted days have a larger effect."""
    table = attribution(count_bundle, counts)

    ahead = counts.indptr[1:, None] - 4 + np.arange(4)
    promo = counts.known_future[ahead].ravel() > 0
    np.testing.assert_allclose(table[list(PARTS)].sum(axis=1), table[MODEL])
    effect = table["covariates"]
    assert effect[promo].mean() > effect[~promo].mean()


def _forgetful(bundle):
    """Return a network whose hidden and cell states are 0 after every step."""
    network = copy.deepcopy(bundle.network)
    with torch.no_grad():
        for weight in network.stack.parameters():
            weight.zero_()
    return network
