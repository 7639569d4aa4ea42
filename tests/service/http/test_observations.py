"""`POST /v1/observations` stores all of a request or nothing, and moves the states."""

import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from service.storage.log import ObservationLog

ID = "A3349335T"


def row(ds: str, y: float | None, unique_id: str = ID, **covariates: float) -> dict:
    """Return one observation as an item of a request body."""
    return {"unique_id": unique_id, "ds": ds, "y": y, **covariates}


def send(client, *rows: dict):
    """Post observations and return the response."""
    return client.post("/v1/observations", json={"observations": list(rows)})


def point_forecast(client, unique_id: str = ID) -> list[float]:
    """Return the point forecast of a series."""
    body = {"unique_ids": [unique_id]}
    return client.post("/v1/forecasts", json=body).json()["forecasts"][0]["statecast"]


def read_state(client, unique_id: str = ID) -> dict:
    """Return the state resource of a series."""
    return client.get(f"/v1/series/{unique_id}/state").json()


def assert_equals_a_replay(client, unique_id: str = ID) -> None:
    """Require that the live forecast equals the one after a replay of the log."""
    live = point_forecast(client, unique_id)
    client.post(f"/v1/series/{unique_id}/state:rebuild")
    np.testing.assert_allclose(point_forecast(client, unique_id), live, rtol=1e-5)


def test_a_new_observation_moves_the_state_by_one_step(retail_client):
    """The position moves on, the forecast changes, and the state stays live."""
    before = point_forecast(retail_client)

    answer = send(retail_client, row("2019-01-01", 500.0))

    assert answer.json() == {
        "new": 1,
        "duplicate": 0,
        "revised": 0,
        "items": [],
        "created": [],
        "filled": [],
    }
    state = read_state(retail_client)
    assert state["position"] == {"last_ds": "2019-01-01", "observations": 121}
    assert state["state"] == "live"
    assert point_forecast(retail_client) != before
    assert_equals_a_replay(retail_client)


def test_one_request_may_hold_several_series_and_steps_in_any_order(retail_client, monthly):
    """Rows sent in reverse order move every state by all of its steps."""
    ids = list(monthly["unique_id"].unique())
    stamps = ["2019-01-01", "2019-02-01", "2019-03-01"]
    rows = [row(ds, 400.0 + i, name) for i, ds in enumerate(stamps) for name in ids]

    answer = send(retail_client, *reversed(rows)).json()

    assert answer["new"] == len(rows)
    for name in ids:
        assert read_state(retail_client, name)["position"]["observations"] == 123
        assert_equals_a_replay(retail_client, name)


def test_a_resent_value_is_a_duplicate(retail_client):
    """It is reported as such and not counted again; another value for its stamp is a revision."""
    send(retail_client, row("2019-01-01", 500.0))
    before = point_forecast(retail_client)

    answer = send(retail_client, row("2019-01-01", 500.0), row("2018-12-01", 1.0)).json()
    again = send(retail_client, row("2018-12-01", 1.0)).json()

    assert (answer["new"], answer["duplicate"], answer["revised"]) == (0, 1, 1)
    assert [item["status"] for item in answer["items"]] == ["duplicate", "revised"]
    assert again["duplicate"] == 1
    assert point_forecast(retail_client) != before


def test_the_same_observation_twice_in_one_request_counts_once(retail_client):
    """The second is a duplicate of the first."""
    answer = send(retail_client, row("2019-01-01", 500.0), row("2019-01-01", 500.0)).json()

    assert (answer["new"], answer["duplicate"]) == (1, 1)
    assert answer["items"] == [
        {"index": 1, "unique_id": ID, "ds": "2019-01-01", "status": "duplicate"}
    ]
    assert read_state(retail_client)["position"]["observations"] == 121


def test_a_revision_is_logged_and_the_state_rebuilt(retail_client):
    """The log keeps the old value as a revision, and a replay rebuilds the state."""
    send(retail_client, row("2019-01-01", 500.0))

    answer = send(retail_client, row("2019-01-01", 700.0), row("2019-02-01", 600.0)).json()

    assert (answer["new"], answer["revised"]) == (1, 1)
    detail = retail_client.get(f"/v1/series/{ID}").json()
    assert (detail["observations"], detail["revisions"]) == (122, 1)
    assert read_state(retail_client)["state"] == "rebuilt"
    assert_equals_a_replay(retail_client)


