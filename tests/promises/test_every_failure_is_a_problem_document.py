"""Promise 13: every failure is a problem document with a stable code, whatever is sent."""

import time

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as conformance

from forecast import errors as library_errors
from forecast.errors import ForecastError
from service import errors as service_errors
from service.http.problems import status_of
from tests.helpers.service import assert_problem

CHECKS = [
    checks.not_a_server_error,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_schema_conformance,
]
SECONDS = 40
"""Time for all operations together, so that a slow machine tries fewer requests."""


def test_a_request_refused_by_the_framework_gets_a_problem_document(retail_client):
    """These are 404, 405, 422, malformed JSON, and another media type."""
    post = retail_client.post
    assert_problem(retail_client.get("/nowhere"), 404, "request.not_found")
    assert_problem(retail_client.put("/v1/series"), 405, "request.method")
    assert_problem(retail_client.get("/v1/series?limit=0"), 422, "request.validation")
    json_type = {"content-type": "application/json"}
    broken = post("/v1/forecasts", content=b'{"unique_ids": [', headers=json_type)
    assert_problem(broken, 400, "request.malformed")
    assert_problem(
        post("/v1/forecasts", content=b"\xff\xfe", headers=json_type), 400, "request.malformed"
    )
    assert_problem(post("/v1/forecasts", data={"a": "b"}), 415, "request.media_type")
    assert_problem(post("/v1/forecasts", json=[1]), 422, "request.validation")


def test_a_problem_repeats_no_value_of_the_request(retail_client):
    """A validation problem names the place and the rule, but not the input."""
    body = {"observations": [{"unique_id": "a", "ds": "2019-01-01", "y": "s3cr3t-value"}]}

    answer = retail_client.post("/v1/observations", json=body)

    assert_problem(answer, 422, "request.validation")
    assert "s3cr3t-value" not in answer.text


def test_an_unexpected_error_reveals_only_the_request_id(retail_client, monkeypatch, caplog):
    """The traceback is logged under the request id and stays out of the answer."""
    engine = retail_client.app.state.slot.serving.engine
    monkeypatch.setattr(engine, "bundle", None)

    answer = retail_client.post("/v1/forecasts", json={"unique_ids": ["A3349335T"]})

    problem = assert_problem(answer, 500, "internal")
    assert problem["detail"] == "internal error"
    assert "NoneType" not in answer.text
    assert problem["request_id"] in caplog.text
    assert "Traceback" in caplog.text


def all_errors() -> list[type[ForecastError]]:
    """Return every error class of the library and the service."""
    values = {**vars(library_errors), **vars(service_errors)}.values()
    return [c for c in values if isinstance(c, type) and issubclass(c, ForecastError)]


@pytest.mark.parametrize("error", all_errors())
def test_every_error_has_a_status(error):
    """Only errors that no request can cause have status 500."""
    unreachable = {"internal", "checkpoint.invalid", "forecaster.not_fitted", "cli.port_busy"}

    assert (status_of(error.code) == 500) == (error.code in unreachable)


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_responses_to_fuzzed_requests_conform_to_the_openapi_document(
    serve, weekly_bundle, weekly, mode
):
    """Requests that follow or violate the schema get documented responses, and never a 5xx."""
    client = serve(weekly_bundle, weekly, unknown_series="create")
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    operations = [result.ok() for result in schema.get_all_operations()]
    operations = [operation for operation in operations if _can_generate(operation, mode)]
    deadline = time.monotonic() + SECONDS / 2

    for operation in operations:

        @settings(
            max_examples=40,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def fuzz(case):
            if time.monotonic() < deadline:
                case.validate_response(_send(client, case), checks=CHECKS)

        fuzz()

    assert len(operations) >= 5


def _send(client, case):
    """Send a generated request and return the response."""
    kwargs = case.as_transport_kwargs(base_url="http://127.0.0.1")
    kwargs.pop("cookies", None)
    if isinstance(kwargs.get("data"), bytes | str):
        kwargs["content"] = kwargs.pop("data")
    return client.request(**kwargs)


def _can_generate(operation, mode: GenerationMode) -> bool:
    """Return whether requests can be generated; a route without inputs has no invalid one."""
    inputs = list(operation.iter_parameters()) or operation.body
    return mode is GenerationMode.POSITIVE or bool(inputs)
