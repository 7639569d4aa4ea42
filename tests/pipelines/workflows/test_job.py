"""The workspace of a job: one process at a time, and notes that survive it."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from forecast.config import Config
from forecast.errors import CheckpointError
from pipelines.errors import UsageError
from pipelines.workflows.job import Job
from pipelines.workflows.workspace import Workspace

HOLD = """
import sys
from pathlib import Path
from forecast.config import Config
from pipelines.workflows.job import Job
from pipelines.workflows.workspace import Workspace
job = Job(source="sales.csv", config=Config(), data_dir=Path(sys.argv[1]), tracking_uri="")
with Workspace.open(job, "digest", job.config) as workspace:
    workspace.note(run_id="first")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def job(tmp_path) -> Job:
    """Return a job in a temporary folder."""
    return Job(source="sales.csv", config=Config(), data_dir=tmp_path, tracking_uri="")


def test_job_runs_in_one_process_at_a_time(job, tmp_path):
    """A second process is refused with the id of the first; a killed one leaves no lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == "held\n"
        for resume in (False, True, None):
            with (
                pytest.raises(UsageError, match="is running already") as error,
                Workspace.open(replace(job, resume=resume), "digest", job.config),
            ):
                pass
            assert error.value.where == f"process {process.pid}"
        with Workspace.open(job, "other digest", job.config) as another:
            assert not another.notes
        process.kill()
        process.wait()

    with Workspace.open(replace(job, resume=True), "digest", job.config) as again:
        assert again.notes == {"run_id": "first"}


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_unreadable_notes_are_an_error(job, text):
    """Whatever a power cut leaves, the message says how to go on."""
    with Workspace.open(job, "digest", job.config) as workspace:
        workspace.note(run_id="first")
        (workspace.folder / "run.json").write_text(text)

    with (
        pytest.raises(CheckpointError, match="cannot be read") as error,
        Workspace.open(replace(job, resume=True), "digest", job.config),
    ):
        pass
    assert "without --resume" in error.value.help
    with Workspace.open(job, "digest", job.config) as fresh:
        assert fresh.discarded


@pytest.mark.parametrize("name", ["sales/eu", "sales:1", "a@b", ""])
def test_name_that_the_registry_refuses_is_an_error_before_training(job, name):
    """The job is refused when it is made, not after hours of training."""
    with pytest.raises(UsageError, match="cannot be the name"):
        replace(job, name=name)


def test_unknown_baseline_is_refused_with_the_closest_name(job):
    """The job is refused when it is made."""
    with pytest.raises(UsageError, match="no baseline 'AutoETs'") as error:
        replace(job, baselines=("SeasonalNaive", "AutoETs"))
    assert error.value.help == "did you mean AutoETS?"


def test_notes_are_written_whole(job):
    """A temporary file replaces the old notes and leaves nothing behind."""
    with Workspace.open(job, "digest", job.config) as workspace:
        workspace.note(run_id="first")
        workspace.note(stage="learn")

    assert json.loads((workspace.folder / "run.json").read_text()) == workspace.notes
    assert not (workspace.folder / "run.json.new").exists()
