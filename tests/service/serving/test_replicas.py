"""Several server processes over one PostgreSQL database, some of them or the database killed."""

import itertools
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle

import httpx
import numpy as np
import pandas as pd
import sqlalchemy as sa

from benchmarks.speed.clients import (
    DAY_TEXTS,
    Reporter,
    Verdict,
    body_of,
    compare_states,
    read_stored,
)
from benchmarks.speed.servers import server, wait_until
from forecast.bundle import load_bundle
from service.ingest.importer import import_history
from service.storage import schema as tables
from tests.helpers.service import crash, empty_database, restart
from tests.helpers.service import forecast_values as forecasts

ROUNDS = 12
DAYS = 40
"""Days that each client reports."""


def is_log_away(answer: httpx.Response) -> bool:
    """Return whether the answer says that the log cannot be reached; assert that it is 200 else."""
    if answer.status_code == 200:
        return False
    assert answer.status_code == 503, answer.text
    assert answer.json()["code"] == "log.invalid"
    assert int(answer.headers["Retry-After"]) >= 1
    return True


def test_a_client_reads_its_own_writes_through_any_server(
    postgres, monthly, monthly_bundle, tmp_path
):
    """A server is killed half-way, and nothing is lost."""
    url = empty_database(postgres)
    import_history(url, monthly, load_bundle(monthly_bundle).config.data)
    names = sorted(monthly["unique_id"].unique())
    months = pd.date_range("2019-01-01", periods=ROUNDS, freq="MS")
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                server(
                    {
                        "STATECAST_MODEL": str(monthly_bundle),
                        "STATECAST_DATABASE_URL": url,
                        "STATECAST_DATA_DIR": str(tmp_path / f"replica-{i}"),
                        "STATECAST_UNKNOWN_SERIES": "create",
                    }
                )
            )
            for i in range(3)
        ]
        addresses = [one.url for one in servers]
        turns = cycle(range(3))
        for number, month in enumerate(months):
            if number == ROUNDS // 2:
                servers[1].kill()
                addresses, turns = [addresses[0], addresses[2]], cycle(range(2))
            writer, reader = addresses[next(turns)], addresses[next(turns)]
            batch = {(name, str(month.date())): 500.0 + number for name in (*names, "begun-here")}
            batch[names[0], "2018-12-01"] = 400.0 + number  # A correction, different each time.
            answer = httpx.post(f"{writer}/v1/observations", json=body_of(batch), timeout=60)
            assert answer.status_code == 200, answer.text
            assert (answer.json()["new"], answer.json()["revised"]) == (len(names) + 1, 1)
            for name, expected in ((names[0], 121 + number), ("begun-here", 1 + number)):
                state = httpx.get(f"{reader}/v1/series/{name}/state").json()
                assert state["position"]["observations"] == expected
                assert state["position"]["last_ds"] == str(month.date())
        live = [forecasts(address, [*names, "begun-here"]) for address in addresses]
    replica = {
        "STATECAST_MODEL": str(monthly_bundle),
        "STATECAST_DATABASE_URL": url,
        "STATECAST_DATA_DIR": str(tmp_path / "fresh"),
    }
    with server(replica) as fresh:
        replayed = forecasts(fresh.url, [*names, "begun-here"])
    for of_server in live:
        np.testing.assert_allclose(of_server, replayed, rtol=1e-5)


