"""Run commands in this process or in one of their own, in a folder with or without a champion."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from pipelines.cli import main as cli
from tests.helpers.paths import ROOT


@dataclass(frozen=True)
class Answer:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict:
        return json.loads(self.out)


Invoke = Callable[..., Answer]


@pytest.fixture
def statecast(monkeypatch, capsys) -> Invoke:
    """Return a function that runs a command in this process, as the script would."""

    def invoke(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["statecast", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        out, err = capsys.readouterr()
        return Answer(int(exit_info.value.code or 0), out, err)

    return invoke


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Work in an empty folder, without settings from the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("STATECAST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for servers started from this folder
    return tmp_path


@pytest.fixture(scope="session")
def sales(retail) -> pd.DataFrame:
    """Ten years of six series."""
    ids = retail["unique_id"].unique()[:6]
    return retail[retail["unique_id"].isin(ids) & (retail["ds"] >= "2009-01-01")]


@pytest.fixture(scope="session")
def trained(sales, tmp_path_factory) -> Path:
    """Return a folder with a statecast.toml and a champion trained by `statecast train`."""
    folder = tmp_path_factory.mktemp("trained")
    sales.to_csv(folder / "sales.csv", index=False)
    (folder / "statecast.toml").write_text(
        '[project]\nsource = "sales.csv"\nname = "retail"\n[data]\nfreq = "MS"\n'
        "[model]\nhorizon = 6\nhidden_size = 8\n[train]\nmax_steps = 60\n"
    )
    process = command(folder, "train", "--baselines", "Drift", "--json")
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["promoted"] is True
    return folder


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=300,
        env=environment(),
        check=False,
    )


def environment() -> dict[str, str]:
    """Return the environment of this process without settings of Statecast and MLflow."""
    prefixes = ("STATECAST_", "MLFLOW_")
    variables = {name: text for name, text in os.environ.items() if not name.startswith(prefixes)}
    return {**variables, "PYTHONPATH": str(ROOT)}
