"""Tests of pruning: after older steps are deleted, the states equal those of an unpruned log."""

import contextlib
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from benchmarks.speed.servers import server as http_server
from forecast.inference.states import States
from service.errors import Refused
from service.ingest.importer import import_history
from service.ingest.write_queue import WriteQueue
from service.settings import Settings
from service.storage.records import Observations
from service.storage.retention import Pruned, RetentionRule
from tests.helpers.hosts import MONTHLY, Host, assert_equal
from tests.helpers.service import (
    empty_database,
    observe,
    replace_model,
    run_sql,
    train_tiny,
    wait_for_successor,
)
from tests.helpers.service import forecast_values as forecasts_of

MONTHS = pd.date_range("2009-01-01", periods=400, freq="MS")


@dataclass
class Server:
    """Host with a write queue, restarted on one log and one folder of snapshots."""

    url: str
    bundle: Path
    folder: Path

    def __post_init__(self) -> None:
        self.host = self._start()

    def _start(self) -> Host:
        host = Host(self.url, self.bundle, self.folder, block=2)
        self.write_queue = WriteQueue(host.writer, 60.0)
        return host

    def restart(self, *, save: bool, forget: bool = False) -> None:
        """Restart after saving the states, from the last snapshot, or without any snapshot."""
        self.host.states()
        if save:
            self.host.snapshots.save(self.host.engine)
        self.close()
        if forget:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.host = self._start()

    def prune(self, keep: RetentionRule) -> Pruned:
        """Prune through the write queue, as the HTTP server does."""
        return self.write_queue.prune(keep, lambda: [])

    def close(self) -> None:
        self.write_queue.close()
        self.host.close()


@pytest.fixture
def start(monthly, monthly_bundle, tmp_path) -> Iterator[Callable[[str], Server]]:
    """Return a function that starts a server on a log with ten years of history."""
    servers: list[Server] = []

    def start_server(url: str) -> Server:
        import_history(url, monthly, MONTHLY)
        servers.append(Server(url, monthly_bundle, tmp_path / f"snapshots-{len(servers)}"))
        return servers[-1]

    yield start_server
    for server in servers:
        server.close()


@pytest.fixture
def twins(url, start, tmp_path) -> tuple[Server, Server]:
    """Start two servers on equal logs: one to prune, and one to leave whole."""
    return start(url), start(f"sqlite:///{tmp_path / 'whole.db'}")


@pytest.fixture
def names(monthly) -> list[str]:
    return sorted(monthly["unique_id"].unique())


def states(server: Server) -> dict[str, States]:
    """Return the states of every series, after its replay."""
    return server.host.states()


@pytest.mark.parametrize(
    "keep",
    [
        RetentionRule(steps=1),
        RetentionRule(steps=7),
        RetentionRule(steps=119),
        RetentionRule(steps=10**9),
        RetentionRule(since=pd.Timestamp("2012-05-01").value),
        RetentionRule(since=pd.Timestamp("2012-05-17").value),
        RetentionRule(since=pd.Timestamp("2050-01-01").value),
    ],
)
def test_a_pruned_log_replays_to_the_states_of_the_whole_log(twins, names, keep):
    """Live, restored and replayed states agree, also after new steps and corrections."""
    pruned, whole = twins
    expected = states(whole)

    report = pruned.prune(keep)

    deleted = 600 - len(contents_of(pruned))
    assert (report.steps, report.rows) == (deleted, deleted)
    assert_equal(states(pruned), expected)
    pruned.restart(save=True)
    assert pruned.host.restored == 5
    pruned.restart(save=False, forget=True)
    assert pruned.host.restored == 0
    assert_equal(states(pruned), expected)
    for server in twins:
        server.host.observe(names[0], "2019-01-01", 700.0)
        server.host.observe(names[1], "2018-12-01", 800.0)
    assert_equal(states(pruned), states(whole))
    pruned.restart(save=False, forget=True)
    assert_equal(states(pruned), states(whole))


