"""Older steps are taken out of the log; the states are those of one that was never pruned."""

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

from benchmarks.speed.servers import server
from forecast.inference.states import States
from service.errors import Refused
from service.ingest.importer import import_history
from service.ingest.write_queue import WriteQueue
from service.settings import Settings
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
    """Starts on one log and one folder of snapshots, one after the other."""

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
        """With the states kept as they are now, as they were, or not at all."""
        self.host.states()
        if save:
            self.host.snapshots.save(self.host.engine)
        self.close()
        if forget:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.host = self._start()

    def prune(self, keep: RetentionRule) -> Pruned:
        """As the server does it."""
        return self.write_queue.prune(keep, lambda: [])

    def close(self) -> None:
        self.write_queue.close()
        self.host.close()


@pytest.fixture
def begin(monthly, monthly_bundle, tmp_path) -> Iterator[Callable[[str], Server]]:
    """Start a server on a log with ten years of history."""
    begun: list[Server] = []

    def begin(url: str) -> Server:
        import_history(url, monthly, MONTHLY)
        begun.append(Server(url, monthly_bundle, tmp_path / f"snapshots-{len(begun)}"))
        return begun[-1]

    yield begin
    for one in begun:
        one.close()


@pytest.fixture
def twins(url, begin, tmp_path) -> tuple[Server, Server]:
    """One that will be pruned, and one that will not."""
    return begin(url), begin(f"sqlite:///{tmp_path / 'whole.db'}")


@pytest.fixture
def names(monthly) -> list[str]:
    return sorted(monthly["unique_id"].unique())


def states(server: Server) -> dict[str, States]:
    """Of every series."""
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
def test_a_replay_of_what_is_left_gives_the_states_of_the_whole(twins, names, keep):
    """At any cut: live, restored, replayed from the bases, after new steps and corrections."""
    pruned, whole = twins
    expected = states(whole)

    taken = pruned.prune(keep)

    kept = len(contents_of(pruned))
    assert (taken.steps, taken.rows) == (600 - kept, 600 - kept)
    assert_equal(states(pruned), expected)
    pruned.restart(save=True)
    assert pruned.host.restored == 5
    pruned.restart(save=False, forget=True)
    assert pruned.host.restored == 0
    assert_equal(states(pruned), expected)
    for one in twins:
        one.host.observe(names[0], "2019-01-01", 700.0)
        one.host.observe(names[1], "2018-12-01", 800.0)
    assert_equal(states(pruned), states(whole))
    pruned.restart(save=False, forget=True)
    assert_equal(states(pruned), states(whole))


def contents_of(server: Server):
    """What the log of a server holds."""
    with server.host.log.read() as transaction:
        return transaction.history([entry.number for entry in transaction.entries()])


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_between_prunings_the_states_are_exact(twins, names, seed):
    """New steps, corrections, starts with older snapshots or none, in any order."""
    rng = random.Random(seed)
    pruned, whole = twins
    lengths = dict.fromkeys(names, 120)
    begins = dict.fromkeys(names, 0)
    for _ in range(25):
        what = rng.choice(["observe", "observe", "revise", "prune", "save", "restart"])
        name = rng.choice(names)
        if what == "prune":
            steps = rng.randint(1, 130)
            pruned.prune(RetentionRule(steps=steps))
            begins = {n: max(begins[n], lengths[n] - steps) for n in names}
        elif what == "save":
            pruned.host.states()
            pruned.host.snapshots.save(pruned.host.engine)
        elif what == "restart":
            pruned.restart(save=False, forget=rng.random() < 0.3)
        else:
            at = lengths[name] if what == "observe" else rng.randrange(begins[name], lengths[name])
            lengths[name] = max(lengths[name], at + 1)
            y = round(rng.uniform(100, 900), 3)
            for server in twins:
                server.host.observe(name, str(MONTHS[at].date()), y)

    assert_equal(states(pruned), states(whole))
    pruned.restart(save=False)
    assert_equal(states(pruned), states(whole))
    pruned.restart(save=False, forget=True)
    assert_equal(states(pruned), states(whole))


