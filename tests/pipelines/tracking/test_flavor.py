"""The logged model as a pyfunc model, in the MLflow server, and as a bundle."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from forecast.data.validation import validate
from forecast.errors import BundleError
from forecast.inference.batch import forecast_table
from pipelines.tracking import flavor
from pipelines.tracking.connection import mlflow
from pipelines.tracking.flavor import HELD_OUT


@pytest.fixture(scope="module")
def history(sales) -> pd.DataFrame:
    """Return the history that is sent for scoring."""
    return pd.read_csv(sales, parse_dates=["ds"])


@pytest.fixture(scope="module")
def expected(trained, history) -> pd.DataFrame:
    """Return the forecasts of the library for that history."""
    bundle = flavor.load_model("models:/retail@champion", trained.tracking)
    return forecast_table(bundle, history, horizon=3, level=(80,))


def test_pyfunc_forecasts_ten_times_the_horizon_of_the_model(trained, history):
    """The forecast is that of the library, and its first steps are those of a shorter one."""
    bundle = flavor.load_model("models:/retail@champion", trained.tracking)
    steps = 10 * bundle.horizon
    with ignore_warnings():
        model = mlflow.pyfunc.load_model("models:/retail@champion")
        answer = model.predict(history, params={"h": steps, "level": [80.0]})

    expected = forecast_table(bundle, history, horizon=steps, level=(80,))
    short = forecast_table(bundle, history, level=(80,))

    assert expected.groupby("unique_id").size().eq(steps).all()
    pd.testing.assert_frame_equal(answer, expected, check_dtype=False, rtol=1e-4)
    first = expected.groupby("unique_id").head(bundle.horizon).reset_index(drop=True)
    pd.testing.assert_frame_equal(first, short, rtol=1e-5)


def test_pyfunc_forecast_equals_that_of_the_library(trained, history, expected):
    """`mlflow.pyfunc.load_model` gives the same forecasts for a long history."""
    with ignore_warnings():
        model = mlflow.pyfunc.load_model("models:/retail@champion")
        answer = model.predict(history, params={"h": 3, "level": [80.0]})

    pd.testing.assert_frame_equal(answer, expected)


def test_pyfunc_takes_standard_columns_and_iso_dates(trained, history, expected, tmp_path):
    """The names and the date format of the training table do not matter."""
    bundle = flavor.load_model("models:/retail@champion", trained.tracking)
    german = {"id_col": "Filiale", "time_col": "Tag", "time_format": "%d.%m.%Y"}
    data = replace(bundle.config.data, **german)
    bundle = replace(bundle, config=replace(bundle.config, data=data))
    flavor.save_model(bundle, tmp_path / "model")
    table = history.assign(ds=history["ds"].dt.strftime("%Y-%m-%d"))

    with ignore_warnings():
        model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
        answer = model.predict(table, params={"h": 3, "level": [80.0]})

    pd.testing.assert_frame_equal(answer, expected)


def test_pyfunc_forecasts_the_whole_horizon_by_default(trained, history):
    """Without params there are all steps of the horizon, with the 80 and 95 % intervals."""
    with ignore_warnings():
        answer = mlflow.pyfunc.load_model("models:/retail@champion").predict(history)

    assert len(answer) == 6 * 6
    assert {"statecast-lo-80", "statecast-hi-95"} <= set(answer.columns)


def test_loading_a_model_leaves_no_files(trained, tmp_path, monkeypatch):
    """Each retraining loads the champion and its scored weights, so copies would accumulate."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for uri in ("models:/retail@champion", f"runs:/{trained.outcome.run_id}/{HELD_OUT}"):
        flavor.load_model(uri, trained.tracking)

    assert list(tmp_path.iterdir()) == []


def test_artifact_has_no_pickle_and_pinned_requirements(trained, tmp_path):
    """The files are JSON, safetensors, text and code, and every requirement has a version."""
    folder = trained.tracking.download("models:/retail@champion", tmp_path)

    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    requirements = (folder / "requirements.txt").read_text().split()
    description = yaml.safe_load((folder / "MLmodel").read_text())
    assert suffixes <= {".json", ".safetensors", ".py", ".yaml", ".txt", ".typed", ""}
    assert (folder / "artifacts" / "bundle" / "weights.safetensors").is_file()
    assert all("==" in line and "+" not in line for line in requirements)
    assert any(line.startswith("torch==") for line in requirements)
    assert [field["name"] for field in json.loads(description["signature"]["inputs"])] == [
        "unique_id",
        "ds",
        "y",
    ]


