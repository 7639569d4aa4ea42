"""
A server that anything may happen to, beside a plain account of what it was told.

The oracle keeps lists of values and, when asked, replays them through cells written out by hand.
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


def by_hand(folder: Path) -> Bundle:
    """The same model with its recurrent layers written out."""
    bundle = load_bundle(folder)
    stack = bundle.network.stack
    assert isinstance(stack, RecurrentStack)

    def forward(inputs: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        return run_cells(stack, inputs, state)

    stack.forward = forward
    return bundle


class Server(RuleBasedStateMachine):
    """What it was told, and what it should say then."""

    def __init__(self, folders: tuple[Path, Path]) -> None:
        super().__init__()
        self.folders = folders
        self.home = Path(tempfile.mkdtemp())
        self.pointer = self.home / "served"
        shutil.copytree(folders[0], self.pointer)
        self.oracles = [by_hand(folder) for folder in folders]
        self.told: dict[str, list[float]] = {}
        self.revised: dict[str, list[int]] = {}
        """Months of each series that were corrected, as often as they were."""
        self.begins: dict[str, int] = {}
        """Months of each series that were pruned."""
        self.partial: list[set[str]] = [set(), set()]
        """Of each model, series that were pruned while it was not held."""
        self.serving, self.named, self.previous = 0, 0, False
        self._start()

    def _start(self) -> None:
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
        """Stop the server and forget its folder."""
        self.client.__exit__(None, None, None)
        shutil.rmtree(self.home)

    def send(self, *items: tuple[str, int, float]) -> Any:
        """Values of series at their months."""
        rows = [{"unique_id": n, "ds": str(MONTHS[at].date()), "y": y} for n, at, y in items]
        return self.client.post("/v1/observations", json={"observations": rows})

    @rule(name=st.sampled_from(NAMES), values=st.lists(VALUES, min_size=1, max_size=4))
    def observe(self, name: str, values: list[float]) -> None:
        """The next months of a series, in any order."""
        known = self.told.setdefault(name, [])
        values = values[: len(MONTHS) - 2 - len(known)]
        if not values:
            return
        items = [(name, len(known) + i, y) for i, y in enumerate(values)]
        answer = self.send(*reversed(items)).json()
        assert (answer["new"], answer["duplicate"], answer["revised"]) == (len(values), 0, 0)
        assert answer["created"] == ([] if known else [name])
        known += values

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def observe_all(self, data: st.DataObject) -> None:
        """One month of every series, in one request."""
        items = [
            (name, len(known), data.draw(VALUES))
            for name, known in self.told.items()
            if len(known) < len(MONTHS) - 2
        ]
        if items:
            assert self.send(*items).json()["new"] == len(items)
            for name, _, y in items:
                self.told[name].append(y)

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        """What is stored already is counted once."""
        name = data.draw(st.sampled_from(sorted(self.told)))
        items = [(name, at, y) for at, y in self._kept(name)]
        assert self.send(*items).json()["duplicate"] == len(items)

    @precondition(lambda self: self.told)
    @rule(data=st.data(), y=VALUES)
    def revise(self, data: st.DataObject, y: float) -> None:
        """Another value for a stored month."""
        name = data.draw(st.sampled_from(sorted(self.told)))
        at = data.draw(st.integers(self.begins.get(name, 0), len(self.told[name]) - 1))
        changed = y != self.told[name][at]
        assert self.send((name, at, y)).json()["revised"] == int(changed)
        self.told[name][at] = y
        self.revised.setdefault(name, []).extend([at] * changed)

    @precondition(lambda self: any(self.begins.values()))
    @rule(data=st.data())
    def correct_what_went(self, data: st.DataObject) -> None:
        """Refused with all that came with it, be it what was stored."""
        name = data.draw(st.sampled_from([name for name, at in self.begins.items() if at]))
        at = data.draw(st.integers(0, self.begins[name] - 1))
        answer = self.send((name, at, self.told[name][at]), (name, len(self.told[name]), 5.0))
        assert (answer.status_code, answer.json()["code"]) == (409, "data.pruned")

    @precondition(lambda self: self.told)
    @rule(steps=st.integers(1, 40))
    def prune(self, steps: int) -> None:
        """Only the last months stay in the log; of the models held, the states as well."""
        cut = {
            name: len(known) - steps
            for name, known in self.told.items()
            if len(known) - steps > self.begins.get(name, 0)
        }
        gone = sum(at - self.begins.get(name, 0) for name, at in cut.items())
        answer = self.client.post("/v1/log:prune", json={"keep_steps": steps}).json()
        assert (answer["series"], answer["steps"]) == (len(cut), gone)
        self.begins |= cut
        if not self.previous:
            self.partial[1 - self.serving] |= cut.keys()

    def _kept(self, name: str) -> list[tuple[int, float]]:
        """What the log still has of a series."""
        return list(enumerate(self.told[name]))[self.begins.get(name, 0) :]

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def skip(self, data: st.DataObject) -> None:
        """A gap is refused with all that came with it."""
        name = data.draw(st.sampled_from(sorted(self.told)))
        answer = self.send((name, len(self.told[name]) + 1, 5.0), ("never", 0, 1.0))
        assert (answer.status_code, answer.json()["code"]) == (409, "data.gap")
        assert self.client.get("/v1/series/never").status_code == 404

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Gone with everything."""
        name = data.draw(st.sampled_from(sorted(self.told)))
        detail = self.client.get(f"/v1/series/{name}").json()
        begin, total = self.begins.pop(name, 0), len(self.told.pop(name))
        again = sum(at >= begin for at in self.revised.pop(name, []))
        assert (detail["pruned"], detail["observations"]) == (begin, total)
        assert detail["revisions"] == again
        rows = self.client.delete(f"/v1/series/{name}").json()["rows"]
        assert rows == total - begin + again
        for names in self.partial:
            names.discard(name)

    @precondition(lambda self: self.serving == self.named)
    @rule()
    def promote(self) -> None:
        """The source names the other model."""
        self.named = self.serving = 1 - self.serving
        self.previous = True
        replace_model(self.folders[self.named], self.pointer)
        digest = self.oracles[self.named].digest
        wait_until(
            lambda: self.client.get("/readyz").json(),
            lambda told: told["model"]["digest"] == digest,
        )

    @precondition(lambda self: self.previous)
    @rule()
    def rollback(self) -> None:
        """The one before comes back."""
        self.serving = 1 - self.serving
        answer = self.client.post("/v1/models:rollback").json()
        assert answer["digest"] == self.oracles[self.serving].digest

    @precondition(lambda self: self.serving != self.named)
    @rule()
    def agree(self) -> None:
        """The source names what a rollback brought back: the other may come again."""
        self.named = self.serving
        replace_model(self.folders[self.named], self.pointer)
        wait_until(
            lambda: self.client.get("/readyz").json(), lambda told: told["successor"] is None
        )

    @rule(snapshots=st.booleans())
    def restart(self, snapshots: bool) -> None:
        """An orderly stop and a start, with or without snapshots: the same model serves."""
        self.client.__exit__(None, None, None)
        if not snapshots:
            shutil.rmtree(self.home / "data" / "snapshots", ignore_errors=True)
        self.previous = False
        self._start()

    @precondition(lambda self: self.told)
    @rule()
    def ask(self) -> None:
        """Forecasts and positions are those of a replay by hand."""
        names = sorted(self.told)
        answer = self.client.post("/v1/forecasts", json={"unique_ids": names, "level": [80]}).json()
        oracle = self.oracles[self.serving]
        assert answer["model"]["digest"] == oracle.digest
        ends = [len(self.told[name]) for name in names]
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
                [np.array(self.told[name])[span] for name, span in zip(names, spans, strict=True)]
            ),
            observed=np.ones(total, np.bool_),
            known_future=np.zeros((total, 0), np.float32),
            past_only=np.zeros((total, 0), np.float32),
        )
        expected = forecast(oracle, warm_up(oracle, panel), quantiles=(0.1, 0.9))
        made = [[one["statecast"], one["lo-80"], one["hi-80"]] for one in answer["forecasts"]]
        np.testing.assert_allclose(np.moveaxis(made, 1, 2), expected, rtol=1e-4)
        for one, end in zip(answer["forecasts"], ends, strict=True):
            assert one["position"]["last_ds"] == str(MONTHS[end - 1].date())


@pytest.fixture(scope="module")
def bundles(monthly, monthly_bundle, tmp_path_factory) -> tuple[Path, Path]:
    """Two models of the same data."""
    folder = tmp_path_factory.mktemp("machine") / "other"
    data = DataConfig(freq="MS", kind="positive")
    return monthly_bundle, train_tiny(monthly, data, folder, max_steps=6)


def test_whatever_happens_forecasts_are_those_of_a_replay_by_hand(bundles):
    """Observed, sent again, corrected, deleted, pruned, promoted, rolled back, restarted."""
    run_state_machine_as_test(
        lambda: Server(bundles), settings=settings(max_examples=12, stateful_step_count=30)
    )
