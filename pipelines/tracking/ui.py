"""Runs MLflow's web pages in a process that ends with this one."""

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
"""Longest time until the pages answer, in seconds."""


class MlflowPages:
    """
    Runs `mlflow server` on the loopback address; leaving the block ends its process group.

    Args:
        uri: URI of MLflow's SQLite store.
        data_dir: Folder of the artifacts and of the server's log.
        port: Preferred port; the next free one is used if it is busy.
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
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves six more processes
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
        """Process group of the server; 0 before it is started."""
        return 0 if self._process is None else self._process.pid

    def wait(self) -> bool:
        """Wait until the pages answer. Return False if they do not or the process has ended."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    return True
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        return False


def free_port(preferred: int) -> int:
    """
    Return the preferred port of this machine, or the next one that is free.

    Raises:
        PortInUse: The preferred port and the next 49 are all busy.
    """
    for port in range(preferred, min(preferred + _NEXT_PORTS, 65_536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise PortInUse(
        f"ports {preferred} to {preferred + _NEXT_PORTS - 1} are all busy",
        help="name another: --mlflow-port",
    )
