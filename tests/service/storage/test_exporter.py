"""The log as Parquet: read into another log, it gives the same forecasts."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from forecast.bundle import load_bundle
from forecast.config import DataConfig
from forecast.errors import MissingColumns
from service.ingest.importer import import_history
from service.storage import exporter as exporting
from service.storage.exporter import Selection, export
from service.storage.log import ObservationLog
from tests.helpers.hosts import MONTHLY


def exported(url: str, *, is_integer: bool = False, **selection) -> pd.DataFrame:
    """What a file of the log holds."""
    log, file = ObservationLog(url, reads_only=True), io.BytesIO()
    with log.read() as transaction:
        export(transaction, file, Selection(**selection), is_integer=is_integer)
    log.close()
    return pd.read_parquet(file)


def test_what_was_read_in_comes_out(url, weekly):
    """Values, stamps, covariates and static columns, series by series."""
    data = DataConfig(
        freq="W-THU", known_future=("price", "deal"), past_only=("feat",), static=("brand", "store")
    )
    import_history(url, weekly, data)

    table = exported(url)

    columns = ["unique_id", "ds", "y", "price", "deal", "feat", "brand", "store"]
    expected = weekly.sort_values(["unique_id", "ds"], ignore_index=True)[columns]
    pd.testing.assert_frame_equal(table, expected.astype(table.dtypes), check_exact=True)


def test_a_part_of_the_log_and_the_full_log(url, monthly):
    """By series and stamps; with every revision, and when it was recorded."""
    import_history(url, monthly, MONTHLY)
    changed = monthly.copy()
    changed.loc[3, "y"] += 1.0
    import_history(url, changed, MONTHLY)
    name, ds = monthly.loc[3, "unique_id"], monthly.loc[3, "ds"]

    one = exported(url, unique_ids=(name,), since=ds.value, until=ds.value)
    full = exported(url, full=True)

    assert one.values.tolist() == [[name, ds, changed.loc[3, "y"]]]
    assert len(full) == 601
    both = full[(full["unique_id"] == name) & (full["ds"] == ds)]
    assert both["revision"].tolist() == [1, 2]
    assert both["y"].tolist() == [monthly.loc[3, "y"], changed.loc[3, "y"]]
    assert not full["filled"].any()
    age = pd.Timestamp.now("UTC") - full["recorded_at"].max()
    assert age < pd.Timedelta(minutes=10)


def test_covariates_named_as_the_notes_of_the_log_keep_their_names(url, monthly):
    """What the log notes gets another one; both are there, and the file reads in again."""
    data = replace(MONTHLY, past_only=("revision", "filled_"), static=("filled", "recorded_at"))
    table = monthly.assign(revision=7.0, filled_=8.0, filled="by hand", recorded_at="shop")
    import_history(url, table, data)

    full, plain = exported(url, full=True), exported(url)

    named = ["unique_id", "ds", "y", "revision", "filled_", "filled", "recorded_at"]
    assert list(plain) == named
    assert list(full) == [*named, "revision_", "filled__", "recorded_at_"]
    told = full.drop(columns=["unique_id", "ds", "y", "recorded_at_"]).drop_duplicates()
    assert told.values.tolist() == [[7.0, 8.0, "by hand", "shop", 1, False]]
    assert import_history(url, plain, data)["duplicate"] == len(monthly)


def test_static_covariates_are_needed_of_new_series_only(url, monthly):
    """What was read in once goes on without them; with a new series among them nothing is."""
    data = replace(MONTHLY, static=("state",))
    late = monthly["ds"] == monthly["ds"].max()
    import_history(url, monthly[~late].assign(state="Victoria"), data)
    fresh = monthly[late].head(1).assign(unique_id="new")

    with pytest.raises(MissingColumns, match="state"):
        import_history(url, pd.concat([monthly[late], fresh]), data)
    counts = import_history(url, monthly[late], data)

    assert (counts["new"], counts["created"]) == (int(late.sum()), 0)
    assert set(exported(url)["state"]) == {"Victoria"}


def test_stamps_that_are_integers_stay_so(url):
    """And a value that was not observed is empty."""
    table = pd.DataFrame({"unique_id": "a", "ds": [5, 6, 8], "y": [1.0, 2.0, 4.0]})
    import_history(url, table, DataConfig(freq=1, fill="mask"))

    found = exported(url, is_integer=True)

    assert found["ds"].tolist() == [5, 6, 7, 8]
    np.testing.assert_array_equal(found["y"], [1.0, 2.0, np.nan, 4.0])


def test_a_log_is_read_out_in_row_groups(url, monthly, monkeypatch):
    """So that memory does not grow with it."""
    import_history(url, monthly, MONTHLY)
    monkeypatch.setattr(exporting, "GROUP", 250)
    log, file, told = ObservationLog(url, reads_only=True), io.BytesIO(), []
    with log.read() as transaction:
        counts = export(
            transaction,
            file,
            Selection(),
            is_integer=False,
            on_progress=lambda done, total: told.append((done, total)),
        )
    log.close()

    assert pq.ParquetFile(file).num_row_groups == 3
    assert told == [(250, 600), (500, 600), (600, 600)]
    assert counts == {"series": 5, "rows": 600}


def test_a_log_seeded_with_an_export_forecasts_the_same(serve, weekly_bundle, weekly, tmp_path):
    """Over HTTP, with corrections and covariates."""
    client = serve(weekly_bundle, weekly)
    row = weekly.iloc[[50]].assign(y=999.0, ds=str(weekly["ds"].iloc[50].date()))
    row = row[["unique_id", "ds", "y", "price", "deal", "feat"]]
    told = client.post("/v1/observations", json={"observations": row.to_dict("records")}).json()
    assert told["revised"] == 1

    answer = client.get("/v1/log")

    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    (tmp_path / "log.parquet").write_bytes(answer.content)
    other = serve(weekly_bundle, tmp_path / "log.parquet", data_dir=tmp_path / "other")
    names = sorted(weekly["unique_id"].unique())
    horizon = load_bundle(weekly_bundle).horizon
    ahead = pd.date_range(weekly["ds"].max(), periods=horizon + 1, freq="W-THU")[1:]
    futr = [
        {"unique_id": name, "ds": str(day.date()), "price": 0.04, "deal": 0.0}
        for name in names
        for day in ahead
    ]
    made = [
        one.post("/v1/forecasts", json={"unique_ids": names, "futr": futr}).json()
        for one in (client, other)
    ]
    for mine, theirs in zip(made[0]["forecasts"], made[1]["forecasts"], strict=True):
        np.testing.assert_allclose(mine["statecast"], theirs["statecast"], rtol=1e-5)
        assert mine["position"] == theirs["position"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("unique_id=nope", 404, "series.unknown"),
        ("since=soon", 422, "data.bad_stamps"),
        ("other=1", 422, "request.validation"),
    ],
)
def test_what_is_not_in_the_log_is_told_before_a_byte_is_sent(retail_client, query, status, code):
    """As a problem, not as half a file."""
    answer = retail_client.get(f"/v1/log?{query}")

    assert (answer.status_code, answer.json()["code"]) == (status, code)
