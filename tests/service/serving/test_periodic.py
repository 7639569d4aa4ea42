"""What a server does again and again, while it fails and when it does not."""

import logging
import threading
import time

from service.errors import LogError
from service.serving.periodic import PeriodicTask, run_periodically

logger = logging.getLogger("service.test_chores")


def pause_of(chore: PeriodicTask) -> float:
    """Seconds until it is due again, after it was done."""
    chore.do(logger)
    return round(chore.at - time.monotonic())


def test_pauses_grow_while_it_fails_and_begin_anew_once_it_does_not(caplog):
    """Doubled up to the longest; what stands in its way is logged when it changes."""
    reasons = [*(["damaged"] * 5), "", "damaged", "gone"]

    def work() -> None:
        if reason := reasons.pop(0):
            raise LogError(reason, where="a.db", help="put a backup there")

    chore = PeriodicTask("replay", work, 5.0, longest=60.0)
    with caplog.at_level("INFO", logger.name):
        assert [pause_of(chore) for _ in range(6)] == [5, 10, 20, 40, 60, 5]
        assert chore.trouble == ""
        assert [pause_of(chore) for _ in range(2)] == [5, 10]
    assert chore.trouble == "gone; put a backup there"
    assert caplog.messages == [
        "replay: damaged (a.db); put a backup there",
        "replay: goes on",
        "replay: damaged (a.db); put a backup there",
        "replay: gone (a.db); put a backup there",
    ]


def test_what_nobody_foresaw_ends_neither_the_thread_nor_the_others(caplog):
    """It is kept as an internal error, and its traceback is in the log once."""
    stopping, wake, done = threading.Event(), threading.Event(), []

    def work() -> None:
        done.append("work")
        if len(done) == 6:
            stopping.set()

    chores = [PeriodicTask("broken", lambda: 1 / 0, 0.0), PeriodicTask("whole", work, 0.0)]
    run_periodically(chores, wake, stopping, logger)
    assert len(done) == 6
    assert [chore.trouble for chore in chores] == [
        "internal error (ZeroDivisionError): see the log",
        "",
    ]
    assert caplog.text.count("Traceback") == 1


def test_all_are_done_at_once_when_asked():
    """Whenever they would be due."""
    stopping, wake, done = threading.Event(), threading.Event(), []
    later = time.monotonic() + 3600

    def stop() -> None:
        stopping.set()
        wake.set()

    works = {"first": lambda: done.append("first"), "last": stop}
    wake.set()
    run_periodically(
        [PeriodicTask(name, work, 3600.0, at=later) for name, work in works.items()],
        wake,
        stopping,
        logger,
    )
    assert done == ["first"]
