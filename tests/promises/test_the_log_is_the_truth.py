"""
Promise 11: after random operations, the forecasts equal those of a replay by a simple oracle.

The oracle keeps a list of values per series and replays it through recurrent cells written by hand.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from starlette.testclient import TestClient

from benchmarks.speed.servers import wait_until
from forecast.bundle import Bundle, load_bundle
from forecast.config import DataConfig
from forecast.data.panel import Panel
from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up
from forecast.models.recurrent import RecurrentStack, State, run_cells
from service.app import create_app
from service.settings import Settings
from tests.helpers.service import replace_model, train_tiny

NAMES = ("a", "b/c", "é")
MONTHS = pd.date_range("2020-01-01", periods=60, freq="MS")
VALUES = st.floats(1.0, 1e4)


def load_oracle(folder: Path) -> Bundle:
    """Return a model whose recurrent layers are computed cell by cell."""
    bundle = load_bundle(folder)
    stack = bundle.network.stack
    assert isinstance(stack, RecurrentStack)

    def forward(inputs: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        return run_cells(stack, inputs, state)

    stack.forward = forward
    return bundle


class Server(RuleBasedStateMachine):
    """A state machine of operations on a server, and the values that were reported to it."""

    def __init__(self, folders: tuple[Path, Path]) -> None:
        super().__init__()
        self.folders = folders
        self.home = Path(tempfile.mkdtemp())
        self.pointer = self.home / "served"
        shutil.copytree(folders[0], self.pointer)
        self.oracles = [load_oracle(folder) for folder in folders]
        self.values: dict[str, list[float]] = {}
        """Reported values of each series, one per month from the first of `MONTHS`."""
        self.revised: dict[str, list[int]] = {}
        """Months of each series that were corrected, once for each correction."""
        self.begins: dict[str, int] = {}
        """Number of pruned months of each series."""
        self.partial: list[set[str]] = [set(), set()]
        """For each model, the series that were pruned while the server did not hold it."""
        self.serving, self.named, self.has_previous = 0, 0, False
        """Model in service, model that the source names, and whether a rollback is possible."""
        self._start()

    def _start(self) -> None:
        """Start a server on the data directory and wait for its model."""
        app = create_app(
            Settings(
                model=str(self.pointer),
                data_dir=self.home / "data",
                unknown_series="create",
                watch_seconds=0.02,
                snapshot_seconds=0.05,
            )
        )
        self.client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
        self.client.__enter__()
        app.state.slot.wait(60)

    def teardown(self) -> None:
        """Stop the server and remove its folder."""
        self.client.__exit__(None, None, None)
        shutil.rmtree(self.home)

    def send(self, *items: tuple[str, int, float]) -> Any:
        """Report items of (series, month, value)."""
        rows = [{"unique_id": n, "ds": str(MONTHS[month].date()), "y": y} for n, month, y in items]
        return self.client.post("/v1/observations", json={"observations": rows})

    @rule(name=st.sampled_from(NAMES), values=st.lists(VALUES, min_size=1, max_size=4))
    def observe(self, name: str, values: list[float]) -> None:
        """Report the next months of a series, the last one first."""
        known = self.values.setdefault(name, [])
        values = values[: len(MONTHS) - 2 - len(known)]
        if not values:
            return
        items = [(name, len(known) + i, y) for i, y in enumerate(values)]
        answer = self.send(*reversed(items)).json()
        assert (answer["new"], answer["duplicate"], answer["revised"]) == (len(values), 0, 0)
        assert answer["created"] == ([] if known else [name])
        known += values

    @precondition(lambda self: self.values)
    @rule(data=st.data())
    def observe_all(self, data: st.DataObject) -> None:
        """Report the next month of every series in one request."""
        items = [
            (name, len(known), data.draw(VALUES))
            for name, known in self.values.items()
            if len(known) < len(MONTHS) - 2
        ]
        if items:
            assert self.send(*items).json()["new"] == len(items)
            for name, _, y in items:
                self.values[name].append(y)

    @precondition(lambda self: self.values)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        """Resend all stored values of a series; they are duplicates."""
        name = data.draw(st.sampled_from(sorted(self.values)))
        items = [(name, month, y) for month, y in self._stored(name)]
        assert self.send(*items).json()["duplicate"] == len(items)

    @precondition(lambda self: self.values)
    @rule(data=st.data(), y=VALUES)
    def revise(self, data: st.DataObject, y: float) -> None:
        """Correct the value of a stored month."""
        name = data.draw(st.sampled_from(sorted(self.values)))
        month = data.draw(st.integers(self.begins.get(name, 0), len(self.values[name]) - 1))
        changed = y != self.values[name][month]
        assert self.send((name, month, y)).json()["revised"] == int(changed)
        self.values[name][month] = y
        self.revised.setdefault(name, []).extend([month] * changed)

    @precondition(lambda self: any(self.begins.values()))
    @rule(data=st.data())
    def send_pruned(self, data: st.DataObject) -> None:
        """Resend a pruned month together with a new one: both are refused."""
        name = data.draw(st.sampled_from([name for name, begin in self.begins.items() if begin]))
        month = data.draw(st.integers(0, self.begins[name] - 1))
        values = self.values[name]
        answer = self.send((name, month, values[month]), (name, len(values), 5.0))
        assert (answer.status_code, answer.json()["code"]) == (409, "data.pruned")

    @precondition(lambda self: self.values)
    @rule(steps=st.integers(1, 40))
    def prune(self, steps: int) -> None:
        """Keep only the last months in the log; models in memory keep complete states."""
        begins = {
            name: len(known) - steps
            for name, known in self.values.items()
            if len(known) - steps > self.begins.get(name, 0)
        }
        pruned = sum(begin - self.begins.get(name, 0) for name, begin in begins.items())
        answer = self.client.post("/v1/log:prune", json={"keep_steps": steps}).json()
        assert (answer["series"], answer["steps"]) == (len(begins), pruned)
        self.begins |= begins
        if not self.has_previous:
            self.partial[1 - self.serving] |= begins.keys()

    def _stored(self, name: str) -> list[tuple[int, float]]:
        """Return the months and values that the log has of a series."""
        return list(enumerate(self.values[name]))[self.begins.get(name, 0) :]

    @precondition(lambda self: self.values)
    @rule(data=st.data())
    def skip(self, data: st.DataObject) -> None:
        """Leave out a month: the whole request is refused."""
        name = data.draw(st.sampled_from(sorted(self.values)))
        answer = self.send((name, len(self.values[name]) + 1, 5.0), ("never", 0, 1.0))
        assert (answer.status_code, answer.json()["code"]) == (409, "data.gap")
        assert self.client.get("/v1/series/never").status_code == 404

    @precondition(lambda self: self.values)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Delete a series."""
        name = data.draw(st.sampled_from(sorted(self.values)))
        detail = self.client.get(f"/v1/series/{name}").json()
        begin, total = self.begins.pop(name, 0), len(self.values.pop(name))
        revisions = sum(month >= begin for month in self.revised.pop(name, []))
        assert (detail["pruned"], detail["observations"]) == (begin, total)
        assert detail["revisions"] == revisions
        rows = self.client.delete(f"/v1/series/{name}").json()["rows"]
        assert rows == total - begin + revisions
        for names in self.partial:
            names.discard(name)

    @precondition(lambda self: self.serving == self.named)
    @rule()
    def promote(self) -> None:
        """Let the source name the other model, and wait until it is in service."""
        self.named = self.serving = 1 - self.serving
        self.has_previous = True
        replace_model(self.folders[self.named], self.pointer)
        digest = self.oracles[self.named].digest
        wait_until(
            lambda: self.client.get("/readyz").json(),
            lambda ready: ready["model"]["digest"] == digest,
        )

    @precondition(lambda self: self.has_previous)
    @rule()
    def rollback(self) -> None:
        """Roll back to the previous model."""
        self.serving = 1 - self.serving
        answer = self.client.post("/v1/models:rollback").json()
        assert answer["digest"] == self.oracles[self.serving].digest

    @precondition(lambda self: self.serving != self.named)
    @rule()
    def agree(self) -> None:
        """Let the source name the model in service, so that the other one is no longer ignored."""
        self.named = self.serving
        replace_model(self.folders[self.named], self.pointer)
        wait_until(
            lambda: self.client.get("/readyz").json(), lambda ready: ready["successor"] is None
        )

    @rule(snapshots=st.booleans())
    def restart(self, snapshots: bool) -> None:
        """Stop and start the server, with or without snapshots; the same model is in service."""
        self.client.__exit__(None, None, None)
        if not snapshots:
            shutil.rmtree(self.home / "data" / "snapshots", ignore_errors=True)
        self.has_previous = False
        self._start()

    @precondition(lambda self: self.values)
    @rule()
    def forecast_all(self) -> None:
        """Forecast all series; forecasts and positions equal those of the oracle."""
        names = sorted(self.values)
        answer = self.client.post("/v1/forecasts", json={"unique_ids": names, "level": [80]}).json()
        oracle = self.oracles[self.serving]
        assert answer["model"]["digest"] == oracle.digest
        ends = [len(self.values[name]) for name in names]
        starts = [
            end - one["position"]["observations"]
            for end, one in zip(ends, answer["forecasts"], strict=True)
        ]
        partial = self.partial[self.serving]
        assert not any(
            start for name, start in zip(names, starts, strict=True) if name not in partial
        )
        stamps = MONTHS.as_unit("ns").asi8
        spans = [range(*ends) for ends in zip(starts, ends, strict=True)]
        lengths = [len(span) for span in spans]
        total = sum(lengths)
        panel = Panel(
            ids=tuple(names),
            indptr=np.r_[0, np.cumsum(lengths)].astype(np.int64),
            ds=np.concatenate([stamps[span] for span in spans]),
            values=np.concatenate(
                [np.array(self.values[name])[span] for name, span in zip(names, spans, strict=True)]
            ),
            observed=np.ones(total, np.bool_),
            known_future=np.zeros((total, 0), np.float32),
            past_only=np.zeros((total, 0), np.float32),
        )
        expected = forecast(oracle, warm_up(oracle, panel), quantiles=(0.1, 0.9))
        actual = [[one["statecast"], one["lo-80"], one["hi-80"]] for one in answer["forecasts"]]
        np.testing.assert_allclose(np.moveaxis(actual, 1, 2), expected, rtol=1e-4)
        for one, end in zip(answer["forecasts"], ends, strict=True):
            assert one["position"]["last_ds"] == str(MONTHS[end - 1].date())


@pytest.fixture(scope="module")
def bundles(monthly, monthly_bundle, tmp_path_factory) -> tuple[Path, Path]:
    """Return the directories of two models of the same data."""
    folder = tmp_path_factory.mktemp("machine") / "other"
    data = DataConfig(freq="MS", kind="positive")
    return monthly_bundle, train_tiny(monthly, data, folder, max_steps=6)


def test_forecasts_equal_those_of_the_oracle_after_any_operations(bundles):
    """Observations, corrections, pruning, deletion, rollout, rollback and restarts in any order."""
    run_state_machine_as_test(
        lambda: Server(bundles), settings=settings(max_examples=12, stateful_step_count=30)
    )
