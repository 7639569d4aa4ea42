"""`statecast log` and `observe`: of a folder, of a running server, of several models."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from benchmarks.speed.servers import server
from forecast.config import DataConfig
from service.ingest.importer import import_history
from tests.service.conftest import train_tiny


@pytest.fixture
def logged(statecast, project, sales) -> Path:
    """A model in `bundle`, and a folder whose log has the sales; returns the log."""
    data = DataConfig(freq="MS", kind="positive")
    train_tiny(sales, data, project / "bundle")
    import_history(f"sqlite:///{project / 'data' / 'observations.db'}", sales, data)
    return project / "data" / "observations.db"


def test_the_log_is_told_exported_pruned_and_made_smaller(statecast, logged, sales):
    """Counted before anything goes; the file on the disk shrinks; a new log reads the export."""
    name = sales["unique_id"].iloc[0]
    before = statecast("log", "info", "--json").document
    exported = statecast("log", "export", "all.parquet", "--json").document
    twice = statecast("log", "export", "all.parquet", "--json")
    some = statecast(
        "log",
        "export",
        "some.parquet",
        "--series",
        name,
        "--since",
        "2018-01-01",
        "--until",
        "2018-06-01",
        "--full",
        "--json",
    ).document
    rule = ["log", "prune", "--keep-steps", "12", "--model", "bundle", "--json"]
    counted = statecast(*rule, "--dry-run").document
    pruned = statecast(*rule).document
    again = statecast("log", "prune", "--before", "2018-01-01", "--dry-run", "--json").document
    after = statecast("log", "info", "--json").document

    assert (before["series"], before["rows"], before["schema"]) == (6, 720, "0004")
    assert (before["first_ds"], before["last_ds"]) == ("2009-01-01", "2018-12-01")
    assert (exported["rows"], some["rows"]) == (720, 6)
    assert (twice.code, twice.document["error"]["code"]) == (2, "cli.usage")
    assert list(pd.read_parquet("some.parquet").columns) == [
        "unique_id",
        "ds",
        "y",
        "revision",
        "filled",
        "recorded_at",
    ]
    assert (counted["dry_run"], pruned["dry_run"]) == (True, False)
    assert (counted["rows"], pruned["rows"], again["rows"]) == (648, 648, 0)
    assert (after["rows"], after["first_ds"], after["pruned_steps"]) == (72, "2018-01-01", 648)
    assert statecast("log", "info").out.splitlines()[-1].split() == [
        "pruned",
        "648",
        "steps",
        "of",
        "6",
        "series",
    ]
    counts = import_history("sqlite:///fresh.db", "all.parquet", DataConfig(freq="MS"))
    assert (counts["new"], counts["series"]) == (720, 6)


def test_space_is_given_back_to_the_disk(statecast, logged):
    """Unless it is to stay for the rows that come."""
    rule = ["log", "prune", "--model", "bundle", "--json", "--keep-steps"]
    size = logged.stat().st_size

    statecast(*rule, "60", "--no-vacuum")
    kept = logged.stat().st_size
    statecast(*rule, "10")

    assert kept >= size
    assert logged.stat().st_size < size


def test_series_are_deleted_all_or_none(statecast, logged, sales):
    """A name that is none takes none of the others with it."""
    names = sorted(sales["unique_id"].unique())

    wrong = statecast("log", "delete", names[0], names[1] + "x", "--json")
    gone = statecast("log", "delete", names[0], names[1], "--json")

    assert (wrong.code, wrong.document["error"]["code"]) == (1, "series.unknown")
    assert f"did you mean '{names[1]}'?" in wrong.document["error"]["help"]
    assert gone.document["rows"] == 240
    assert statecast("log", "info", "--json").document["series"] == 4


def test_with_a_server_running_the_log_is_read_and_the_server_writes(statecast, logged, sales):
    """Without --server a file is locked, and it is said what to do."""
    name = sales["unique_id"].iloc[0]
    data = logged.parent
    told = {"STATECAST_MODEL": str(data.parent / "bundle"), "STATECAST_DATA_DIR": str(data)}
    with server(told) as running:
        url = running.url
        rule = ["log", "prune", "--model", "bundle", "--keep-steps", "12", "--json"]
        locked = statecast(*rule)
        counted = statecast(*rule, "--dry-run").document
        pruned = statecast(*rule, "--server", url).document
        exported = statecast("log", "export", "left.parquet", "--json").document
        gone = statecast("log", "delete", name, "--server", url, "--json").document

    assert (locked.code, locked.document["error"]["code"]) == (2, "log.locked")
    assert "--server" in locked.document["error"]["help"]
    assert (counted["rows"], pruned["rows"]) == (648, 648)
    assert (exported["rows"], gone["rows"]) == (72, 12)


def test_pruning_is_for_the_model_that_was_in_service(statecast, logged, sales, monkeypatch):
    """Be its source gone by then: the next start begins with it, and its forecasts are the same."""
    data = logged.parent
    source = data.parent / "bundle"
    told = {"STATECAST_MODEL": str(source), "STATECAST_DATA_DIR": str(data)}
    asked = {"unique_ids": sorted(sales["unique_id"].unique()), "level": [80]}
    with server(told) as running:
        before = httpx.post(f"{running.url}/v1/forecasts", json=asked).json()["forecasts"]
    shutil.rmtree(source)
    monkeypatch.setenv("STATECAST_MODEL", str(source))

    pruned = statecast("log", "prune", "--keep-steps", "12", "--json").document

    assert pruned["series"] == sales["unique_id"].nunique()
    with server(told) as running:
        after = httpx.post(f"{running.url}/v1/forecasts", json=asked).json()["forecasts"]
    for one, other in zip(before, after, strict=True):
        for column in ("statecast", "lo-80", "hi-80"):
            np.testing.assert_allclose(one[column], other[column], rtol=1e-5)


def test_of_several_models_the_log_is_named(statecast, project, sales, monkeypatch):
    """Without a name, or with a wrong one, those there are; with it, that log alone."""
    data = DataConfig(freq="MS", kind="positive")
    train_tiny(sales, data, project / "bundle")
    for name in ("north", "south"):
        import_history(f"sqlite:///{project / 'data' / name / 'observations.db'}", sales, data)
    alone = statecast("log", "info", "--name", "north", "--json")
    models = json.dumps(dict.fromkeys(("north", "south"), str(project / "bundle")))
    name, rule = sales["unique_id"].iloc[0], ["log", "prune", "--json", "--keep-steps"]
    with monkeypatch.context() as several:
        several.setenv("STATECAST_MODELS", models)
        bare = statecast("log", "info", "--json")
        wrong = statecast("log", "info", "--name", "sooth", "--json")
        pruned = statecast(*rule, "12", "--name", "north").document
        exported = statecast("log", "export", "a.parquet", "--name", "south", "--json").document
        gone = statecast("log", "delete", name, "--name", "south", "--json").document
        left = [
            statecast("log", "info", "--name", model, "--json").document["rows"]
            for model in ("north", "south")
        ]
    told = {"STATECAST_MODELS": models, "STATECAST_DATA_DIR": str(project / "data")}
    with server(told) as running:
        asked = ["--server", running.url, "--name", "north", "--json"]
        nobody = statecast(*rule, "10", "--server", running.url)
        again = statecast(*rule, "10", *asked).document
        lost = statecast("log", "delete", name, *asked).document

    for answer in (alone, bare, wrong):
        assert (answer.code, answer.document["error"]["code"]) == (2, "cli.usage")
    assert "north, south" in bare.document["error"]["message"]
    assert wrong.document["error"]["help"] == "say --name south"
    assert (pruned["rows"], exported["rows"], gone["rows"]) == (648, 720, 120)
    assert left == [72, 600]
    assert nobody.document["error"]["code"] == "request.model"
    assert (again["rows"], lost["rows"]) == (12, 10)


def test_of_several_models_one_is_sent_observations(statecast, project, sales, monkeypatch):
    """With `--offline` to its log, by its model's roles and frequency; else through the server."""
    plain, wide = DataConfig(freq="MS", kind="positive"), sales.assign(extra=1.0)
    train_tiny(sales, plain, project / "plain")
    train_tiny(wide, replace(plain, past_only=("extra",)), project / "wide")
    wide.to_csv("wide.csv", index=False)
    models = json.dumps({"north": str(project / "plain"), "south": str(project / "wide")})
    with monkeypatch.context() as several:
        several.setenv("STATECAST_MODELS", models)
        bare = statecast("observe", "wide.csv", "--offline", "--json")
        named = [(name, ["--name", name, "--json"]) for name in ("north", "south")]
        stored = [statecast("observe", "wide.csv", "--offline", *asked) for _, asked in named]
        read = [statecast("log", "export", f"{name}.parquet", *asked) for name, asked in named]
    told = {"STATECAST_MODELS": models, "STATECAST_DATA_DIR": str(project / "data")}
    with server(told) as running:
        again = statecast(
            "observe", "wide.csv", "--server", running.url, "--name", "south", "--json"
        ).document

    assert (bare.code, bare.document["error"]["code"]) == (2, "cli.usage")
    assert "north, south" in bare.document["error"]["message"]
    assert [one.document["new"] for one in stored] == [len(sales)] * 2
    assert [one.document["rows"] for one in read] == [len(sales)] * 2
    columns = ["unique_id", "ds", "y"]
    assert list(pd.read_parquet("north.parquet")) == columns
    assert list(pd.read_parquet("south.parquet")) == [*columns, "extra"]
    assert (again["duplicate"], again["new"]) == (len(sales), 0)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["info"], "log.invalid"),
        (["export", "x.csv"], "cli.usage"),
        (["export", "nowhere/x.parquet"], "log.invalid"),
        (["prune"], "cli.usage"),
        (["prune", "--keep-steps", "3", "--before", "2018-01-01"], "cli.usage"),
    ],
)
def test_a_log_that_is_not_there_and_options_that_do_not_fit(statecast, project, arguments, code):
    """Exit code 2, and no log is made by looking."""
    answer = statecast("log", *arguments, "--json")

    assert (answer.code, answer.document["error"]["code"]) == (2, code)
    assert not (project / "data").exists()
