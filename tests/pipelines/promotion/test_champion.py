"""A champion that is unreadable, was trained on more data, or has seen the targets."""

import dataclasses
import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig
from forecast.data.panel import Panel
from forecast.data.validation import validate
from pipelines.promotion.champion import missing_data, unseen_cutoffs
from pipelines.tracking import flavor, registry
from pipelines.tracking.flavor import HELD_OUT
from pipelines.workflows import train


@pytest.fixture
def champion(trained, request):
    """Register a model for this test alone and promote its first version; return its name."""
    name = f"model-{zlib.crc32(request.node.name.encode()):x}"
    outcome = trained.again(name=name, promote=False, refit=False)
    registry.promote(trained.tracking, name, outcome.version)
    return name


def warnings_of(events):
    """Return the texts of the warnings of a job."""
    return [event.text for event in events if isinstance(event, train.Warned)]


def folder_of(trained, name):
    """Return the folder of the artifacts of the champion in the store."""
    version = trained.tracking.version(name, "champion").version
    uri = trained.tracking.client.get_model_version_download_uri(name, str(version))
    return Path(uri.removeprefix("file://")) / "artifacts"


def set_older_format(folder):
    """Give the bundle the format version 2."""
    path = folder / "bundle" / "bundle.json"
    path.write_text(path.read_text().replace('"version": 3', '"version": 2'))


def truncate_weights(folder):
    """Replace the weights by a few bytes."""
    (folder / "bundle" / "weights.safetensors").write_bytes(b"broken off")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (set_older_format, "format version 2 is not 3"),
        (truncate_weights, "weights.safetensors was altered or cut short"),
        (shutil.rmtree, "it holds no bundle"),
        (lambda folder: shutil.rmtree(folder.parent), "its folder is empty"),
    ],
)
def test_unreadable_champion_does_not_stop_training(trained, champion, damage, message):
    """A new model is trained and registered after a warning, and not promoted automatically."""
    damage(folder_of(trained, champion))
    events: list[train.Event] = []

    outcome = train.run(dataclasses.replace(trained.job, name=champion, refit=False), events.append)

    kinds = [type(event) for event in events]
    assert outcome.version == 2
    assert outcome.change is None
    assert outcome.verdict.reason.startswith("the champion cannot be scored on these data")
    assert message in outcome.verdict.reason
    assert "mase" in outcome.scores
    assert "mase_champion" not in outcome.scores
    assert message in warnings_of(events)[0]
    assert f"statecast models promote {champion}/VERSION" in warnings_of(events)[0]
    assert kinds.index(train.Warned) < kinds.index(train.Step)


@pytest.fixture(scope="session")
def panel(sales):
    """Return the training data of the champion."""
    return Panel.from_frame(validate(pd.read_csv(sales), DataConfig(freq="MS")))


MONTHS = Calendar("MS")
LEARNED = {"series": 6, "rows": 720, "cutoff": "2018-12-01"}


def test_training_data_of_the_champion_are_complete(panel):
    """The same or longer data are enough, and any data are if the champion has no facts."""
    assert missing_data(panel, MONTHS, LEARNED) == ""
    assert missing_data(panel, MONTHS, {"series": 6, "rows": 714, "cutoff": "2018-11-01"}) == ""
    assert missing_data(panel.take([0]), MONTHS, {}) == ""


def test_missing_series_rows_and_an_earlier_end_are_reported(panel):
    """The message has the expected and the actual value of each."""
    assert missing_data(panel.take([2]), MONTHS, LEARNED) == (
        "1 series, at least 6 expected (90% of 6); 120 rows, at least 648 expected (90% of 720)"
    )
    assert missing_data(panel.head(panel.lengths - 1), MONTHS, LEARNED) == (
        "they end at 2018-11-01, the champion's at 2018-12-01"
    )


def test_nine_tenths_of_the_rows_are_enough(panel):
    """Up to a tenth of the rows may be missing; one more is reported."""
    assert missing_data(panel, MONTHS, {"rows": 800}) == ""
    assert "at least 721 expected (90% of 801)" in missing_data(panel, MONTHS, {"rows": 801})