def test_snapshots_of_a_copy_that_was_pruned_differently_are_not_read(begin, tmp_path):
    """States and number of the batch are the same, but not where the log of a series begins."""
    path, earlier = tmp_path / "log.db", tmp_path / "earlier.db"
    one = begin(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as log:
        log.execute("vacuum into ?", (str(earlier),))
    one.host.states()
    one.prune(RetentionRule(steps=12))
    one.host.snapshots.save(one.host.engine)
    one.close()
    shutil.copy(earlier, path)
    for rest in ("-wal", "-shm"):
        path.with_name(f"log.db{rest}").unlink(missing_ok=True)
    other = Server(one.url, one.bundle, tmp_path / "elsewhere")
    other.prune(RetentionRule(steps=60))
    other.close()

    one.host = one._start()

    assert one.host.restored == 0
    one.host.states()
    first, _ = one.host.engine.spans(np.arange(5))
    assert first.tolist() == [pd.Timestamp("2014-01-01").value] * 5


def test_what_was_taken_out_can_not_be_corrected(url, begin, names):
    """The answer says where the log begins; what is still there can be."""
    server = begin(url)
    server.prune(RetentionRule(steps=12))

    with pytest.raises(Refused) as refused:
        server.host.observe(names[1], "2017-12-01", 5.0)

    assert refused.value.error.code == "data.pruned"
    assert f"series '{names[1]}' begins at 2018-01-01" in refused.value.error.message
    server.host.observe(names[1], "2018-01-01", 5.0)


def test_the_server_prunes_and_says_so(serve, monthly_bundle, monthly, names):
    """Counted first, then done; forecasts stay, also after a start that has only the log."""
    client = serve(monthly_bundle, monthly)
    before = forecasts(client, names)

    counted = client.post("/v1/log:prune", json={"keep_steps": 20, "dry_run": True}).json()
    untouched = client.get(f"/v1/series/{names[0]}").json()
    done = client.post("/v1/log:prune", json={"keep_steps": 20}).json()
    again = client.post("/v1/log:prune", json={"before": "2017-05-01"}).json()

    assert counted == {"dry_run": True, "series": 5, "steps": 500, "rows": 500}
    assert done == {**counted, "dry_run": False}
    assert (again["series"], untouched["pruned"]) == (0, 0)
    detail = client.get(f"/v1/series/{names[0]}").json()
    assert (detail["first_ds"], detail["last_ds"]) == ("2017-05-01", "2018-12-01")
    assert (detail["observations"], detail["pruned"]) == (120, 100)
    row = {"unique_id": names[0], "ds": "2017-04-01", "y": 1.0}
    refused = client.post("/v1/observations", json={"observations": [row]})
    assert (refused.status_code, refused.json()["code"]) == (409, "data.pruned")
    folder = client.app.state.settings.data_dir
    client.__exit__(None, None, None)
    shutil.rmtree(folder / "snapshots")

    started = serve(monthly_bundle, data_dir=folder)

    assert started.get("/v1/models").json()["models"][0]["shortened"] == 0
    for one, other in zip(before, forecasts(started, names), strict=True):
        assert one["statecast"] == pytest.approx(other["statecast"], rel=1e-5)
        assert one["position"] == other["position"]
    assert started.delete(f"/v1/series/{names[0]}").json()["rows"] == 20


def forecasts(client, names: list[str]) -> list[dict]:
    """Of some series."""
    return client.post("/v1/forecasts", json={"unique_ids": names}).json()["forecasts"]


@pytest.mark.parametrize(
    "body", [{}, {"keep_steps": 0}, {"keep_steps": 3, "before": "2018-01-01"}, {"before": "soon"}]
)
def test_a_rule_that_is_none_is_refused(retail_client, body):
    """Exactly one of the two, and one that can be read."""
    assert retail_client.post("/v1/log:prune", json=body).status_code == 422


def test_a_model_that_comes_later_knows_what_was_left_and_a_rollback_knows_all(
    serve, monthly_bundle, monthly, names, tmp_path, caplog
):
    """It is counted and warned of; the model before has its bases, whatever is corrected."""
    pointer = tmp_path / "served"
    shutil.copytree(monthly_bundle, pointer)
    other = train_tiny(monthly, MONTHLY, tmp_path / "other", max_steps=6)
    client = serve(pointer, monthly, watch_seconds=0.05)
    client.post("/v1/log:prune", json={"keep_steps": 24})
    replace_model(other, pointer)
    wait_for_successor(client, lambda told: told.get("phase") == "in service")

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
    for one, other in zip(forecasts(client, names), forecasts(whole, names), strict=True):
        assert one["statecast"] == pytest.approx(other["statecast"], rel=1e-5)
        assert one["position"] == other["position"]


def test_covariates_and_masked_steps_are_in_the_bases(serve, weekly_bundle, weekly):
    """The log begins with a value; what each model reads of a step is in its base."""
    gone = weekly["ds"].isin(sorted(weekly["ds"].unique())[60:63])
    client = serve(weekly_bundle, weekly[~gone])
    name = weekly["unique_id"].iloc[0]
    stamps = sorted(weekly["ds"].unique())
    asked = {
        "unique_ids": [name],
        "h": 1,
        "futr": [
            {
                "unique_id": name,
                "ds": str(pd.Timestamp(stamps[-1]).date() + pd.Timedelta(weeks=1)),
                "price": 0.05,
                "deal": 1.0,
            }
        ],
    }
    before = client.post("/v1/forecasts", json=asked).json()["forecasts"][0]

    client.post("/v1/log:prune", json={"before": str(stamps[61].date())})
    client.post(f"/v1/series/{name}/state:rebuild")

    after = client.post("/v1/forecasts", json=asked).json()["forecasts"][0]
    detail = client.get(f"/v1/series/{name}").json()
    assert (detail["first_ds"], detail["pruned"]) == (str(stamps[63].date()), 63)
    assert after["state"] == "rebuilt"
    assert after["statecast"] == pytest.approx(before["statecast"], rel=1e-5)


def test_other_servers_take_a_pruning_in(postgres, begin, names, tmp_path):
    """One that has what went only learns where the log begins; one that has not replays it."""
    first = begin(empty_database(postgres))
    second = Server(first.url, first.bundle, tmp_path / "second")
    third = Server(first.url, first.bundle, tmp_path / "third")
    for one in (first, second, third):
        states(one)
    first.host.observe(names[0], "2010-01-01", 700.0)
    second.host.writer.catch_up()
    first.host.observe(names[0], "2019-01-01", 710.0)
    second.host.writer.catch_up()

    first.prune(RetentionRule(steps=1))

    for one, rebuilt in ((second, False), (third, True)):
        one.host.writer.catch_up()
        assert_equal(states(one), states(first))
        engine = one.host.engine
        assert engine.position(engine.rows[names[0]]).rebuilt == rebuilt
        with pytest.raises(Refused, match="before the first step that pruning kept"):
            one.host.observe(names[1], "2010-01-01", 5.0)
        one.close()


def test_kill_9_leaves_each_series_whole_or_pruned(monthly_bundle, monthly, tmp_path):
    """At any moment of a pruning; asked again it goes on, and the forecasts never change."""
    copies = [monthly.assign(unique_id=monthly["unique_id"] + f"/{i}") for i in range(60)]
    table = pd.concat(copies, ignore_index=True)
    environment = {"STATECAST_MODEL": str(monthly_bundle), "STATECAST_DATA_DIR": str(tmp_path)}
    url = Settings(data_dir=tmp_path).log_url
    import_history(url, table, MONTHLY)
    names = sorted(table["unique_id"].unique())
    rng = random.Random(3)
    seen, left = [], []
    for keep in (90, 60, 30, 10):
        with server(environment) as running:
            seen.append(forecasts_of(running.url, names))
            asked = threading.Thread(target=ask_to_prune, args=(running.url, keep))
            asked.start()
            threading.Event().wait(rng.uniform(0.0, 0.3))  # any moment will do
            running.kill()
            asked.join()
        left.append(check_whole(url))
    with server(environment) as running:
        ask_to_prune(running.url, 10)
        seen.append(forecasts_of(running.url, names))
    shutil.rmtree(tmp_path / "snapshots", ignore_errors=True)
    with server(environment) as running:
        seen.append(forecasts_of(running.url, names))

    assert check_whole(url) == 300 * 10
    assert left == sorted(left, reverse=True)
    for made in seen[1:]:
        np.testing.assert_allclose(made, seen[0], rtol=1e-5)


def ask_to_prune(address: str, keep: int) -> None:
    """The answer may never come."""
    with contextlib.suppress(httpx.TransportError):
        httpx.post(f"{address}/v1/log:prune", json={"keep_steps": keep}, timeout=60)


def check_whole(url: str) -> int:
    """What went and what is left make up each series, past our own code; returns what is left."""
    query = """
        select count(*), min(o.ds), coalesce(p.steps, 0), p.first_ds, count(distinct b.series)
        from observation o left join pruned p using (series) left join base b using (series)
        group by o.series, p.steps, p.first_ds
    """
    found = run_sql(url, query)
    for rows, first, steps, begins, bases in found:
        assert (rows + steps, bases) == (120, int(steps > 0))
        assert begins in (None, first)
    return sum(rows for rows, *_ in found)
