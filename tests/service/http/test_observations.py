"""`POST /v1/observations`: new, duplicate, revised, gaps, unknown series; all or nothing."""

import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from service.storage.log import ObservationLog

ID = "A3349335T"


def row(ds: str, y: float | None, unique_id: str = ID, **covariates: float) -> dict:
    """One observation as a client sends it."""
    return {"unique_id": unique_id, "ds": ds, "y": y, **covariates}


def send(client, *rows: dict):
    """Post observations."""
    return client.post("/v1/observations", json={"observations": list(rows)})


def point(client, unique_id: str = ID) -> list[float]:
    """The point forecast of a series."""
    body = {"unique_ids": [unique_id]}
    return client.post("/v1/forecasts", json=body).json()["forecasts"][0]["statecast"]


def state_of(client, unique_id: str = ID) -> dict:
    """The state resource of a series."""
    return client.get(f"/v1/series/{unique_id}/state").json()


def assert_equals_a_replay(client, unique_id: str = ID) -> None:
    """The live forecast is what a replay of the log gives."""
    live = point(client, unique_id)
    client.post(f"/v1/series/{unique_id}/state:rebuild")
    np.testing.assert_allclose(point(client, unique_id), live, rtol=1e-5)


def test_a_new_observation_moves_the_state_by_one_step(retail_client):
    """The position goes on, the forecast changes, and the state is live."""
    before = point(retail_client)

    answer = send(retail_client, row("2019-01-01", 500.0))

    assert answer.json() == {
        "new": 1,
        "duplicate": 0,
        "revised": 0,
        "items": [],
        "created": [],
        "filled": [],
    }
    state = state_of(retail_client)
    assert state["position"] == {"last_ds": "2019-01-01", "observations": 121}
    assert state["state"] == "live"
    assert point(retail_client) != before
    assert_equals_a_replay(retail_client)


def test_many_steps_of_many_series_come_in_any_order(retail_client, monthly):
    """One request moves several series by several steps each."""
    ids = list(monthly["unique_id"].unique())
    stamps = ["2019-01-01", "2019-02-01", "2019-03-01"]
    rows = [row(ds, 400.0 + i, name) for i, ds in enumerate(stamps) for name in ids]

    answer = send(retail_client, *reversed(rows)).json()

    assert answer["new"] == len(rows)
    for name in ids:
        assert state_of(retail_client, name)["position"]["observations"] == 123
        assert_equals_a_replay(retail_client, name)


def test_sending_again_is_harmless(retail_client):
    """The same value is a duplicate: told as such, counted once."""
    send(retail_client, row("2019-01-01", 500.0))
    before = point(retail_client)

    answer = send(retail_client, row("2019-01-01", 500.0), row("2018-12-01", 1.0)).json()
    again = send(retail_client, row("2018-12-01", 1.0)).json()

    assert (answer["new"], answer["duplicate"], answer["revised"]) == (0, 1, 1)
    assert [item["status"] for item in answer["items"]] == ["duplicate", "revised"]
    assert again["duplicate"] == 1
    assert point(retail_client) != before


def test_the_same_observation_twice_in_one_request_counts_once(retail_client):
    """The second is a duplicate of the first."""
    answer = send(retail_client, row("2019-01-01", 500.0), row("2019-01-01", 500.0)).json()

    assert (answer["new"], answer["duplicate"]) == (1, 1)
    assert answer["items"] == [
        {"index": 1, "unique_id": ID, "ds": "2019-01-01", "status": "duplicate"}
    ]
    assert state_of(retail_client)["position"]["observations"] == 121


def test_a_revision_is_kept_and_the_series_replayed(retail_client):
    """The new value holds, the old one stays in the log, and the state is rebuilt."""
    send(retail_client, row("2019-01-01", 500.0))

    answer = send(retail_client, row("2019-01-01", 700.0), row("2019-02-01", 600.0)).json()

    assert (answer["new"], answer["revised"]) == (1, 1)
    detail = retail_client.get(f"/v1/series/{ID}").json()
    assert (detail["observations"], detail["revisions"]) == (122, 1)
    assert state_of(retail_client)["state"] == "rebuilt"
    assert_equals_a_replay(retail_client)


def test_a_revised_series_forecasts_as_if_the_value_had_always_been_so(retail_client, monthly):
    """What matters is the value that holds, not the way it came."""
    other = monthly["unique_id"].unique()[1]
    last = monthly[monthly["unique_id"] == other]["y"].iloc[-1]
    send(retail_client, row("2018-12-01", last * 2, other))
    send(retail_client, row("2018-12-01", last, other))
    before = point(retail_client, other)

    send(retail_client, row("2018-12-01", last * 3, other))
    send(retail_client, row("2018-12-01", last, other))

    np.testing.assert_allclose(point(retail_client, other), before, rtol=1e-6)
    assert retail_client.get(f"/v1/series/{other}").json()["revisions"] == 4


