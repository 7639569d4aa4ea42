"""Series that wait are replayed beside what is served; the states are those of a plain replay."""

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

Begin = Callable[[str], Host]
Change = Callable[[Host, str], object]


@pytest.fixture
def begin(monthly_bundle, tmp_path) -> Iterator[Begin]:
    """Start a host without snapshots: all series wait."""
    hosts: list[Host] = []

    def begin(url: str) -> Host:
        hosts.append(Host(url, monthly_bundle, tmp_path / "snapshots", 64))
        return hosts[-1]

    yield begin
    for host in hosts:
        host.close()


def read(host: Host) -> Replay:
    """What a worker makes of all that wait."""
    return replay(host.log, host.engine.bundle, dict(host.writer.waiting))


def assert_as_replayed(host: Host, begin: Begin, url: str) -> None:
    """States, first stamps and numbers are those of a replay of the log as it is now."""
    live, waiting = host.states(), host.writer.waiting
    spans = {name: host.engine.spans(np.array([row])) for name, row in host.engine.rows.items()}
    numbers = {name: host.engine.numbers[row] for name, row in host.engine.rows.items()}
    host.close()
    plain = begin(url)
    assert_equal(live, plain.states())
    assert waiting == {}
    for name, row in plain.engine.rows.items():
        assert spans[name] == plain.engine.spans(np.array([row]))
        assert numbers[name] == plain.engine.numbers[row]


def observe_next(host: Host, name: str) -> None:
    """A new step."""
    host.observe(name, "2019-01-01", 300.0)


def revise(host: Host, name: str) -> None:
    """Another value for a step that is there."""
    host.observe(name, "2018-06-01", 301.0)


def remove(host: Host, name: str) -> None:
    """A series less."""
    host.writer.remove(name)


def begin_again(host: Host, name: str) -> None:
    """Another series of the same name."""
    host.writer.remove(name)
    host.observe(name, "2019-01-01", 302.0)


def prune(host: Host, name: str) -> None:
    """Older steps taken out, a base in their place."""
    with host.log.read() as transaction:
        number = transaction.find([name])[0].number
    host.writer.prune([number], RetentionRule(steps=12), [])


def prune_twice(host: Host, name: str) -> None:
    """Of what is left after a correction, some more."""
    prune(host, name)
    revise(host, name)
    with host.log.read() as transaction:
        number = transaction.find([name])[0].number
    host.writer.prune([number], RetentionRule(steps=3), [])


def ask_early(host: Host, name: str) -> None:
    """Someone wants a forecast of it now."""
    host.writer.replay([name])
    host.observe(name, "2019-01-01", 303.0)


CHANGES = [observe_next, revise, remove, begin_again, prune, prune_twice, ask_early]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_written_after_the_reading_is_not_lost(url, begin, change: Change, monthly):
    """Whatever happens to a series between reading and putting in place."""
    import_history(url, monthly, MONTHLY)
    host = begin(url)
    name = sorted(host.writer.waiting)[2]

    made = read(host)
    change(host, name)
    host.writer.put_in_place(made)

    assert host.writer.waiting == {}
    assert_as_replayed(host, begin, url)


@pytest.mark.parametrize("change", CHANGES)
def test_what_another_process_writes_meanwhile_is_not_lost(
    postgres, begin, change: Change, monthly
):
    """Two servers on one log: the other changes what this one has read."""
    url = empty_database(postgres)
    import_history(url, monthly, MONTHLY)
    host, other = begin(url), begin(url)
    name = sorted(host.writer.waiting)[2]

    made = read(host)
    change(other, name)
    host.writer.put_in_place(made)

    assert host.writer.waiting == {}
    assert_as_replayed(host, begin, url)


