"""The folder of a run: one process a job, and what survives it."""

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
with Workspace.open(job, "digest", job.config) as work:
    work.note(run_id="first")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def job(tmp_path) -> Job:
    """Any job in this folder."""
    return Job(source="sales.csv", config=Config(), data_dir=tmp_path, tracking_uri="")


def test_a_job_is_done_once_at_a_time_and_its_process_may_be_killed(job, tmp_path):
    """A second process is refused with the first one's number; a killed one leaves no lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == "held\n"
        for resume in (False, True, None):
            with (
                pytest.raises(UsageError, match="is running already") as told,
                Workspace.open(replace(job, resume=resume), "digest", job.config),
            ):
                pass
            assert told.value.where == f"process {other.pid}"
        with Workspace.open(job, "other digest", job.config) as another:
            assert not another.notes
        other.kill()
        other.wait()

    with Workspace.open(replace(job, resume=True), "digest", job.config) as again:
        assert again.notes == {"run_id": "first"}


@pytest.mark.parametrize("left", ["", "{", "[]"])
def test_notes_that_cannot_be_read_are_told(job, left):
    """A power cut may leave anything; the way out is said."""
    with Workspace.open(job, "digest", job.config) as work:
        work.note(run_id="first")
        (work.folder / "run.json").write_text(left)

    with (
        pytest.raises(CheckpointError, match="cannot be read") as told,
        Workspace.open(replace(job, resume=True), "digest", job.config),
    ):
        pass
    assert "without --resume" in told.value.help
    with Workspace.open(job, "digest", job.config) as fresh:
        assert fresh.discarded


@pytest.mark.parametrize("name", ["sales/eu", "sales:1", "a@b", ""])
def test_a_name_that_the_registry_refuses_is_told_before_anything_is_trained(job, name):
    """Not after hours of work."""
    with pytest.raises(UsageError, match="cannot be the name"):
        replace(job, name=name)


def test_a_baseline_that_is_none_is_told_with_the_nearest(job):
    """At once as well."""
    with pytest.raises(UsageError, match="no baseline 'AutoETs'") as told:
        replace(job, baselines=("SeasonalNaive", "AutoETs"))
    assert told.value.help == "did you mean AutoETS?"


def test_what_is_noted_is_on_the_disk_whole(job):
    """Written beside and moved over."""
    with Workspace.open(job, "digest", job.config) as work:
        work.note(run_id="first")
        work.note(stage="learn")

    assert json.loads((work.folder / "run.json").read_text()) == work.notes
    assert not (work.folder / "run.json.new").exists()
