"""`statecast log` and `observe` with a folder, a running server and several models."""

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
from tests.helpers.service import train_tiny


@pytest.fixture
def logged(statecast, project, sales) -> Path:
    """Train a model into `bundle`, import the sales into a log and return the path of the log."""
    data = DataConfig(freq="MS", kind="positive")
    train_tiny(sales, data, project / "bundle")
    import_history(f"sqlite:///{project / 'data' / 'observations.db'}", sales, data)
    return project / "data" / "observations.db"


def test_the_log_is_described_exported_and_pruned(statecast, logged, sales):
    """A dry run counts what is removed, and a new log can import the export."""
    name = sales["unique_id"].iloc[0]
    before = statecast("log", "info", "--json").document
    exported = statecast("log", "export", "all.parquet", "--json").document
    exported_again = statecast("log", "export", "all.parquet", "--json")
    selection = ["--series", name, "--since", "2018-01-01", "--until", "2018-06-01"]
    selected = statecast(
        "log", "export", "selected.parquet", *selection, "--full", "--json"
    ).document
    rule = ["log", "prune", "--keep-steps", "12", "--model", "bundle", "--json"]
    counted = statecast(*rule, "--dry-run").document
    pruned = statecast(*rule).document
    rest = statecast("log", "prune", "--before", "2018-01-01", "--dry-run", "--json").document
    after = statecast("log", "info", "--json").document

    assert (before["series"], before["rows"], before["schema"]) == (6, 720, "0004")
    assert (before["first_ds"], before["last_ds"]) == ("2009-01-01", "2018-12-01")
    assert (exported["rows"], selected["rows"]) == (720, 6)
    assert (exported_again.code, exported_again.document["error"]["code"]) == (2, "cli.usage")
    assert list(pd.read_parquet("selected.parquet").columns) == [
        "unique_id",
        "ds",
        "y",
        "revision",
        "filled",
        "recorded_at",
    ]
    assert (counted["dry_run"], pruned["dry_run"]) == (True, False)
    assert (counted["rows"], pruned["rows"], rest["rows"]) == (648, 648, 0)
    assert (after["rows"], after["first_ds"], after["pruned_steps"]) == (72, "2018-01-01", 648)
    last_line = statecast("log", "info").out.splitlines()[-1]
    assert " ".join(last_line.split()) == "pruned 648 steps of 6 series"
    counts = import_history("sqlite:///fresh.db", "all.parquet", DataConfig(freq="MS"))
    assert (counts["new"], counts["series"]) == (720, 6)


def test_pruning_shrinks_the_file_unless_no_vacuum_is_given(statecast, logged):
    """Without a vacuum the file keeps its size for later rows."""
    rule = ["log", "prune", "--model", "bundle", "--json", "--keep-steps"]
    size = logged.stat().st_size

    statecast(*rule, "60", "--no-vacuum")
    size_without_vacuum = logged.stat().st_size
    statecast(*rule, "10")

    assert size_without_vacuum >= size
    assert logged.stat().st_size < size


def test_all_named_series_are_deleted_or_none(statecast, logged, sales):
    """An unknown name among them deletes nothing."""
    names = sorted(sales["unique_id"].unique())

    wrong = statecast("log", "delete", names[0], names[1] + "x", "--json")
    deleted = statecast("log", "delete", names[0], names[1], "--json")

    assert (wrong.code, wrong.document["error"]["code"]) == (1, "series.unknown")
    assert f"did you mean '{names[1]}'?" in wrong.document["error"]["help"]
    assert deleted.document["rows"] == 240
    assert statecast("log", "info", "--json").document["series"] == 4


def test_a_running_server_locks_the_log_for_writing_and_prunes_on_request(statecast, logged, sales):
    """The log can still be read, and the error about the lock suggests --server."""
    name = sales["unique_id"].iloc[0]
    data = logged.parent
    variables = {"STATECAST_MODEL": str(data.parent / "bundle"), "STATECAST_DATA_DIR": str(data)}
    with server(variables) as running:
        url = running.url
        rule = ["log", "prune", "--model", "bundle", "--keep-steps", "12", "--json"]
        locked = statecast(*rule)
        counted = statecast(*rule, "--dry-run").document
        pruned = statecast(*rule, "--server", url).document
        exported = statecast("log", "export", "left.parquet", "--json").document
        deleted = statecast("log", "delete", name, "--server", url, "--json").document

    assert (locked.code, locked.document["error"]["code"]) == (2, "log.locked")
    assert "--server" in locked.document["error"]["help"]
    assert (counted["rows"], pruned["rows"]) == (648, 648)
    assert (exported["rows"], deleted["rows"]) == (72, 12)


