"""Defaults: which settings are chosen from the data, and what stays as it was set."""

from dataclasses import replace

import numpy as np
import pytest

from forecast.calendars.calendar import Calendar
from forecast.config import Config, DataConfig, ModelConfig, TrainConfig
from forecast.resolved_config import ResolvedConfig
from forecast.training.defaults import resolve

CALENDAR = Calendar("MS")


@pytest.fixture
def monthly() -> Config:
    """Settings that leave everything open but frequency and kind."""
    return Config(data=DataConfig(freq="MS", kind="positive"))


def test_a_small_panel_gets_an_ensemble(panel, monthly):
    """A large panel does not, nor a run with `max_steps`; a number that is set stays."""

    def members(config: Config, lengths: np.ndarray) -> int:
        return resolve(config, CALENDAR, lengths).model.members

    assert members(monthly, panel.lengths) == 4
    assert members(monthly, np.full(5_000, 200)) == 1
    assert members(replace(monthly, train=TrainConfig(max_steps=40)), panel.lengths) == 1
    assert members(replace(monthly, model=ModelConfig(members=2)), np.full(5_000, 200)) == 2


def test_a_resolved_configuration_stays_as_it_is(panel, monthly):
    """Resolving twice changes nothing, even for other series."""
    resolved = resolve(monthly, CALENDAR, panel.lengths)

    assert resolve(resolved, CALENDAR, np.full(5_000, 200)) == resolved


def test_the_json_form_is_that_of_a_configuration(panel, monthly):
    """A resolved configuration is read back by either class, and has the same keys."""
    resolved = resolve(monthly, CALENDAR, panel.lengths)
    tables = resolved.to_dict()

    assert ResolvedConfig.from_dict(tables) == resolved
    assert Config.from_dict(tables).to_dict() == tables
    assert {name: list(table) for name, table in tables.items()} == {
        name: list(table) for name, table in monthly.to_dict().items()
    }


def test_a_resolved_configuration_leaves_nothing_open(monthly):
    """Reading one in which a setting is None raises and names the setting."""
    with pytest.raises(ValueError, match="season_lengths is not set"):
        ResolvedConfig.from_dict(monthly.to_dict())
