"""The logged model: through pyfunc, through MLflow's own server, and as a bundle."""

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

from forecast.data import validation as frames
from forecast.errors import BundleError
from forecast.inference.batch import forecast_table
from pipelines.tracking import flavor
from pipelines.tracking.connection import mlflow
from pipelines.tracking.flavor import HELD_OUT


@pytest.fixture(scope="module")
def history(sales) -> pd.DataFrame:
    """The long history that is sent for scoring."""
    return pd.read_csv(sales, parse_dates=["ds"])


@pytest.fixture(scope="module")
def expected(trained, history) -> pd.DataFrame:
    """What the library itself forecasts for it."""
    bundle = flavor.load_model("models:/retail@champion", trained.tracking)
    return forecast_table(bundle, history, horizon=3, level=(80,))


def test_a_history_is_forecast_ten_times_as_far_as_was_learned(trained, history):
    """Through pyfunc as through the library; the first steps are those of a short forecast."""
    bundle = flavor.load_model("models:/retail@champion", trained.tracking)
    far = 10 * bundle.horizon
    with mlflow_quiet():
        model = mlflow.pyfunc.load_model("models:/retail@champion")
        answer = model.predict(history, params={"h": far, "level": [80.0]})

    made = forecast_table(bundle, history, horizon=far, level=(80,))
    short = forecast_table(bundle, history, level=(80,))

    assert made.groupby("unique_id").size().eq(far).all()
    pd.testing.assert_frame_equal(answer, made, check_dtype=False, rtol=1e-4)
    first = made.groupby("unique_id").head(bundle.horizon).reset_index(drop=True)
    pd.testing.assert_frame_equal(first, short, rtol=1e-5)


def test_pyfunc_gives_what_the_library_gives(trained, history, expected):
    """`mlflow.pyfunc.load_model` answers a long history with the library's forecasts."""
    with mlflow_quiet():
        model = mlflow.pyfunc.load_model("models:/retail@champion")
        answer = model.predict(history, params={"h": 3, "level": [80.0]})

    pd.testing.assert_frame_equal(answer, expected)


def test_pyfunc_takes_its_own_names_and_iso_dates(trained, history, expected, tmp_path):
    """However the table was written that the model learned from."""
    bundle = flavor.load_model("models:/retail@champion", trained.tracking)
    german = {"id_col": "Filiale", "time_col": "Tag", "time_format": "%d.%m.%Y"}
    data = replace(bundle.config.data, **german)
    bundle = replace(bundle, config=replace(bundle.config, data=data))
    flavor.save_model(bundle, tmp_path / "model")
    written = history.assign(ds=history["ds"].dt.strftime("%Y-%m-%d"))

    with mlflow_quiet():
        model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
        answer = model.predict(written, params={"h": 3, "level": [80.0]})

    pd.testing.assert_frame_equal(answer, expected)


def test_pyfunc_by_default_forecasts_the_whole_horizon(trained, history):
    """Without params: all steps that were learned, with the 80 and 95 % intervals."""
    with mlflow_quiet():
        answer = mlflow.pyfunc.load_model("models:/retail@champion").predict(history)

    assert len(answer) == 6 * 6
    assert {"statecast-lo-80", "statecast-hi-95"} <= set(answer.columns)


def test_a_loaded_model_leaves_nothing_on_the_disk(trained, tmp_path, monkeypatch):
    """Each retraining reads the champion and its scored weights: copies would pile up."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for uri in ("models:/retail@champion", f"runs:/{trained.outcome.run_id}/{HELD_OUT}"):
        flavor.load_model(uri, trained.tracking)

    assert list(tmp_path.iterdir()) == []


def test_artifact_holds_no_pickle_and_lists_what_it_needs(trained, tmp_path):
    """JSON, safetensors, text and the code: nothing else; requirements are pinned."""
    folder = trained.tracking.download("models:/retail@champion", tmp_path)

    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    needs = (folder / "requirements.txt").read_text().split()
    described = yaml.safe_load((folder / "MLmodel").read_text())
    assert kinds <= {".json", ".safetensors", ".py", ".yaml", ".txt", ".typed", ""}
    assert (folder / "artifacts" / "bundle" / "weights.safetensors").is_file()
    assert all("==" in line and "+" not in line for line in needs)
    assert any(line.startswith("torch==") for line in needs)
    assert [field["name"] for field in json.loads(described["signature"]["inputs"])] == [
        "unique_id",
        "ds",
        "y",
    ]


def test_model_served_by_mlflow_answers_a_long_history(trained, history, expected, tmp_path):
    """`mlflow models serve --env-manager local`, a real process, answers /invocations."""
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
        answer = ask_until_up(server, f"http://127.0.0.1:{port}/invocations", body)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()

    got = pd.DataFrame(answer["predictions"])
    got["ds"] = pd.to_datetime(got["ds"])
    pd.testing.assert_frame_equal(got[expected.columns], expected, rtol=1e-6)


def test_saved_model_is_a_bundle_again(trained, tmp_path):
    """`save_model` and `load_model` round-trip a bundle without a tracking server."""
    bundle = flavor.load_model("models:/retail@champion", trained.tracking)

    flavor.save_model(bundle, tmp_path / "model")

    assert flavor.load_model(str(tmp_path / "model")).digest == bundle.digest


def test_foreign_model_is_refused(tmp_path):
    """A folder without a bundle is not ours."""
    (tmp_path / "MLmodel").write_text("flavors: {sklearn: {}}")
    with pytest.raises(BundleError, match="holds no bundle"):
        flavor.load_model(str(tmp_path))


def test_rows_without_y_after_the_end_are_the_future(trained, history):
    """Rows with an empty `y` at the end are not history: forecasts begin before them."""
    bundle = flavor.load_model("models:/retail@champion", trained.tracking)
    last = history["ds"].max()
    table = history.assign(y=history["y"].where(history["ds"] < last))

    shown = forecast_table(bundle, table, horizon=1)

    assert (shown["ds"] == last).all()
    pd.testing.assert_frame_equal(
        shown, forecast_table(bundle, history[history["ds"] < last], horizon=1)
    )


def test_weekly_model_takes_its_prices_from_the_same_table(examples, tmp_path):
    """Known-future covariates may stand in the rows that follow the last `y`."""
    bundle, past, future = weekly_model(examples)
    both = pd.concat([past, future], ignore_index=True)

    from_rows = forecast_table(bundle, both, horizon=4)
    from_frame = forecast_table(bundle, past, horizon=4, futr_df=future)

    pd.testing.assert_frame_equal(from_rows, from_frame)


def weekly_model(examples: Path):
    """A barely trained model with prices, its history and the coming prices."""
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
    series = frames.validate(past, settings.data)
    config = Config(data=series.data, model=settings.model, train=settings.train)
    return train(Panel.from_frame(series), config).bundle, past, future


def mlflow_quiet():
    """MLflow's own warnings while it loads are not what is tested."""
    import warnings

    return warnings.catch_warnings(action="ignore")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask_until_up(server: subprocess.Popen[bytes], url: str, body: dict) -> dict:
    """POST until the process answers; fail when it has ended."""
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert server.poll() is None, "mlflow models serve ended"
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except OSError:
            time.sleep(0.2)
    raise AssertionError("mlflow models serve did not come up")
