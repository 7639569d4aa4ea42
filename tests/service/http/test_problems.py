"""Limits, deadlines, API keys and hosts are enforced with problem documents."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from benchmarks.speed.servers import wait_until
from forecast.errors import ConfigError
from service.api import log as log_routes
from service.errors import OpenBind, Overloaded
from service.http.middleware.limits import BodyLimit
from service.settings import Settings, key_digest
from tests.helpers.service import assert_problem


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(retail_client, number):
    """NaN, infinity and numbers that overflow never reach the model."""
    text = '{"observations": [{"unique_id": "A3349335T", "ds": "2019-01-01", "y": %s}]}'

    answer = retail_client.post(
        "/v1/observations",
        content=(text % number).encode(),
        headers={"content-type": "application/json"},
    )

    assert_problem(answer, 422, "request.validation")


def test_a_valid_request_id_of_the_client_is_used(retail_client):
    """The response repeats a valid id; the server replaces any other by its own."""
    valid = retail_client.get("/livez", headers={"x-request-id": "job-17.a"})
    replaced = retail_client.get("/livez", headers={"x-request-id": "a b\tc"})

    assert valid.headers["x-request-id"] == "job-17.a"
    assert len(replaced.headers["x-request-id"]) == 32


def test_a_body_over_the_limit_is_refused(serve, monthly_bundle):
    """A declared length is checked at once, and a chunked body while it is read."""
    client = serve(monthly_bundle, limits={"max_body_bytes": 1000})

    def chunks():
        for _ in range(100):
            yield b" " * 100

    declared = client.post(
        "/v1/forecasts", content=b" " * 1001, headers={"content-type": "application/json"}
    )
    streamed = client.post(
        "/v1/forecasts", content=chunks(), headers={"content-type": "application/json"}
    )

    assert_problem(declared, 413, "request.too_large")
    assert_problem(streamed, 413, "request.too_large")


def test_a_stalled_body_times_out():
    """A client that sends no more gets 408, after a time that grows with the bytes received."""
    chunks = iter([{"type": "http.request", "body": b" " * 4000, "more_body": True}])

    async def receive() -> Message:
        for chunk in chunks:
            return chunk
        return await asyncio.Future()

    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass

    app = BodyLimit(read, most=10_000, patience=0.1)
    start = time.monotonic()

    with pytest.raises(HTTPException, match="received 4,000 bytes") as caught:
        asyncio.run(app({"type": "http", "headers": []}, receive, None))

    assert caught.value.status_code == 408
    assert time.monotonic() - start >= 0.5


def test_concurrent_exports_of_the_log_are_limited(serve, monthly_bundle, monthly):
    """Each export holds a database connection, so a third one is refused until another ends."""
    client = serve(monthly_bundle, monthly)
    with log_routes._EXPORTS, log_routes._EXPORTS:
        refused = client.get("/v1/log")
    assert_problem(refused, 503, "service.overloaded")
    assert client.get("/v1/log").status_code == 200


def test_too_many_series_or_rows_are_refused(serve, monthly_bundle, monthly):
    """The problem states the limit and the number sent."""
    client = serve(monthly_bundle, monthly, limits={"max_series": 2, "max_rows": 3})
    rows = [{"unique_id": "a", "ds": "2019-01-01", "y": 1}] * 4

    problem = assert_problem(
        client.post("/v1/forecasts", json={"unique_ids": ["a", "b", "c"]}), 413, "request.too_large"
    )
    assert "3 series in one request: at most 2" in problem["detail"]
    assert_problem(
        client.post("/v1/observations", json={"observations": rows}), 413, "request.too_large"
    )


def test_requests_over_the_concurrency_limit_are_refused(serve, monthly_bundle, monthly):
    """While one request runs, the next gets 503 with `Retry-After`; the probes still respond."""
    client = serve(monthly_bundle, monthly, limits={"max_concurrency": 1, "retry_after": 7})
    entered, release = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        executor = client.app.state.slot.serving.engine.executor
        pool.submit(executor.run, lambda: (entered.set(), release.wait(60)))
        assert entered.wait(30)
        body = {"unique_ids": ["A3349335T"]}
        busy = pool.submit(client.post, "/v1/forecasts", json=body)

        registry = client.app.state.metrics.registry
        pending = "statecast_pending_requests"
        wait_until(lambda: registry.get_sample_value(pending), lambda jobs: jobs == 2)
        refused = client.get("/v1/models")
        alive, ready = client.get("/livez"), client.get("/readyz")
        release.set()
        answered = busy.result()

    assert_problem(refused, 503, Overloaded.code)
    assert refused.headers["retry-after"] == "7"
    assert (alive.status_code, ready.status_code, answered.status_code) == (200, 200, 200)


def test_a_request_past_its_deadline_gets_504(serve, monthly_bundle, monthly):
    """The server answers the next request as usual."""
    client = serve(monthly_bundle, monthly, limits={"deadline": 1.0})
    executor = client.app.state.slot.serving.engine.executor
    entered, release = threading.Event(), threading.Event()

    def block():
        entered.set()
        release.wait(60)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(executor.run, block, patient=True)
        assert entered.wait(30)

        late = client.post("/v1/forecasts", json={"unique_ids": ["A3349335T"]})
        release.set()

    assert_problem(late, 504, "service.deadline")
    assert client.post("/v1/forecasts", json={"unique_ids": ["A3349335T"]}).status_code == 200


def test_api_keys_are_required_if_any_are_set(serve, monthly_bundle, monthly):
    """A key is sent as X-API-Key or bearer token; probes and the OpenAPI document need none."""
    client = serve(monthly_bundle, monthly, api_keys=["first", f"sha256:{key_digest('second')}"])

    refused = client.get("/v1/models")
    problem = assert_problem(refused, 401, "request.unauthorized")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "first" not in json.dumps(problem)
    assert_problem(
        client.get("/v1/models", headers={"x-api-key": "third"}), 401, "request.unauthorized"
    )
    for headers in ({"x-api-key": "first"}, {"authorization": "Bearer second"}):
        assert client.get("/v1/models", headers=headers).status_code == 200
    for path in ("/livez", "/readyz", "/healthz", "/openapi.json"):
        assert client.get(path).status_code == 200
    for path in ("/metrics", "/version", "/nowhere"):
        assert client.get(path).status_code == 401


def test_a_client_without_a_key_is_refused_before_the_body_is_read(serve, monthly_bundle):
    """The server sends 401 without asking for the body."""
    client = serve(monthly_bundle, api_keys=["k"])
    messages = []

    async def receive():
        pytest.fail("the body was read")

    async def send(message):
        messages.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/forecasts",
        "raw_path": b"/v1/forecasts",
        "headers": [(b"host", b"127.0.0.1")],
        "query_string": b"",
        "state": {},
    }
    client.portal.call(client.app, scope, receive, send)

    assert messages[0]["status"] == 401


def test_settings_store_api_keys_as_digests_only(tmp_path):
    """Neither the repr nor the JSON of the settings shows a key."""
    (tmp_path / "keys").write_text("from-file\n")
    settings = Settings(api_keys="a-key,b-key", api_keys_file=tmp_path / "keys")

    assert settings.key_digests == tuple(map(key_digest, ("a-key", "b-key", "from-file")))
    assert "a-key" not in repr(settings)
    assert "a-key" not in settings.model_dump_json()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
def test_a_public_address_without_api_keys_is_refused(host):
    """The error names the environment variable to set; with a key the address is allowed."""
    with pytest.raises(OpenBind, match="no API key") as refused:
        Settings(host=host).check_bind()
    assert "STATECAST_API_KEYS" in refused.value.help
    assert isinstance(refused.value, ConfigError)
    Settings(host=host, api_keys="k").check_bind()


def test_a_foreign_host_header_is_refused_without_api_keys(retail_client):
    """The check prevents DNS rebinding: a web page that points its host name to this server."""
    answer = retail_client.get("/v1/models", headers={"host": "evil.example:8000"})

    assert_problem(answer, 400, "request.host")
    assert retail_client.get("/v1/models", headers={"host": "localhost:8000"}).status_code == 200
    assert retail_client.get("/v1/models", headers={"host": "[::1]:8000"}).status_code == 200


def test_settings_come_from_the_environment(monkeypatch):
    """Names have a prefix, `__` separates nested limits, and commas separate lists."""
    monkeypatch.setenv("STATECAST_PORT", "9001")
    monkeypatch.setenv("STATECAST_LIMITS__MAX_SERIES", "7")
    monkeypatch.setenv("STATECAST_API_KEYS", "a, b")

    settings = Settings()

    assert (settings.port, settings.limits.max_series, len(settings.key_digests)) == (9001, 7, 2)
