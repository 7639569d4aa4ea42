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
"""For all operations together, so that a slow machine tries less instead of waiting."""


def test_what_the_framework_refuses_is_a_problem_document_too(retail_client):
    """404, 405, 422, malformed JSON and a missing content type."""
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


def test_a_problem_repeats_no_values_that_were_sent(retail_client):
    """Validation tells the place and the rule, not the input."""
    body = {"observations": [{"unique_id": "a", "ds": "2019-01-01", "y": "s3cr3t-value"}]}

    answer = retail_client.post("/v1/observations", json=body)

    assert_problem(answer, 422, "request.validation")
    assert "s3cr3t-value" not in answer.text


def test_an_error_nobody_foresaw_tells_a_number_and_nothing_else(
    retail_client, monkeypatch, caplog
):
    """The traceback is logged under the request id and stays out of the answer."""
    engine = retail_client.app.state.slot.serving.engine
    monkeypatch.setattr(engine, "bundle", None)

    answer = retail_client.post("/v1/forecasts", json={"unique_ids": ["A3349335T"]})

    told = assert_problem(answer, 500, "internal")
    assert told["detail"] == "internal error"
    assert "NoneType" not in answer.text
    assert told["request_id"] in caplog.text
    assert "Traceback" in caplog.text


def all_errors() -> list[type[ForecastError]]:
    """Every class of the catalogue that library and service raise."""
    found = {**vars(library_errors), **vars(service_errors)}.values()
    return [c for c in found if isinstance(c, type) and issubclass(c, ForecastError)]


@pytest.mark.parametrize("error", all_errors())
def test_every_error_has_a_status(error):
    """Only what cannot reach a request is an internal error."""
    unreachable = {"internal", "checkpoint.invalid", "forecaster.not_fitted", "cli.port_busy"}

    assert (status_of(error.code) == 500) == (error.code in unreachable)


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_whatever_is_sent_the_server_keeps_to_its_document(serve, weekly_bundle, weekly, mode):
    """Fuzzed within the schema and beyond it: no 5xx, and only what is documented."""
    client = serve(weekly_bundle, weekly, unknown_series="create")
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    found = [result.ok() for result in schema.get_all_operations()]
    found = [operation for operation in found if _can_generate(operation, mode)]
    deadline = time.monotonic() + SECONDS / 2

    for operation in found:

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

    assert len(found) >= 5


def _send(client, case):
    kwargs = case.as_transport_kwargs(base_url="http://127.0.0.1")
    kwargs.pop("cookies", None)
    if isinstance(kwargs.get("data"), bytes | str):
        kwargs["content"] = kwargs.pop("data")
    return client.request(**kwargs)


def _can_generate(operation, mode: GenerationMode) -> bool:
    """There is nothing to send wrongly to a route that takes nothing."""
    takes = list(operation.iter_parameters()) or operation.body
    return mode is GenerationMode.POSITIVE or bool(takes)
