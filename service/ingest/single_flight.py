"""Work whose result is good for everybody who asked before it began."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait

from service.errors import DeadlinePassed


class SingleFlight:
    """
    At most one run of it, and one to come that all who ask meanwhile share.

    Args:
        work: What is done, on the thread of the first who asked, but for all: it goes on when that
            one's client hangs up.
        deadline: Seconds that anybody waits for it.
    """

    def __init__(self, work: Callable[[], None], deadline: float) -> None:
        self._work = work
        self._deadline = deadline
        self._lock = threading.Lock()
        self._running: Future[None] | None = None
        self._next: Future[None] | None = None
        self.failure: BaseException | None = None
        """What the last run raised that has ended."""

    def join(self) -> None:
        """
        Return once a run has ended that began after this call; one that runs already is too old.

        Raises:
            DeadlinePassed: It took too long; or whatever the work raises, for all who share it.
        """
        with self._lock:
            run, first = self._next, self._next is None
            if run is None:
                run = self._next = Future()
        if first:
            self._do(run)
        elif not wait([run], self._deadline).done:
            self._give_up()
        run.result()

    def _do(self, run: Future[None]) -> None:
        before = self._running
        late = before is not None and not wait([before], self._deadline).done
        with self._lock:  # who comes from here on needs another run
            self._next = None
            self._running = before if late else run
        try:
            contextvars.Context().run(self._give_up if late else self._work)
        except BaseException as error:  # noqa: BLE001 - raised again by all who wait for it
            self.failure = error
            run.set_exception(error)
        else:
            self.failure = None
            run.set_result(None)

    def _give_up(self) -> None:
        raise DeadlinePassed(
            f"the log was not read within {self._deadline:g} s", help="try again, or later"
        )
