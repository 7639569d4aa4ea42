"""Single flight: callers that ask for the same work at the same time share one run of it."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait

from service.errors import DeadlinePassed


class SingleFlight:
    """
    Runs work for all callers that asked before the run began.

    At most one run is in progress. All who ask meanwhile share the next one, because the current
    run may have read what they want to see too early.

    Args:
        work: Runs on the thread of the first caller, but for all of them: it is not cancelled when
            the client of that caller hangs up.
        deadline: Longest time that a caller waits, in seconds.
    """

    def __init__(self, work: Callable[[], None], deadline: float) -> None:
        self._work = work
        self._deadline = deadline
        self._lock = threading.Lock()
        self._running: Future[None] | None = None
        self._next: Future[None] | None = None
        self.failure: BaseException | None = None
        """The exception of the last run that ended, or None if it succeeded."""

    def join(self) -> None:
        """
        Return once a run that began after this call has ended.

        Raises:
            DeadlinePassed: The run took too long.
            BaseException: Whatever `work` raises, for all who share the run.
        """
        with self._lock:
            run, is_first = self._next, self._next is None
            if run is None:
                run = self._next = Future()
        if is_first:
            self._run(run)
        elif not wait([run], self._deadline).done:
            self._give_up()
        run.result()

    def _run(self, run: Future[None]) -> None:
        previous = self._running
        late = previous is not None and not wait([previous], self._deadline).done
        with self._lock:  # Callers that come from here on need another run.
            self._next = None
            self._running = previous if late else run
        try:
            contextvars.Context().run(self._give_up if late else self._work)
        except BaseException as error:  # noqa: BLE001 - raised by `join` for all who share the run
            self.failure = error
            run.set_exception(error)
        else:
            self.failure = None
            run.set_result(None)

    def _give_up(self) -> None:
        raise DeadlinePassed(
            f"the log was not read within {self._deadline:g} s", help="try again later"
        )
