"""The state thread: takes commands from a bounded queue, runs them in batches, delivers the answers.

While one batch is being made durable the next one gathers, so the number of transactions adapts to the load. Between
batches, jobs get a step when nobody waits, and now and then when somebody does.

A command that fails with an error of the family is answered with it. Any other error (a disk that does not write, a
bug) stops the thread: waiting commands are answered `Unavailable`, `fatal` is set, and the process must end. What was
acknowledged is durable; the next process goes on from there.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from redfs.coordinator.coordinator import MAX_BATCH, Command, Coordinator, Outcome
from redfs.core.errors import Fenced, NoSpace, RedfsError, Unavailable

Answer = Callable[[Outcome], None]
Deliver = Callable[[Sequence[tuple[Answer, Outcome]]], None]
_Batch = list[tuple[Command[Any], Answer]]

MAX_QUEUE = 8192
"""Commands that wait; more are refused, so that a flood is told instead of stored."""
JOB_INTERVAL_S = 0.05
"""Under load a background step runs this often: jobs always make progress, commands wait 5 ms in 50."""
FULL_DISK_PAUSE_S = 1.0
"""Jobs rest this long after the disk was full."""
FAILED_STEP_PAUSE_S = 30.0
"""Jobs rest this long after one of them failed: what is broken stays broken, and the log stays readable."""

log = logging.getLogger(__name__)


def deliver_here(answers: Sequence[tuple[Answer, Outcome]]) -> None:
    """Calls the answers on the state thread."""
    for answer, outcome in answers:
        answer(outcome)


class StateThread:
    """Owns a coordinator's writing side. `deliver` gets the answers of each batch, to carry them where they belong."""

    def __init__(self, coordinator: Coordinator, deliver: Deliver = deliver_here) -> None:
        self._coordinator = coordinator
        self._deliver = deliver
        self._queue: queue.SimpleQueue[tuple[Command[Any], Answer] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="state", daemon=True)
        self._stopping = False
        self.fatal: BaseException | None = None
        """What stopped the thread before it was told to."""
        self.on_fatal: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._thread.start()

    def submit(self, command: Command[Any], answer: Answer) -> None:
        """Queues a command; `answer` is called with its outcome when that is durable. Raises Unavailable."""
        if self._stopping or self.fatal is not None:
            raise Unavailable("the coordinator is stopping: try again when it is back")
        if self._queue.qsize() >= MAX_QUEUE:
            raise Unavailable("the coordinator has too much to do: try again in a moment")
        self._queue.put((command, answer))

    def stop(self) -> None:
        """Runs what is queued and ends the thread."""
        self._stopping = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        batch: _Batch = []
        last_step_s = rest_until_s = 0.0
        try:
            stop = False
            while not stop:
                jobs = self._coordinator.has_jobs
                batch, stop = self._gather(max(0.0, rest_until_s - time.monotonic()) if jobs else None)
                if batch:
                    outcomes = self._coordinator.execute_batch([command for command, _ in batch])
                    self._deliver([(answer, o) for (_, answer), o in zip(batch, outcomes, strict=True)])
                    batch = []
                now_s = time.monotonic()
                idle = self._queue.empty() or now_s - last_step_s >= JOB_INTERVAL_S
                if self._coordinator.has_jobs and idle and now_s >= rest_until_s:
                    rest_until_s = time.monotonic() + self._step()
                    last_step_s = now_s
        except BaseException as error:
            log.critical("the state thread stops: %r", error, exc_info=True)
            self.fatal = error
        self._refuse_rest(batch)
        if self.fatal is not None:
            self.on_fatal()

    def _gather(self, wait_s: float | None) -> tuple[_Batch, bool]:
        """Waits for commands up to that long (None: for ever) and takes all that are there, up to MAX_BATCH."""
        batch: _Batch = []
        try:
            item = self._queue.get(block=wait_s is None or wait_s > 0, timeout=wait_s)
            while item is not None:
                batch.append(item)
                if len(batch) >= MAX_BATCH:
                    return batch, False
                item = self._queue.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _step(self) -> float:
        """One job step; returns how many seconds jobs should rest."""
        try:
            self._coordinator.background_step()
        except Fenced:
            raise
        except NoSpace as error:
            log.warning("background work rests: %s", error)
            return FULL_DISK_PAUSE_S
        except RedfsError as error:
            log.error("a background step failed, it is tried again later: %s", error)
            return FAILED_STEP_PAUSE_S
        return 0.0

    def _refuse_rest(self, batch: _Batch) -> None:
        gone = Outcome(None, Unavailable("the coordinator stopped before this was stored: try again when it is back"))
        rest = list(batch)
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                rest.append(item)
        if rest:
            self._deliver([(answer, gone) for _, answer in rest])
