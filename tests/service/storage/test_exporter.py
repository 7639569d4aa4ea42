"""Tests of the Parquet export: a log seeded with an export gives the same forecasts."""

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


def read_export(url: str, *, is_integer: bool = False, **selection) -> pd.DataFrame:
    """Export a log, or a selection of it, and return the table that the file holds."""
    log, file = ObservationLog(url, reads_only=True), io.BytesIO()
    with log.read() as transaction:
        export(transaction, file, Selection(**selection), is_integer=is_integer)
    log.close()
    return pd.read_parquet(file)


def test_an_export_equals_the_imported_table(url, weekly):
    """Values, stamps, covariates and static columns come back, ordered by series."""
    data = DataConfig(
        freq="W-THU", known_future=("price", "deal"), past_only=("feat",), static=("brand", "store")
    )
    import_history(url, weekly, data)

    table = read_export(url)

    columns = ["unique_id", "ds", "y", "price", "deal", "feat", "brand", "store"]
    expected = weekly.sort_values(["unique_id", "ds"], ignore_index=True)[columns]
    pd.testing.assert_frame_equal(table, expected.astype(table.dtypes), check_exact=True)


def test_an_export_is_limited_to_a_selection_or_holds_every_revision(url, monthly):
    """Series and stamps select rows; `full` adds each revision and when it was recorded."""
    import_history(url, monthly, MONTHLY)
    changed = monthly.copy()
    changed.loc[3, "y"] += 1.0
    import_history(url, changed, MONTHLY)
    name, ds = monthly.loc[3, "unique_id"], monthly.loc[3, "ds"]

    part = read_export(url, unique_ids=(name,), since=ds.value, until=ds.value)
    full = read_export(url, full=True)

    assert part.values.tolist() == [[name, ds, changed.loc[3, "y"]]]
    assert len(full) == 601
    revisions = full[(full["unique_id"] == name) & (full["ds"] == ds)]
    assert revisions["revision"].tolist() == [1, 2]
    assert revisions["y"].tolist() == [monthly.loc[3, "y"], changed.loc[3, "y"]]
    assert not full["filled"].any()
    age = pd.Timestamp.now("UTC") - full["recorded_at"].max()
    assert age < pd.Timedelta(minutes=10)


def test_covariates_keep_names_that_clash_with_columns_of_the_log(url, monthly):
    """The log's own column gets an underscore, and the file can be imported again."""
    data = replace(MONTHLY, past_only=("revision", "filled_"), static=("filled", "recorded_at"))
    table = monthly.assign(revision=7.0, filled_=8.0, filled="by hand", recorded_at="shop")
    import_history(url, table, data)

    full, plain = read_export(url, full=True), read_export(url)

    columns = ["unique_id", "ds", "y", "revision", "filled_", "filled", "recorded_at"]
    assert list(plain) == columns
    assert list(full) == [*columns, "revision_", "filled__", "recorded_at_"]
    constants = full.drop(columns=["unique_id", "ds", "y", "recorded_at_"]).drop_duplicates()
    assert constants.values.tolist() == [[7.0, 8.0, "by hand", "shop", 1, False]]
    assert import_history(url, plain, data)["duplicate"] == len(monthly)


def test_only_new_series_need_static_covariates(url, monthly):
    """Known series are imported without them; a file that adds a series is refused whole."""
    data = replace(MONTHLY, static=("state",))
    late = monthly["ds"] == monthly["ds"].max()
    import_history(url, monthly[~late].assign(state="Victoria"), data)
    new_series = monthly[late].head(1).assign(unique_id="new")

    with pytest.raises(MissingColumns, match="state"):
        import_history(url, pd.concat([monthly[late], new_series]), data)
    counts = import_history(url, monthly[late], data)

    assert (counts["new"], counts["created"]) == (int(late.sum()), 0)
    assert set(read_export(url)["state"]) == {"Victoria"}


def test_integer_stamps_are_exported_as_integers(url):
    """A value that was not observed is exported as missing."""
    table = pd.DataFrame({"unique_id": "a", "ds": [5, 6, 8], "y": [1.0, 2.0, 4.0]})
    import_history(url, table, DataConfig(freq=1, fill="mask"))

    table = read_export(url, is_integer=True)

    assert table["ds"].tolist() == [5, 6, 7, 8]
    np.testing.assert_array_equal(table["y"], [1.0, 2.0, np.nan, 4.0])


def test_a_log_is_exported_in_row_groups(url, monthly, monkeypatch):
    """Memory use does not grow with the length of the log; progress is reported per group."""
    import_history(url, monthly, MONTHLY)
    monkeypatch.setattr(exporting, "GROUP", 250)
    log, file, progress = ObservationLog(url, reads_only=True), io.BytesIO(), []
    with log.read() as transaction:
        counts = export(
            transaction,
            file,
            Selection(),
            is_integer=False,
            on_progress=lambda done, total: progress.append((done, total)),
        )
    log.close()

    assert pq.ParquetFile(file).num_row_groups == 3
    assert progress == [(250, 600), (500, 600), (600, 600)]
    assert counts == {"series": 5, "rows": 600}


def test_a_log_seeded_with_an_export_forecasts_the_same(serve, weekly_bundle, weekly, tmp_path):
    """The export is read over HTTP and includes corrections and covariates."""
    client = serve(weekly_bundle, weekly)
    row = weekly.iloc[[50]].assign(y=999.0, ds=str(weekly["ds"].iloc[50].date()))
    row = row[["unique_id", "ds", "y", "price", "deal", "feat"]]
    report = client.post("/v1/observations", json={"observations": row.to_dict("records")}).json()
    assert report["revised"] == 1

    answer = client.get("/v1/log")

    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    (tmp_path / "log.parquet").write_bytes(answer.content)
    copy = serve(weekly_bundle, tmp_path / "log.parquet", data_dir=tmp_path / "other")
    names = sorted(weekly["unique_id"].unique())
    horizon = load_bundle(weekly_bundle).horizon
    ahead = pd.date_range(weekly["ds"].max(), periods=horizon + 1, freq="W-THU")[1:]
    futr = [
        {"unique_id": name, "ds": str(day.date()), "price": 0.04, "deal": 0.0}
        for name in names
        for day in ahead
    ]
    body = {"unique_ids": names, "futr": futr}
    expected, actual = (
        server.post("/v1/forecasts", json=body).json()["forecasts"] for server in (client, copy)
    )
    for ours, theirs in zip(expected, actual, strict=True):
        np.testing.assert_allclose(ours["statecast"], theirs["statecast"], rtol=1e-5)
        assert ours["position"] == theirs["position"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("unique_id=nope", 404, "series.unknown"),
        ("since=soon", 422, "data.bad_stamps"),
        ("other=1", 422, "request.validation"),
    ],
)
def test_an_export_with_a_bad_query_is_refused(retail_client, query, status, code):
    """The answer is a problem, sent before any byte of a file."""
    answer = retail_client.get(f"/v1/log?{query}")

    assert (answer.status_code, answer.json()["code"]) == (status, code)