def test_pruning_keeps_the_forecasts_of_the_model_served_last(
    statecast, logged, sales, monkeypatch
):
    """The server starts from its copy of that model even if the source is gone."""
    data = logged.parent
    source = data.parent / "bundle"
    variables = {"STATECAST_MODEL": str(source), "STATECAST_DATA_DIR": str(data)}
    request = {"unique_ids": sorted(sales["unique_id"].unique()), "level": [80]}
    with server(variables) as running:
        before = httpx.post(f"{running.url}/v1/forecasts", json=request).json()["forecasts"]
    shutil.rmtree(source)
    monkeypatch.setenv("STATECAST_MODEL", str(source))

    pruned = statecast("log", "prune", "--keep-steps", "12", "--json").document

    assert pruned["series"] == sales["unique_id"].nunique()
    with server(variables) as running:
        after = httpx.post(f"{running.url}/v1/forecasts", json=request).json()["forecasts"]
    for old, new in zip(before, after, strict=True):
        for column in ("statecast", "lo-80", "hi-80"):
            np.testing.assert_allclose(old[column], new[column], rtol=1e-5)


def test_with_several_models_name_selects_the_log(statecast, project, sales, monkeypatch):
    """A missing or wrong name is refused with the names of the models."""
    data = DataConfig(freq="MS", kind="positive")
    train_tiny(sales, data, project / "bundle")
    for name in ("north", "south"):
        import_history(f"sqlite:///{project / 'data' / name / 'observations.db'}", sales, data)
    not_named = statecast("log", "info", "--name", "north", "--json")
    models = json.dumps(dict.fromkeys(("north", "south"), str(project / "bundle")))
    name, rule = sales["unique_id"].iloc[0], ["log", "prune", "--json", "--keep-steps"]
    with monkeypatch.context() as several:
        several.setenv("STATECAST_MODELS", models)
        missing = statecast("log", "info", "--json")
        wrong = statecast("log", "info", "--name", "sooth", "--json")
        pruned = statecast(*rule, "12", "--name", "north").document
        exported = statecast("log", "export", "a.parquet", "--name", "south", "--json").document
        deleted = statecast("log", "delete", name, "--name", "south", "--json").document
        rows = [
            statecast("log", "info", "--name", model, "--json").document["rows"]
            for model in ("north", "south")
        ]
    variables = {"STATECAST_MODELS": models, "STATECAST_DATA_DIR": str(project / "data")}
    with server(variables) as running:
        north = ["--server", running.url, "--name", "north", "--json"]
        refused = statecast(*rule, "10", "--server", running.url)
        pruned_by_server = statecast(*rule, "10", *north).document
        deleted_by_server = statecast("log", "delete", name, *north).document

    for answer in (not_named, missing, wrong):
        assert (answer.code, answer.document["error"]["code"]) == (2, "cli.usage")
    assert "north, south" in missing.document["error"]["message"]
    assert wrong.document["error"]["help"] == "use --name south"
    assert (pruned["rows"], exported["rows"], deleted["rows"]) == (648, 720, 120)
    assert rows == [72, 600]
    assert refused.document["error"]["code"] == "request.model"
    assert (pruned_by_server["rows"], deleted_by_server["rows"]) == (12, 10)


def test_with_several_models_name_selects_the_one_that_observes(
    statecast, project, sales, monkeypatch
):
    """Roles and frequency are those of that model, with `--offline` and through a server."""
    plain, wide = DataConfig(freq="MS", kind="positive"), sales.assign(extra=1.0)
    train_tiny(sales, plain, project / "plain")
    train_tiny(wide, replace(plain, past_only=("extra",)), project / "wide")
    wide.to_csv("wide.csv", index=False)
    models = json.dumps({"north": str(project / "plain"), "south": str(project / "wide")})
    with monkeypatch.context() as several:
        several.setenv("STATECAST_MODELS", models)
        missing = statecast("observe", "wide.csv", "--offline", "--json")
        options = {name: ["--name", name, "--json"] for name in ("north", "south")}
        imported = [
            statecast("observe", "wide.csv", "--offline", *option) for option in options.values()
        ]
        exported = [
            statecast("log", "export", f"{name}.parquet", *option)
            for name, option in options.items()
        ]
    variables = {"STATECAST_MODELS": models, "STATECAST_DATA_DIR": str(project / "data")}
    with server(variables) as running:
        sent = statecast(
            "observe", "wide.csv", "--server", running.url, "--name", "south", "--json"
        ).document

    assert (missing.code, missing.document["error"]["code"]) == (2, "cli.usage")
    assert "north, south" in missing.document["error"]["message"]
    assert [answer.document["new"] for answer in imported] == [len(sales)] * 2
    assert [answer.document["rows"] for answer in exported] == [len(sales)] * 2
    columns = ["unique_id", "ds", "y"]
    assert list(pd.read_parquet("north.parquet")) == columns
    assert list(pd.read_parquet("south.parquet")) == [*columns, "extra"]
    assert (sent["duplicate"], sent["new"]) == (len(sales), 0)


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
def test_a_missing_log_and_contradictory_options_are_refused(statecast, project, arguments, code):
    """The exit code is 2, and no log is created."""
    answer = statecast("log", *arguments, "--json")

    assert (answer.code, answer.document["error"]["code"]) == (2, code)
    assert not (project / "data").exists()
