"""Long commands as processes of their own: interrupted, resumed and killed."""

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


def test_an_interrupted_training_can_be_resumed(sales, tmp_path):
    """
    Ctrl-C ends a training with exit code 130 and a message about its checkpoint.

    With `--resume` the training finishes and does not repeat its first steps.
    """
    sales.to_csv(tmp_path / "sales.csv", index=False)
    options = "--h 6 --hidden-size 8 --max-steps 800 --baselines= --no-refit --no-promote"
    arguments = ["train", "sales.csv", *options.split()]
    running = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    lines = []
    for line in running.stderr:
        lines.append(line)
        if " 20 %  step " in line:
            running.send_signal(signal.SIGINT)
            running.send_signal(signal.SIGINT)
    code = running.wait(timeout=60)
    running.stdout.close()
    running.stderr.close()
    resumed = command(tmp_path, *arguments, "--resume")

    text = "".join(lines)
    assert code == 130
    assert "saved: learn, step " in text
    assert "--resume" in text
    assert resumed.returncode == 0, resumed.stderr
    assert " 0 %  step " not in resumed.stderr
    assert not list((tmp_path / "data" / "checkpoints").iterdir())


def test_a_killed_training_leaves_no_process(tmp_path):
    """The processes of members and baselines, which would run for minutes, end as well."""
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

    line = next(line for line in running.stderr if "step " in line)
    running.kill()
    running.wait()
    running.stderr.close()

    assert " 100 % " not in line
    wait_until(lambda: is_alive(running.pid), lambda alive: not alive, 20)


def test_demo_trains_once_then_serves_and_stops_on_ctrl_c(tmp_path):
    """The printed requests work as they are, and the second start skips the training."""
    options = "--port 0 --mlflow-port 0 --max-steps 150 --baselines= --json"
    arguments = ["demo", *options.split()]

    first_log, first = run_demo(tmp_path, arguments)
    second_log, second = run_demo(tmp_path, arguments)

    assert "learn" in first_log
    assert first["before"]["forecasts"][0]["position"]["last_ds"] == "2018-12-01"
    assert first["observed"]["new"] == 1
    assert first["after"]["forecasts"][0]["state"] == "live"
    assert first["after"]["forecasts"][0]["position"]["last_ds"] == "2019-01-01"
    assert "skipped training" in second_log
    assert second["before"]["forecasts"][0]["position"]["last_ds"] == "2019-01-01"


def run_demo(folder: Path, arguments: list[str]) -> tuple[str, dict]:
    """Start the demo, send the requests it prints and interrupt it; return stderr and answers."""
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
        document = json.loads("".join(lines))
        forecast, observe = (parse_curl_line(line) for line in document["try"])
        answers = {"before": forecast(), "observed": observe(), "after": forecast()}
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 0
        with pytest.raises(ProcessLookupError):
            os.killpg(running.pid, 0)
    finally:
        running.kill()
        running.wait()
        running.stdout.close()
    return (folder / "err").read_text(), answers


def parse_curl_line(curl: str) -> Callable[[], dict]:
    """Return a function that sends the request of a curl line."""
    _, _, url, _, header, _, body = shlex.split(curl)
    name, _, value = header.partition(": ")

    def send() -> dict:
        request = urllib.request.Request(url, data=body.encode(), headers={name: value})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    return send


def test_mlflow_pages_stop_at_the_end_of_the_context(trained):
    """The tracking server answers, and its process group ends with the context."""
    from pipelines.tracking.ui import MlflowPages

    pages = MlflowPages(f"sqlite:///{trained / 'data' / 'mlflow.db'}", trained / "data", port=5900)
    with pages:
        is_ready = pages.wait()
        group = pages.group

    assert is_ready
    wait_until(lambda: is_alive(group), lambda alive: not alive, 10)


def is_alive(group: int) -> bool:
    """Return whether a process group has any process."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
