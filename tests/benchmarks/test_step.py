"""The bound of a training step, the race to a target, and the gain from carried state."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.accuracy import carry, m4, race
from benchmarks.speed import step
from forecast.models.recurrent import RecurrentStack, State, run_cells

TINY = ["--hidden", 8, "--lanes", 6, "--chunk", 4, "--horizon", 5, "--length", 40, "--steps", 14]


@pytest.fixture
def records(monkeypatch, capsys):
    """Return a function that runs a benchmark and returns values by case, model and metric."""

    def run(main, *arguments):
        monkeypatch.setattr("sys.argv", ["benchmark", *map(str, arguments)])
        main()
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return {(line["case"], line["metric"]): line["value"] for line in lines} | {
            (line["case"], line["model"], line["metric"]): line["value"] for line in lines
        }

    return run


@pytest.fixture
def hours():
    """Return nine days of three hourly series with a daily season and integer stamps, as in M4."""
    steps = np.arange(1, 217)
    noise = np.random.default_rng(0).lognormal(0, 0.05, (3, len(steps)))
    y = (5 + 3 * np.sin(2 * np.pi * steps / 24)) * noise
    return pd.DataFrame(
        {
            "unique_id": np.repeat(["H1", "H2", "H3"], len(steps)),
            "ds": np.tile(steps, 3),
            "y": y.ravel(),
        }
    )


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_fused_layers_have_as_many_operations_as_separate_cells(cell):
    """Forward and backward have the matrix products of the gate equations in both cases."""
    stack = RecurrentStack(cell, 5, 3, 1, 0.0)
    inputs = torch.randn(7, 4, 5, requires_grad=True)
    start = stack.initial_state(7)
    state = State(start.hidden.requires_grad_(), start.cell.clone().requires_grad_())

    with step.flop_counter() as fused:
        stack(inputs, state)[0].sum().backward()
    with FlopCounterMode(display=False) as separate:
        run_cells(stack, inputs, state)[0].sum().backward()

    assert fused.get_total_flops() == separate.get_total_flops() > 0


@pytest.mark.parametrize("case", step.CASES)
def test_step_takes_longer_than_its_bound(records, case):
    """All metrics of a case are positive and agree with each other."""
    values = records(step.main, "--cases", case, "--rounds", 1, *TINY)

    assert all(np.isfinite(value) and value > 0 for value in values.values())
    bound_ms = values[case, "gflop"] / values[case, "gemm_gflops"] * 1e3
    assert values[case, "step_ms"] > bound_ms


def test_profile_is_a_table_of_operators_on_stderr(records, capsys, monkeypatch):
    """`--profile` adds nothing to the lines on stdout."""
    monkeypatch.setattr(
        "sys.argv", ["step", "--cases", "step", "--rounds", "1", "--profile", *map(str, TINY)]
    )
    step.main()

    output = capsys.readouterr()
    assert "aten::mm" in output.err
    assert all(line.startswith("{") for line in output.out.splitlines())


def test_twice_the_lanes_have_twice_the_operations():
    """The series have a covariate, so that no product over dates is shared by all lanes."""
    shape = step.Shape("h", "positive", "lstm", 4, 4, 5, (4,), hidden=8, known=1)
    single, double = (
        step.Run(step.panel(s, 40), step.settings(s, 14, [])).flops()
        for s in (shape, step.replace(shape, lanes=8))
    )

    assert np.array_equal(2 * single, double)


def write_m4(folder, frame):
    """Write the training file of M4 Hourly; `--val` needs no other."""
    (folder / "m4").mkdir()
    frame.to_parquet(folder / "m4" / f"{m4.CASES['hourly'].files}_train.parquet")


def test_race_ends_with_the_first_run_that_meets_the_target(records, hours, tmp_path):
    """An easy target is met by the fewest steps."""
    write_m4(tmp_path, hours)

    values = records(
        race.main,
        "--data",
        tmp_path,
        "--val",
        "--target",
        99,
        "--steps",
        2,
        4,
        "--seeds",
        1,
        "--set",
        "model.hidden_size=8",
    )

    assert values["m4_hourly_val", "steps_to_target"] == 2
    assert values["m4_hourly_val", "seconds_to_target"] > 0
    assert ("m4_hourly_val", "times_sooner") not in values


def test_race_exits_if_no_run_meets_the_target(records, hours, tmp_path):
    """There is no result for a target out of reach."""
    write_m4(tmp_path, hours)

    with pytest.raises(SystemExit, match=r"OWA 0.0000 was not reached with 2 steps"):
        records(
            race.main,
            "--data",
            tmp_path,
            "--val",
            "--target",
            0,
            "--steps",
            2,
            "--seeds",
            1,
            "--set",
            "model.hidden_size=8",
        )


def test_target_is_a_complete_run_of_the_peer(tmp_path):
    """A run that stopped at its budget counts only if there is no complete one."""
    path = tmp_path / "peers.jsonl"
    keys = ("case", "model", "metric", "value", "seconds", "stopped", "budget_s")
    rows = [
        *(("m4_hourly", model, metric, value, 900.0, stopped, None)
          for model, stopped, owa, fit in (
              ("lstm", False, 0.5, 500.0), ("lstm", True, 0.7, 100.0), ("gru", True, 0.8, 100.0)
          )
          for metric, value in (
              ("owa", owa), ("fit_cpu_seconds", fit), ("predict_cpu_seconds", 2.0)
          )),
        ("m5", "lstm", "wrmsse", 0.1, 1.0, False, None),
    ]  # fmt: skip
    path.write_text("".join(json.dumps(dict(zip(keys, r, strict=True))) + "\n" for r in rows))

    assert race.read_target(path, "lstm") == race.Target(0.5, 502.0)
    assert race.read_target(path, "gru") == race.Target(0.8, 102.0)
    with pytest.raises(SystemExit, match="run the peers first"):
        race.read_target(path, "rnn")


def test_carried_state_is_compared_with_the_same_weights_and_the_same_recipe(
    records, hours, tmp_path
):
    """The gain is the share by which carried state has a lower MASE; it is 0 over itself."""
    write_m4(tmp_path, hours)

    values = records(
        carry.main,
        "--data",
        tmp_path,
        "--set",
        "model.hidden_size=8",
        "--set",
        "train.max_steps=4",
        "--set",
        "model.horizon=12",
    )

    for case, other in (("same_weights", "reset"), ("same_recipe", "windowed")):
        name = f"m4_hourly/{case}"
        with_state, without = (values[name, way, "mase"] for way in ("carried", other))
        assert values[name, "carried", "gain"] == 0
        assert np.isclose(values[name, other, "gain"], 1 - with_state / without, atol=1e-5)
