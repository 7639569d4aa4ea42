"""Diagnostics: each table says what is true of a model whose truth is known."""

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
    """A recipe of a second for the counts."""
    return Config(
        data=DataConfig(freq="D", kind="count", season_lengths=(7,), known_future=("promo",)),
        model=ModelConfig(hidden_size=8, horizon=4, **model),
        train=TrainConfig(max_steps=30, chunk_length=8),
    )


@pytest.fixture(scope="module")
def counts() -> Panel:
    """Counts with many zeros, with a covariate that adds ten."""
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
def counted(counts):
    """A model of them."""
    return train(counts.head(counts.lengths - 4), quick()).bundle


def test_memory_of_one_lag_is_the_change_of_the_forecast(bundle, panel):
    """The table's number is what one gets by changing the value by hand."""
    lag, horizon = 5, 3
    one = panel.take([2])
    found = memory_profile(bundle, one, horizon=horizon, lags=[lag], num_series=1)

    history = one.head(one.lengths - horizon)
    unit = series_units(history, 12)[0]
    values = history.values.copy()
    values[-1 - lag] += unit
    before, after = (
        forecast(bundle, warm_up(bundle, p), horizon=horizon)[..., 0]
        for p in (history, replace(history, values=values))
    )

    assert found.table["lag"].tolist() == [0, lag]
    by_hand = np.abs(after - before).mean() / unit
    assert found.table["total"].iloc[1] == pytest.approx(by_hand, rel=1e-5)
    assert found.num_series == 1


def test_memory_fades_and_its_reach_is_where_it_stays_small(bundle, panel):
    """Before the reach the dependence is 1 % or more, from it on less."""
    found = memory_profile(bundle, panel)

    share = found.table.set_index("lag")["share"]
    assert found.reach is not None
    assert (share[share.index >= found.reach] < 0.01).all()
    assert share[share.index < found.reach].iloc[-1] >= 0.01
    assert share.iloc[0] == 1
    assert (found.table["network"] > 0).any()


def test_a_network_without_memory_depends_through_the_filters_alone(bundle, panel):
    """With recurrent and state weights at 0 nothing reaches the forecast through the state."""
    forgetful = replace(bundle, network=_forgetful(bundle))

    found = memory_profile(forgetful, panel, lags=[1, 4, 9], num_series=3)

    assert (found.table["network"] < 1e-7).all()
    assert found.network_reach == 0
    np.testing.assert_allclose(found.table["total"], found.table["filters"], rtol=1e-5)


def test_memory_needs_two_steps_before_the_cutoff(bundle, panel):
    """Series as long as the horizon tell nothing."""
    with pytest.raises(TooShort, match="two steps before its last 6"):
        memory_profile(bundle, panel.head(np.full(panel.num_series, 7)))


def test_gradients_through_time_are_those_of_autograd():
    """The last state's gradient is the loss's own; an earlier one agrees with differences."""
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
def test_recurrent_weights_too_small_or_large_are_named(scale, flow):
    """A linear-looking relu network multiplies the gradient by its weights at each step."""
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
def test_gradient_profile_has_a_row_a_step_and_layer(counts, cell):
    """Four chunks back, for each layer; an LSTM's cell beside its hidden state."""
    config = quick(num_layers=2, cell=cell)
    trained = train(counts, replace(config, train=replace(config.train, max_steps=10))).bundle

    found = gradient_profile(trained, counts)

    assert len(found.table) == 4 * 8 * 2
    assert found.table["back"].max() == 31
    assert set(found.flow) == {1, 2}
    assert ("cell" in found.table) == (cell == "lstm")
    first = found.table[found.table["back"] == 0].set_index("layer")
    assert first["hidden"][1] == 0, "the heads read the last layer alone"
    assert first["hidden"][2] > 0


def test_gradient_that_the_guard_keeps_out_is_called_none(bundle, panel):
    """A model that trusts its anchor alone sends nothing to the network."""
    guarded = train(panel, replace(bundle.config, data=replace(bundle.config.data, kind="price")))

    assert gradient_profile(guarded.bundle, panel).flow == {1: "none"}


def test_a_model_of_windows_remembers_its_window_and_has_no_gradient_through_time(panel, config):
    """The network forgets what lies before its window; the profile of gradients is refused."""
    stateless = replace(config.train, stateful=False, chunk_length=8)
    windowed = train(panel, replace(config, train=stateless)).bundle

    found = memory_profile(windowed, panel, lags=[0, 3, 200], num_series=4)

    assert found.table["network"].iloc[1] > 1e-5
    with pytest.raises(ConfigError, match="reads windows of 8 steps anew"):
        gradient_profile(windowed, panel)


def test_clipping_weighs_reports_by_their_steps():
    """The share is of steps, not of reports; the last quarter is told apart."""

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

    found = clipping([event(60, 0.5, 3.0), event(80, 0.0, 0.5), event(100, 1.0, 2.0)], limit=1.0)

    assert found.clipped == pytest.approx(0.6 * 0.5 + 0.2 * 1.0)
    assert found.clipped_late == pytest.approx(0.5)
    assert found.max_grad_norm == 3.0


def test_reset_state_remembers_the_last_chunk_alone(bundle, panel):
    """Dropping the state at step 0 changes nothing; later it changes the hidden state only."""
    whole = warm_up(bundle, panel)

    never = reset_before(bundle, panel, panel.lengths, 0 * panel.lengths)
    late = reset_before(bundle, panel, panel.lengths, panel.lengths - 3)

    np.testing.assert_allclose(never.hidden, whole.hidden, atol=1e-6)
    np.testing.assert_allclose(late.scalars, whole.scalars)
    assert np.abs(late.hidden - whole.hidden).max() > 1e-3


