"""Several real servers over one PostgreSQL: a client reads its own writes through any of them."""

import itertools
import random
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle
from typing import Any

import httpx
import numpy as np
import pandas as pd

from benchmarks.clients import NAMED, Reporter, Verdict, body_of, compare_states, stored_in
from benchmarks.servers import server, wait_until
from forecast.bundle import load_bundle
from service.importing import import_history
from tests.service.conftest import emptied

ROUNDS = 12
DAYS = 40
"""That each client reports."""


def forecasts(url: str, names: list[str]) -> np.ndarray:
    """Point forecasts and bounds of every series."""
    body = {"unique_ids": names, "level": [80]}
    answer = httpx.post(f"{url}/v1/forecasts", json=body).json()["forecasts"]
    return np.array([[one["statecast"], one["lo-80"], one["hi-80"]] for one in answer])


def crash(cluster: Any) -> None:
    """PostgreSQL ends at once."""
    postmaster = cluster.get_postmaster_info().process
    postmaster.send_signal(signal.SIGQUIT)
    postmaster.wait(30)


def test_a_client_reads_its_own_writes_through_any_server(
    postgres, monthly, monthly_bundle, tmp_path
):
    """Written to one, read from the next; one is killed in between, and nothing is lost."""
    url = emptied(postgres)
    import_history(url, monthly, load_bundle(monthly_bundle).config.data)
    names = sorted(monthly["unique_id"].unique())
    months = pd.date_range("2019-01-01", periods=ROUNDS, freq="MS")
    with ExitStack() as stack:
        servers = [
            stack.enter_context(server({
                "STATECAST_MODEL": str(monthly_bundle), "STATECAST_DATABASE_URL": url,
                "STATECAST_DATA_DIR": str(tmp_path / f"replica-{i}"),
                "STATECAST_UNKNOWN_SERIES": "create",
            }))
            for i in range(3)
        ]  # fmt: skip
        addresses = [one.url for one in servers]
        turns = cycle(range(3))
        for number, month in enumerate(months):
            if number == ROUNDS // 2:
                servers[1].kill()
                addresses, turns = [addresses[0], addresses[2]], cycle(range(2))
            writer, reader = addresses[next(turns)], addresses[next(turns)]
            batch = {(name, str(month.date())): 500.0 + number for name in (*names, "begun-here")}
            batch[names[0], "2018-12-01"] = 400.0 + number  # a correction, each time another
            sent = httpx.post(f"{writer}/v1/observations", json=body_of(batch), timeout=60)
            assert sent.status_code == 200, sent.text
            assert (sent.json()["new"], sent.json()["revised"]) == (len(names) + 1, 1)
            for name, expected in ((names[0], 121 + number), ("begun-here", 1 + number)):
                state = httpx.get(f"{reader}/v1/series/{name}/state").json()
                assert state["position"]["observations"] == expected
                assert state["position"]["last_ds"] == str(month.date())
        seen = [forecasts(address, [*names, "begun-here"]) for address in addresses]
    replica = {
        "STATECAST_MODEL": str(monthly_bundle), "STATECAST_DATABASE_URL": url,
        "STATECAST_DATA_DIR": str(tmp_path / "fresh"),
    }  # fmt: skip
    with server(replica) as fresh:
        replayed = forecasts(fresh.url, [*names, "begun-here"])
    for made in seen:
        np.testing.assert_allclose(made, replayed, rtol=1e-5)


