"""Older steps are taken out of the log; the states are those of one that was never pruned."""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from forecast.states import States
from service.errors import Refused
from service.importing import import_history
from service.recording import Recorder
from service.retention import Keep, Taken
from tests.service.test_log import MONTHLY
from tests.service.test_snapshots import Host, assert_equal

MONTHS = pd.date_range("2009-01-01", periods=400, freq="MS")


@dataclass
class Server:
    """Starts on one log and one folder of snapshots, one after the other."""

    url: str
    bundle: Path
    folder: Path

    def __post_init__(self) -> None:
        self.host = self._start()

    def _start(self) -> Host:
        host = Host(self.url, self.bundle, self.folder, block=2)
        self.recorder = Recorder(host.writer, 60.0)
        return host

    def restart(self, *, save: bool, forget: bool = False) -> None:
        """With the states kept as they are now, as they were, or not at all."""
        self.host.states()
        if save:
            self.host.snapshots.save(self.host.engine)
        self.close()
        if forget:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.host = self._start()

    def prune(self, keep: Keep) -> Taken:
        """As the server does it."""
        return self.recorder.prune(keep, lambda: [])

    def close(self) -> None:
        self.recorder.close()
        self.host.close()


@pytest.fixture
def begin(monthly, monthly_bundle, tmp_path) -> Iterator[Callable[[str], Server]]:
    """Start a server on a log with ten years of history."""
    begun: list[Server] = []

    def begin(url: str) -> Server:
        import_history(url, monthly, MONTHLY)
        begun.append(Server(url, monthly_bundle, tmp_path / f"snapshots-{len(begun)}"))
        return begun[-1]

    yield begin
    for server in begun:
        server.close()


@pytest.fixture
def twins(url, begin, tmp_path) -> tuple[Server, Server]:
    """One that will be pruned, and one that will not."""
    return begin(url), begin(f"sqlite:///{tmp_path / 'whole.db'}")


@pytest.fixture
def names(monthly) -> list[str]:
    return sorted(monthly["unique_id"].unique())


def states(server: Server) -> dict[str, States]:
    """Of every series."""
    return server.host.states()


@pytest.mark.parametrize(
    "keep",
    [Keep(steps=1), Keep(steps=7), Keep(steps=119), Keep(steps=10**9),
     Keep(since=pd.Timestamp("2012-05-01").value), Keep(since=pd.Timestamp("2012-05-17").value),
     Keep(since=pd.Timestamp("2050-01-01").value)],
)  # fmt: skip
def test_a_replay_of_what_is_left_gives_the_states_of_the_whole(twins, names, keep):
    """At any cut: live, restored, replayed from the bases, after new steps and corrections."""
    pruned, whole = twins
    expected = states(whole)

    taken = pruned.prune(keep)

    kept = len(contents_of(pruned))
    assert (taken.steps, taken.rows) == (600 - kept, 600 - kept)
    assert_equal(states(pruned), expected)
    pruned.restart(save=True)
    assert pruned.host.restored == 5
    pruned.restart(save=False, forget=True)
    assert pruned.host.restored == 0
    assert_equal(states(pruned), expected)
    for server in twins:
        server.host.observe(names[0], "2019-01-01", 700.0)
        server.host.observe(names[1], "2018-12-01", 800.0)
    assert_equal(states(pruned), states(whole))
    pruned.restart(save=False, forget=True)
    assert_equal(states(pruned), states(whole))


def contents_of(server: Server):
    """What the log of a server holds."""
    with server.host.log.read() as transaction:
        return transaction.history([entry.number for entry in transaction.entries()])


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_between_prunings_the_states_are_exact(twins, names, seed):
    """New steps, corrections, starts with older snapshots or none, in any order."""
    rng = random.Random(seed)
    pruned, whole = twins
    lengths = dict.fromkeys(names, 120)
    begins = dict.fromkeys(names, 0)
    for _ in range(25):
        what = rng.choice(["observe", "observe", "revise", "prune", "save", "restart"])
        name = rng.choice(names)
        if what == "prune":
            steps = rng.randint(1, 130)
            pruned.prune(Keep(steps=steps))
            begins = {n: max(begins[n], lengths[n] - steps) for n in names}
        elif what == "save":
            pruned.host.states()
            pruned.host.snapshots.save(pruned.host.engine)
        elif what == "restart":
            pruned.restart(save=False, forget=rng.random() < 0.3)
        else:
            at = lengths[name] if what == "observe" else rng.randrange(begins[name], lengths[name])
            lengths[name] = max(lengths[name], at + 1)
            y = round(rng.uniform(100, 900), 3)
            for server in twins:
                server.host.observe(name, str(MONTHS[at].date()), y)

    assert_equal(states(pruned), states(whole))
    pruned.restart(save=False)
    assert_equal(states(pruned), states(whole))
    pruned.restart(save=False, forget=True)
    assert_equal(states(pruned), states(whole))


def test_what_was_taken_out_can_not_be_corrected(url, begin, names):
    """The answer says where the log begins; what is still there can be."""
    server = begin(url)
    server.prune(Keep(steps=12))

    with pytest.raises(Refused) as refused:
        server.host.observe(names[1], "2017-12-01", 5.0)

    assert refused.value.error.code == "data.pruned"
    assert f"series '{names[1]}' begins at 2018-01-01" in refused.value.error.message
    server.host.observe(names[1], "2018-01-01", 5.0)
