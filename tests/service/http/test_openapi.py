"""The OpenAPI document: its examples work, and the server keeps to it whatever is sent."""

import pytest

from service.http.openapi import examples


def operations(document: dict) -> list[dict]:
    """Every operation of the document."""
    return [op for item in document["paths"].values() for op in item.values()]


def test_every_documented_example_works(retail_client, juice_client):
    """Each request body, posted as it stands, is answered with 200."""
    for client in (retail_client, juice_client):
        for path, item in client.get("/openapi.json").json()["paths"].items():
            for body in _bodies(item):
                answer = client.post(path, json=body)
                assert answer.status_code == 200, answer.text


def _bodies(item: dict) -> list[dict]:
    content = item.get("post", {}).get("requestBody", {}).get("content", {})
    return [e["value"] for e in content.get("application/json", {}).get("examples", {}).values()]


def test_operations_are_named_once_and_documented(retail_client):
    """Unique ids that read well in generated clients; a summary, and the failures."""
    named = operations(retail_client.get("/openapi.json").json())
    ids = [op["operationId"] for op in named]

    assert len(set(ids)) == len(ids)
    assert {"list_series", "create_forecasts", "create_observations", "get_state"} <= set(ids)
    assert all(op["summary"] for op in named)
    for op in named:
        for status, answer in op["responses"].items():
            if int(status) >= 400 and op["operationId"] != "get_readiness":
                assert list(answer["content"]) == ["application/problem+json"]


def test_with_keys_the_open_document_names_no_series(serve, monthly_bundle, monthly):
    """It can be read by anybody, so it tells nothing of the data."""
    client = serve(monthly_bundle, monthly, api_keys=["k"])

    assert "A33493" not in client.get("/openapi.json").text


def test_examples_wait_for_the_first_series(serve, monthly_bundle):
    """An empty log has none, and the document is still there."""
    client = serve(monthly_bundle)

    assert examples(client.app.state.slot.serving) is None
    assert client.get("/openapi.json").status_code == 200


def test_the_documentation_page_fetches_nothing_from_elsewhere(retail_client):
    """All of its assets are served by this server; whoever opens its address finds the page."""
    pytest.importorskip("fastapi_offline")
    page = retail_client.get("/docs").text

    assert "://" not in page
    assert retail_client.get("/", follow_redirects=True).text == page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"docs/assets/{asset}" in page
        assert retail_client.get(f"/docs/assets/{asset}").status_code == 200
