"""Promise 14: a retraining may run twice or stop anywhere, and promotes at most once."""

import dataclasses
import json

import pytest

from pipelines.tracking import registry
from pipelines.workflows import train
from pipelines.workflows.workspace import Stopped


def test_a_repeated_job_gives_the_same_scores_and_is_not_promoted(trained):
    """The champion is scored on the same cutoffs with a tie, so it stays in service."""
    again = trained.again()

    assert again.scores["mase_champion"] == again.scores["mase"] == trained.outcome.scores["mase"]
    assert not again.verdict.promote
    assert trained.tracking.version("retail", "champion").version == trained.outcome.version
    assert trained.tracking.version("retail", "challenger").version == again.version


def test_a_champion_that_changes_during_training_is_not_replaced(trained):
    """The model was compared with no champion, so it is registered but not promoted over one."""
    tracking, name = trained.tracking, "overtaken"
    uri, run_id = trained.outcome.model_uri, trained.outcome.run_id

    def promote_another(event: train.Event) -> None:
        if isinstance(event, train.Stage) and event.name == "backtest":
            registry.promote(tracking, name, registry.register(tracking, uri, name, run_id))

    outcome = train.run(dataclasses.replace(trained.job, name=name, refit=False), promote_another)

    run = tracking.client.get_run(outcome.run_id)
    assert outcome.change is None
    assert tracking.version(name, "champion").version == 1
    assert tracking.version(name, "challenger").version == outcome.version == 2
    assert outcome.verdict.reason == "the champion changed meanwhile from none to v1: train again"
    assert run.data.tags["gate.promote"] == "false"
    assert run.data.tags["gate.reason"] == outcome.verdict.reason


def test_an_interrupted_job_resumes_at_its_last_checkpoint(trained, tmp_path):
    """
    A resumed job trains no checkpointed step twice and has the scores of an uninterrupted one.

    It is stopped in its second training, with checkpoints every 5 steps, and uses the same run.
    """
    config = dataclasses.replace(
        trained.job.config, train=dataclasses.replace(trained.job.config.train, checkpoint_every=5)
    )
    job = dataclasses.replace(trained.job, config=config, name="stopped")

    def stop(event: train.Event) -> None:
        if isinstance(event, train.Step) and (event.stage, event.event.step) == ("refit", 12):
            raise KeyboardInterrupt

    with pytest.raises(Stopped) as stopped:
        train.run(job, stop)
    killed = trained.tracking.runs(1)[0]
    steps: list[tuple[str, int]] = []
    outcome = train.run(
        dataclasses.replace(job, resume=True),
        lambda e: steps.append((e.stage, e.event.step)) if isinstance(e, train.Step) else None,
    )

    assert stopped.value.workspace.saved_step() is None  # the folder is gone once the job is done
    assert killed.status == "KILLED"
    assert outcome.run_id == killed.run_id
    assert steps == [("refit", step) for step in range(11, 61)]
    assert outcome.scores["mase"] == trained.outcome.scores["mase"]
    folder = trained.tracking.download(f"runs:/{outcome.run_id}/", tmp_path)
    table = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert len(table["data"]) == len({tuple(row[:2]) for row in table["data"]})
