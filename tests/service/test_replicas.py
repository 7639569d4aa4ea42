"""Several real servers over one PostgreSQL: a client reads its own writes through any of them."""

from contextlib import ExitStack
from itertools import cycle

import httpx
import numpy as np
import pandas as pd

from benchmarks.clients import body_of
from benchmarks.servers import server
from forecast.bundle import load_bundle
from service.importing import import_history
from tests.service.conftest import emptied

ROUNDS = 12


def forecasts(url: str, names: list[str]) -> np.ndarray:
    """Point forecasts and bounds of every series."""
    body = {"unique_ids": names, "level": [80]}
    answer = httpx.post(f"{url}/v1/forecasts", json=body).json()["forecasts"]
    return np.array([[one["statecast"], one["lo-80"], one["hi-80"]] for one in answer])


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
