"""What the servicers share: the way from the event loop to the state thread and back, reader threads, open streams.

Everything here belongs to one event loop. The state thread reaches it only through `deliver` and the hooks, which hand
over to the loop and return.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

from redfs.coordinator.coordinator import Command, Coordinator, Outcome
from redfs.coordinator.copies import Copies, CopyStream
from redfs.coordinator.node_tasks import NodeTasks
from redfs.coordinator.sessions import writers_of
from redfs.coordinator.state import Answer, StateThread
from redfs.coordinator.turns import Turns
from redfs.coordinator.watch import Topic, Watchers
from redfs.core.errors import InternalError, RedfsError, Unavailable
from redfs.proto.gen import cluster_pb2 as pb

T = TypeVar("T")

READER_THREADS = 2
"""Large reads at one time: Python runs one at a time anyway, two keep a long one from blocking a short one."""

AWAY_S = 3.0
"""How long an order waits for a session that has no stream: one that comes back does so within a second or two."""

FORGET_DEADLINE_S = 60.0
"""A mount drops pages in milliseconds, and one that is away comes back or loses its lease long before."""
LEASE_LOOK_S = 0.25
"""How often who waits for a session looks whether its lease is over."""

log = logging.getLogger(__name__)


class OpenStream(CopyStream, Protocol):
    """A session's stream."""

    def order(self, order: pb.SessionReply) -> None:
        """Sends what the session did not ask for."""
        ...

    def finish(self) -> None:
        """Ends the stream after what is already answered."""
        ...


class _Order(NamedTuple):
    """One whose answer is waited for."""

    session_id: int
    message: pb.SessionReply
    answered: asyncio.Future[None]


