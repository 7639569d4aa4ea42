"""docs/http.md and docs/errors.md know every address, setting, metric and code."""

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


def codes() -> list[str]:
    """What the service and the framework under it can answer."""
    ours = [e for e in vars(errors).values() if isinstance(e, type)]
    found = {
        e.code for e in ours if issubclass(e, ForecastError) and e.__module__ == errors.__name__
    }
    return sorted(found | {code for code, _ in FRAMEWORK.values()})


@pytest.mark.parametrize("code", codes())
def test_every_code_has_a_section(code):
    """One heading, found by the code."""
    page = (DOCS / "errors.md").read_text(encoding="utf-8")

    assert len(re.findall(rf"^## {re.escape(code)}$", page, flags=re.MULTILINE)) == 1


@pytest.mark.parametrize(
    "variable",
    [f"STATECAST_{name.upper()}" for name in Settings.model_fields if name != "limits"]
    + [f"STATECAST_LIMITS__{name.upper()}" for name in Limits.model_fields],
)
def test_every_setting_is_documented(variable):
    """By the name of its variable."""
    assert f"`{variable}`" in HTTP


def test_every_address_is_documented(retail_client):
    """As the OpenAPI document spells it."""
    for path in retail_client.get("/openapi.json").json()["paths"]:
        assert path in HTTP


def test_every_metric_is_documented():
    """Under the name Prometheus sees."""
    for family in Metrics().registry.collect():
        assert family.name in HTTP
