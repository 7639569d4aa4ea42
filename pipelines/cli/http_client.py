"""Call the HTTP service: send and receive JSON, and raise its problems as our errors."""

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from pipelines.errors import ServerRefused, Unreachable

TIMEOUT = 60.0
"""Seconds to wait for an answer."""


def call(
    server: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    timeout: float = TIMEOUT,
    method: str | None = None,
) -> dict[str, Any]:
    """
    Send a request and return the JSON document of the answer.

    The API key in `STATECAST_API_KEY`, if set, is sent along.

    Args:
        server: Base URL of the server.
        path: Path of the request, which starts with a slash.
        body: JSON document to send, if any.
        timeout: Seconds to wait.
        method: HTTP method; by default POST if there is a body, otherwise GET.

    Raises:
        Unreachable: The server does not answer, or not in time.
        ServerRefused: The server answered with a problem.
    """
    headers = {"Accept": "application/json"}
    if key := os.environ.get("STATECAST_API_KEY"):
        headers["X-API-Key"] = key
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    url = server.rstrip("/") + path
    if not url.startswith(("http://", "https://")):
        raise Unreachable(
            "expected an http:// or https:// address",
            where=server,
            help="for example --server http://127.0.0.1:8000",
        )
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            document: dict[str, Any] = json.loads(response.read())
            return document
    except urllib.error.HTTPError as error:
        raise _convert_problem(error, path) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, json.JSONDecodeError) as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(
            f"no Statecast server answers: {reason}",
            where=server,
            help="start one with `statecast serve`, or name another with --server",
        ) from error


def base_url(server: str, name: str | None) -> str:
    """
    Return the URL in front of `/v1/...` for one model of a server.

    Args:
        server: Base URL of the server.
        name: Name of the model; None for a server of a single model.

    >>> base_url("http://127.0.0.1:8000/", "sales"), base_url("http://127.0.0.1:8000", None)
    ('http://127.0.0.1:8000/models/sales', 'http://127.0.0.1:8000')
    """
    return server if name is None else f"{server.rstrip('/')}/models/{urllib.parse.quote(name)}"


def _convert_problem(error: urllib.error.HTTPError, path: str) -> ServerRefused:
    """Convert an HTTP error, with its problem document if it has one, to our error."""
    try:
        problem = json.loads(error.read())
    except (json.JSONDecodeError, OSError):
        problem = {}
    message = problem.get("detail") or problem.get("title") or f"HTTP {error.code} {error.reason}"
    request_id = problem.get("request_id")
    where = (problem.get("where"), path, f"request {request_id}" if request_id else "")
    return ServerRefused(
        str(message),
        code=str(problem.get("code") or f"http.{error.code}"),
        status=error.code,
        where=", ".join(str(part) for part in where if part),
        help=str(problem.get("help") or ""),
    )
