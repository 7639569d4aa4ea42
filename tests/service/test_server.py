"""The process: what it imports, where it listens, how it refuses to start."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from benchmarks.speed.servers import server
from forecast.errors import PortInUse
from service.server import base_url, bind
from service.settings import Settings

HEAVY = ("mlflow", "statsforecast", "plotly", "typer", "dbos", "ray", "matplotlib", "sklearn")


def test_the_server_serves_without_the_heavy_packages(serve, monthly_bundle, monthly, tmp_path):
    """No tracking client, no statistics, no figures, no command line on its import path."""
    monthly.to_parquet(tmp_path / "seed.parquet")
    code = f"""
import sys
from starlette.testclient import TestClient
from service.app import create_app
from service.settings import Settings
import service.server
app = create_app(Settings(seed_data={str(tmp_path / "seed.parquet")!r}))
with TestClient(app, base_url="http://127.0.0.1") as client:
    app.state.slot.wait(60)
    name = client.get("/v1/series").json()["series"][0]["unique_id"]
    assert client.post("/v1/forecasts", json={{"unique_ids": [name]}}).status_code == 200
    assert client.get("/openapi.json").status_code == 200
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    environment = {
        **os.environ,
        "STATECAST_MODEL": str(monthly_bundle),
        "STATECAST_DATA_DIR": str(tmp_path),
    }

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == "[]", done.stderr


def test_a_busy_port_is_told_with_the_next_one():
    """The message names the address and the option."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(PortInUse) as refused:
            bind(Settings(port=port))

    assert refused.value.where == f"127.0.0.1:{port}"
    assert f"--port {port + 1}" in refused.value.help


def test_the_next_free_port_is_taken_when_that_is_wanted():
    """And the address that is printed is the one that answers."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with bind(Settings(port=port, next_port=True)) as listener:
            url = base_url(listener)

    assert url.startswith("http://127.0.0.1:")
    assert url != f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"STATECAST_HOST": "0.0.0.0"}, "error[config.open_bind]"),
        ({"STATECAST_MODEL": "nowhere"}, "error[model.unknown]"),
        ({"STATECAST_PORT": "high"}, "STATECAST_PORT"),
        ({"STATECAST_MODEL": "models:/statecast@champion"}, "error[registry.unavailable]"),
    ],
)
def test_a_server_that_cannot_serve_stops_with_a_message(environment, said, tmp_path):
    """Exit code 2, one clear message, no traceback."""
    environment = {"STATECAST_PORT": "0", "STATECAST_DATA_DIR": str(tmp_path), **environment}
    untracked = {name: value for name, value in os.environ.items() if "MLFLOW" not in name}

    done = subprocess.run(
        [sys.executable, "-m", "service"],
        env={**untracked, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stopped_server_ends_orderly(monthly_bundle: Path, tmp_path: Path):
    """SIGTERM: what runs is finished, the log is given back, and the next can start."""
    environment = {"STATECAST_MODEL": str(monthly_bundle), "STATECAST_DATA_DIR": str(tmp_path)}
    with server(environment) as running:
        assert httpx.get(f"{running.url}/livez").headers.get("server") is None
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) in {0, -signal.SIGTERM}
        assert "Traceback" not in running.said
    with server(environment) as running:
        assert httpx.get(f"{running.url}/readyz").json()["ready"] is True
