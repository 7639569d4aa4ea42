"""docs/http.md and docs/errors.md document every path, setting, metric and error code."""

import re
from pathlib import Path

import pytest

from forecast.errors import ForecastError
from service import errors
from service.http.problems import FRAMEWORK
from service.metrics import Metrics
from service.settings import Limits, Settings

DOCS = Path(__file__).parents[3] / "docs"
HTTP = (DOCS / "http.md").read_text(encoding="utf-8")


def error_codes() -> list[str]:
    """Return the codes of all errors that the service and its web framework respond with."""
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    service = {
        error.code
        for error in classes
        if issubclass(error, ForecastError) and error.__module__ == errors.__name__
    }
    return sorted(service | {code for code, _ in FRAMEWORK.values()})


@pytest.mark.parametrize("code", error_codes())
def test_every_code_has_a_section(code):
    """docs/errors.md has exactly one heading with the code."""
    page = (DOCS / "errors.md").read_text(encoding="utf-8")

    assert len(re.findall(rf"^## {re.escape(code)}$", page, flags=re.MULTILINE)) == 1


@pytest.mark.parametrize(
    "variable",
    [f"STATECAST_{name.upper()}" for name in Settings.model_fields if name != "limits"]
    + [f"STATECAST_LIMITS__{name.upper()}" for name in Limits.model_fields],
)
def test_every_setting_is_documented(variable):
    """docs/http.md names the environment variable of each setting."""
    assert f"`{variable}`" in HTTP


def test_every_path_is_documented(retail_client):
    """docs/http.md spells each path as the OpenAPI document does."""
    for path in retail_client.get("/openapi.json").json()["paths"]:
        assert path in HTTP


def test_every_metric_is_documented():
    """docs/http.md has the name under which Prometheus reads each metric."""
    for family in Metrics().registry.collect():
        assert family.name in HTTP
