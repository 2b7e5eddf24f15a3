"""The storage nodes as the coordinator's journal sees them: links for lists, calls for checkpoints and records of sets.

`Link` and `Peers` are the interface; `NetworkPeers` reaches nodes over the data plane (see `proto/journal_plane.py` for
why not over their streams). A link never blocks once it is open: what the network does not take waits in it, and the
caller polls. Whatever goes wrong on a link is its end: `failure` says why, and the node is asked again by a new one.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Protocol

from redfs.core.errors import Fenced, RedfsError, Unavailable, WrongFormat
from redfs.core.journal import CheckpointEnd, JournalSet, Point, pack_points
from redfs.proto import frames, journal_plane
from redfs.proto.data_plane import NodeConnection
from redfs.proto.journal_plane import Standing, append_parts, one_point

RECORD_THREADS = 32
"""Nodes that a record of a set is sent to at once: a few that do not answer must not hold up the others."""
RECEIVE_BYTES = 64 << 10


class Link(Protocol):
    """One node's journal, opened for writing. One thread at a time."""

    node_id: int
    standing: Standing
    acked: Point | None
    """The lists up to here are durable there; None: not known yet."""
    failure: RedfsError | None
    behind_bytes: int
    """What was sent and is not acknowledged."""

    def reset(self, point: Point) -> None:
        """Has the node begin anew behind a point."""
        ...

    def append(self, before: Point, frame: bytes) -> None:
        """Sends a frame."""
        ...

    def pump(self) -> None:
        """Moves what can be moved without waiting."""
        ...

    def fileno(self) -> int:
        """To poll; -1 where every answer is there at once."""
        ...

    @property
    def wants_write(self) -> bool: ...

    def close(self) -> None: ...


class CheckpointTarget(Protocol):
    """A node that gets a checkpoint. Blocking; raises errors of the family."""

    node_id: int

    def begin(self, term: int, point: Point) -> None: ...

    def piece(self, term: int, piece: bytes) -> None: ...

    def end(self, term: int, end: CheckpointEnd) -> None: ...

    def drop(self, term: int, before: int) -> None: ...

    def close(self) -> None: ...


class Peers(Protocol):
    """All storage nodes."""

    def open_link(self, node_id: int, term: int, points: Sequence[Point]) -> Link:
        """Blocking. Raises Unavailable, Fenced, WrongFormat."""
        ...

    def note_set(
        self, record: JournalSet, nodes: Collection[int], enough: Callable[[Collection[int]], bool]
    ) -> set[int]:
        """Has nodes remember a record durably, until enough of them have or the time is over; those that have.
        Raises Fenced."""
        ...

    def open_target(self, node_id: int) -> CheckpointTarget:
        """Blocking. Raises Unavailable, WrongFormat."""
        ...


class NetworkLink:
    """A `Link` over one data-plane connection."""

    def __init__(self, node_id: int, sock: socket.socket, standing: Standing) -> None:
        self.node_id = node_id
        self.standing = standing
        self.acked = standing.match
        self.failure: RedfsError | None = None
        self.behind_bytes = 0
        self._sock = sock
        self._out: deque[memoryview] = deque()
        self._unanswered: deque[int] = deque()
        self._in = bytearray()

    def reset(self, point: Point) -> None:
        self.acked = None
        self._queue([({"op": "jreset", "to": pack_points([point])}, memoryview(b""))], 0)

    def append(self, before: Point, frame: bytes) -> None:
        self._queue(append_parts(before, frame), len(frame))

    def _queue(self, requests: object, size: int) -> None:
        for header, payload in requests:  # type: ignore[attr-defined]  # pairs of a header and a view
            self._out.append(memoryview(frames.encode_head(header, len(payload))))
            if payload:
                self._out.append(payload)
        self._unanswered.append(size)
        self.behind_bytes += size
        self.pump()

    def pump(self) -> None:
        if self.failure is not None:
            return
        try:
            self._send()
            self._receive()
        except (OSError, RedfsError) as error:
            self.failure = error if isinstance(error, RedfsError) else Unavailable(f"the connection broke: {error}")

    def _send(self) -> None:
        with suppress(BlockingIOError):
            while self._out:
                some = [self._out[at] for at in range(min(len(self._out), 16))]
                sent = self._sock.sendmsg(some, (), socket.MSG_DONTWAIT)
                while self._out and sent >= len(self._out[0]):
                    sent -= len(self._out.popleft())
                if sent:
                    self._out[0] = self._out[0][sent:]

    def _receive(self) -> None:
        with suppress(BlockingIOError):
            while True:
                data = self._sock.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
                if not data:
                    raise Unavailable("the node closed the connection")
                self._in += data
        size = frames.PREFIX.size
        while len(self._in) >= size:
            header_bytes, checksum, payload_bytes = frames.parse_prefix(self._in[:size])
            if len(self._in) < size + header_bytes:
                return
            header = frames.parse_header(bytes(self._in[size : size + header_bytes]), checksum)
            del self._in[: size + header_bytes]
            frames.raise_error(header)
            if payload_bytes or not self._unanswered:
                raise WrongFormat("the node answered what was not asked")
            self.behind_bytes -= self._unanswered.popleft()
            if "at" in header:
                self.acked = one_point(header["at"])

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._out)

    def close(self) -> None:
        self._sock.close()
        self.failure = self.failure or Unavailable("closed")


