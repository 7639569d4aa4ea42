"""The OpenAPI document has examples that work, and the documentation page needs no network."""

import pytest

from service.http.openapi import examples


def operations(document: dict) -> list[dict]:
    """Return every operation of the document."""
    return [op for item in document["paths"].values() for op in item.values()]


def test_every_documented_example_works(retail_client, juice_client):
    """Each example body gets status 200 when it is posted unchanged."""
    for client in (retail_client, juice_client):
        for path, item in client.get("/openapi.json").json()["paths"].items():
            for body in _bodies(item):
                answer = client.post(path, json=body)
                assert answer.status_code == 200, answer.text


def _bodies(item: dict) -> list[dict]:
    """Return the example request bodies of a path."""
    content = item.get("post", {}).get("requestBody", {}).get("content", {})
    return [e["value"] for e in content.get("application/json", {}).get("examples", {}).values()]


def test_operations_have_unique_ids_and_documented_problems(retail_client):
    """Each operation has a readable id and a summary; errors are problem documents."""
    all_operations = operations(retail_client.get("/openapi.json").json())
    ids = [op["operationId"] for op in all_operations]

    assert len(set(ids)) == len(ids)
    assert {"list_series", "create_forecasts", "create_observations", "get_state"} <= set(ids)
    assert all(op["summary"] for op in all_operations)
    for op in all_operations:
        for status, answer in op["responses"].items():
            if int(status) >= 400 and op["operationId"] != "get_readiness":
                assert list(answer["content"]) == ["application/problem+json"]


def test_the_document_names_no_series_if_there_are_api_keys(serve, monthly_bundle, monthly):
    """Anyone can read it without a key, so its examples show no data."""
    client = serve(monthly_bundle, monthly, api_keys=["k"])

    assert "A33493" not in client.get("/openapi.json").text


def test_an_empty_log_gives_a_document_without_examples(serve, monthly_bundle):
    """The examples need a series, and the document is served without them."""
    client = serve(monthly_bundle)

    assert examples(client.app.state.slot.serving) is None
    assert client.get("/openapi.json").status_code == 200


def test_the_documentation_page_loads_nothing_from_other_servers(retail_client):
    """The server has all assets of the page, and `/` redirects to it."""
    pytest.importorskip("fastapi_offline")
    page = retail_client.get("/docs").text

    assert "://" not in page
    assert retail_client.get("/", follow_redirects=True).text == page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"docs/assets/{asset}" in page
        assert retail_client.get(f"/docs/assets/{asset}").status_code == 200