def test_integer_stamps_are_compared_as_numbers(panel):
    """Step 1000 comes after step 986, although it sorts before it as text."""
    steps = dataclasses.replace(panel, ds=np.tile(np.arange(881, 1001), 6))

    assert missing_data(steps, Calendar(1), {"cutoff": "986"}) == ""
    assert missing_data(steps, Calendar(1), {"cutoff": "1001"}) == (
        "they end at 1000, the champion's at 1001"
    )


def test_model_of_an_incomplete_export_is_not_promoted(trained, champion, sales, tmp_path):
    """With two of six series there is a warning before training, and the gate refuses the model."""
    table = pd.read_csv(sales)
    ids = table["unique_id"].unique()[:2]
    table[table["unique_id"].isin(ids)].to_csv(tmp_path / "broken.csv", index=False)
    events: list[train.Event] = []

    outcome = train.run(
        dataclasses.replace(
            trained.job, source=str(tmp_path / "broken.csv"), name=champion, refit=False
        ),
        events.append,
    )

    kinds = [type(event) for event in events]
    assert outcome.change is None
    assert "2 series, at least 6 expected (90% of 6)" in outcome.verdict.reason
    assert "statecast models promote" in outcome.verdict.reason
    assert outcome.verdict.reason in warnings_of(events)[0]
    assert kinds.index(train.Warned) < kinds.index(train.Step)
    assert "mase_champion" in outcome.scores
    assert trained.tracking.version(champion, "champion").version == 1


def test_unseen_cutoffs_are_counted_from_the_cutoff_of_the_training(trained):
    """Refitted weights have seen every series to its end; those of a backtest have not."""
    bundle = flavor.load_model("models:/retail/1", trained.tracking)
    cutoffs = [["2018-01-01", "2016-01-01"], ["2018-07-01", "2016-07-01"]]
    stamps = np.array(cutoffs, "datetime64[ns]").astype(np.int64)

    def count(**facts):
        return unseen_cutoffs(dataclasses.replace(bundle, facts=facts), stamps)

    assert [count(refit=False, cutoff=f"2018-{m}-01") for m in ("01", "02", "08")] == [2, 1, 0]
    assert [count(refit=True, cutoff=f"2016-{m}-01") for m in ("01", "02", "08")] == [2, 1, 0]
    assert count(refit=False) == count() == 0


def test_champion_is_compared_at_cutoffs_that_it_has_not_seen(trained, champion):
    """With more windows than before only the last ones are compared, and the reason says so."""
    events: list[train.Event] = []
    job = dataclasses.replace(trained.job, name=champion, windows=4, promote=False, refit=False)

    outcome = train.run(job, events.append)

    mase = f"{trained.outcome.scores['mase']:.3f}"
    assert f"{outcome.scores['mase_champion']:.3f}" != mase
    assert f"(MASE {mase} -> " in outcome.verdict.reason
    assert "; judged at the last 2 of 4 cutoffs: the champion has" in outcome.verdict.reason
    assert "the verdict uses only the last 2 of 4 cutoffs" in warnings_of(events)[0]


def test_warning_says_that_a_champion_was_scored_on_targets_it_has_seen(trained):
    """Without the artifacts of its run, only the weights in service can be scored."""
    name = "cleared"
    first = trained.again(name=name, promote=False)
    registry.promote(trained.tracking, name, first.version)
    shutil.rmtree(trained.root / "artifacts" / first.run_id / "artifacts" / HELD_OUT)
    events: list[train.Event] = []

    outcome = train.run(
        dataclasses.replace(trained.job, name=name, promote=False, refit=False), events.append
    )

    (warning,) = warnings_of(events)
    assert outcome.verdict.reason.endswith(
        "; the champion was scored on targets that it has learned from"
    )
    assert "its scores flatter it" in warning
    assert "the weights of its own backtest cannot be read" in warning
