"""The service, as the command line talks to it: JSON over HTTP, problems as our errors."""

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from pipelines.errors import ServerRefused, Unreachable

TIMEOUT = 60.0


def call(
    server: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    timeout: float = TIMEOUT,
    method: str | None = None,
) -> dict[str, Any]:
    """
    GET a path, or POST a body to it; or whatever `method` says.

    `STATECAST_API_KEY` is sent along when it is set.

    Raises:
        Unreachable: Nothing answers there, or not in time.
        ServerRefused: It answered with a problem.
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
            "a server is an http:// or https:// address",
            where=server,
            help="for example --server http://127.0.0.1:8000",
        )
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found
    except urllib.error.HTTPError as error:
        raise _refused(error, path) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, json.JSONDecodeError) as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(
            f"no Statecast server answers: {reason}",
            where=server,
            help="start one with `statecast serve`, or name another with --server",
        ) from error


def base_url(server: str, name: str | None) -> str:
    """
    What comes before `/v1/...` of one model of a server; None where it has one alone.

    >>> base_url("http://127.0.0.1:8000/", "sales"), base_url("http://127.0.0.1:8000", None)
    ('http://127.0.0.1:8000/models/sales', 'http://127.0.0.1:8000')
    """
    return server if name is None else f"{server.rstrip('/')}/models/{urllib.parse.quote(name)}"


def _refused(error: urllib.error.HTTPError, path: str) -> ServerRefused:
    try:
        problem = json.loads(error.read())
    except (json.JSONDecodeError, OSError):
        problem = {}
    told = str(problem.get("detail") or problem.get("title") or f"HTTP {error.code} {error.reason}")
    message, place, way_out = told, str(problem.get("where") or ""), str(problem.get("help") or "")
    named = problem.get("request_id")
    where = ", ".join(part for part in (place, path, f"request {named}" if named else "") if part)
    return ServerRefused(
        message,
        code=str(problem.get("code") or f"http.{error.code}"),
        status=error.code,
        where=where,
        help=way_out,
    )
