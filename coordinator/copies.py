"""Copies into volumes that somebody has mounted: orders to the mount's stream, and its answer to whoever asked.

Only the holder of a volume's delegation can change it, so a copy is relayed to it; in shared mode to the writing mount
with the lowest number. How long one takes depends on how
much is copied, so there is no deadline: the holder's lease is watched instead. An order is sent again on a stream that
the holder opens anew; it knows by the order's number that it has it already. Numbers are random, so that one given
after a restart of the coordinator is never taken for one from before. Everything here is memory of one event loop:
after a restart the callers of before have got an error, and the mounts' answers find nobody.

Fails with Busy (too many copies into one volume), with Unavailable where the holder ends or falls silent, and with
what the holder answers. Whether a copy of which no answer came was made is for the caller to look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from redfs.coordinator.environment import Randomness
from redfs.coordinator.leases import Leases
from redfs.core.errors import Busy, NotAllowed, Unavailable
from redfs.core.tables import VolumeKind, VolumeRow
from redfs.core.volume_tree import require_changeable
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.rpc_errors import error_of

MAX_COPIES_PER_SESSION = 16
"""Copies that one mount is asked for at a time; it works on 8 and refuses the others."""
LOOK_S = 0.5
"""How often the lease of a mount that copies is looked at."""
COPY_ID_BYTES = 8


class CopyStream(Protocol):
    """A session's stream."""

    def order_copy(self, order: pb.Copy) -> None: ...


@dataclass
class _Waiting:
    """A copy that a session is asked for."""

    session_id: int
    order: pb.Copy
    answer: asyncio.Future[pb.CopyFilesReply]
    sent: bool = False
    """It may have reached the session."""

    def send(self, stream: CopyStream) -> None:
        self.sent = True
        stream.order_copy(self.order)

    def end(self, why: str) -> None:
        """No answer will come. Where the session cannot have begun, nobody has the volume now."""
        if self.answer.done():
            return
        if self.sent:
            self.answer.set_exception(Unavailable(f"the mount of {self.order.request.target!r} {why}"))
        else:
            self.answer.set_result(pb.CopyFilesReply(unattended=True))


def require_target(row: VolumeRow, name: str) -> None:
    """Raises NotAllowed, NotFound where nothing can be copied into the node."""
    require_changeable(row, "copied into")
    if row.kind != VolumeKind.LIVE:
        raise NotAllowed(f"{name!r} is a snapshot and never changes: clone it, and copy into the clone")


class Copies:
    """See the module."""

    def __init__(self, leases: Leases, randomness: Randomness, stream_of: Callable[[int], CopyStream | None]) -> None:
        self._leases = leases
        self._randomness = randomness
        self._stream_of = stream_of
        self._waiting: dict[int, _Waiting] = {}

    async def carry_out(self, session_id: int, volume_id: int, request: pb.CopyFiles) -> pb.CopyFilesReply:
        """Has a session that can write the volume copy into it; its answer. `unattended` where it ends without having
        begun."""
        if sum(1 for waiting in self._waiting.values() if waiting.session_id == session_id) >= MAX_COPIES_PER_SESSION:
            raise Busy(
                f"{MAX_COPIES_PER_SESSION} copies into {request.target!r} are under way: wait for the end of one"
            )
        copy_id = int.from_bytes(self._randomness.token_bytes(COPY_ID_BYTES), "big")
        order = pb.Copy(copy_id=copy_id, volume_id=volume_id, request=request)
        answer: asyncio.Future[pb.CopyFilesReply] = asyncio.get_running_loop().create_future()
        waiting = self._waiting[copy_id] = _Waiting(session_id, order, answer)
        try:
            stream = self._stream_of(session_id)
            if stream is not None:
                waiting.send(stream)
            while not answer.done():
                await asyncio.wait([answer], timeout=LOOK_S)
                if not self._leases.valid(session_id):
                    waiting.end("fell silent while it copied: look what is there, and copy again where it is not whole")
            return answer.result()
        finally:
            del self._waiting[copy_id]

    def stream_opened(self, session_id: int, stream: CopyStream) -> None:
        """A session has a new stream: it is told again what it may not have heard."""
        for waiting in self._waiting.values():
            if waiting.session_id == session_id:
                waiting.send(stream)

    def done(self, session_id: int, message: pb.CopyDone) -> None:
        """A session's answer; one that nobody waits for changes nothing."""
        waiting = self._waiting.get(message.copy_id)
        if waiting is None or waiting.session_id != session_id or waiting.answer.done():
            return
        if message.HasField("failure"):
            waiting.answer.set_exception(error_of(message.failure))
        else:
            waiting.answer.set_result(message.reply)

    def session_ended(self, session_id: int) -> None:
        """A session has ended: it answers nothing any more."""
        for waiting in self._waiting.values():
            if waiting.session_id == session_id:
                waiting.end("ended while it copied: copy again")
