"""One session's gRPC stream: messages in, answers out as they are ready, orders in between.

Requests are taken up in the order in which they come, so commits reach the state thread in order; quick reads are
answered on the spot, long ones by reader threads, commands when they are durable. Where too much is under way, or the
client does not take its answers, reading stops and HTTP/2 holds the client back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any, cast

import grpc.aio

from redfs.coordinator import convert
from redfs.coordinator.coordinator import Outcome
from redfs.coordinator.hold_book import WaitNeeded
from redfs.coordinator.requests import Answer, Forget, Later, Requests, is_quick, open_session
from redfs.coordinator.returning import Returning
from redfs.coordinator.sessions import RecallNeeded
from redfs.coordinator.sharing import Sharing
from redfs.coordinator.shell import Shell, as_redfs_error, cancel_and_wait, start
from redfs.core.errors import InvalidArgument, RedfsError
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.rpc_errors import failure_of

MAX_IN_FLIGHT = 1024
"""Requests of one session under way; a client is expected to stay below 256."""
MAX_LONG_READS = 8
"""Long reads of one session under way: each answer may be some MiB."""
MAX_OUTGOING_BYTES = 64 << 20
"""Answers that wait for the client to take them."""
SETTLE_LOOK_S = 0.05
"""How often a mount that came just after the start looks whether the nodes are back."""
FINISH_S = 2.0
"""What is under way when a stream ends gets this long to be answered."""

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs do not name it

log = logging.getLogger(__name__)


class SessionStream:
    """See the module. Made by the servicer for each stream."""

    def __init__(self, context: Any, shell: Shell, requests: Requests, sharing: Sharing, returning: Returning) -> None:
        self._context = context
        self._shell = shell
        self._requests = requests
        self._sharing = sharing
        self._returning = returning
        self._session_id = 0
        self._outgoing: deque[tuple[pb.SessionReply, int]] = deque()
        self._outgoing_bytes = 0
        self._in_flight = 0
        self._long_reads = 0
        self._waiting: set[asyncio.Task[None]] = set()
        """Answers that wait for other sessions: as many as requests are under way. One whose stream ends first is asked
        for again by the client."""
        self._wake_writer = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = asyncio.Event()
        self._idle = asyncio.Event()

    async def run(self) -> None:
        """Serves the stream until either side ends it."""
        request = await self._context.read()
        if request is EOF:
            return
        if not await self._open(request):
            return
        self._shell.stream_opened(self._session_id, self)
        self._sharing.stream_opened(self._session_id)
        reader = start(self._read_all(), "session reader")
        writer = start(self._write_all(), "session writer")
        ended = asyncio.create_task(self._ended.wait(), name="session end")
        try:
            done, _ = await asyncio.wait([reader, writer, ended], return_when=asyncio.FIRST_COMPLETED)
            if writer not in done:
                await self._finish(writer)
        finally:
            self._shell.stream_closed(self._session_id, self)
            await cancel_and_wait([reader, writer, ended, *self._waiting])

    async def _finish(self, writer: asyncio.Task[None]) -> None:
        """Lets what is under way be answered, within reason."""
        idle = asyncio.create_task(self._wait_idle(), name="session drain")
        try:
            await asyncio.wait([idle, writer], timeout=FINISH_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait([idle])

    async def _wait_idle(self) -> None:
        while self._in_flight:
            self._idle.clear()
            await self._idle.wait()

    async def _open(self, request: pb.SessionRequest) -> bool:
        reply = pb.SessionReply(request_id=request.request_id)
        try:
            if request.WhichOneof("body") != "open":
                raise InvalidArgument("the first message of a session must be Open")
            # A mount that wrote before the nodes are back after a restart would be told that there are too few.
            # And what it is told must be in the journal, where the nodes that keep it are coming.
            coordinator = self._shell.coordinator
            while not coordinator.cluster.is_settled() or not coordinator.journal_is_settled():
                await asyncio.sleep(SETTLE_LOOK_S)
            opened = await self._shell.run(open_session(request.open))
        except RedfsError as error:
            reply.failure.CopyFrom(failure_of(error))
            await self._context.write(reply)
            return False
        self._session_id = opened.session_id
        reply.open.CopyFrom(
            pb.OpenReply(
                protocol=convert.protocol(),
                session_id=opened.session_id,
                token=opened.token,
                lease_s=coordinator.config.lease_s,
                pool_id=coordinator.pool_id,
                last_commit=opened.last_commit,
                resumed=opened.resumed,
            )
        )
        await self._context.write(reply)
        return True

    # -- messages in

    async def _read_all(self) -> None:
        read = self._context.read
        while True:
            while (
                self._in_flight >= MAX_IN_FLIGHT
                or self._long_reads >= MAX_LONG_READS
                or self._outgoing_bytes >= MAX_OUTGOING_BYTES
            ):
                self._room.clear()
                await self._room.wait()
            request = await read()
            if request is EOF:
                return
            self._take(request)

    def _take(self, request: pb.SessionRequest) -> None:
        self._in_flight += 1
        request_id = request.request_id
        if not is_quick(request):
            self._long_reads += 1
            self._read_long(request).add_done_callback(lambda future: self._long_read_done(request, future))
            return
        try:
            result = self._requests.handle(self._session_id, request)
            if isinstance(result, Later):
                later = result
                self._shell.state.submit(later.command, lambda outcome: self._command_done(request_id, later, outcome))
                return
        except WaitNeeded as error:
            self._wait(self._look_again(request, error))
        except Exception as error:  # noqa: BLE001 - told to the client, logged where it is a bug
            self._fail(request_id, error)
        else:
            self._send(pb.SessionReply(request_id=request_id, **result))

    def _read_long(self, request: pb.SessionRequest) -> asyncio.Future[Any]:
        return self._shell.loop.run_in_executor(self._shell.readers, self._requests.handle, self._session_id, request)

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        waiting = start(work, "session wait")
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    async def _look_again(self, request: pb.SessionRequest, error: WaitNeeded) -> None:
        """Answers a read that found what another session holds."""

        async def look() -> Answer:
            if is_quick(request):
                return cast(Answer, self._requests.handle(self._session_id, request))
            return cast(Answer, await self._read_long(request))

        try:
            reply = pb.SessionReply(request_id=request.request_id, **await self._returning.run_again(error, look))
        except Exception as failure:  # noqa: BLE001 - told to the client, logged where it is a bug
            self._fail(request.request_id, failure)
        else:
            self._send(reply, reply.ByteSize())

    async def _change_again(self, request_id: int, later: Later, error: WaitNeeded) -> None:
        """Answers a command that found what another session holds."""
        try:
            value = await self._returning.run_again(error, lambda: self._shell.run(later.command))
        except Exception as failure:  # noqa: BLE001 - told to the client, logged where it is a bug
            self._fail(request_id, failure)
        else:
            self._command_done(request_id, later, Outcome(value, None))

    # -- answers out

    def _command_done(self, request_id: int, later: Later, outcome: Outcome) -> None:
        if isinstance(outcome.error, RecallNeeded):
            joining = self._sharing.attach(outcome.error.volume_id, later.command)
            joining.add_done_callback(lambda task: self._joined(request_id, later, task))
            return
        if isinstance(outcome.error, WaitNeeded):
            self._wait(self._change_again(request_id, later, outcome.error))
            return
        if outcome.error is not None:
            self._fail(request_id, outcome.error)
            return
        for session_id, order in later.tell(outcome.value):
            self._shell.tell(session_id, order)
        reply = pb.SessionReply(request_id=request_id, **later.reply(outcome.value))
        forget = later.forget(outcome.value)
        if forget is None:
            self._send(reply)
            return
        self._wait(self._send_when_forgotten(reply, forget))

    async def _send_when_forgotten(self, reply: pb.SessionReply, forget: Forget) -> None:
        await asyncio.gather(
            *[self._shell.forget(session, forget.volume_id, forget.ino) for session in sorted(forget.sessions)]
        )
        self._send(reply)

    def _joined(self, request_id: int, later: Later, joining: asyncio.Task[Any]) -> None:
        if not joining.cancelled():
            error = joining.exception()
            self._command_done(request_id, later, Outcome(None if error is not None else joining.result(), error))

    def _long_read_done(self, request: pb.SessionRequest, future: asyncio.Future[Any]) -> None:
        self._long_reads -= 1
        self._room.set()
        if future.cancelled():
            return
        error = future.exception()
        if isinstance(error, WaitNeeded):
            self._wait(self._look_again(request, error))
            return
        if error is not None:
            self._fail(request.request_id, error)
            return
        reply = pb.SessionReply(request_id=request.request_id, **future.result())
        self._send(reply, reply.ByteSize())

    def _fail(self, request_id: int, error: BaseException) -> None:
        self._send(pb.SessionReply(request_id=request_id, failure=failure_of(as_redfs_error(error))))

    def _send(self, reply: pb.SessionReply, size_bytes: int = 0) -> None:
        self._outgoing.append((reply, size_bytes))
        self._outgoing_bytes += size_bytes
        self._wake_writer.set()

    def order(self, order: pb.SessionReply) -> None:
        self._outgoing.append((order, 0))
        self._wake_writer.set()

    def order_copy(self, order: pb.Copy) -> None:
        self._outgoing.append((pb.SessionReply(copy=order), 0))
        self._wake_writer.set()

    def finish(self) -> None:
        self._ended.set()

    async def _write_all(self) -> None:
        outgoing = self._outgoing
        write = self._context.write
        while True:
            while outgoing:
                reply, size_bytes = outgoing.popleft()
                await write(reply)
                self._outgoing_bytes -= size_bytes
                if reply.request_id:
                    self._in_flight -= 1
                self._room.set()
            self._idle.set()
            self._wake_writer.clear()
            await self._wake_writer.wait()