def test_mlflow_server_forecasts_a_long_history(trained, history, expected, tmp_path):
    """A real `mlflow models serve --env-manager local` process answers /invocations."""
    folder = trained.tracking.download("models:/retail@champion", tmp_path)
    rows = history.assign(ds=history["ds"].dt.strftime("%Y-%m-%d"))
    body = {
        "dataframe_split": rows.to_dict("split", index=False),
        "params": {"h": 3, "level": [80]},
    }
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        str(folder),
        "-p",
        str(port),
        "--env-manager",
        "local",
        "-w",
        "1",
    ]

    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=tmp_path,
            start_new_session=True,
            env={
                **os.environ,
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
        )
    try:
        answer = post_until_ready(server, f"http://127.0.0.1:{port}/invocations", body)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()

    forecasts = pd.DataFrame(answer["predictions"])
    forecasts["ds"] = pd.to_datetime(forecasts["ds"])
    pd.testing.assert_frame_equal(forecasts[expected.columns], expected, rtol=1e-6)


def test_saved_model_loads_as_the_same_bundle(trained, tmp_path):
    """`save_model` and `load_model` work without a tracking server."""
    bundle = flavor.load_model("models:/retail@champion", trained.tracking)

    flavor.save_model(bundle, tmp_path / "model")

    assert flavor.load_model(str(tmp_path / "model")).digest == bundle.digest


def test_model_without_a_bundle_is_refused(tmp_path):
    """A model of another flavor cannot be loaded."""
    (tmp_path / "MLmodel").write_text("flavors: {sklearn: {}}")
    with pytest.raises(BundleError, match="holds no bundle"):
        flavor.load_model(str(tmp_path))


def test_last_rows_without_y_are_the_future(trained, history):
    """Rows with an empty `y` at the end are not history: the forecast starts at them."""
    bundle = flavor.load_model("models:/retail@champion", trained.tracking)
    last = history["ds"].max()
    table = history.assign(y=history["y"].where(history["ds"] < last))

    forecasts = forecast_table(bundle, table, horizon=1)

    assert (forecasts["ds"] == last).all()
    pd.testing.assert_frame_equal(
        forecasts, forecast_table(bundle, history[history["ds"] < last], horizon=1)
    )


def test_known_future_covariates_are_read_from_rows_without_y(examples, tmp_path):
    """The rows after the last `y` are as good as a table of their own."""
    bundle, past, future = weekly_model(examples)
    table = pd.concat([past, future], ignore_index=True)

    from_rows = forecast_table(bundle, table, horizon=4)
    from_frame = forecast_table(bundle, past, horizon=4, futr_df=future)

    pd.testing.assert_frame_equal(from_rows, from_frame)


def weekly_model(examples: Path):
    """Return a barely trained model with prices, its history and the future prices."""
    from forecast.config import Config
    from forecast.data.panel import Panel
    from forecast.training.train import train

    past = pd.read_parquet(examples / "weekly_sales.parquet")
    future = pd.read_parquet(examples / "weekly_sales_future.parquet")
    ids = past["unique_id"].unique()[:4]
    past, future = (t[t["unique_id"].isin(ids)] for t in (past, future))
    settings = Config.from_dict(
        {
            "data": {"known_future": ["price", "deal"]},
            "model": {"horizon": 4, "hidden_size": 4},
            "train": {"max_steps": 2},
        }
    )
    series = validate(past, settings.data)
    config = Config(data=series.data, model=settings.model, train=settings.train)
    return train(Panel.from_frame(series), config).bundle, past, future


def ignore_warnings():
    """Ignore the warnings of MLflow itself."""
    import warnings

    return warnings.catch_warnings(action="ignore")


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def post_until_ready(server: subprocess.Popen[bytes], url: str, body: dict) -> dict:
    """Send a POST request until the server answers; fail if its process has ended."""
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, "mlflow models serve has ended"
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except OSError:
            time.sleep(0.2)
    raise AssertionError("mlflow models serve did not start")
