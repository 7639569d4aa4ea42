"""Every failure is a problem document; nothing leaks; the bounds hold."""

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
def test_numbers_that_are_none_are_refused(retail_client, number):
    """NaN and infinity never reach the model."""
    text = '{"observations": [{"unique_id": "A3349335T", "ds": "2019-01-01", "y": %s}]}'

    answer = retail_client.post(
        "/v1/observations",
        content=(text % number).encode(),
        headers={"content-type": "application/json"},
    )

    assert_problem(answer, 422, "request.validation")


def test_a_request_id_is_taken_over_when_it_is_sane(retail_client):
    """A caller's number is kept; anything odd is replaced."""
    kept = retail_client.get("/livez", headers={"x-request-id": "job-17.a"})
    replaced = retail_client.get("/livez", headers={"x-request-id": "a b\tc"})

    assert kept.headers["x-request-id"] == "job-17.a"
    assert len(replaced.headers["x-request-id"]) == 32


def test_a_body_that_is_too_long_is_refused_before_it_is_read(serve, monthly_bundle):
    """By its declared length at once; in pieces of unknown length as soon as it is too long."""
    client = serve(monthly_bundle, limits={"max_body_bytes": 1000})

    def pieces():
        for _ in range(100):
            yield b" " * 100

    declared = client.post(
        "/v1/forecasts", content=b" " * 1001, headers={"content-type": "application/json"}
    )
    streamed = client.post(
        "/v1/forecasts", content=pieces(), headers={"content-type": "application/json"}
    )

    assert_problem(declared, 413, "request.too_large")
    assert_problem(streamed, 413, "request.too_large")


def test_a_body_that_stops_coming_is_given_up():
    """A client that is gone would keep its place for ever; one that is slow has its time."""
    pieces = iter([{"type": "http.request", "body": b" " * 4000, "more_body": True}])

    async def receive() -> Message:
        for piece in pieces:
            return piece
        return await asyncio.Future()

    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass

    app = BodyLimit(read, most=10_000, patience=0.1)
    begun = time.monotonic()

    with pytest.raises(HTTPException, match="received 4,000 bytes") as told:
        asyncio.run(app({"type": "http", "headers": []}, receive, None))

    assert told.value.status_code == 408
    assert time.monotonic() - begun >= 0.5


def test_only_some_read_the_log_out_at_once(serve, monthly_bundle, monthly):
    """Each holds a connection that others need to write."""
    client = serve(monthly_bundle, monthly)
    with log_routes._EXPORTS, log_routes._EXPORTS:
        told = client.get("/v1/log")
    assert_problem(told, 503, "service.overloaded")
    assert client.get("/v1/log").status_code == 200


def test_too_many_series_or_rows_are_refused(serve, monthly_bundle, monthly):
    """The bound is named, and how many were sent."""
    client = serve(monthly_bundle, monthly, limits={"max_series": 2, "max_rows": 3})
    many = [{"unique_id": "a", "ds": "2019-01-01", "y": 1}] * 4

    told = assert_problem(
        client.post("/v1/forecasts", json={"unique_ids": ["a", "b", "c"]}), 413, "request.too_large"
    )
    assert "3 series in one request: at most 2" in told["detail"]
    assert_problem(
        client.post("/v1/observations", json={"observations": many}), 413, "request.too_large"
    )


def test_more_requests_than_allowed_are_shed(serve, monthly_bundle, monthly):
    """While one request runs, the next is told to come back; the probes still answer."""
    client = serve(monthly_bundle, monthly, limits={"max_concurrency": 1, "retry_after": 7})
    entered, release = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        executor = client.app.state.slot.serving.engine.executor
        pool.submit(executor.run, lambda: (entered.set(), release.wait(60)))
        assert entered.wait(30)
        body = {"unique_ids": ["A3349335T"]}
        busy = pool.submit(client.post, "/v1/forecasts", json=body)

        registry = client.app.state.metrics.registry
        waiting = "statecast_pending_requests"
        wait_until(lambda: registry.get_sample_value(waiting), lambda jobs: jobs == 2)
        shed = client.get("/v1/models")
        alive, ready = client.get("/livez"), client.get("/readyz")
        release.set()
        answered = busy.result()

    assert_problem(shed, 503, Overloaded.code)
    assert shed.headers["retry-after"] == "7"
    assert (alive.status_code, ready.status_code, answered.status_code) == (200, 200, 200)


def test_a_request_that_waits_too_long_is_given_up(serve, monthly_bundle, monthly):
    """The deadline is told as 504; the server goes on."""
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


def test_with_keys_only_their_holders_may_call(serve, monthly_bundle, monthly):
    """By X-API-Key or as bearer; a key may be given as its digest; probes stay open."""
    client = serve(monthly_bundle, monthly, api_keys=["first", f"sha256:{key_digest('second')}"])

    refused = client.get("/v1/models")
    told = assert_problem(refused, 401, "request.unauthorized")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "first" not in json.dumps(told)
    assert_problem(
        client.get("/v1/models", headers={"x-api-key": "third"}), 401, "request.unauthorized"
    )
    for headers in ({"x-api-key": "first"}, {"authorization": "Bearer second"}):
        assert client.get("/v1/models", headers=headers).status_code == 200
    for path in ("/livez", "/readyz", "/healthz", "/openapi.json"):
        assert client.get(path).status_code == 200
    for path in ("/metrics", "/version", "/nowhere"):
        assert client.get(path).status_code == 401


def test_an_unknown_caller_is_refused_before_the_body_is_read(serve, monthly_bundle):
    """Nobody without a key can make the server read a body."""
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


def test_keys_are_kept_as_digests_only(tmp_path):
    """No setting, printed or dumped, gives a key away."""
    (tmp_path / "keys").write_text("from-file\n")
    settings = Settings(api_keys="a-key,b-key", api_keys_file=tmp_path / "keys")

    assert settings.key_digests == tuple(map(key_digest, ("a-key", "b-key", "from-file")))
    assert "a-key" not in repr(settings)
    assert "a-key" not in settings.model_dump_json()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
def test_without_keys_only_this_machine_may_reach_the_server(host):
    """Start-up refuses and says what to set."""
    with pytest.raises(OpenBind, match="no API key") as refused:
        Settings(host=host).check_bind()
    assert "STATECAST_API_KEYS" in refused.value.help
    assert isinstance(refused.value, ConfigError)
    Settings(host=host, api_keys="k").check_bind()


def test_without_keys_a_foreign_host_header_is_refused(retail_client):
    """A page elsewhere cannot call under a name of its own that it points here."""
    answer = retail_client.get("/v1/models", headers={"host": "evil.example:8000"})

    assert_problem(answer, 400, "request.host")
    assert retail_client.get("/v1/models", headers={"host": "localhost:8000"}).status_code == 200
    assert retail_client.get("/v1/models", headers={"host": "[::1]:8000"}).status_code == 200


def test_settings_come_from_the_environment(monkeypatch):
    """With the prefix, nested limits with two underscores, lists by commas."""
    monkeypatch.setenv("STATECAST_PORT", "9001")
    monkeypatch.setenv("STATECAST_LIMITS__MAX_SERIES", "7")
    monkeypatch.setenv("STATECAST_API_KEYS", "a, b")

    settings = Settings()

    assert (settings.port, settings.limits.max_series, len(settings.key_digests)) == (9001, 7, 2)