def test_carried_column_is_the_backtest(bundle, panel):
    """The carried way is what the product does, at the same cutoffs, and gains are beside it."""
    found = carry_gain(bundle, panel, n_windows=3, step_size=2)

    usual = backtest(bundle, panel, horizon=6, n_windows=3, step_size=2, levels=())
    merged = found.cv.merge(usual, on=["unique_id", "ds", "cutoff"], validate="1:1")
    np.testing.assert_allclose(merged[CARRIED], merged[MODEL], rtol=1e-5)
    assert (found.cv[CARRIED] != found.cv[RESET]).any()
    scores = found.scores.set_index("way")
    expected = 1 - scores["mase"][CARRIED] / scores["mase"][RESET]
    assert scores["gain"][RESET] == pytest.approx(expected)
    assert scores["gain"][CARRIED] == 0


def test_nothing_is_gained_where_a_chunk_holds_the_whole_history(bundle, panel):
    """A reset at the first step of a series is no reset."""
    found = carry_gain(bundle, panel, n_windows=2, chunk_length=int(panel.lengths.max()))

    assert found.scores["gain"].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_both_ways_of_training_are_scored_at_the_same_cutoffs(panel, config):
    """Two columns; the carried one is the recipe as it always is."""
    found = train_both_ways(panel, config, n_windows=2)

    known = panel.head(panel.lengths - 12)
    usual = backtest(train(known, config).bundle, panel, horizon=6, n_windows=2, step_size=6)
    assert found.scores["way"].tolist() == [CARRIED, WINDOWED]
    merged = found.cv.merge(usual, on=["unique_id", "ds", "cutoff"], validate="1:1")
    np.testing.assert_allclose(merged[CARRIED], merged[MODEL], rtol=1e-5)
    assert (found.cv[WINDOWED] != found.cv[CARRIED]).any()


def test_worst_series_and_groups_come_first_with_their_bias(bundle, panel):
    """A series forecast a quarter too high is named, and so is its group."""
    cv = backtest(bundle, panel, horizon=6, n_windows=2, step_size=6, levels=())
    bad = panel.ids[3]
    high = cv["unique_id"] == bad
    cv.loc[high, MODEL] = 1.25 * cv.loc[high, "y"]
    groups = pd.DataFrame(
        {"state": ["north" if name == bad else "south" for name in panel.ids], "code": panel.ids},
        index=panel.ids,
    )

    found = error_tables(cv, panel_frame(panel, bundle), season_length=12, groups=groups)

    top = found.by_series.iloc[0]
    assert found.worst[0] == top["unique_id"] == bad
    assert top["bias"] == pytest.approx(0.25)
    assert found.by_series["share"].sum() == pytest.approx(1)
    state = found.by_group[found.by_group["column"] == "state"]
    assert state["group"].tolist() == ["north", "south"]
    assert state["series"].tolist() == [1, 11]
    assert state["share"].iloc[0] == pytest.approx(top["share"])


def test_a_column_that_names_series_is_no_group(bundle, panel):
    """More than fifty values make no table of groups."""
    cv = backtest(bundle, panel, horizon=6, n_windows=1, step_size=6, levels=())
    many = pd.concat([cv.assign(unique_id=cv["unique_id"] + str(i)) for i in range(5)])
    history = panel_frame(panel, bundle)
    history = pd.concat([history.assign(unique_id=history["unique_id"] + str(i)) for i in range(5)])
    names = many["unique_id"].unique()
    groups = pd.DataFrame({"code": names}, index=names)

    found = error_tables(many, history, season_length=12, groups=groups)

    assert len(found.by_series) == 60
    assert found.by_group.empty


def test_parts_add_up_to_the_forecast_on_the_log_scale(bundle, panel):
    """In the unit of y, for every series and step; before training there is nothing but skip."""
    made = attribution(bundle, panel)

    usual = backtest(bundle, panel, horizon=6, n_windows=1, step_size=1, levels=())
    np.testing.assert_allclose(made[MODEL], usual[MODEL])
    np.testing.assert_allclose(made[list(PARTS)].sum(axis=1), made[MODEL])
    assert bundle.spec.filters.space == "log"
    assert made["correction"].abs().max() > 0
    assert (made["skip"] > 0).all()


def test_without_a_guard_the_parts_leave_no_rest(bundle, panel):
    """With full trust what is left over is rounding: the split is exact on the log scale."""
    network = _copy(bundle)
    network.point.trust.fill_(1.0)

    made = attribution(replace(bundle, network=network), panel)

    assert made["guard"].abs().max() < 1e-4 * made[MODEL].abs().max()


def test_parts_of_counts_follow_the_covariate(counted, counts):
    """Counts multiply: the parts still add up, and the promoted days have the larger effect."""
    made = attribution(counted, counts)

    ahead = counts.indptr[1:, None] - 4 + np.arange(4)
    promo = counts.known_future[ahead].ravel() > 0
    np.testing.assert_allclose(made[list(PARTS)].sum(axis=1), made[MODEL])
    effect = made["covariates"]
    assert effect[promo].mean() > effect[~promo].mean()


def _copy(bundle):
    import copy

    return copy.deepcopy(bundle.network)


def _forgetful(bundle):
    """Weights under which hidden and cell are 0 after every step."""
    network = _copy(bundle)
    with torch.no_grad():
        for weight in network.stack.parameters():
            weight.zero_()
    return network