def test_servers_survive_a_crash_of_postgresql(cluster, postgres, daily_models, tmp_path):
    """They answer 503 with Retry-After while it is away; afterwards nothing is lost."""
    url, turns, back = empty_database(postgres), itertools.count(), threading.Event()
    reporters = [Reporter([f"{i}-{j}" for j in range(3)], random.Random(i)) for i in range(4)]
    *working, waiting = reporters
    refused = [0] * len(working)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                server(
                    {
                        "STATECAST_MODEL": str(daily_models[0]),
                        "STATECAST_DATABASE_URL": url,
                        "STATECAST_DATA_DIR": str(tmp_path / f"replica-{i}"),
                        "STATECAST_UNKNOWN_SERIES": "create",
                        "STATECAST_SNAPSHOT_SECONDS": "0.1",
                    }
                )
            )
            for i in range(3)
        ]
        clients = [
            stack.enter_context(httpx.Client(base_url=one.url, timeout=60)) for one in servers
        ]

        def work(number: int) -> None:
            reporter = working[number]
            state = f"/v1/series/{reporter.names[0]}/state"

            def is_answered(send: Callable[[httpx.Client], httpx.Response]) -> bool:
                answer = send(clients[next(turns) % len(clients)])
                refused[number] += is_log_away(answer)
                if answer.status_code == 200 and answer.request.method == "GET":
                    assert answer.json()["position"] == {
                        "last_ds": DAY_TEXTS[reporter.requests - 1],
                        "observations": reporter.requests,
                    }
                return answer.status_code == 200

            while reporter.requests < DAYS or not back.is_set():
                wait_until(lambda: is_answered(reporter.send), bool, 60)
                wait_until(lambda: is_answered(lambda client: client.get(state)), bool, 60)

        pool = stack.enter_context(ThreadPoolExecutor(len(working)))
        stack.callback(back.set)
        tasks = [pool.submit(work, number) for number in range(len(working))]
        wait_until(lambda: min(one.requests for one in working), lambda n: n >= DAYS // 4)
        assert waiting.send(clients[0]).status_code == 200
        state = f"/v1/series/{waiting.names[0]}/state"
        body = {"unique_ids": waiting.names}
        crash(cluster)
        wait_until(lambda: min(refused), bool)
        for client in clients:
            assert client.get("/livez").status_code == 200
            assert is_log_away(waiting.send(client))
            assert is_log_away(client.get(state))
            assert is_log_away(client.post("/v1/forecasts", json=body))
            wait_until(lambda ask=client: ask.get("/readyz").status_code, lambda n: n == 503)
        restart(cluster)
        back.set()
        for task in tasks:
            task.result()
        for client in clients:
            wait_until(lambda ask=client: ask.get("/readyz").status_code, lambda n: n == 200)
        assert waiting.send(clients[0]).status_code == 200
        stored, bundle = read_stored(url), load_bundle(daily_models[0])
        verdict = sum((compare_states(one.url, [bundle], stored) for one in servers), Verdict())
    verdict = sum((reporter.compare(stored) for reporter in reporters), verdict)
    assert (verdict.lost, verdict.doubled, verdict.torn) == (0, 0, 0)
    assert verdict.state_error <= 1e-5


def test_an_idle_server_notices_that_postgresql_is_away_and_back(
    cluster, postgres, daily_models, tmp_path
):
    """`/readyz` turns 503 with the reason, then 200; the server logs each change once."""
    environment = {
        "STATECAST_MODEL": str(daily_models[0]),
        "STATECAST_DATABASE_URL": empty_database(postgres),
        "STATECAST_DATA_DIR": str(tmp_path),
    }
    with server(environment) as running, httpx.Client(base_url=running.url) as client:
        crash(cluster)
        away = wait_until(lambda: client.get("/readyz"), lambda answer: answer.status_code == 503)
        wait_until(lambda: running.output, lambda said: "catch-up: " in said)
        client.post("/v1/models:refresh")
        restart(cluster)
        back = wait_until(lambda: client.get("/readyz"), lambda answer: answer.status_code == 200)
        said = wait_until(lambda: running.output, lambda said: "catch-up: works again" in said)
    assert (away.json()["ready"], away.json()["phase"]) == (False, "cut off")
    assert "cannot be read (no connection to PostgreSQL)" in away.json()["reason"]
    assert (back.json()["ready"], back.json()["phase"]) == (True, "ready")
    assert "Traceback" not in said
    assert said.count("WARNING service.slot catch-up: ") == 1


def test_a_server_notices_that_the_log_lost_its_last_batches(postgres, daily_models, tmp_path):
    """A failover to a replica that lags has this effect; what was lost can be sent again."""
    url = empty_database(postgres)
    environment = {
        "STATECAST_MODEL": str(daily_models[0]),
        "STATECAST_DATABASE_URL": url,
        "STATECAST_DATA_DIR": str(tmp_path),
        "STATECAST_UNKNOWN_SERIES": "create",
    }
    days = [str(day.date()) for day in pd.date_range("2024-01-01", periods=6)]
    with server(environment) as running, httpx.Client(base_url=running.url) as client:

        def report(day: str) -> httpx.Response:
            return client.post("/v1/observations", json=body_of({("a", day): 5.0}))

        def last() -> str:
            position = client.get("/v1/series/a/state").json()["position"]
            return str(position["last_ds"])

        for day in days[:5]:
            assert report(day).status_code == 200
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            (batch,) = connection.execute(sa.select(tables.head.c.batch)).one()
            rows = tables.observation
            connection.execute(rows.delete().where(rows.c.batch > batch - 2))
            connection.execute(tables.head.update().values(batch=batch - 2))
        engine.dispose()
        wait_until(last, lambda ds: ds == days[2])
        early, resent = report(days[5]), [report(day) for day in days[3:]]
        assert "every series is replayed" in running.output
        assert client.get("/readyz").json()["phase"] == "ready"
        assert last() == days[5]
    assert early.json()["code"] == "data.gap"
    assert [answer.json()["new"] for answer in resent] == [1, 1, 1]
