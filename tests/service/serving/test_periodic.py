"""Periodic tasks of a server: their pauses, their failures, and running all of them at once."""

import logging
import threading
import time

from service.errors import LogError
from service.serving.periodic import PeriodicTask, run_periodically

logger = logging.getLogger("service.test_periodic")


def pause_after_run(task: PeriodicTask) -> float:
    """Run the task and return the seconds until it is due again."""
    task.run(logger)
    return round(task.due - time.monotonic())


def test_the_pause_doubles_while_a_task_fails_and_is_reset_once_it_works(caplog):
    """The pause grows up to the maximum; a failure is logged only when the reason changes."""
    reasons = [*(["damaged"] * 5), "", "damaged", "gone"]

    def work() -> None:
        if reason := reasons.pop(0):
            raise LogError(reason, where="a.db", help="put a backup there")

    task = PeriodicTask("replay", work, 5.0, max_pause=60.0)
    with caplog.at_level("INFO", logger.name):
        assert [pause_after_run(task) for _ in range(6)] == [5, 10, 20, 40, 60, 5]
        assert task.trouble == ""
        assert [pause_after_run(task) for _ in range(2)] == [5, 10]
    assert task.trouble == "gone; put a backup there"
    assert caplog.messages == [
        "replay: damaged (a.db); put a backup there",
        "replay: works again",
        "replay: damaged (a.db); put a backup there",
        "replay: gone (a.db); put a backup there",
    ]


def test_an_unforeseen_error_ends_neither_the_thread_nor_the_other_tasks(caplog):
    """The error is reported as an internal one, and its traceback is logged once."""
    stopping, wake, runs = threading.Event(), threading.Event(), []

    def work() -> None:
        runs.append("work")
        if len(runs) == 6:
            stopping.set()

    tasks = [PeriodicTask("broken", lambda: 1 / 0, 0.0), PeriodicTask("whole", work, 0.0)]
    run_periodically(tasks, wake, stopping, logger)
    assert len(runs) == 6
    assert [task.trouble for task in tasks] == [
        "internal error (ZeroDivisionError): see the log",
        "",
    ]
    assert caplog.text.count("Traceback") == 1


def test_waking_the_loop_runs_every_task_at_once():
    """Tasks that are due in an hour run when `wake` is set."""
    stopping, wake, runs = threading.Event(), threading.Event(), []
    in_an_hour = time.monotonic() + 3600

    def stop() -> None:
        stopping.set()
        wake.set()

    works = {"first": lambda: runs.append("first"), "last": stop}
    wake.set()
    run_periodically(
        [PeriodicTask(name, work, 3600.0, due=in_an_hour) for name, work in works.items()],
        wake,
        stopping,
        logger,
    )
    assert runs == ["first"]
