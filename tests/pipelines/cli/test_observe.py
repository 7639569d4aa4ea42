"""`statecast observe` stores the same values that training reads from a file."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.speed.servers import server
from forecast.config import DataConfig
from service.ingest.importer import import_history
from tests.helpers.service import train_tiny

HOURS = 24 * 20


def server_variables(project: Path) -> dict[str, str]:
    """Return the variables of a server of the bundle and the log in a folder."""
    return {"STATECAST_MODEL": str(project / "bundle"), "STATECAST_DATA_DIR": str(project / "data")}


@pytest.fixture
def hourly() -> pd.DataFrame:
    """Return two hourly series in New York time, which are named by numbers."""
    ds = pd.date_range("2024-06-01", periods=HOURS + 24, freq="h", tz="America/New_York")
    y = 100 + 40 * np.sin(2 * np.pi * np.arange(len(ds)) / 24)
    return pd.concat([pd.DataFrame({"unique_id": i, "ds": ds, "y": y + i}) for i in (7, 8)])


def test_time_zones_and_numeric_names_are_stored_alike_with_and_without_a_server(
    statecast, project, hourly, monkeypatch
):
    """Rows that a server has stored as new are duplicates when imported offline."""
    data = DataConfig(freq="h", kind="positive")
    new = hourly.groupby("unique_id").tail(24)
    history = hourly.groupby("unique_id").head(HOURS)
    train_tiny(history, data, project / "bundle")
    import_history(f"sqlite:///{project / 'data' / 'observations.db'}", history, data)
    new.to_parquet("new.parquet", index=False)
    with server(server_variables(project)) as running:
        sent = statecast("observe", "new.parquet", "--server", running.url, "--json").document
    monkeypatch.setenv("STATECAST_MODEL", str(project / "bundle"))
    imported = statecast("observe", "new.parquet", "--offline", "--json")

    assert (sent["new"], sent["duplicate"], sent["revised"], sent["created"]) == (48, 0, 0, 0)
    assert imported.code == 0, imported.err
    assert (imported.document["new"], imported.document["duplicate"]) == (0, 48)


def test_rows_of_future_covariates_are_not_observed(statecast, project, sales):
    """Rows without a value after the last observation hold covariates, not missing values."""
    data = DataConfig(freq="MS", kind="count", known_future=("price",), fill="zero")
    priced = sales.assign(price=1.0, y=sales["y"].round())
    train_tiny(priced, data, project / "bundle")
    future = pd.concat(
        pd.DataFrame({"unique_id": i, "ds": pd.date_range("2019-01-01", periods=3, freq="MS")})
        for i in priced["unique_id"].unique()
    ).assign(price=0.5)
    url = f"sqlite:///{project / 'data' / 'observations.db'}"

    counts = import_history(url, pd.concat([priced, future], ignore_index=True), data)
    (project / "statecast.toml").write_text('[data]\nfill = "zero"\n')
    future.assign(y=[5.0, np.nan, np.nan] * 6).to_parquet("next.parquet", index=False)
    with server(server_variables(project)) as running:
        sent = statecast("observe", "next.parquet", "--server", running.url, "--json").document

    assert (counts["new"], counts["filled"]) == (len(sales), 0)
    assert (sent["new"], sent["filled"]) == (6, 0)


def test_rows_without_a_series_name_are_refused(statecast, project, sales):
    """The command fails before it sends anything."""
    data = DataConfig(freq="MS", kind="positive")
    train_tiny(sales, data, project / "bundle")
    import_history(f"sqlite:///{project / 'data' / 'observations.db'}", sales, data)
    sales.assign(unique_id=sales["unique_id"].where(sales["ds"] > "2010")).to_csv("unnamed.csv")
    with server(server_variables(project)) as running:
        answer = statecast("observe", "unnamed.csv", "--server", running.url, "--json")

    assert answer.code == 2
    assert "expected the name of a series" in answer.document["error"]["message"]