def test_revisions_that_cancel_out_leave_the_forecast_unchanged(retail_client, monthly):
    """The forecast depends on the latest value of a stamp, not on the revisions before it."""
    other = monthly["unique_id"].unique()[1]
    last = monthly[monthly["unique_id"] == other]["y"].iloc[-1]
    send(retail_client, row("2018-12-01", last * 2, other))
    send(retail_client, row("2018-12-01", last, other))
    before = point_forecast(retail_client, other)

    send(retail_client, row("2018-12-01", last * 3, other))
    send(retail_client, row("2018-12-01", last, other))

    np.testing.assert_allclose(point_forecast(retail_client, other), before, rtol=1e-6)
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
def test_a_refused_request_stores_nothing(retail_client, monthly, rows, status, code):
    """One invalid item refuses all others, including those before it."""
    other = monthly["unique_id"].unique()[1]
    before = point_forecast(retail_client, other)

    answer = send(retail_client, row("2019-01-01", 9.0, other), *rows)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert read_state(retail_client, other)["position"]["observations"] == 120
    assert point_forecast(retail_client, other) == before


def test_a_gap_is_refused_with_the_first_missing_stamp(retail_client):
    """The problem names the series, the stamps expected and found, and how to fill the gap."""
    problem = send(retail_client, row("2019-04-01", 1.0)).json()

    assert ID in problem["where"]
    assert "expected 2019-01-01 first, found 2019-04-01" in problem["detail"]
    assert problem["errors"][0]["pointer"] == "/observations/0"
    assert "fill" in problem["help"]


def test_an_unknown_series_is_refused_with_the_closest_name(retail_client):
    """The help of the problem suggests the closest known name."""
    problem = send(retail_client, row("2019-01-01", 1.0, "A3349335X")).json()

    assert f"did you mean '{ID}'" in problem["help"]


def test_an_unknown_series_is_created_if_the_setting_allows_it(serve, monthly_bundle, monthly):
    """With `unknown_series="create"`, ids may have letters of any script, and slashes."""
    client = serve(monthly_bundle, monthly, unknown_series="create")
    name = "Läden/東京/cheese & more"

    answer = send(client, row("2019-01-01", 10.0, name), row("2019-02-01", 11.0, name)).json()

    assert answer["created"] == [name]
    assert client.get(f"/v1/series/{name}").json()["observations"] == 2
    assert len(point_forecast(client, name)) == 6
    assert_equals_a_replay(client, name)


def test_a_gap_is_filled_if_the_policy_is_mask(juice_client, weekly):
    """Filled steps are reported and counted; a value that arrives later is a revision."""
    name = weekly["unique_id"].iloc[0]
    covariates = {"price": 0.04, "deal": 0, "feat": 0.0}

    answer = send(juice_client, row("1992-08-27", 900.0, name, **covariates)).json()

    assert answer["filled"] == [
        {"unique_id": name, "ds": "1992-08-13", "steps": 2, "policy": "mask"}
    ]
    detail = juice_client.get(f"/v1/series/{name}").json()
    assert (detail["observations"], detail["filled"]) == (104, 2)
    late = send(juice_client, row("1992-08-13", 800.0, name, **covariates)).json()
    assert late["revised"] == 1
    assert juice_client.get(f"/v1/series/{name}").json()["filled"] == 1


def test_a_gap_longer_than_the_limit_is_refused_under_any_policy(serve, weekly_bundle, weekly):
    """A stamp a century ahead is an error; a gap of `max_fill` steps is filled."""
    client = serve(weekly_bundle, weekly, limits={"max_fill": 3})
    covariates = {"price": 0.04, "deal": 0, "feat": 0.0}

    refused = send(client, row("2092-08-14", 1.0, weekly["unique_id"].iloc[0], **covariates))
    filled = send(client, row("1992-09-03", 1.0, weekly["unique_id"].iloc[0], **covariates))

    assert refused.json()["code"] == "data.gap"
    assert filled.json()["filled"][0]["steps"] == 3


def test_gaps_with_too_many_steps_in_total_are_refused(serve, weekly_bundle, weekly):
    """Gaps that could be filled one by one exceed `max_rows` together, and nothing is stored."""
    client = serve(weekly_bundle, weekly, limits={"max_fill": 3, "max_rows": 5})
    covariates = {"price": 0.04, "deal": 0, "feat": 0.0}
    rows = [row("1992-09-03", 1.0, name, **covariates) for name in weekly["unique_id"].unique()]

    refused, alone = send(client, *rows), send(client, rows[0])

    assert (refused.status_code, refused.json()["code"]) == (413, "request.too_large")
    assert refused.json()["errors"][0]["pointer"] == "/observations/0"
    assert alone.json()["filled"][0]["steps"] == 3
    assert client.get(f"/v1/series/{rows[1]['unique_id']}").json()["filled"] == 0


def test_a_misspelled_covariate_is_refused_with_the_closest_name(juice_client, weekly):
    """The problem lists the unknown name with a suggestion, and the covariate that is missing."""
    name = weekly["unique_id"].iloc[0]

    problem = send(juice_client, row("1992-08-13", 1.0, name, prize=0.04, deal=1, feat=0)).json()

    assert problem["code"] == "request.invalid"
    assert {e["pointer"] for e in problem["errors"]} == {
        "/observations/0/prize",
        "/observations/0/price",
    }
    assert "did you mean 'price'" in problem["errors"][0]["detail"]


