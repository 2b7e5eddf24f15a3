"""Connections from this node to others, for the work that its tasks do: whole shards read and checked, ranges read,
shards stored.

Every connection says that it works in the background, so the other node lets its clients go first. Connections are
blocking, used by one thread at a time and kept for a while. A connection that went stale while it was idle is replaced
without a word; a node that could not be reached is not tried again for `DOWN_S`. Requests are safe to repeat.

| what fails | what is raised |
|---|---|
| the node cannot be reached, breaks off or is silent | Unavailable |
| the node is reached and does not have the shard | NotFound |
| the shard is damaged, of another length, or cannot be read from its disk | Corrupt |
| the work was given up meanwhile | Cancelled, at once: what it waits for is closed |

Bounds: `MAX_THREADS` transfers at once over all tasks, so as many connections in use; `MAX_IDLE` kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import chain
from typing import Final, NamedTuple, TypeVar

from redfs.core.errors import Corrupt, InvalidArgument, RedfsError, Unavailable
from redfs.proto.data_plane import NodeConnection
from redfs.proto.frames import Buffer
from redfs.storage_node.cancel import Cancel

MAX_THREADS: Final = 16
"""Transfers at once: two rebuilds of the widest usual code (ec:8+3) side by side fill any network that one node has."""
MAX_IDLE: Final = 64
MAX_IDLE_PER_NODE: Final = 4
"""As many tasks as a node works on at once."""
IDLE_S: Final = 20.0
"""A connection that was not used for so long is closed: nodes serve a bounded number of them."""
DOWN_S: Final = 3.0
"""A node that could not be reached is not tried for so long: each try may take 5 s, and siblings can stand in."""
PIPELINED: Final = 32
"""Ranges asked for on one connection before the first answer is taken."""

T = TypeVar("T")


class Peer(NamedTuple):
    """A storage node and where it is."""

    node_id: int
    address: str


class _NotReached(Unavailable):
    """No connection: nothing is known of the shard."""


class _Idle(NamedTuple):
    connection: NodeConnection
    since_s: float


class Peers:
    """See the module. Thread safe."""

    def __init__(self, pool_id: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._pool_id = pool_id
        self._clock = clock
        self._lock = threading.Lock()
        self._idle: dict[Peer, list[_Idle]] = {}
        self._down_until_s: dict[int, float] = {}
        self._closed = False
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="peer")

    def close(self) -> None:
        """Ends what is idle, and takes no more work; what is under way its owners cancel."""
        with self._lock:
            self._closed = True
            idle = list(chain.from_iterable(self._idle.values()))
            self._idle.clear()
        for kept in idle:
            kept.connection.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -------------------------------------------------------------------- requests

    def read_shard(self, peer: Peer, segment: int, shard: int, view: memoryview, cancel: Cancel) -> None:
        """Fills the view with a whole shard of exactly its length, as it was stored."""
        try:
            self._call(peer, cancel, lambda c: c.get_verified_into(segment, shard, view))
        except _NotReached:
            raise
        except Unavailable:
            # A node whose disk cannot read breaks off in the middle: ask whether that is the reason.
            self._call(peer, cancel, lambda c: c.verify(segment, shard))
            raise

    def read_ranges(
        self, peer: Peer, segment: int, shard: int, ranges: Sequence[tuple[int, memoryview]], cancel: Cancel
    ) -> None:
        """Fills the views with bytes of the shard from their offsets on. Nothing is checked here."""

        def read(connection: NodeConnection) -> None:
            for start in range(0, len(ranges), PIPELINED):
                some = ranges[start : start + PIPELINED]
                for offset, view in some:
                    connection.get_send(segment, shard, offset, len(view))
                for _, view in some:
                    if len(connection.recv_reply(view).payload) != len(view):
                        raise Unavailable(f"storage node {peer.node_id} answered with another length")

        try:
            self._call(peer, cancel, read)
        except InvalidArgument as error:
            raise Corrupt(f"shard {segment}/{shard} on node {peer.node_id} is shorter than it should be") from error
        except _NotReached:
            raise
        except Unavailable:
            self._call(peer, cancel, lambda c: c.verify(segment, shard))
            raise

    def put(self, peer: Peer, segment: int, shard: int, payload: Buffer, cancel: Cancel) -> None:
        """Stores a shard on the node; durable when it returns. Errors as those of PUT."""
        self._call(peer, cancel, lambda c: c.put(segment, shard, payload))

    def all(self, work: Sequence[Callable[[], None]]) -> list[RedfsError | None]:
        """Does all of it in threads: for each the error that it ended with, or None. Returns when all have ended."""
        try:
            futures = [self._threads.submit(piece) for piece in work]
        except RuntimeError:
            raise Unavailable("the node is stopping") from None
        wait(futures)
        ends: list[RedfsError | None] = []
        for future in futures:
            error = Unavailable("the node is stopping") if future.cancelled() else future.exception()
            if error is not None and not isinstance(error, RedfsError):
                raise error
            ends.append(error)
        return ends

    # -------------------------------------------------------------------- connections

    def _call(self, peer: Peer, cancel: Cancel, request: Callable[[NodeConnection], T]) -> T:
        cancel.check()
        kept = self._take_idle(peer)
        if kept is not None:
            try:
                return self._use(kept, peer, cancel, request)
            except Unavailable:
                if kept.alive:
                    raise  # the node itself says so
        return self._use(self._open(peer), peer, cancel, request)

    def _use(self, connection: NodeConnection, peer: Peer, cancel: Cancel, request: Callable[[NodeConnection], T]) -> T:
        try:
            with cancel.closing(connection.close):
                return request(connection)
        except RedfsError:
            cancel.check()
            raise
        finally:
            self._give_back(connection, peer)

    def _open(self, peer: Peer) -> NodeConnection:
        with self._lock:
            if self._closed:
                raise _NotReached("this node is stopping")
            if self._down_until_s.get(peer.node_id, float("-inf")) > self._clock():
                raise _NotReached(f"storage node {peer.node_id} at {peer.address} could not be reached just now")
        try:
            connection = NodeConnection.open(
                peer.address, pool_id=self._pool_id(), node_id=peer.node_id, background=True
            )
        except RedfsError as error:
            with self._lock:
                self._down_until_s[peer.node_id] = self._clock() + DOWN_S
            raise _NotReached(str(error)) from error
        with self._lock:
            self._down_until_s.pop(peer.node_id, None)
        return connection

    def _take_idle(self, peer: Peer) -> NodeConnection | None:
        with self._lock:
            old = self._drop_old()
            kept = self._idle.get(peer)
            found = kept.pop().connection if kept else None
        for connection in old:
            connection.close()
        return found

    def _give_back(self, connection: NodeConnection, peer: Peer) -> None:
        with self._lock:
            kept = self._idle.setdefault(peer, [])
            total = sum(map(len, self._idle.values()))
            if (
                not self._closed
                and connection.alive
                and not connection.unanswered
                and len(kept) < MAX_IDLE_PER_NODE
                and total < MAX_IDLE
            ):
                kept.append(_Idle(connection, self._clock()))
                return
        connection.close()

    def _drop_old(self) -> list[NodeConnection]:
        """Takes out what was idle for too long, and nodes without connections. The lock is held."""
        since_s = self._clock() - IDLE_S
        old: list[NodeConnection] = []
        for peer, kept in list(self._idle.items()):
            old += [idle.connection for idle in kept if idle.since_s < since_s]
            kept[:] = [idle for idle in kept if idle.since_s >= since_s]
            if not kept:
                del self._idle[peer]
        return old