class Shell:
    """The surroundings of one coordinator."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.loop = asyncio.get_running_loop()
        self.state = StateThread(coordinator, self._deliver)
        self.readers = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="reader")
        self.sessions: dict[int, OpenStream] = {}
        self.node_wakers: dict[int, Callable[[], None]] = {}
        self.node_inventories: dict[int, Callable[[], Awaitable[int]]] = {}
        """node -> its stream's `take_inventory`."""
        self.node_tasks = NodeTasks()
        coordinator.env.hooks.session_ended = lambda session: self.call_on_loop(self._end_stream, session)
        coordinator.env.hooks.volume_gone = lambda session, volume: self.call_on_loop(self._tell_gone, session, volume)
        coordinator.env.hooks.shards_doomed = lambda node: self.call_on_loop(self._wake_node, node)
        self.watchers = Watchers(coordinator.cluster.states, self.call_on_loop, coordinator.env.clock.monotonic)
        coordinator.env.hooks.changed = self.watchers.changed
        coordinator.cluster.on_change = lambda numbers: self.watchers.changed(Topic.REPORTS if numbers else Topic.NODES)
        self.turns = Turns()
        self.copies = Copies(coordinator.leases, coordinator.env.randomness, self.sessions.get)
        self._orders: dict[int, _Order] = {}
        self._next_order = 1

    def start(self) -> None:
        self.state.start()

    def stop(self) -> None:
        """Runs what is queued, then ends the threads. Blocks; the loop may be idle then."""
        self.state.stop()
        self.readers.shutdown(wait=True, cancel_futures=True)

    # -- from and to the state thread

    def call_on_loop(self, what: Callable[..., None], *args: Any) -> None:
        """Calls something on the event loop soon, from any thread."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(what, *args)

    def _deliver(self, answers: Sequence[tuple[Answer, Outcome]]) -> None:
        self.call_on_loop(_answer_all, answers)

    async def run(self, command: Command[T]) -> T:
        """Runs a command on the state thread; its value when it is durable, or its error."""
        future: asyncio.Future[T] = self.loop.create_future()

        def answer(outcome: Outcome) -> None:
            if future.done():
                return
            if outcome.error is not None:
                future.set_exception(outcome.error)
            else:
                future.set_result(outcome.value)

        self.state.submit(command, answer)
        return await future

    async def read(self, what: Callable[[], T]) -> T:
        """Runs a long read in a reader thread."""
        return await self.loop.run_in_executor(self.readers, what)

    # -- streams

    def _end_stream(self, session_id: int) -> None:
        self.copies.session_ended(session_id)
        stream = self.sessions.get(session_id)
        if stream is not None:
            stream.finish()

    def _tell_gone(self, session_id: int, volume_id: int) -> None:
        # One that is away learns it from its next commit, which is refused.
        self.tell(session_id, pb.SessionReply(gone=pb.Gone(volume_id=volume_id)))

    def _wake_node(self, node_id: int) -> None:
        wake = self.node_wakers.get(node_id)
        if wake is not None:
            wake()

    async def take_inventory(self, node_id: int) -> int:
        """Has all that a node holds compared with the rows; how many shards are missing that nobody knew of.

        Unavailable where the node has no stream, or loses it.
        """
        take = self.node_inventories.get(node_id)
        if take is None:
            raise Unavailable(f"node {node_id} is not attached")
        return await take()

    def stream_opened(self, session_id: int, stream: OpenStream) -> None:
        """A session's newest stream; the one before it ends. Orders that wait for an answer are sent again."""
        before = self.sessions.get(session_id)
        if before is not None:
            before.finish()
        self.sessions[session_id] = stream
        for order in list(self._orders.values()):
            if order.session_id == session_id:
                stream.order(order.message)
        self.copies.stream_opened(session_id, stream)

    def stream_closed(self, session_id: int, stream: OpenStream) -> None:
        if self.sessions.get(session_id) is stream:
            del self.sessions[session_id]

    def tell(self, session_id: int, order: pb.SessionReply) -> None:
        """Sends an order that is not waited for, where the session has a stream."""
        stream = self.sessions.get(session_id)
        if stream is not None:
            stream.order(order)

    async def flush(self, session_id: int, volume_id: int, deadline_s: float, hold_s: float = 0.0) -> bool:
        """Has a session commit what it holds of a volume. False where it did not say so in time.

        With `hold_s` it lets no operation begin from then on, until a Rebase, or until as many seconds have gone by
        since it got the order.
        """
        number = self.next_order()
        flush = pb.Flush(flush_id=number, volume_id=volume_id, hold=hold_s > 0, hold_s=hold_s)
        return await self._order(session_id, number, pb.SessionReply(flush=flush), deadline_s)

    async def flush_writers(self, volume_id: int, deadline_s: float) -> bool:
        """Has whoever can change a volume commit what it holds: in shared mode what kernels hold of mapped files.

        False where one did not say so in time, or may hold something and is away.
        """
        with self.coordinator.read() as kv:
            writers = writers_of(kv, volume_id)
        valid = [session for session in writers if self.coordinator.leases.valid(session)]
        flushed = await asyncio.gather(*[self.flush(session, volume_id, deadline_s) for session in valid])
        return all(flushed) and len(valid) == len(writers)

    async def recall(self, session_id: int, volume_id: int, deadline_s: float) -> bool:
        """Has a session give a volume's delegation back. False where it did not say in time that it has."""
        number = self.next_order()
        order = pb.SessionReply(recall=pb.Recall(recall_id=number, volume_id=volume_id))
        return await self._order(session_id, number, order, deadline_s, away_s=deadline_s)

    async def rebase(self, session_id: int, rebase: pb.Rebase, deadline_s: float) -> bool:
        """Has a session go on as another lineage. False where it did not say in time that nothing old is shown."""
        number = self.next_order()
        order = pb.Rebase()
        order.CopyFrom(rebase)
        order.rebase_id = number
        return await self._order(session_id, number, pb.SessionReply(rebase=order), deadline_s)

    async def forget(self, session_id: int, volume_id: int, ino: int) -> None:
        """Has a session's kernel drop an inode's pages. Returns when it has, or the session's lease is over.

        One that lives and does not say so in FORGET_DEADLINE_S is named in the log, and not waited for any longer.
        """
        number = self.next_order()
        message = pb.SessionReply(forget=pb.Forget(forget_id=number, volume_id=volume_id, inodes=[ino]))
        answered = await self.until_answered(session_id, number, message, FORGET_DEADLINE_S)
        if not answered and self.coordinator.leases.valid(session_id):
            log.warning("session %d did not say that it forgot inode %d of volume %d", session_id, ino, volume_id)

    async def until_answered(self, session_id: int, number: int, message: pb.SessionReply, deadline_s: float) -> bool:
        """Sends an order, also on later streams. False where the session's lease or the deadline was over first."""
        answered: asyncio.Future[None] = self.loop.create_future()
        self._orders[number] = _Order(session_id, message, answered)
        until_s = self.loop.time() + deadline_s
        try:
            self.tell(session_id, message)
            while not answered.done() and self.coordinator.leases.valid(session_id) and self.loop.time() < until_s:
                await asyncio.wait([answered], timeout=min(LEASE_LOOK_S, deadline_s))
            return answered.done()
        finally:
            del self._orders[number]

    def next_order(self) -> int:
        """A number for an order, which its answer names."""
        number = self._next_order
        self._next_order += 1
        return number

    async def _order(
        self, session_id: int, number: int, message: pb.SessionReply, deadline_s: float, away_s: float = AWAY_S
    ) -> bool:
        """Sends an order, to a session that is away when it comes back; False where no answer came in time."""
        answered: asyncio.Future[None] = self.loop.create_future()
        self._orders[number] = _Order(session_id, message, answered)
        if session_id not in self.sessions:
            deadline_s = min(deadline_s, away_s)
        try:
            self.tell(session_id, message)
            async with asyncio.timeout(deadline_s):
                await answered
        except TimeoutError:
            return False
        finally:
            del self._orders[number]
        return True

    def order_done(self, session_id: int, number: int) -> None:
        """A session says that it has carried out an order; one that comes too late changes nothing."""
        order = self._orders.get(number)
        if order is not None and order.session_id == session_id and not order.answered.done():
            order.answered.set_result(None)


def _answer_all(answers: Sequence[tuple[Answer, Outcome]]) -> None:
    for answer, outcome in answers:
        try:
            answer(outcome)
        except Exception:
            log.exception("an answer could not be given")


def as_redfs_error(error: BaseException) -> RedfsError:
    """Errors of the family as they are; anything else is a bug: logged with its trace and told as InternalError."""
    if isinstance(error, RedfsError):
        return error
    log.error("a request failed for a reason that nobody thought of", exc_info=error)
    return InternalError(f"the coordinator failed ({type(error).__name__}): its log says where")


async def cancel_and_wait(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Ends helper tasks and waits until they are gone."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def start(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """A helper task with a name for the log."""
    return asyncio.create_task(work, name=name)