@pytest.mark.parametrize(
    ("rows", "status", "code"),
    [
        ([row("2019-03-01", 1.0)], 409, "data.gap"),
        ([row("2019-01-15", 1.0)], 422, "data.frequency"),
        ([row("2008-12-01", 1.0)], 409, "data.late"),
        ([row("2019-01-01", 1.0), row("2019-01-01", 2.0)], 422, "data.duplicate"),
        ([row("2019-01-01", -1.0)], 422, "data.negative"),
        ([row("2019-01-01", None)], 422, "data.missing_values"),
        ([row("2019-01-01", 1.0, "A3349335X")], 404, "series.unknown"),
        ([row("2019-01-01", 1.0, price=3.0)], 400, "request.invalid"),
        ([row("yesterday", 1.0)], 422, "data.bad_stamps"),
        ([row("2019-01-01", 1e300)], 422, "request.validation"),
    ],
)
def test_a_refused_request_stores_nothing_of_it(retail_client, monthly, rows, status, code):
    """One bad item refuses all, also those that stand before it."""
    other = monthly["unique_id"].unique()[1]
    before = point(retail_client, other)

    answer = send(retail_client, row("2019-01-01", 9.0, other), *rows)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert state_of(retail_client, other)["position"]["observations"] == 120
    assert point(retail_client, other) == before


def test_a_gap_names_what_is_missing(retail_client):
    """Series, first missing stamp, stamp found, and the way out."""
    told = send(retail_client, row("2019-04-01", 1.0)).json()

    assert ID in told["where"]
    assert "expected 2019-01-01 first, found 2019-04-01" in told["detail"]
    assert told["errors"][0]["pointer"] == "/observations/0"
    assert "fill" in told["help"]


def test_an_unknown_series_is_told_with_the_nearest_name(retail_client):
    """A typing mistake ends the search at once."""
    told = send(retail_client, row("2019-01-01", 1.0, "A3349335X")).json()

    assert f"did you mean '{ID}'" in told["help"]


def test_a_new_series_begins_cold_when_that_is_allowed(serve, monthly_bundle, monthly):
    """With `unknown_series = "create"`, ids of any script and with slashes are made."""
    client = serve(monthly_bundle, monthly, unknown_series="create")
    name = "Läden/東京/cheese & more"

    answer = send(client, row("2019-01-01", 10.0, name), row("2019-02-01", 11.0, name)).json()

    assert answer["created"] == [name]
    assert client.get(f"/v1/series/{name}").json()["observations"] == 2
    assert len(point(client, name)) == 6
    assert_equals_a_replay(client, name)


def test_a_gap_is_masked_where_the_policy_says_so(juice_client, weekly):
    """Filled steps are counted, marked, and become revisions once the value is known."""
    name = weekly["unique_id"].iloc[0]
    facts = {"price": 0.04, "deal": 0, "feat": 0.0}

    answer = send(juice_client, row("1992-08-27", 900.0, name, **facts)).json()

    assert answer["filled"] == [
        {"unique_id": name, "ds": "1992-08-13", "steps": 2, "policy": "mask"}
    ]
    detail = juice_client.get(f"/v1/series/{name}").json()
    assert (detail["observations"], detail["filled"]) == (104, 2)
    told = send(juice_client, row("1992-08-13", 800.0, name, **facts)).json()
    assert told["revised"] == 1
    assert juice_client.get(f"/v1/series/{name}").json()["filled"] == 1


def test_a_gap_longer_than_allowed_is_refused_whatever_the_policy(serve, weekly_bundle, weekly):
    """A stamp in another century is a mistake, not a gap to fill."""
    client = serve(weekly_bundle, weekly, limits={"max_fill": 3})
    facts = {"price": 0.04, "deal": 0, "feat": 0.0}

    refused = send(client, row("2092-08-14", 1.0, weekly["unique_id"].iloc[0], **facts))
    filled = send(client, row("1992-09-03", 1.0, weekly["unique_id"].iloc[0], **facts))

    assert refused.json()["code"] == "data.gap"
    assert filled.json()["filled"][0]["steps"] == 3


def test_gaps_that_come_to_too_many_steps_are_refused(serve, weekly_bundle, weekly):
    """Each may be filled, all together may not: nothing is stored, and those sent alone are."""
    client = serve(weekly_bundle, weekly, limits={"max_fill": 3, "max_rows": 5})
    facts = {"price": 0.04, "deal": 0, "feat": 0.0}
    rows = [row("1992-09-03", 1.0, name, **facts) for name in weekly["unique_id"].unique()]

    refused, alone = send(client, *rows), send(client, rows[0])

    assert (refused.status_code, refused.json()["code"]) == (413, "request.too_large")
    assert refused.json()["errors"][0]["pointer"] == "/observations/0"
    assert alone.json()["filled"][0]["steps"] == 3
    assert client.get(f"/v1/series/{rows[1]['unique_id']}").json()["filled"] == 0


