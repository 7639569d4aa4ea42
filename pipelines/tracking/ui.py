"""MLflow's own pages, as a process of their own that ends with ours."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from forecast.errors import PortInUse

_NEXT_PORTS = 50
_PATIENCE = 60.0
"""Seconds the pages may take to answer."""


class MlflowPages:
    """
    `mlflow server` on this machine only; a context that ends the whole process group.

    Args:
        uri: MLflow's SQLite store.
        data_dir: Where the artifacts and the server's log are.
        port: Wanted; the next free one is taken when it is busy.
    """

    def __init__(self, uri: str, data_dir: Path, *, port: int) -> None:
        self.port = free_port(port)
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data_dir / "mlflow.log"
        self._uri, self._artifacts = uri, (data_dir / "artifacts").resolve()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "MlflowPages":
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            self._uri,
            "--artifacts-destination",
            str(self._artifacts),
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        quiet = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # else six more processes
            "PYTHONWARNINGS": "ignore",
        }
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **quiet},
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is None:
            return
        for end in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, end)
                process.wait(timeout=8)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        process.wait()

    @property
    def group(self) -> int:
        """Its process group; 0 before it is started."""
        return 0 if self._process is None else self._process.pid

    def wait(self) -> bool:
        """Until they answer; False when they do not, or the process has ended."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            if self._process is None or self._process.poll() is not None:
                return False
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    return True
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        return False


def free_port(wanted: int) -> int:
    """
    The wanted port of this machine, or the next one that is free.

    Raises:
        PortInUse: None of the next ones is.
    """
    for port in range(wanted, min(wanted + _NEXT_PORTS, 65_536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise PortInUse(
        f"ports {wanted} to {wanted + _NEXT_PORTS - 1} are all busy",
        help="name another: --mlflow-port",
    )
