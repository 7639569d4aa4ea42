"""Members of an ensemble: what each seed gives alone, learned together, none left behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forecast.calendars.calendar import Calendar
from forecast.config import Config, DataConfig, ModelConfig, TrainConfig
from forecast.errors import CheckpointError
from forecast.training.checkpoints import NAME
from forecast.training.defaults import resolve
from forecast.training.progress import TrainEvent
from forecast.training.train import train
from tests.forecast.training.test_train import ROOT, RUN, weights


def together(config: Config, members: int) -> Config:
    """The same with so many members, and a checkpoint at every step."""
    return replace(
        config,
        model=replace(config.model, members=members),
        train=replace(config.train, max_steps=30, checkpoint_every=1),
    )


def test_members_are_what_each_seed_gives_alone(panel, config):
    """Though they learn at the same time: no stream of random numbers is shared."""
    kinds = pd.DataFrame({"kind": ["a", "b"] * (panel.num_series // 2)}, index=list(panel.ids))
    panel = replace(panel, static=kinds)  # some of which are hidden in training, at random
    ensemble = weights(train(panel, together(config, 3)).bundle)

    for i in range(3):
        alone = replace(config.train, max_steps=30, seed=config.train.seed + i)
        single = weights(train(panel, replace(together(config, 1), train=alone)).bundle)
        assert {name: ensemble[f"members.{i}.{name}"] for name in single} == single


def test_a_panel_that_is_small_has_an_ensemble(panel):
    """Unless steps are counted out, or the panel is large; what is told stays."""
    calendar, lengths = Calendar("MS"), panel.lengths
    told = Config(data=DataConfig(freq="MS", kind="positive"))

    def members(config: Config, lengths: np.ndarray) -> int | None:
        return resolve(config, calendar, lengths).model.members

    assert members(told, lengths) == 4
    assert members(told, np.full(5_000, 200)) == 1
    assert members(replace(told, train=TrainConfig(max_steps=40)), lengths) == 1
    assert members(replace(told, model=ModelConfig(members=2)), np.full(5_000, 200)) == 2


@pytest.fixture(params=[1, 2])
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many of the machine's, or all if it has fewer."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[: request.param])
    yield len(os.sched_getaffinity(0))
    os.sched_setaffinity(0, before)


def test_members_interrupted_together_resume_to_the_same_model(panel, config, tmp_path, cores):
    """In the turn of the second, on one core as on two; what is reported counts all turns."""
    config = together(config, 3)
    whole = train(panel, config).bundle
    told: list[tuple[int, int]] = []

    def stop_there(event: TrainEvent) -> None:
        told.append((event.step, event.steps))
        if event.step == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(panel, config, checkpoint_dir=tmp_path, on_event=stop_there)
    resumed = train(panel, config, checkpoint_dir=tmp_path, resume=True).bundle

    assert told == [(step, 30 * (3 if cores == 1 else 2)) for step in range(1, 41)]
    assert weights(resumed) == weights(whole)
    assert np.array_equal(resumed.factors, whole.factors)
    assert resumed.correlation == whole.correlation


def test_members_killed_outright_resume_to_the_same_model(panel, config, tmp_path):
    """A script without a guard of its main module; the process of the other member ends too."""
    config = together(config, 2)
    config = replace(config, train=replace(config.train, max_steps=100))
    script = tmp_path / "fit.py"
    script.write_text(RUN, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, script, tmp_path, json.dumps(config.to_dict())],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    while not (tmp_path / "member-1" / NAME).exists():
        assert process.poll() is None
    others = helpers_of(process.pid)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for pid in others:
        while Path(f"/proc/{pid}").exists():
            os.sched_yield()

    resumed, whole = (
        train(panel.take([0, 1, 2]), config, checkpoint_dir=folder, resume=True).bundle
        for folder in (tmp_path, None)
    )

    assert others
    assert weights(resumed) == weights(whole)


def helpers_of(pid: int) -> list[int]:
    """The processes that train members for this one."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text(encoding="ascii").split()
    ]
    lines = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, line in lines.items() if b"popen_loky" in line]


def test_the_member_of_a_process_that_is_killed_is_trained_here(panel, config):
    """As where memory is short; nothing is lost but time."""
    config = together(config, 2)
    whole = train(panel, config).bundle
    killed = []

    def kill(event: TrainEvent) -> None:
        for pid in [] if killed else helpers_of(os.getpid()):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    made = train(panel, config, on_event=kill).bundle

    assert killed
    assert weights(made) == weights(whole)


def test_a_member_that_fails_ends_the_others(panel, config, tmp_path):
    """The error is its own, and nobody learns on for nothing."""
    config = together(config, 2)
    train(panel, config, checkpoint_dir=tmp_path)
    damaged = tmp_path / "member-1" / NAME
    damaged.write_bytes(b"nothing")
    for path in tmp_path.glob(NAME):
        path.unlink()
    told: list[TrainEvent] = []
    longer = replace(config, train=replace(config.train, max_steps=10_000))

    with pytest.raises(CheckpointError, match="cannot be read"):
        train(panel, longer, checkpoint_dir=tmp_path, resume=True, on_event=told.append)
    assert len(told) < 100