class NetworkTarget:
    """A `CheckpointTarget` over a data-plane connection."""

    def __init__(self, node_id: int, connection: NodeConnection) -> None:
        self.node_id = node_id
        self._connection = connection

    def begin(self, term: int, point: Point) -> None:
        journal_plane.begin_checkpoint(self._connection, term, point)

    def piece(self, term: int, piece: bytes) -> None:
        journal_plane.send_piece(self._connection, term, piece)

    def end(self, term: int, end: CheckpointEnd) -> None:
        journal_plane.end_checkpoint(self._connection, term, end)

    def drop(self, term: int, before: int) -> None:
        journal_plane.drop(self._connection, term, before)

    def close(self) -> None:
        self._connection.close()


class NetworkPeers:
    """The nodes at their addresses."""

    def __init__(self, pool_id: str, address_of: Callable[[int], str | None], wait_s: float) -> None:
        """`wait_s` bounds every connection's making, and every record of a set."""
        self._pool_id = pool_id
        self._address_of = address_of
        self._wait_s = wait_s
        self._threads = ThreadPoolExecutor(RECORD_THREADS, thread_name_prefix="journal record")

    def _connect(self, node_id: int, io_timeout_s: float) -> NodeConnection:
        address = self._address_of(node_id)
        if address is None:
            raise Unavailable(f"node {node_id} has no address")
        return NodeConnection.open(
            address,
            pool_id=self._pool_id,
            node_id=node_id,
            connect_timeout_s=self._wait_s,
            io_timeout_s=io_timeout_s,
        )

    def open_link(self, node_id: int, term: int, points: Sequence[Point]) -> NetworkLink:
        connection = self._connect(node_id, self._wait_s)
        try:
            standing = journal_plane.open_writer(connection, term, points)
        except RedfsError:
            connection.close()
            raise
        return NetworkLink(node_id, connection.detach(), standing)

    def note_set(
        self, record: JournalSet, nodes: Collection[int], enough: Callable[[Collection[int]], bool]
    ) -> set[int]:
        asked = {self._threads.submit(self._note, node_id, record): node_id for node_id in nodes}
        answered: set[int] = set()
        left = set(asked)
        until_s = time.monotonic() + self._wait_s
        while left:
            done, left = wait(left, max(0.0, until_s - time.monotonic()), FIRST_COMPLETED)
            if not done:
                break
            for future in done:
                error = future.exception()
                if isinstance(error, Fenced):
                    raise error
                if error is None:
                    answered.add(asked[future])
            if enough(answered):
                break
        return answered

    def _note(self, node_id: int, record: JournalSet) -> None:
        with self._connect(node_id, self._wait_s) as connection:
            journal_plane.note_set(connection, record)

    def open_target(self, node_id: int) -> NetworkTarget:
        return NetworkTarget(node_id, self._connect(node_id, frames.IO_TIMEOUT_S))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