def test_servers_outlive_a_crash_of_postgresql(cluster, postgres, daily_models, tmp_path):
    """While it is away: 503, and when to come back. Then all goes on, and nothing is lost."""
    url, turns = emptied(postgres), itertools.count()
    reporters = [Reporter([f"{i}-{j}" for j in range(3)], random.Random(i)) for i in range(3)]
    refused: list[set[str]] = [set() for _ in reporters]
    with ExitStack() as stack:
        servers = [
            stack.enter_context(server({
                "STATECAST_MODEL": str(daily_models[0]), "STATECAST_DATABASE_URL": url,
                "STATECAST_DATA_DIR": str(tmp_path / f"replica-{i}"),
                "STATECAST_UNKNOWN_SERIES": "create", "STATECAST_SNAPSHOT_SECONDS": "0.1",
            }))
            for i in range(3)
        ]  # fmt: skip
        clients = [stack.enter_context(httpx.Client(base_url=one.url, timeout=60))
                   for one in servers]  # fmt: skip

        def until_answered(seen: set[str], ask: Callable[[httpx.Client], httpx.Response]) -> Any:
            while True:
                client = clients[next(turns) % len(clients)]
                answer = ask(client)
                if answer.status_code == 200:
                    return answer.json()
                assert answer.status_code == 503, answer.text
                assert answer.json()["code"] == "log.invalid"
                seen.add(f"{answer.request.method} {client.base_url.port}")
                threading.Event().wait(0.05 * int(answer.headers["Retry-After"]))

        def work(reporter: Reporter, seen: set[str]) -> None:
            state = f"/v1/series/{reporter.names[0]}/state"
            while reporter.requests < DAYS:
                until_answered(seen, reporter.send)
                told = until_answered(seen, lambda client: client.get(state))
                assert told["position"] == {
                    "last_ds": NAMED[reporter.requests - 1], "observations": reporter.requests
                }  # fmt: skip

        with ThreadPoolExecutor(len(reporters)) as pool:
            working = [pool.submit(work, *pair) for pair in zip(reporters, refused, strict=True)]
            wait_until(lambda: min(one.requests for one in reporters), lambda n: n >= DAYS // 4)
            crash(cluster)
            wait_until(lambda: set.union(*refused), lambda seen: len(seen) == 2 * len(servers))
            assert [client.get("/livez").status_code for client in clients] == [200] * 3
            body = {"unique_ids": ["0-0"]}
            assert clients[0].post("/v1/forecasts", json=body).status_code == 503
            for client in clients:
                wait_until(lambda ask=client: ask.get("/readyz").status_code, lambda n: n == 503)
            cluster.ensure_postgres_running()
            for one in working:
                one.result()
            for client in clients:
                assert client.get("/readyz").status_code == 200
        stored, bundle = stored_in(url), load_bundle(daily_models[0])
        found = sum((compare_states(one.url, [bundle], stored) for one in servers), Verdict())
    found = sum((reporter.compare(stored) for reporter in reporters), found)
    assert (found.lost, found.doubled, found.torn) == (0, 0, 0)
    assert found.state_error <= 1e-5


def test_a_server_that_nobody_asks_notices_that_postgresql_is_away_and_back(
    cluster, postgres, daily_models, tmp_path
):
    """`/readyz` turns 503 with what to look for, then 200; the log says each once."""
    environment = {
        "STATECAST_MODEL": str(daily_models[0]), "STATECAST_DATABASE_URL": emptied(postgres),
        "STATECAST_DATA_DIR": str(tmp_path),
    }  # fmt: skip
    with server(environment) as running, httpx.Client(base_url=running.url) as client:
        crash(cluster)
        away = wait_until(lambda: client.get("/readyz"), lambda told: told.status_code == 503)
        wait_until(lambda: running.said, lambda said: "look at the log: " in said)
        client.post("/v1/models:refresh")
        cluster.ensure_postgres_running()
        back = wait_until(lambda: client.get("/readyz"), lambda told: told.status_code == 200)
        said = wait_until(lambda: running.said, lambda said: "look at the log: goes on" in said)
    assert (away.json()["ready"], away.json()["phase"]) == (False, "cut off")
    assert "cannot be read (no connection to PostgreSQL)" in away.json()["reason"]
    assert (back.json()["ready"], back.json()["phase"]) == (True, "ready")
    assert "Traceback" not in said
    assert said.count("WARNING service.slot look at the log: ") == 1
