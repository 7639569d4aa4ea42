"""Commands that go on: interrupted, resumed, and gone with all that they had begun."""

import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.speed.servers import wait_until
from tests.pipelines.cli.conftest import command, environment


def test_ctrl_c_says_what_was_saved_and_the_run_goes_on(sales, tmp_path):
    """
    A real process, interrupted in the middle: exit 130, and what is kept is named.

    The resuming command brings the run to its end without training the first steps again.
    """
    sales.to_csv(tmp_path / "sales.csv", index=False)
    arguments = [
        "train",
        "sales.csv",
        "--h",
        "6",
        "--hidden-size",
        "8",
        "--max-steps",
        "800",
        "--baselines",
        "",
        "--no-refit",
        "--no-promote",
    ]
    running = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    said = []
    for line in running.stderr:
        said.append(line)
        if " 20 %  step " in line:
            running.send_signal(signal.SIGINT)
            running.send_signal(signal.SIGINT)
    code = running.wait(timeout=60)
    running.stdout.close()
    running.stderr.close()
    resumed = command(tmp_path, *arguments, "--resume")

    text = "".join(said)
    assert code == 130
    assert "saved: learn, step " in text
    assert "--resume" in text
    assert resumed.returncode == 0, resumed.stderr
    assert " 0 %  step " not in resumed.stderr
    assert not list((tmp_path / "data" / "checkpoints").iterdir())


def test_a_training_that_is_killed_leaves_no_process(tmp_path):
    """Neither its members nor the baselines, which would have gone on for minutes."""
    days = np.arange(400.0)
    series = pd.concat(
        pd.DataFrame(
            {
                "unique_id": f"shop-{i}",
                "ds": pd.date_range("2024-01-01", periods=400),
                "y": 50 + 9 * np.sin(days * i) + days % 7,
            }
        )
        for i in range(250)
    )
    series.to_csv(tmp_path / "sales.csv", index=False)
    arguments = ["train", "sales.csv", "--h", "6", "--windows", "1", "--baselines", "AutoETS"]
    running = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    said = next(line for line in running.stderr if "step " in line)
    running.kill()
    running.wait()
    running.stderr.close()

    assert " 100 % " not in said
    wait_until(lambda: alive(running.pid), lambda living: not living, 20)


def test_demo_trains_once_serves_and_stops_cleanly(tmp_path):
    """The whole, twice: the printed requests work as they stand; Ctrl-C leaves no process."""
    arguments = [
        "demo",
        "--port",
        "0",
        "--mlflow-port",
        "0",
        "--max-steps",
        "150",
        "--baselines",
        "",
        "--json",
    ]

    first, seen = demo(tmp_path, arguments)
    second, again = demo(tmp_path, arguments)

    assert "learn" in first
    assert seen["before"]["forecasts"][0]["position"]["last_ds"] == "2018-12-01"
    assert seen["observed"]["new"] == 1
    assert seen["after"]["forecasts"][0]["state"] == "live"
    assert seen["after"]["forecasts"][0]["position"]["last_ds"] == "2019-01-01"
    assert "nothing to train" in second
    assert again["before"]["forecasts"][0]["position"]["last_ds"] == "2019-01-01"


def demo(folder: Path, arguments: list[str]) -> tuple[str, dict]:
    """Start the demo, send what it prints, interrupt it; returns its stderr and the answers."""
    with (folder / "err").open("w") as err:
        running = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *arguments],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            start_new_session=True,
        )
    try:
        lines = []
        for line in running.stdout:
            lines.append(line)
            if line == "}\n":
                break
        told = json.loads("".join(lines))
        ask, report = (post_of(line) for line in told["try"])
        seen = {"before": ask(), "observed": report(), "after": ask()}
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 0
        with pytest.raises(ProcessLookupError):
            os.killpg(running.pid, 0)
    finally:
        running.kill()
        running.wait()
        running.stdout.close()
    return (folder / "err").read_text(), seen


def post_of(curl: str) -> Callable[[], dict]:
    """The request that a printed curl line makes."""
    _, _, url, _, header, _, body = shlex.split(curl)
    name, _, value = header.partition(": ")

    def send() -> dict:
        request = urllib.request.Request(url, data=body.encode(), headers={name: value})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    return send


def test_pages_of_mlflow_end_with_their_context(trained):
    """The tracking server answers, and its whole process group is gone afterwards."""
    from pipelines.tracking.ui import MlflowPages

    pages = MlflowPages(f"sqlite:///{trained / 'data' / 'mlflow.db'}", trained / "data", port=5900)
    with pages:
        answers = pages.wait()
        group = pages.group

    assert answers
    wait_until(lambda: alive(group), lambda living: not living, 10)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