def test_covariates_are_needed_and_the_nearest_name_is_told(juice_client, weekly):
    """A covariate that is misspelt is found in one look."""
    name = weekly["unique_id"].iloc[0]

    told = send(juice_client, row("1992-08-13", 1.0, name, prize=0.04, deal=1, feat=0)).json()

    assert told["code"] == "request.invalid"
    assert {e["pointer"] for e in told["errors"]} == {
        "/observations/0/prize",
        "/observations/0/price",
    }
    assert "did you mean 'price'" in told["errors"][0]["detail"]


def test_after_a_restart_everything_is_as_before(serve, monthly_bundle, monthly, tmp_path):
    """The log alone makes the states again; nothing is said of how they were."""
    first = serve(monthly_bundle, monthly)
    send(first, row("2019-01-01", 500.0), row("2018-11-01", 400.0))
    before = point(first)
    first.__exit__(None, None, None)

    second = serve(monthly_bundle)

    np.testing.assert_allclose(point(second), before, rtol=1e-5)
    assert state_of(second)["state"] == "rebuilt"
    assert send(second, row("2019-01-01", 500.0)).json()["duplicate"] == 1


def test_a_log_of_either_kind_keeps_what_was_acknowledged(serve, monthly_bundle, monthly, url):
    """New, duplicate and revised values over a restart, on SQLite and on PostgreSQL."""
    first = serve(monthly_bundle, monthly, database_url=url, unknown_series="create")
    send(first, row("2019-01-01", 500.0), row("2019-01-01", 7.0, "new/one"))
    told = send(first, row("2019-01-01", 510.0), row("2019-01-01", 7.0, "new/one")).json()
    before = point(first), point(first, "new/one")
    first.__exit__(None, None, None)

    second = serve(monthly_bundle, database_url=url)

    assert (told["revised"], told["duplicate"]) == (1, 1)
    np.testing.assert_allclose((point(second), point(second, "new/one")), before, rtol=1e-5)
    assert second.get(f"/v1/series/{ID}").json()["revisions"] == 1


def test_after_a_write_of_unknown_outcome_the_log_decides(serve, monthly_bundle, monthly, tmp_path):
    """A batch that is stored although nobody heard of it is taken in before the next one."""
    client = serve(monthly_bundle, monthly, database_url=f"sqlite:///{tmp_path / 'log.db'}")
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db")) as behind_our_back:
        behind_our_back.execute(
            "insert into observation select ?1 / h.width, s.series, ?1, 1, 500.0, null, 0, 0, "
            "h.batch + 1 from series s, head h where unique_id = ?2",
            (pd.Timestamp("2019-01-01").value, ID),
        )
        behind_our_back.execute("update head set batch = batch + 1")
        behind_our_back.commit()

    sent = send(client, row("2019-01-01", 500.0), row("2019-02-01", 510.0))

    assert (sent.json()["duplicate"], sent.json()["new"]) == (1, 1)
    assert state_of(client)["position"]["observations"] == 122
    assert_equals_a_replay(client)


def test_a_log_is_written_by_one_process_only(retail_client, tmp_path):
    """Reading history in while the server runs is refused, not raced."""
    from service.errors import LogLocked

    url = retail_client.app.state.settings.log_url
    with pytest.raises(LogLocked, match="another process writes"):
        ObservationLog(url)


def test_history_ends_at_the_frequency_of_the_log(serve, monthly_bundle, weekly_bundle, monthly):
    """A model of another frequency is refused: it would read the stamps wrongly."""
    first = serve(monthly_bundle, monthly)
    folder = first.app.state.settings.data_dir
    first.__exit__(None, None, None)

    second = serve(weekly_bundle, data_dir=folder)

    assert second.get("/readyz").status_code == 503
    assert "freq='MS'" in second.get("/readyz").json()["reason"]
    told = second.post("/v1/forecasts", json={"unique_ids": ["a"]})
    assert (told.status_code, told.json()["code"]) == (503, "service.not_ready")
    assert pd.notna(told.headers["retry-after"])


def test_many_callers_at_once_leave_states_that_equal_a_replay(retail_client, monthly):
    """Observations, corrections, resends and forecasts side by side; each counted once."""
    ids = list(monthly["unique_id"].unique())
    months = [str(ds.date()) for ds in pd.date_range("2019-01-01", periods=12, freq="MS")]

    def report(name: str) -> set[int]:
        seen = set()
        for i, ds in enumerate(months):
            seen.add(send(retail_client, row(ds, 100.0 + i, name)).status_code)
            seen.add(send(retail_client, row(ds, 100.0 + i, name)).status_code)
            seen.add(send(retail_client, row(months[i // 2], 50.0 + i, name)).status_code)
        return seen

    def ask(_: int) -> set[int]:
        body = {"unique_ids": ids, "level": [80]}
        return {retail_client.post("/v1/forecasts", json=body).status_code for _ in range(20)}

    with ThreadPoolExecutor(8) as pool:
        statuses = set().union(*pool.map(report, ids), *pool.map(ask, range(3)))

    assert statuses == {200}
    for name in ids:
        detail = retail_client.get(f"/v1/series/{name}").json()
        assert (detail["observations"], detail["revisions"]) == (132, 12)
        assert_equals_a_replay(retail_client, name)
