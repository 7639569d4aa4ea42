"""The champion as the next training meets it: unreadable, of more data, or too learned."""

import dataclasses
import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig
from forecast.data import validation as frames
from forecast.data.panel import Panel
from pipelines.promotion.champion import missing_data, unseen_cutoffs
from pipelines.tracking import flavor
from pipelines.tracking import registry as publish
from pipelines.tracking.flavor import HELD_OUT
from pipelines.workflows import train


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
    """Where the store has the artifacts of the champion."""
    version = trained.tracking.version(name, "champion").version
    place = trained.tracking.client.get_model_version_download_uri(name, str(version))
    return Path(place.removeprefix("file://")) / "artifacts"


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
        (lambda folder: shutil.rmtree(folder.parent), "its folder is empty"),
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


@pytest.fixture(scope="session")
def panel(sales):
    """The data that the champion learned from."""
    return Panel.from_frame(frames.validate(pd.read_csv(sales), DataConfig(freq="MS")))


MONTHS = Calendar("MS")
LEARNED = {"series": 6, "rows": 720, "cutoff": "2018-12-01"}


def test_data_that_the_champion_learned_from_lack_nothing(panel):
    """The same data, and data that went on, are enough; so are any where the facts are not told."""
    assert missing_data(panel, MONTHS, LEARNED) == ""
    assert missing_data(panel, MONTHS, {"series": 6, "rows": 714, "cutoff": "2018-11-01"}) == ""
    assert missing_data(panel.take([0]), MONTHS, {}) == ""


def test_data_lack_series_rows_or_the_end(panel):
    """Each is told with what was expected and what was found."""
    assert missing_data(panel.take([2]), MONTHS, LEARNED) == (
        "1 series, at least 6 expected (90% of 6); 120 rows, at least 648 expected (90% of 720)"
    )
    assert missing_data(panel.head(panel.lengths - 1), MONTHS, LEARNED) == (
        "they end at 2018-11-01, the champion's at 2018-12-01"
    )


def test_nine_tenths_of_the_rows_are_enough(panel):
    """A catalogue shrinks a little by itself; one row below nine tenths is told."""
    assert missing_data(panel, MONTHS, {"rows": 800}) == ""
    assert "at least 721 expected (90% of 801)" in missing_data(panel, MONTHS, {"rows": 801})


def test_integer_ends_are_compared_as_numbers(panel):
    """Step 1000 comes after 986, though its text sorts before."""
    steps = dataclasses.replace(panel, ds=np.tile(np.arange(881, 1001), 6))

    assert missing_data(steps, Calendar(1), {"cutoff": "986"}) == ""
    assert missing_data(steps, Calendar(1), {"cutoff": "1001"}) == (
        "they end at 1000, the champion's at 1001"
    )


def test_export_that_broke_off_replaces_nobody(trained, champion, sales, tmp_path):
    """Two of six series: told before the work, and refused even with the better score."""
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

    told = [type(event) for event in events]
    assert outcome.change is None
    assert "2 series, at least 6 expected (90% of 6)" in outcome.verdict.reason
    assert "statecast models promote" in outcome.verdict.reason
    assert outcome.verdict.reason in warnings_of(events)[0]
    assert told.index(train.Warned) < told.index(train.Step)
    assert "mase_champion" in outcome.scores
    assert trained.tracking.version(champion, "champion").version == 1


def test_targets_that_the_weights_have_seen_are_told_by_their_cutoff(trained):
    """Refitted weights know each series to its end, those of a backtest were cut before it."""
    bundle = flavor.load_model("models:/retail/1", trained.tracking)
    cutoffs = [["2018-01-01", "2016-01-01"], ["2018-07-01", "2016-07-01"]]
    stamps = np.array(cutoffs, "datetime64[ns]").astype(np.int64)

    def count(**facts):
        return unseen_cutoffs(dataclasses.replace(bundle, facts=facts), stamps)

    assert [count(refit=False, cutoff=f"2018-{m}-01") for m in ("01", "02", "08")] == [2, 1, 0]
    assert [count(refit=True, cutoff=f"2016-{m}-01") for m in ("01", "02", "08")] == [2, 1, 0]
    assert count(refit=False) == count() == 0


def test_champion_is_judged_at_the_cutoffs_that_it_has_not_seen(trained, champion):
    """With more windows than before only the last ones compare, and the reason says so."""
    events: list[train.Event] = []
    job = dataclasses.replace(trained.job, name=champion, windows=4, promote=False, refit=False)

    outcome = train.run(job, events.append)

    before = f"{trained.outcome.scores['mase']:.3f}"
    assert f"{outcome.scores['mase_champion']:.3f}" != before
    assert f"(MASE {before} -> " in outcome.verdict.reason
    assert "; judged at the last 2 of 4 cutoffs: the champion has" in outcome.verdict.reason
    assert "the verdict uses only the last 2 of 4 cutoffs" in warnings_of(events)[0]


def test_champion_whose_honest_weights_are_gone_is_told_to_have_an_advantage(trained):
    """Its run was cleared away, so that only the weights in service are left to be scored."""
    name = "cleared"
    first = trained.again(name=name, promote=False)
    publish.promote(trained.tracking, name, first.version)
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
