"""The server process imports no heavy package, checks its port and stops with clear errors."""

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
    """Serving imports no tracking client, statistics, plotting or command-line package."""
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

    process = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )

    assert process.stdout.strip() == "[]", process.stderr


def test_a_busy_port_is_refused_with_a_suggestion():
    """The error names the address, and the option for the next port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(PortInUse) as refused:
            bind(Settings(port=port))

    assert refused.value.where == f"127.0.0.1:{port}"
    assert f"--port {port + 1}" in refused.value.help


def test_the_next_free_port_is_used_if_the_setting_allows_it():
    """The printed URL is that of the port that was bound."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with bind(Settings(port=port, next_port=True)) as listener:
            url = base_url(listener)

    assert url.startswith("http://127.0.0.1:")
    assert url != f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"STATECAST_HOST": "0.0.0.0"}, "error[config.open_bind]"),
        ({"STATECAST_MODEL": "nowhere"}, "error[model.unknown]"),
        ({"STATECAST_PORT": "high"}, "STATECAST_PORT"),
        ({"STATECAST_MODEL": "models:/statecast@champion"}, "error[registry.unavailable]"),
    ],
)
def test_a_server_that_cannot_serve_stops_with_a_message(environment, message, tmp_path):
    """The process exits with code 2 and an error message, without a traceback."""
    environment = {"STATECAST_PORT": "0", "STATECAST_DATA_DIR": str(tmp_path), **environment}
    untracked = {name: value for name, value in os.environ.items() if "MLFLOW" not in name}

    process = subprocess.run(
        [sys.executable, "-m", "service"],
        env={**untracked, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert process.returncode == 2
    assert message in process.stderr
    assert "Traceback" not in process.stderr


def test_a_server_stops_cleanly_on_sigterm(monthly_bundle: Path, tmp_path: Path):
    """It releases the log without a traceback, so that the next server can start."""
    environment = {"STATECAST_MODEL": str(monthly_bundle), "STATECAST_DATA_DIR": str(tmp_path)}
    with server(environment) as running:
        assert httpx.get(f"{running.url}/livez").headers.get("server") is None
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) in {0, -signal.SIGTERM}
        assert "Traceback" not in running.output
    with server(environment) as running:
        assert httpx.get(f"{running.url}/readyz").json()["ready"] is True