@pytest.fixture
def many(url) -> str:
    """A log of many short series."""
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
    """They write, correct, delete, prune and ask for series that may wait or be read just now."""

    def __init__(self, write_queue: WriteQueue) -> None:
        self.write_queue = write_queue
        self.rng = random.Random(0)
        self.steps = {f"s{i:04}": STEPS for i in range(SERIES)}
        self.turns = 0

    def __call__(self) -> None:
        """One of each, of a series anywhere."""
        self.turns += 1
        write_queue, rng, steps = self.write_queue, self.rng, self.steps
        works = [
            lambda name: write_queue.record(
                batch_of((name, MONTHS[steps[name]], rng.uniform(1, 100)))
            ),
            lambda name: write_queue.record(
                batch_of((name, MONTHS[STEPS - 1], rng.uniform(1, 100)))
            ),
            lambda name: write_queue.need([name]),
            write_queue.rebuild,
        ]
        for work in rng.sample(works, len(works)):
            name = rng.choice(sorted(steps))
            work(name)
            steps[name] += work is works[0]
        gone = rng.choice(sorted(steps))
        write_queue.remove(gone)
        del steps[gone]
        if self.turns == 3:
            write_queue.prune(RetentionRule(steps=9), list)


@pytest.mark.parametrize("long_s", [LONG_S, 0.0], ids=["threads", "processes"])
def test_users_who_write_during_a_replay_find_the_states_of_a_plain_one(many, begin, long_s):
    """Parts are in flight at each of their turns; nothing is lost, doubled or left waiting."""
    host = begin(many)
    write_queue = WriteQueue(host.writer, 60.0)
    users = Users(write_queue)

    replay_waiting(
        write_queue.writer,
        write_queue.put_in_place,
        stopped=lambda: False,
        on_progress=users,
        long_s=long_s,
    )
    write_queue.close()

    assert users.turns > 5
    assert host.writer.waiting == {}
    assert sorted(host.engine.rows) == sorted(users.steps)
    assert_as_replayed(host, begin, many)


def test_long_histories_are_replayed_hundreds_of_series_at_a_time(begin, monthly, tmp_path):
    """A step of one costs as much as of hundreds: small parts would take longer in all."""
    months = pd.date_range("1900-01-01", periods=1_200, freq="MS")
    one = pd.DataFrame({"ds": months, "y": np.resize(monthly["y"], len(months))})
    url = f"sqlite:///{tmp_path / 'log.db'}"
    names = [f"{number:03}" for number in range(400)]
    import_history(url, pd.concat([one.assign(unique_id=name) for name in names]), MONTHLY)
    host, parts = begin(url), []
    write_queue = WriteQueue(host.writer, 30.0)

    replay_waiting(
        write_queue.writer,
        write_queue.put_in_place,
        stopped=lambda: False,
        on_progress=lambda: parts.append(len(host.engine)),
        long_s=1e9,
    )

    write_queue.close()
    assert parts[-1] == len(names)
    assert len(parts) <= 5 + usual_threads()


def test_processes_that_are_killed_leave_their_parts_to_the_server(many, begin, caplog):
    """As where memory is short: all series come to life, and the server's log says it."""
    host = begin(many)
    write_queue, killed = WriteQueue(host.writer, 60.0), set[int]()

    def kill() -> None:
        for process in multiprocessing.active_children():
            assert process.pid is not None
            if process.pid not in killed:
                killed.add(process.pid)
                os.kill(process.pid, signal.SIGKILL)

    replay_waiting(
        write_queue.writer,
        write_queue.put_in_place,
        stopped=lambda: False,
        on_progress=kill,
        long_s=0.0,
    )
    write_queue.close()

    assert len(killed) == usual_threads()
    assert "a worker process has ended" in caplog.text
    assert host.writer.waiting == {}
    assert_as_replayed(host, begin, many)


def replay_in_a_child(url: str, bundle: Path, folder: Path, told: Connection) -> None:
    """A start of a server where no process may have children, as in a daemonic one."""
    host = Host(url, bundle, folder, 64)
    write_queue = WriteQueue(host.writer, 60.0)
    replay_waiting(
        write_queue.writer,
        write_queue.put_in_place,
        stopped=lambda: False,
        on_progress=lambda: None,
        long_s=0.0,
    )
    told.send((len(host.engine), len(host.writer.waiting)))