def contents_of(server: Server) -> Observations:
    """Return the latest values of everything in the log of a server."""
    with server.host.log.read() as transaction:
        return transaction.history([entry.number for entry in transaction.entries()])


@pytest.mark.parametrize("seed", range(4))
def test_states_stay_exact_whatever_happens_between_prunings(twins, names, seed):
    """Steps, corrections and starts with older snapshots or none come in random order."""
    rng = random.Random(seed)
    pruned, whole = twins
    lengths = dict.fromkeys(names, 120)
    begins = dict.fromkeys(names, 0)
    for _ in range(25):
        action = rng.choice(["observe", "observe", "revise", "prune", "save", "restart"])
        name = rng.choice(names)
        if action == "prune":
            steps = rng.randint(1, 130)
            pruned.prune(RetentionRule(steps=steps))
            begins = {n: max(begins[n], lengths[n] - steps) for n in names}
        elif action == "save":
            pruned.host.states()
            pruned.host.snapshots.save(pruned.host.engine)
        elif action == "restart":
            pruned.restart(save=False, forget=rng.random() < 0.3)
        else:
            is_new = action == "observe"
            step = lengths[name] if is_new else rng.randrange(begins[name], lengths[name])
            lengths[name] = max(lengths[name], step + 1)
            y = round(rng.uniform(100, 900), 3)
            for server in twins:
                server.host.observe(name, str(MONTHS[step].date()), y)

    assert_equal(states(pruned), states(whole))
    pruned.restart(save=False)
    assert_equal(states(pruned), states(whole))
    pruned.restart(save=False, forget=True)
    assert_equal(states(pruned), states(whole))


