"""Tests of the background replay: its states equal those of a plain replay of the log."""

import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import PIPE, Popen

import numpy as np
import pandas as pd
import pytest

from benchmarks.speed.servers import wait_until
from service.engine.executor import usual_threads
from service.engine.history import Replay, replay
from service.errors import DamagedLog, LogError
from service.ingest.importer import import_history
from service.ingest.write_queue import WriteQueue
from service.replay.backlog import LONG_S, replay_waiting
from service.storage.retention import RetentionRule
from tests.helpers.hosts import MONTHLY, Host, assert_equal
from tests.helpers.service import batch_of, empty_database, run_sql

SERIES, STEPS = 1_000, 14
MONTHS = [str(month.date()) for month in pd.date_range("2019-01-01", periods=60, freq="MS")]

Start = Callable[[str], Host]
Change = Callable[[Host, str], object]


@pytest.fixture
def start(monthly_bundle, tmp_path) -> Iterator[Start]:
    """Return a function that starts a host without snapshots, so that all series wait."""
    hosts: list[Host] = []

    def start_host(url: str) -> Host:
        hosts.append(Host(url, monthly_bundle, tmp_path / "snapshots", 64))
        return hosts[-1]

    yield start_host
    for host in hosts:
        host.close()


def replay_all(host: Host) -> Replay:
    """Replay all waiting series as a worker does, without putting their states in place."""
    return replay(host.log, host.engine.bundle, dict(host.writer.waiting))


def replay_backlog(
    write_queue: WriteQueue,
    stopped: Callable[[], bool] = lambda: False,
    on_part: Callable[[], None] = lambda: None,
    long_s: float = LONG_S,
) -> None:
    """Replay the waiting series of a write queue; `on_part` is called after each part."""
    replay_waiting(
        write_queue.writer,
        write_queue.put_in_place,
        stopped=stopped,
        on_progress=on_part,
        long_s=long_s,
    )


def assert_as_replayed(host: Host, start: Start, url: str) -> None:
    """Check states, first stamps and numbers against a replay of the log as it is now."""
    live, waiting = host.states(), host.writer.waiting
    spans = {name: host.engine.spans(np.array([row])) for name, row in host.engine.rows.items()}
    numbers = {name: host.engine.numbers[row] for name, row in host.engine.rows.items()}
    host.close()
    plain = start(url)
    assert_equal(live, plain.states())
    assert waiting == {}
    for name, row in plain.engine.rows.items():
        assert spans[name] == plain.engine.spans(np.array([row]))
        assert numbers[name] == plain.engine.numbers[row]


def observe_next(host: Host, name: str) -> None:
    """Observe the step after the last one."""
    host.observe(name, "2019-01-01", 300.0)


def revise(host: Host, name: str) -> None:
    """Correct the value of a stored step."""
    host.observe(name, "2018-06-01", 301.0)


def remove(host: Host, name: str) -> None:
    """Delete a series."""
    host.writer.remove(name)


def recreate(host: Host, name: str) -> None:
    """Delete a series and begin another one with its name."""
    host.writer.remove(name)
    host.observe(name, "2019-01-01", 302.0)


def prune(host: Host, name: str) -> None:
    """Replace the older steps of a series by a base, and keep twelve steps."""
    with host.log.read() as transaction:
        number = transaction.find([name])[0].number
    host.writer.prune([number], RetentionRule(steps=12), [])


def prune_twice(host: Host, name: str) -> None:
    """Prune, correct one of the remaining steps, then prune again."""
    prune(host, name)
    revise(host, name)
    with host.log.read() as transaction:
        number = transaction.find([name])[0].number
    host.writer.prune([number], RetentionRule(steps=3), [])


def replay_first(host: Host, name: str) -> None:
    """Replay a series at once, as a request for its forecast does, and observe its next step."""
    host.writer.replay([name])
    host.observe(name, "2019-01-01", 303.0)


CHANGES = [observe_next, revise, remove, recreate, prune, prune_twice, replay_first]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_during_a_replay_is_not_lost(url, start, change: Change, monthly):
    """The series changes after a worker has read it and before its states are put in place."""
    import_history(url, monthly, MONTHLY)
    host = start(url)
    name = sorted(host.writer.waiting)[2]

    replayed = replay_all(host)
    change(host, name)
    host.writer.put_in_place(replayed)

    assert host.writer.waiting == {}
    assert_as_replayed(host, start, url)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_by_another_server_during_a_replay_is_not_lost(
    postgres, start, change: Change, monthly
):
    """A second server on the same log changes a series that the first one has read."""
    url = empty_database(postgres)
    import_history(url, monthly, MONTHLY)
    host, other = start(url), start(url)
    name = sorted(host.writer.waiting)[2]

    replayed = replay_all(host)
    change(other, name)
    host.writer.put_in_place(replayed)

    assert host.writer.waiting == {}
    assert_as_replayed(host, start, url)