def test_a_restart_keeps_forecasts_and_duplicates(serve, monthly_bundle, monthly, tmp_path):
    """The states are rebuilt from the log alone, revisions included."""
    first = serve(monthly_bundle, monthly)
    send(first, row("2019-01-01", 500.0), row("2018-11-01", 400.0))
    before = point_forecast(first)
    first.__exit__(None, None, None)

    second = serve(monthly_bundle)

    np.testing.assert_allclose(point_forecast(second), before, rtol=1e-5)
    assert read_state(second)["state"] == "rebuilt"
    assert send(second, row("2019-01-01", 500.0)).json()["duplicate"] == 1


def test_acknowledged_values_survive_a_restart(serve, monthly_bundle, monthly, url):
    """New, duplicate and revised values are still there, on SQLite and on PostgreSQL."""
    first = serve(monthly_bundle, monthly, database_url=url, unknown_series="create")
    send(first, row("2019-01-01", 500.0), row("2019-01-01", 7.0, "new/one"))
    answer = send(first, row("2019-01-01", 510.0), row("2019-01-01", 7.0, "new/one")).json()
    before = point_forecast(first), point_forecast(first, "new/one")
    first.__exit__(None, None, None)

    second = serve(monthly_bundle, database_url=url)

    assert (answer["revised"], answer["duplicate"]) == (1, 1)
    np.testing.assert_allclose(
        (point_forecast(second), point_forecast(second, "new/one")), before, rtol=1e-5
    )
    assert second.get(f"/v1/series/{ID}").json()["revisions"] == 1


def test_a_batch_committed_by_another_writer_is_applied_before_the_next_write(
    serve, monthly_bundle, monthly, tmp_path
):
    """States catch up with the log before a write, as after a commit of unknown outcome."""
    client = serve(monthly_bundle, monthly, database_url=f"sqlite:///{tmp_path / 'log.db'}")
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        connection.execute(
            "insert into observation select ?1 / h.width, s.series, ?1, 1, 500.0, null, 0, 0, "
            "h.batch + 1 from series s, head h where unique_id = ?2",
            (pd.Timestamp("2019-01-01").value, ID),
        )
        connection.execute("update head set batch = batch + 1")
        connection.commit()

    sent = send(client, row("2019-01-01", 500.0), row("2019-02-01", 510.0))

    assert (sent.json()["duplicate"], sent.json()["new"]) == (1, 1)
    assert read_state(client)["position"]["observations"] == 122
    assert_equals_a_replay(client)


def test_a_log_is_written_by_one_process_only(retail_client, tmp_path):
    """A second writer, such as an import while the server runs, is refused."""
    from service.errors import LogLocked

    url = retail_client.app.state.settings.log_url
    with pytest.raises(LogLocked, match="another process writes"):
        ObservationLog(url)


def test_a_model_of_another_frequency_is_not_served(serve, monthly_bundle, weekly_bundle, monthly):
    """It would misread the stamps of the log, so the server is not ready and says why."""
    first = serve(monthly_bundle, monthly)
    folder = first.app.state.settings.data_dir
    first.__exit__(None, None, None)

    second = serve(weekly_bundle, data_dir=folder)

    assert second.get("/readyz").status_code == 503
    assert "freq='MS'" in second.get("/readyz").json()["reason"]
    refused = second.post("/v1/forecasts", json={"unique_ids": ["a"]})
    assert (refused.status_code, refused.json()["code"]) == (503, "service.not_ready")
    assert pd.notna(refused.headers["retry-after"])


def test_concurrent_requests_leave_states_equal_to_a_replay(retail_client, monthly):
    """Threads send observations, corrections, resends and forecasts; each value counts once."""
    ids = list(monthly["unique_id"].unique())
    months = [str(ds.date()) for ds in pd.date_range("2019-01-01", periods=12, freq="MS")]

    def report(name: str) -> set[int]:
        statuses = set()
        for i, ds in enumerate(months):
            statuses.add(send(retail_client, row(ds, 100.0 + i, name)).status_code)
            statuses.add(send(retail_client, row(ds, 100.0 + i, name)).status_code)
            statuses.add(send(retail_client, row(months[i // 2], 50.0 + i, name)).status_code)
        return statuses

    def read(_: int) -> set[int]:
        body = {"unique_ids": ids, "level": [80]}
        return {retail_client.post("/v1/forecasts", json=body).status_code for _ in range(20)}

    with ThreadPoolExecutor(8) as pool:
        statuses = set().union(*pool.map(report, ids), *pool.map(read, range(3)))

    assert statuses == {200}
    for name in ids:
        detail = retail_client.get(f"/v1/series/{name}").json()
        assert (detail["observations"], detail["revisions"]) == (132, 12)
        assert_equals_a_replay(retail_client, name)
