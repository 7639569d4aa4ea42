"""The champion as the next training meets it: unreadable, of more data, or too learned."""

import dataclasses
import shutil
import zlib

import pytest

from pipelines import publish, train


@pytest.fixture
def champion(trained, request):
    """A model of the test's own whose champion is the trained one, with artifacts of its own."""
    name = f"model-{zlib.crc32(request.node.name.encode()):x}"
    outcome = trained.again(name=name, promote=False, refit=False)
    publish.promote(trained.tracking, name, outcome.version)
    return name


def warnings_of(events):
    """What a job told before it went on."""
    return [event.text for event in events if isinstance(event, train.Warned)]


def folder_of(trained, name):
    """Where the artifacts of the champion lie."""
    return trained.tracking.download(f"models:/{name}@champion") / "artifacts"


def older_format(folder):
    path = folder / "bundle" / "bundle.json"
    path.write_text(path.read_text().replace('"version": 3', '"version": 2'))


def cut_weights(folder):
    (folder / "bundle" / "weights.safetensors").write_bytes(b"broken off")


@pytest.mark.parametrize(
    ("break_", "said"),
    [
        (older_format, "format version 2 is not 3"),
        (cut_weights, "weights.safetensors was altered or cut short"),
        (shutil.rmtree, "it holds no bundle"),
        (lambda folder: shutil.rmtree(folder.parent), "No such artifact"),
    ],
)
def test_champion_that_cannot_be_read_keeps_nobody_from_training(trained, champion, break_, said):
    """A new model is trained and registered, told before the work, and not promoted by itself."""
    break_(folder_of(trained, champion))
    events: list[train.Event] = []

    outcome = train.run(dataclasses.replace(trained.job, name=champion, refit=False), events.append)

    told = [type(event) for event in events]
    assert outcome.version == 2
    assert outcome.change is None
    assert outcome.verdict.reason.startswith("the champion cannot be scored on these data")
    assert said in outcome.verdict.reason
    assert "mase" in outcome.scores
    assert "mase_champion" not in outcome.scores
    assert said in warnings_of(events)[0]
    assert f"statecast models promote {champion}/VERSION" in warnings_of(events)[0]
    assert told.index(train.Warned) < told.index(train.Step)