@pytest.fixture
def many(url) -> str:
    """Return the URL of a log of many short series."""
    y = np.random.default_rng(0).uniform(1.0, 100.0, SERIES * STEPS)
    table = pd.DataFrame(
        {
            "unique_id": np.repeat([f"s{i:04}" for i in range(SERIES)], STEPS),
            "ds": np.tile(pd.to_datetime(MONTHS[:STEPS]), SERIES),
            "y": y,
        }
    )
    import_history(url, table, MONTHLY)
    return url


class Users:
    """Users who write, correct, delete, prune and request series during their replay."""

    def __init__(self, write_queue: WriteQueue) -> None:
        self.write_queue = write_queue
        self.rng = random.Random(0)
        self.steps = {f"s{i:04}": STEPS for i in range(SERIES)}
        self.turns = 0

    def __call__(self) -> None:
        """Run each action once, on a random series, in random order."""
        self.turns += 1
        write_queue, rng, steps = self.write_queue, self.rng, self.steps
        actions = [
            lambda name: write_queue.record(
                batch_of((name, MONTHS[steps[name]], rng.uniform(1, 100)))
            ),
            lambda name: write_queue.record(
                batch_of((name, MONTHS[STEPS - 1], rng.uniform(1, 100)))
            ),
            lambda name: write_queue.need([name]),
            write_queue.rebuild,
        ]
        for action in rng.sample(actions, len(actions)):
            name = rng.choice(sorted(steps))
            action(name)
            steps[name] += action is actions[0]
        removed = rng.choice(sorted(steps))
        write_queue.remove(removed)
        del steps[removed]
        if self.turns == 3:
            write_queue.prune(RetentionRule(steps=9), list)


@pytest.mark.parametrize("long_s", [LONG_S, 0.0], ids=["threads", "processes"])
def test_writes_during_a_replay_give_the_states_of_a_plain_replay(many, start, long_s):
    """Users act while parts are in flight; no step is lost, doubled or left waiting."""
    host = start(many)
    write_queue = WriteQueue(host.writer, 60.0)
    users = Users(write_queue)

    replay_backlog(write_queue, on_part=users, long_s=long_s)
    write_queue.close()

    assert users.turns > 5
    assert host.writer.waiting == {}
    assert sorted(host.engine.rows) == sorted(users.steps)
    assert_as_replayed(host, start, many)


def test_long_histories_are_replayed_hundreds_of_series_at_a_time(start, monthly, tmp_path):
    """A step of one series costs as much as a step of hundreds, so small parts are slower."""
    months = pd.date_range("1900-01-01", periods=1_200, freq="MS")
    history = pd.DataFrame({"ds": months, "y": np.resize(monthly["y"], len(months))})
    url = f"sqlite:///{tmp_path / 'log.db'}"
    names = [f"{number:03}" for number in range(400)]
    import_history(url, pd.concat([history.assign(unique_id=name) for name in names]), MONTHLY)
    host, parts = start(url), []
    write_queue = WriteQueue(host.writer, 30.0)

    replay_backlog(write_queue, on_part=lambda: parts.append(len(host.engine)), long_s=1e9)

    write_queue.close()
    assert parts[-1] == len(names)
    assert len(parts) <= 5 + usual_threads()


def test_the_server_replays_the_parts_of_killed_worker_processes(many, start, caplog):
    """The kernel kills so when memory is short; all series get live states, with a warning."""
    host = start(many)
    write_queue, killed = WriteQueue(host.writer, 60.0), set[int]()

    def kill() -> None:
        for process in multiprocessing.active_children():
            assert process.pid is not None
            if process.pid not in killed:
                killed.add(process.pid)
                os.kill(process.pid, signal.SIGKILL)

    replay_backlog(write_queue, on_part=kill, long_s=0.0)
    write_queue.close()

    assert len(killed) == usual_threads()
    assert "a worker process has ended" in caplog.text
    assert host.writer.waiting == {}
    assert_as_replayed(host, start, many)