def test_snapshots_of_a_log_that_was_pruned_differently_are_not_restored(start, tmp_path):
    """The states and the batch number are the same, but the log of a series begins elsewhere."""
    path, backup = tmp_path / "log.db", tmp_path / "backup.db"
    server = start(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as log:
        log.execute("vacuum into ?", (str(backup),))
    server.host.states()
    server.prune(RetentionRule(steps=12))
    server.host.snapshots.save(server.host.engine)
    server.close()
    shutil.copy(backup, path)
    for suffix in ("-wal", "-shm"):
        path.with_name(f"log.db{suffix}").unlink(missing_ok=True)
    other = Server(server.url, server.bundle, tmp_path / "elsewhere")
    other.prune(RetentionRule(steps=60))
    other.close()

    server.host = server._start()

    assert server.host.restored == 0
    server.host.states()
    first, _ = server.host.engine.spans(np.arange(5))
    assert first.tolist() == [pd.Timestamp("2014-01-01").value] * 5


def test_a_pruned_step_cannot_be_corrected(url, start, names):
    """The message says where the log begins; the first remaining step can be corrected."""
    server = start(url)
    server.prune(RetentionRule(steps=12))

    with pytest.raises(Refused) as refused:
        server.host.observe(names[1], "2017-12-01", 5.0)

    assert refused.value.error.code == "data.pruned"
    assert f"series '{names[1]}' begins at 2018-01-01" in refused.value.error.message
    server.host.observe(names[1], "2018-01-01", 5.0)


def test_the_server_prunes_on_request_and_forecasts_stay_the_same(
    serve, monthly_bundle, monthly, names
):
    """A dry run only counts; forecasts are also the same after a start without snapshots."""
    client = serve(monthly_bundle, monthly)
    before = forecasts(client, names)

    dry_run = client.post("/v1/log:prune", json={"keep_steps": 20, "dry_run": True}).json()
    detail = client.get(f"/v1/series/{names[0]}").json()
    report = client.post("/v1/log:prune", json={"keep_steps": 20}).json()
    repeated = client.post("/v1/log:prune", json={"before": "2017-05-01"}).json()

    assert dry_run == {"dry_run": True, "series": 5, "steps": 500, "rows": 500}
    assert report == {**dry_run, "dry_run": False}
    assert (repeated["series"], detail["pruned"]) == (0, 0)
    detail = client.get(f"/v1/series/{names[0]}").json()
    assert (detail["first_ds"], detail["last_ds"]) == ("2017-05-01", "2018-12-01")
    assert (detail["observations"], detail["pruned"]) == (120, 100)
    row = {"unique_id": names[0], "ds": "2017-04-01", "y": 1.0}
    refused = client.post("/v1/observations", json={"observations": [row]})
    assert (refused.status_code, refused.json()["code"]) == (409, "data.pruned")
    folder = client.app.state.settings.data_dir
    client.__exit__(None, None, None)
    shutil.rmtree(folder / "snapshots")

    restarted = serve(monthly_bundle, data_dir=folder)

    assert restarted.get("/v1/models").json()["models"][0]["shortened"] == 0
    for expected, actual in zip(before, forecasts(restarted, names), strict=True):
        assert expected["statecast"] == pytest.approx(actual["statecast"], rel=1e-5)
        assert expected["position"] == actual["position"]
    assert restarted.delete(f"/v1/series/{names[0]}").json()["rows"] == 20


def forecasts(client: TestClient, names: list[str]) -> list[dict]:
    """Request the forecasts of some series."""
    return client.post("/v1/forecasts", json={"unique_ids": names}).json()["forecasts"]


@pytest.mark.parametrize(
    "body", [{}, {"keep_steps": 0}, {"keep_steps": 3, "before": "2018-01-01"}, {"before": "soon"}]
)
def test_an_invalid_retention_rule_is_refused(retail_client, body):
    """A rule needs exactly one of `keep_steps` and `before`, with a valid value."""
    assert retail_client.post("/v1/log:prune", json=body).status_code == 422


def test_a_later_model_sees_the_remaining_steps_and_a_rollback_sees_all(
    serve, monthly_bundle, monthly, names, tmp_path, caplog
):
    """The server counts and warns of shortened series; the earlier model still has its bases."""
    pointer = tmp_path / "served"
    shutil.copytree(monthly_bundle, pointer)
    successor = train_tiny(monthly, MONTHLY, tmp_path / "other", max_steps=6)
    client = serve(pointer, monthly, watch_seconds=0.05)
    client.post("/v1/log:prune", json={"keep_steps": 24})
    replace_model(successor, pointer)
    wait_for_successor(client, lambda answer: answer.get("phase") == "in service")

    new, old = client.get("/v1/models").json()["models"]
    assert (new["shortened"], old["shortened"]) == (5, 0)
    assert "5 series were pruned before model" in caplog.text
    assert forecasts(client, names)[0]["position"]["observations"] == 24
    assert client.post("/v1/log:prune", json={"keep_steps": 12}).json()["steps"] == 60
    assert client.get("/v1/models").json()["models"][0]["shortened"] == 5
    observe(client, names[0], "2018-06-01", 500.0)
    assert forecasts(client, names)[0]["position"]["observations"] == 24

    client.post("/v1/models:rollback")

    changed = monthly.copy()
    changed.loc[(changed["unique_id"] == names[0]) & (changed["ds"] == "2018-06-01"), "y"] = 500.0
    whole = serve(monthly_bundle, changed, data_dir=tmp_path / "whole")
    for actual, expected in zip(forecasts(client, names), forecasts(whole, names), strict=True):
        assert actual["statecast"] == pytest.approx(expected["statecast"], rel=1e-5)
        assert actual["position"] == expected["position"]


def test_bases_include_covariates_and_masked_steps(serve, weekly_bundle, weekly):
    """The pruned log begins with an observed value; a rebuild from the base forecasts the same."""
    missing = weekly["ds"].isin(sorted(weekly["ds"].unique())[60:63])
    client = serve(weekly_bundle, weekly[~missing])
    name = weekly["unique_id"].iloc[0]
    stamps = sorted(weekly["ds"].unique())
    ds = str(stamps[-1].date() + pd.Timedelta(weeks=1))
    row = {"unique_id": name, "ds": ds, "price": 0.05, "deal": 1.0}
    body = {"unique_ids": [name], "h": 1, "futr": [row]}
    before = client.post("/v1/forecasts", json=body).json()["forecasts"][0]

    client.post("/v1/log:prune", json={"before": str(stamps[61].date())})
    client.post(f"/v1/series/{name}/state:rebuild")

    after = client.post("/v1/forecasts", json=body).json()["forecasts"][0]
    detail = client.get(f"/v1/series/{name}").json()
    assert (detail["first_ds"], detail["pruned"]) == (str(stamps[63].date()), 63)
    assert after["state"] == "rebuilt"
    assert after["statecast"] == pytest.approx(before["statecast"], rel=1e-5)


def test_other_servers_follow_a_pruning(postgres, start, names, tmp_path):
    """A server replays a series only if the pruning deleted a step that it had not applied."""
    first = start(empty_database(postgres))
    second = Server(first.url, first.bundle, tmp_path / "second")
    third = Server(first.url, first.bundle, tmp_path / "third")
    for server in (first, second, third):
        states(server)
    first.host.observe(names[0], "2010-01-01", 700.0)
    second.host.writer.catch_up()
    first.host.observe(names[0], "2019-01-01", 710.0)
    second.host.writer.catch_up()

    first.prune(RetentionRule(steps=1))

    for server, rebuilt in ((second, False), (third, True)):
        server.host.writer.catch_up()
        assert_equal(states(server), states(first))
        engine = server.host.engine
        assert engine.position(engine.rows[names[0]]).rebuilt == rebuilt
        with pytest.raises(Refused, match="before the first step that pruning kept"):
            server.host.observe(names[1], "2010-01-01", 5.0)
        server.close()


def test_kill_9_leaves_each_series_whole_or_pruned(monthly_bundle, monthly, tmp_path):
    """A kill may come at any moment; the next request resumes, and forecasts never change."""
    copies = [monthly.assign(unique_id=monthly["unique_id"] + f"/{i}") for i in range(60)]
    table = pd.concat(copies, ignore_index=True)
    environment = {"STATECAST_MODEL": str(monthly_bundle), "STATECAST_DATA_DIR": str(tmp_path)}
    url = Settings(data_dir=tmp_path).log_url
    import_history(url, table, MONTHLY)
    names = sorted(table["unique_id"].unique())
    rng = random.Random(3)
    results, remaining = [], []
    for keep in (90, 60, 30, 10):
        with http_server(environment) as running:
            results.append(forecasts_of(running.url, names))
            request = threading.Thread(target=request_pruning, args=(running.url, keep))
            request.start()
            threading.Event().wait(rng.uniform(0.0, 0.3))  # kill at a random moment
            running.kill()
            request.join()
        remaining.append(count_remaining(url))
    with http_server(environment) as running:
        request_pruning(running.url, 10)
        results.append(forecasts_of(running.url, names))
    shutil.rmtree(tmp_path / "snapshots", ignore_errors=True)
    with http_server(environment) as running:
        results.append(forecasts_of(running.url, names))

    assert count_remaining(url) == 300 * 10
    assert remaining == sorted(remaining, reverse=True)
    for values in results[1:]:
        np.testing.assert_allclose(values, results[0], rtol=1e-5)


def request_pruning(address: str, keep: int) -> None:
    """Ask a server to prune; the server may be killed before it answers."""
    with contextlib.suppress(httpx.TransportError):
        httpx.post(f"{address}/v1/log:prune", json={"keep_steps": keep}, timeout=60)


def count_remaining(url: str) -> int:
    """Check in plain SQL that each series is whole or pruned, and count the rows that remain."""
    query = """
        select count(*), min(o.ds), coalesce(p.steps, 0), p.first_ds, count(distinct b.series)
        from observation o left join pruned p using (series) left join base b using (series)
        group by o.series, p.steps, p.first_ds
    """
    series = run_sql(url, query)
    for rows, first, steps, begins, bases in series:
        assert (rows + steps, bases) == (120, int(steps > 0))
        assert begins in (None, first)
    return sum(rows for rows, *_ in series)