def test_where_no_process_can_be_started_the_server_replays(many, monthly_bundle, tmp_path):
    """As slowly as it can itself."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    arguments = (many, monthly_bundle, tmp_path, there)
    child = context.Process(target=replay_in_a_child, args=arguments, daemon=True)
    child.start()
    there.close()

    assert here.recv() == (SERIES, 0)
    child.join()


def test_processes_end_with_a_server_that_is_killed(many, monthly_bundle):
    """They would read the log, and hold memory, for ever; a Ctrl-C meant for it ends none."""
    code = f"""
import multiprocessing, os, signal
from forecast.bundle import load_bundle
from service.storage.log import ObservationLog
from service.replay.worker import ReplayWorker

if __name__ == "__main__":
    replayer = ReplayWorker(ObservationLog({many!r}), load_bundle({str(monthly_bundle)!r}))
    replayer.replay({{"s0000": 1}})
    pid = multiprocessing.active_children()[0].pid
    os.kill(pid, signal.SIGINT)
    made = replayer.replay({{"s0001": 2, "s0002": 3}})
    print(len(made.replayed.states), pid, flush=True)
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
    """Whether there is such a process, and it is no zombie."""
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


def test_a_replay_that_stops_or_fails_leaves_whole_series_and_goes_on_later(many, begin):
    """What it had put in place is live, the rest waits, and the error is the log's."""
    host = begin(many)
    write_queue = WriteQueue(host.writer, 60.0)
    turns: list[int] = []
    told = partial(turns.append, 1)

    replay_waiting(
        write_queue.writer,
        write_queue.put_in_place,
        stopped=lambda: len(turns) == 2,
        on_progress=told,
    )
    live = len(host.engine)
    assert (len(turns), live + len(host.writer.waiting)) == (2, SERIES)
    assert 0 < live < SERIES

    run_sql(many, "alter table observation rename to gone")
    with pytest.raises(LogError):
        replay_waiting(
            write_queue.writer, write_queue.put_in_place, stopped=lambda: False, on_progress=told
        )
    assert (len(host.engine), len(host.writer.waiting)) == (live, SERIES - live)
    run_sql(many, "alter table gone rename to observation")

    replay_waiting(
        write_queue.writer, write_queue.put_in_place, stopped=lambda: False, on_progress=told
    )
    write_queue.close()
    assert host.writer.waiting == {}
    assert_as_replayed(host, begin, many)


@pytest.mark.parametrize("long_s", [LONG_S, 0.0], ids=["threads", "processes"])
def test_a_series_that_is_damaged_keeps_no_other_from_its_replay(many, begin, long_s):
    """All others come to life, the error names it, and whoever asks for it is told the same."""
    host = begin(many)
    number = host.writer.waiting["s0500"]
    for name in ("s0007", "s0500"):
        prune(host, name)
    host.close()
    run_sql(many, f"update base set state = substr(state, 1, 40) where series = {number}")

    host = begin(many)
    write_queue = WriteQueue(host.writer, 60.0)
    with pytest.raises(DamagedLog, match="pruning left of series 's0500' is damaged"):
        replay_waiting(
            write_queue.writer,
            write_queue.put_in_place,
            stopped=lambda: False,
            on_progress=lambda: None,
            long_s=long_s,
        )
    with pytest.raises(DamagedLog, match="'s0500'"):
        write_queue.need(["s0500"])

    assert list(host.writer.waiting) == ["s0500"]
    assert len(host.engine) == SERIES - 1
    write_queue.remove("s0500")
    write_queue.close()
    assert host.writer.waiting == {}


def test_a_replay_that_fails_for_all_series_is_given_up(many, begin):
    """After some of them: it is not they."""
    host = begin(many)
    host.writer.replay(list(host.writer.waiting))
    write_queue = WriteQueue(host.writer, 60.0)
    write_queue.prune(RetentionRule(steps=9), list)
    write_queue.close()
    host.close()
    run_sql(many, "update base set state = substr(state, 1, 40)")

    host = begin(many)
    write_queue, turns = WriteQueue(host.writer, 60.0), list[int]()
    with pytest.raises(DamagedLog):
        replay_waiting(
            write_queue.writer,
            write_queue.put_in_place,
            stopped=lambda: False,
            on_progress=partial(turns.append, 1),
        )

    write_queue.close()
    assert turns == []
    assert len(host.writer.waiting) == SERIES