def replay_in_a_child(url: str, bundle: Path, folder: Path, results: Connection) -> None:
    """Replay in a daemonic process, which may not have children, and send the counts."""
    host = Host(url, bundle, folder, 64)
    write_queue = WriteQueue(host.writer, 60.0)
    replay_backlog(write_queue, long_s=0.0)
    results.send((len(host.engine), len(host.writer.waiting)))


def test_the_server_replays_where_no_process_can_be_started(many, monthly_bundle, tmp_path):
    """It replays in its own threads, which is slower."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    arguments = (many, monthly_bundle, tmp_path, sender)
    child = context.Process(target=replay_in_a_child, args=arguments, daemon=True)
    child.start()
    sender.close()

    assert receiver.recv() == (SERIES, 0)
    child.join()


def test_worker_processes_end_when_their_server_is_killed(many, monthly_bundle):
    """They would hold memory for ever otherwise; a Ctrl-C meant for the server ends none."""
    code = f"""
import multiprocessing, os, signal
from forecast.bundle import load_bundle
from service.storage.log import ObservationLog
from service.replay.worker import ReplayWorker

if __name__ == "__main__":
    worker = ReplayWorker(ObservationLog({many!r}), load_bundle({str(monthly_bundle)!r}))
    worker.replay({{"s0000": 1}})
    pid = multiprocessing.active_children()[0].pid
    os.kill(pid, signal.SIGINT)
    replayed = worker.replay({{"s0001": 2, "s0002": 3}})
    print(len(replayed.replayed.states), pid, flush=True)
    input()
"""
    with Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, text=True) as server:
        assert server.stdout is not None
        states, pid = map(int, server.stdout.readline().split())
        assert states == 2
        assert is_running(pid)
        server.kill()
    wait_until(lambda: is_running(pid), lambda running: not running)


def is_running(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


def test_a_replay_that_stops_or_fails_resumes_with_the_remaining_series(many, start):
    """Series put in place stay live and the rest waits; a failure raises the error of the log."""
    host = start(many)
    write_queue = WriteQueue(host.writer, 60.0)
    turns: list[int] = []
    count_turn = partial(turns.append, 1)

    replay_backlog(write_queue, stopped=lambda: len(turns) == 2, on_part=count_turn)
    live = len(host.engine)
    assert (len(turns), live + len(host.writer.waiting)) == (2, SERIES)
    assert 0 < live < SERIES

    run_sql(many, "alter table observation rename to renamed")
    with pytest.raises(LogError):
        replay_backlog(write_queue, on_part=count_turn)
    assert (len(host.engine), len(host.writer.waiting)) == (live, SERIES - live)
    run_sql(many, "alter table renamed rename to observation")

    replay_backlog(write_queue, on_part=count_turn)
    write_queue.close()
    assert host.writer.waiting == {}
    assert_as_replayed(host, start, many)


@pytest.mark.parametrize("long_s", [LONG_S, 0.0], ids=["threads", "processes"])
def test_a_damaged_series_does_not_stop_the_replay_of_others(many, start, long_s):
    """All others get live states; the replay and a request for the series raise its error."""
    host = start(many)
    number = host.writer.waiting["s0500"]
    for name in ("s0007", "s0500"):
        prune(host, name)
    host.close()
    run_sql(many, f"update base set state = substr(state, 1, 40) where series = {number}")

    host = start(many)
    write_queue = WriteQueue(host.writer, 60.0)
    with pytest.raises(DamagedLog, match="pruning left of series 's0500' is damaged"):
        replay_backlog(write_queue, long_s=long_s)
    with pytest.raises(DamagedLog, match="'s0500'"):
        write_queue.need(["s0500"])

    assert list(host.writer.waiting) == ["s0500"]
    assert len(host.engine) == SERIES - 1
    write_queue.remove("s0500")
    write_queue.close()
    assert host.writer.waiting == {}


def test_a_replay_stops_when_all_series_fail(many, start):
    """After many failures the cause is not a single series, so the rest is not tried."""
    host = start(many)
    host.writer.replay(list(host.writer.waiting))
    write_queue = WriteQueue(host.writer, 60.0)
    write_queue.prune(RetentionRule(steps=9), list)
    write_queue.close()
    host.close()
    run_sql(many, "update base set state = substr(state, 1, 40)")

    host = start(many)
    write_queue, turns = WriteQueue(host.writer, 60.0), list[int]()
    with pytest.raises(DamagedLog):
        replay_backlog(write_queue, on_part=partial(turns.append, 1))

    write_queue.close()
    assert turns == []
    assert len(host.writer.waiting) == SERIES
