"""Members of an ensemble: trained in parallel they are what they would be alone."""

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

from forecast.config import Config
from forecast.errors import CheckpointError
from forecast.training.checkpoints import NAME
from forecast.training.progress import TrainEvent
from forecast.training.train import train
from tests.helpers.paths import ROOT
from tests.helpers.training import TRAIN_SCRIPT, weights


def with_members(config: Config, members: int) -> Config:
    """Return the configuration with so many members, 30 steps and a checkpoint at each step."""
    return replace(
        config,
        model=replace(config.model, members=members),
        train=replace(config.train, max_steps=30, checkpoint_every=1),
    )


def test_members_are_what_each_seed_gives_alone(panel, config):
    """Members that train at the same time share no random numbers."""
    kinds = pd.DataFrame({"kind": ["a", "b"] * (panel.num_series // 2)}, index=list(panel.ids))
    panel = replace(panel, static=kinds)  # training draws which of them to hide
    ensemble = weights(train(panel, with_members(config, 3)).bundle)

    for i in range(3):
        alone = replace(config.train, max_steps=30, seed=config.train.seed + i)
        single = weights(train(panel, replace(with_members(config, 1), train=alone)).bundle)
        assert {name: ensemble[f"members.{i}.{name}"] for name in single} == single


@pytest.fixture(params=[1, 2])
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    """Restrict this process to so many cores, or to all if there are fewer; give the number."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[: request.param])
    yield len(os.sched_getaffinity(0))
    os.sched_setaffinity(0, before)


def test_members_interrupted_together_resume_to_the_same_model(panel, config, tmp_path, cores):
    """
    Interrupted while its second member trains, on one core as on two, a run resumes.

    The reported steps count all members that this process trains.
    """
    config = with_members(config, 3)
    uninterrupted = train(panel, config).bundle
    reports: list[tuple[int, int]] = []

    def interrupt(event: TrainEvent) -> None:
        reports.append((event.step, event.steps))
        if event.step == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(panel, config, checkpoint_dir=tmp_path, on_event=interrupt)
    resumed = train(panel, config, checkpoint_dir=tmp_path, resume=True).bundle

    assert reports == [(step, 30 * (3 if cores == 1 else 2)) for step in range(1, 41)]
    assert weights(resumed) == weights(uninterrupted)
    assert np.array_equal(resumed.factors, uninterrupted.factors)
    assert resumed.correlation == uninterrupted.correlation


def test_a_killed_run_ends_its_workers_and_resumes_to_the_same_model(panel, config, tmp_path):
    """The run is a script that does not guard its main module."""
    config = with_members(config, 2)
    config = replace(config, train=replace(config.train, max_steps=100))
    script = tmp_path / "fit.py"
    script.write_text(TRAIN_SCRIPT, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, script, tmp_path, json.dumps(config.to_dict())],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    while not (tmp_path / "member-1" / NAME).exists():
        assert process.poll() is None
    workers = worker_pids(process.pid)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for pid in workers:
        while Path(f"/proc/{pid}").exists():
            os.sched_yield()

    resumed, uninterrupted = (
        train(panel.take([0, 1, 2]), config, checkpoint_dir=folder, resume=True).bundle
        for folder in (tmp_path, None)
    )

    assert workers
    assert weights(resumed) == weights(uninterrupted)


def worker_pids(pid: int) -> list[int]:
    """Return the ids of the worker processes of a process."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text(encoding="ascii").split()
    ]
    lines = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, line in lines.items() if b"popen_loky" in line]


def test_the_member_of_a_killed_worker_is_trained_in_this_process(panel, config):
    """A worker that the system kills for memory costs time and nothing else."""
    config = with_members(config, 2)
    undisturbed = train(panel, config).bundle
    killed = []

    def kill(event: TrainEvent) -> None:
        for pid in [] if killed else worker_pids(os.getpid()):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    bundle = train(panel, config, on_event=kill).bundle

    assert killed
    assert weights(bundle) == weights(undisturbed)


def test_a_member_that_fails_stops_the_others(panel, config, tmp_path):
    """The error of the worker is raised at the next report."""
    config = with_members(config, 2)
    train(panel, config, checkpoint_dir=tmp_path)
    damaged = tmp_path / "member-1" / NAME
    damaged.write_bytes(b"nothing")
    for path in tmp_path.glob(NAME):
        path.unlink()
    events: list[TrainEvent] = []
    longer = replace(config, train=replace(config.train, max_steps=10_000))

    with pytest.raises(CheckpointError, match="cannot be read"):
        train(panel, longer, checkpoint_dir=tmp_path, resume=True, on_event=events.append)
    assert len(events) < 100
