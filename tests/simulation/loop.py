"""An event loop whose time is the simulation's, and the processes whose callbacks it runs.

The loop never waits: where nothing is ready the clock moves to the next timer. Work for threads is done at once and its
result comes a little later. So a run is a function of its seed, and an hour of timeouts costs what its events cost.

Handles, timers and their queue are its own, because half of a run's time was theirs: nothing of them is for debugging,
and callbacks of one moment run in the order in which they were made.

Every callback belongs to the process in whose context it was made (asyncio hands contexts on by itself). A process that
is killed runs nothing any more, not even its `finally`: what it had in memory is gone. A frozen one (SIGSTOP) runs what
has gathered when it goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar, TypeVarTuple, Unpack, cast

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_STEPS = 3_000_000
"""Callbacks of one run; a run that needs more has a loop that never ends."""
EPOCH_NS = 1_700_000_000_000_000_000
MAX_CANCELS = 4
"""Times that what is left at the end of a run is cancelled: clean-up may wait again."""
THREAD_S = (0.0, 0.002)
"""What work takes that is given to a thread."""


class SimulatedClock:
    """Seconds since the start of the run; `time_ns` counts from a fixed date and can be set wrong."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.wall_offset_ns = 0

    def monotonic(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return EPOCH_NS + int(self.now_s * 1e9) + self.wall_offset_ns


class Process:
    """One life of a program on a simulated host."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.freezes = 0
        """How many want it to stand still."""
        self.held: list[_Handle] = []
        self.context = copy_context()
        self.context.run(PROCESS.set, self)

    @property
    def frozen(self) -> bool:
        return self.freezes > 0

    def kill(self) -> None:
        """Ends it at once, wherever it stands."""
        self.alive = False
        self.held.clear()


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


def current_loop() -> SimulatedLoop | None:
    """The one that runs, if one does."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if isinstance(loop, SimulatedLoop) else None


class _Handle(asyncio.TimerHandle):
    """What `call_soon` and `call_at` give: a handle without what asyncio keeps for debugging."""

    __slots__ = ()
    _when: float

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None) -> None:
        # Not the base class's: most of the cost is there.
        self._callback: Callable[..., object] | None = callback
        self._args: tuple[Any, ...] = args
        self._context = copy_context() if context is None else context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = None
        self._args = ()


class _Selector:
    """What the base class wants to have; no descriptor is ever waited for."""

    def close(self) -> None:
        return None


class SimulatedLoop(asyncio.BaseEventLoop):
    """See the module."""

    _ready: deque[_Handle]
    _scheduled: list[tuple[float, int, _Handle]]

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.clock = SimulatedClock()
        self.random = random.Random(seed)
        self.steps = 0
        self._timers = 0
        self.trace = 0
        """A digest of the times of all steps: two runs of one seed have the same."""
        self.everything_runs = False
        """Also what killed processes left: the end of a run takes their tasks apart."""
        self.problems: list[str] = []
        """What nobody caught."""
        self._tasks: list[asyncio.Task[Any]] = []
        """All there ever were: one that is collected while it waits would run its `finally` then."""
        self._process_of: dict[asyncio.Task[Any], Process | None] = {}
        self._failed: list[asyncio.Task[Any]] = []
        self._selector = _Selector()
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._note_problem)

    def _make_task(self, _: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, **options)
        self._tasks.append(task)
        self._process_of[task] = PROCESS.get()
        return task

    def _note_problem(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        process = PROCESS.get()
        if not self.everything_runs and (process is None or process.alive):
            self.problems.append(f"{context.get('message')}: {context.get('exception')!r}")

    def time(self) -> float:
        return self.clock.now_s

    def spawn(self, process: Process, work: Any, name: str | None = None) -> asyncio.Task[Any]:
        """Starts a coroutine inside of a process."""
        return process.context.run(self.create_task, work, name=name)

    def later(self, process: Process, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        """Calls something inside of a process, unless it is dead by then."""
        self.call_at(self.clock.now_s + delay_s, callback, *args, context=process.context)

    def outside(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        """Calls something that is of no process: it happens whoever is dead by then."""
        self.call_at(self.clock.now_s + delay_s, callback, *args, context=Context())

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = _Handle(callback, args, context)
        handle._when = when
        self._timers += 1
        heapq.heappush(self._scheduled, (when, self._timers, handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.clock.now_s + delay, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            self.call_later(self.random.uniform(*THREAD_S), _fail, future, error)
        else:
            self.call_later(self.random.uniform(*THREAD_S), _finish, future, result)
        return future

    def _process_events(self, event_list: object) -> None:
        return None

    def _write_to_self(self) -> None:
        return None

    def _run_once(self) -> None:
        ready, scheduled, clock, pop = self._ready, self._scheduled, self.clock, heapq.heappop
        while scheduled and scheduled[0][2]._cancelled:
            pop(scheduled)
        if not ready:
            assert scheduled, "everybody waits and nothing is going to happen"
            clock.now_s = max(clock.now_s, scheduled[0][0])
        now_s = clock.now_s
        while scheduled and scheduled[0][0] <= now_s:
            timer = pop(scheduled)[2]
            if not timer._cancelled:
                ready.append(timer)
        count = len(ready)
        self.steps += count
        self.trace = hash((self.trace, now_s, count))
        assert self.steps <= MAX_STEPS, f"no end after {MAX_STEPS} steps"
        for _ in range(count):
            handle = ready.popleft()
            callback, context = handle._callback, handle._context
            if callback is None:
                continue
            process = context.get(PROCESS)
            if process is not None and not self.everything_runs:
                if not process.alive:
                    continue
                if process.freezes:
                    process.held.append(handle)
                    continue
            try:
                context.run(callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - what nobody caught is noted
                self.call_exception_handler({"message": f"in {callback}", "exception": error})

    def thaw(self, process: Process, *, whoever: bool = False) -> None:
        """A frozen process goes on with what has gathered, unless somebody else wants it to stand still too."""
        process.freezes = 0 if whoever else max(0, process.freezes - 1)
        if not process.frozen:
            self._ready.extend(process.held)
            process.held = []

    def look_for_failures(self) -> None:
        """Notes what tasks ended with that nobody took note of. One that has only just ended is looked at next time."""
        failed = [task for task in self._tasks if task.done() and not task.cancelled() and task._log_traceback]
        for task in failed:
            process = self._process_of[task]
            if task in self._failed and (process is None or process.alive):
                self.problems.append(f"{task.get_name()} ended with {task!r}")
        self._failed = failed

    def run(self, main: Any) -> None:
        """Runs a coroutine to its end, then takes everything apart that is left."""
        try:
            self.run_until_complete(main)
        finally:
            self.everything_runs = True
            for _ in range(MAX_CANCELS):
                left = [task for task in self._tasks if not task.done()]
                if not left:
                    break
                for task in left:
                    task.cancel()
                self.run_until_complete(asyncio.wait(left, timeout=1.0))
            self.run_until_complete(self._close_left())
            self.close()

    async def _close_left(self) -> None:
        """Tasks that never began, because their process died before, and whoever waits for them."""
        for task in self._tasks:
            if not task.done():
                cast(Any, task)._log_destroy_pending = False
                with contextlib.suppress(BaseException):
                    cast(Any, task.get_coro()).close()


def _finish(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
