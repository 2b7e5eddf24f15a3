"""One client process's conversation with the coordinator: requests, replies, orders, and the lease.

A single bidirectional gRPC stream carries everything. Many requests are under way at once; replies are matched by
number. When the stream breaks, the session connects again, resumes with its id and token, and sends what was not
answered once more, in order: every request is either idempotent or numbered, so a repetition is harmless.

The lease is renewed every third of its length. It counts from when the renewal was *sent*, so this side always thinks
it shorter than the coordinator does; past two thirds `serving` waits, because another client may soon be let in.

Fails: `LeaseLapsed` from every call once the coordinator has ended the session, for good, unless the owner begins
another one on the same object (`begin_anew`). `Unavailable` for a call that waited `give_up_s` for a coordinator that
is away. Errors that the coordinator answers are raised as its classes of `core/errors.py`. What a lapse means for dirty
data is left to the owner (`on_lapsed`), as is carrying out orders (`on_flush`, `on_hold`, `on_rebase`, `on_recall`,
`on_alone`, `on_forget`, `on_moved`, `on_return_held`, `on_drop_remembered`); one that was sent while the stream was
away may be lost (`on_resumed`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import grpc
import grpc.aio

from redfs.client.config import find_pool
from redfs.core.errors import InternalError, LeaseLapsed, NoSpace, RedfsError, Unavailable, WrongFormat
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.gen import cluster_pb2_grpc
from redfs.proto.rpc import PROTOCOL_VERSION, open_channel
from redfs.proto.rpc_errors import error_of, failure_of

log = logging.getLogger("redfs.session")

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs do not name it
MAX_ORDERS = 128
"""Orders worked on at once: one or two for each volume mounted here, repetitions of them, and a Forget for each time
that is set on another host on a file that is open here: hosts have fewer calls under way."""


MAX_COPIES = 64
"""Copy orders worked on at once, those that are refused included; the coordinator keeps to 16."""


@dataclass(frozen=True)
class SessionConfig:
    """Waits and bounds of a session."""

    open_timeout_s: float = 15.0
    """For the first contact, and for each attempt to resume."""
    give_up_s: float = 600.0
    """How long a call waits for a coordinator that is away."""
    reconnect_first_s: float = 0.05
    """Pause before the second attempt; it doubles from there on."""
    reconnect_max_s: float = 1.0
    """Longest pause: a coordinator that starts again is found within it."""
    in_flight: int = 256
    """Requests not answered yet; later calls wait. Keeps the coordinator's queue, and what a resume repeats, short."""
    close_timeout_s: float = 5.0
    """For the coordinator's answer to the end of the session; without one it expires there by itself."""


class Lease:
    """When this session may serve. Plain arithmetic on the times that its owner passes in, all in seconds."""

    def __init__(self) -> None:
        self.lease_s = 0.0
        self._from_s = float("-inf")

    def renewed(self, sent_s: float, lease_s: float) -> None:
        """The renewal sent at `sent_s` was answered. An older answer never shortens the lease."""
        self.lease_s = lease_s
        self._from_s = max(self._from_s, sent_s)

    def serving(self, now_s: float) -> bool:
        """Whether less than two thirds of the lease have gone by."""
        return now_s < self._from_s + self.lease_s * 2 / 3

    def renewal_interval_s(self) -> float:
        return self.lease_s / 3


@dataclass(slots=True)
class _Pending:
    request: pb.SessionRequest
    answer: asyncio.Future[Any]
    since_s: float
    renewal: bool = False


class _StreamLost(Exception):
    """The conversation broke off; the session goes on with another stream."""


BROKEN = (
    _StreamLost,
    grpc.aio.AioRpcError,
    grpc.aio.UsageError,
    asyncio.InvalidStateError,  # a write to a call that has just ended
    TimeoutError,
    OSError,
)
"""What a stream that broke off raises, depending on what it was about when it did."""


async def _no_flush(volume_id: int) -> None:
    """The owner keeps nothing dirty."""


async def _no_hold(volume_id: int, hold_s: float) -> None:
    """The owner has only the commits that it sends: one for another lineage is refused."""


async def _nothing_shared(volume_id: int) -> None:
    """The owner shares no volume."""


async def _no_pages(volume_id: int, inodes: Sequence[int]) -> None:
    """The owner shows nothing to a kernel."""


async def _no_rebase(order: pb.Rebase) -> None:
    """The owner remembers nothing of its volumes."""


async def _nothing_held(volume_id: int, inodes: Sequence[int]) -> None:
    """The owner holds no files."""


async def _not_concerned() -> None:
    """The owner minds no lost orders."""


async def _no_copies(volume_id: int, request: pb.CopyFiles) -> pb.CopyFilesReply:
    """The owner has no volume that it could copy into."""
    return pb.CopyFilesReply(unattended=True)


class CoordinatorSession:
    """See the module. Belongs to one event loop; made by `open`, ended by `close`."""

    def __init__(
        self,
        address: str,
        client_name: str,
        *,
        config: SessionConfig,
        connect: Callable[[str], grpc.aio.Channel],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.address = address
        self.session_id = 0
        self.pool_id = ""
        self.last_commit = 0
        """Number of the last commit that the coordinator had applied when the stream was opened."""
        self.on_flush: Callable[[int], Awaitable[None]] = _no_flush
        self.on_hold: Callable[[int, float], Awaitable[None]] = _no_hold
        """Called with a volume's id and seconds: like `on_flush`, and let nothing begin until a Rebase or the end of
        that time."""
        self.on_rebase: Callable[[pb.Rebase], Awaitable[None]] = _no_rebase
        """Called when a volume goes on as another lineage; returns when nothing of the old one is shown."""
        self.on_recall: Callable[[int], Awaitable[None]] = _nothing_shared
        """Called with a volume's id when another host wants to share it; returns when the volume was given back and
        nothing is remembered of it."""
        self.on_alone: Callable[[int], Awaitable[None]] = _nothing_shared
        """Called with a volume's id when no other host shares it any more."""
        self.on_forget: Callable[[int, Sequence[int]], Awaitable[None]] = _no_pages
        """Called with a volume's id and inodes; returns when the kernel has no pages of them."""
        self.on_moved: Callable[[pb.Moved], None] = lambda _: None
        """Called when another host has moved a folder."""
        self.on_drop_remembered: Callable[[int, Sequence[int]], None] = lambda volume_id, inodes: None
        """Called when another host is about to change inodes of a volume: nothing may be shown of them any more."""
        self.on_return_held: Callable[[int, Sequence[int]], Awaitable[None]] = _nothing_held
        """Called with a volume's id and inodes that another host asks about; returns when they are let go."""
        self.on_resumed: Callable[[], Awaitable[None]] = _not_concerned
        """Called when the stream is back after it broke."""
        self.on_lapsed: Callable[[], None] = lambda: None
        self.on_gone: Callable[[int], None] = lambda _: None
        """Called with a volume's id when the coordinator says that it was deleted."""
        self.on_copy: Callable[[int, pb.CopyFiles], Awaitable[pb.CopyFilesReply]] = _no_copies
        """Copies files into the volume of that id for somebody else."""
        self._client_name = client_name
        self._config = config
        self._connect = connect
        self._clock = clock
        self._sleep = sleep
        self._token = b""
        self._lease = Lease()
        self._lease_news = asyncio.Event()
        self._slots = asyncio.Semaphore(config.in_flight)
        self._unanswered: dict[int, _Pending] = {}
        self._next_id = 1
        self._outgoing: deque[pb.SessionRequest] = deque()
        self._wake_writer = asyncio.Event()
        self._connected = False
        self._dead: RedfsError | None = None
        """Why everything fails, from the end of the session until another one is opened."""
        self._anew = False
        """Another session is going to follow the one that ended."""
        self._closing = False
        self._opening = False
        """It has ended, and streams are tried for another session."""
        self._first_reply: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._orders: set[asyncio.Task[None]] = set()
        self._copies: dict[int, asyncio.Task[None]] = {}
        """Copy orders that are under way or not answered yet, by their id."""
        self._runner: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        pool: str,
        client_name: str,
        *,
        config: SessionConfig | None = None,
        connect: Callable[[str], grpc.aio.Channel] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> Self:
        """A new session with the pool's coordinator (HOST:PORT or a folder of `redfs up`).

        Raises Unavailable where none answers within `open_timeout_s`, WrongFormat for one of another version.
        """
        config = config or SessionConfig()
        session = cls(
            find_pool(pool).address,
            client_name,
            config=config,
            connect=connect or open_channel,
            clock=clock,
            sleep=sleep,
        )
        session._runner = asyncio.create_task(session._run(), name="coordinator session")
        try:
            async with asyncio.timeout(config.open_timeout_s):
                await asyncio.shield(session._first_reply)
        except TimeoutError:
            await session._stop(Unavailable("the session was never opened"))
            raise Unavailable(
                f"no coordinator answers at {session.address}: is the pool running? (`redfs up`, or check the address)"
            ) from None
        except BaseException:
            await session._stop(Unavailable("the session was never opened"))
            raise
        return session

    # ------------------------------------------------------------ what owners call

    async def call(self, **body: Any) -> Any:
        """Sends one request, e.g. `call(get_rows=pb.GetRows(...))`, and returns its reply message.

        Waits through an absence of the coordinator. Raises what the coordinator answers, LeaseLapsed, Unavailable.
        A cancelled call may still be carried out.
        """
        if self._dead is not None:
            raise self._dead
        request = pb.SessionRequest(**body)
        await self._slots.acquire()
        if self._dead is not None:
            self._slots.release()
            raise self._dead
        return await self._enqueue(request).answer

    @property
    def lease_s(self) -> float:
        """How long the coordinator waits for a sign of life; 0 before the session began."""
        return self._lease.lease_s

    @property
    def is_serving(self) -> bool:
        """Whether the lease is younger than two thirds: what is cached may be answered."""
        return self._dead is None and self._lease.serving(self._clock())

    async def serving(self) -> None:
        """Returns at once while `is_serving`, else waits for the renewal.

        After the end it waits for the session that follows, if one is going to, else raises LeaseLapsed.
        """
        while not self.is_serving:
            if self._dead is not None and (self._closing or not self._anew):
                raise self._dead
            self._lease_news.clear()
            await self._lease_news.wait()

    def goes_on_anew(self) -> None:
        """To be called from `on_lapsed` by an owner that is going to `begin_anew`: `serving` waits for that."""
        self._anew = True

    def ends_for_good(self) -> None:
        """The owner is not going to begin anew after all: `serving` raises again."""
        self._anew = False
        self._lease_news.set()

    async def begin_anew(self) -> None:
        """After the session has ended: opens another one on this object, with another id, and commits from 1 on.

        Returns when it is open, at once where one is; waits for a coordinator that is away. Until then calls fail as
        before. Nothing may be under way that was begun under the old one: volumes and segments of that are unknown in
        this one, and asking for them ends it. Raises what the coordinator refuses with, and Unavailable after `close`;
        then it can be repeated.
        """
        if self._dead is None:
            return
        if self._runner is not None:
            await asyncio.wait([self._runner])
        await asyncio.gather(*self._orders, *self._copies.values(), return_exceptions=True)
        if self._closing:
            raise Unavailable("the session with the coordinator is closed")
        self.session_id, self._token, self.last_commit = 0, b"", 0
        self._lease = Lease()
        self._first_reply = asyncio.get_running_loop().create_future()
        self._opening = True
        self._runner = asyncio.create_task(self._run(), name="coordinator session")
        await asyncio.shield(self._first_reply)

    async def close(self) -> None:
        """Ends the session at the coordinator and here. Never raises; calls after it raise Unavailable."""
        if self._dead is None and self._connected and not self._closing:
            self._closing = True
            with contextlib.suppress(RedfsError, TimeoutError):
                async with asyncio.timeout(self._config.close_timeout_s):
                    await self.call(close=pb.Close())
        self._closing = True
        await self._stop(Unavailable("the session with the coordinator is closed"))

    # ------------------------------------------------------------ sending

    def _enqueue(self, request: pb.SessionRequest, *, renewal: bool = False) -> _Pending:
        request.request_id = self._next_id
        pending = _Pending(request, asyncio.get_running_loop().create_future(), self._clock(), renewal)
        self._unanswered[self._next_id] = pending
        self._next_id += 1
        if self._connected:
            self._outgoing.append(request)
            self._wake_writer.set()
        return pending

    def _settle(self, pending: _Pending, result: Any = None, error: RedfsError | None = None) -> None:
        if not pending.renewal:
            self._slots.release()
        if pending.answer.done():
            return
        if error is not None:
            pending.answer.set_exception(error)
            if pending.renewal:
                pending.answer.exception()  # nobody else may be looking at it any more
        else:
            pending.answer.set_result(result)

    def _fail_unanswered(self, error: RedfsError, older_than_s: float = float("inf")) -> None:
        for number in [n for n, p in self._unanswered.items() if p.since_s <= older_than_s]:
            self._settle(self._unanswered.pop(number), error=error)

    async def _write_all(self, stream: Any) -> None:
        while True:
            while self._outgoing:
                await stream.write(self._outgoing.popleft())
            self._wake_writer.clear()
            await self._wake_writer.wait()

    # ------------------------------------------------------------ the stream's life

    async def _run(self) -> None:
        """Keeps one stream open until the session ends."""
        pause_s = 0.0
        lost_at_s: float | None = None
        while self._dead is None or self._opening:
            if pause_s:
                await self._sleep(pause_s)
            try:
                await self._converse(lost_at_s is not None)
            except BROKEN as error:
                if self._refuses(error):
                    return
                reached = self._connected
                self._connected = False
                if reached or lost_at_s is None:
                    lost_at_s, pause_s = self._clock(), 0.0
                    if self._first_reply.done():
                        log.warning("the coordinator at %s is away (%s): waiting for it", self.address, _short(error))
                away = Unavailable(f"the coordinator at {self.address} does not answer: is it running?")
                self._fail_unanswered(away, self._clock() - self._config.give_up_s)
                pause_s = min(max(self._config.reconnect_first_s, 2 * pause_s), self._config.reconnect_max_s)
            except RedfsError as error:
                self._end(error)
            except Exception as error:
                log.exception("the session with the coordinator failed")
                self._end(InternalError(f"the session failed ({error!r}): please report this with the log"))

    def _end(self, error: RedfsError) -> None:
        """The session ends by something that no other stream would mend."""
        if not self._first_reply.done():
            self._opening = False
            self._first_reply.set_exception(error)
        self._lapse(error)

    def _refuses(self, error: BaseException) -> bool:
        """True where trying again is useless: something else than a coordinator answers."""
        if not isinstance(error, grpc.aio.AioRpcError) or error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            return False
        wrong = WrongFormat(f"what answers at {self.address} is no coordinator of RedFS: check the address")
        self._end(wrong)
        return True

    async def _converse(self, again: bool) -> None:
        """One stream from Open to its end; always ends by an exception."""
        channel = self._connect(self.address)
        helpers: list[asyncio.Task[None]] = []
        stream: Any = None
        try:
            stream = cluster_pb2_grpc.CoordinatorServiceStub(channel).Session()
            async with asyncio.timeout(self._config.open_timeout_s):
                await self._greet(stream)
            if self._opening:
                self._opening, self._dead, again = False, None, False
                self._lease_news.set()
            if again:
                log.info("the coordinator at %s is back", self.address)
            self._repeat_unanswered()
            if again:
                self._work_on(self.on_resumed)
            for work in (self._write_all(stream), self._keep_lease(), self._read_all(stream)):
                helpers.append(asyncio.create_task(work))
            if not self._first_reply.done():
                self._first_reply.set_result(None)
            done, _ = await asyncio.wait(helpers, return_when=asyncio.FIRST_COMPLETED)
            for helper in done:
                helper.result()
            raise _StreamLost("the stream ended")
        finally:
            self._outgoing.clear()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            if stream is not None:
                stream.cancel()
            await channel.close(None)

    async def _greet(self, stream: Any) -> None:
        sent_s = self._clock()
        hello = pb.Open(
            protocol=pb.ProtocolVersion(version=PROTOCOL_VERSION),
            client_name=self._client_name,
            session_id=self.session_id,
            token=self._token,
        )
        await stream.write(pb.SessionRequest(request_id=1, open=hello))
        reply = await stream.read()
        if reply is EOF:
            raise _StreamLost("the coordinator hung up")
        if reply.HasField("failure"):
            error = error_of(reply.failure)
            # A session that there is outlives a full disk of the coordinator; a new one is refused at once.
            if isinstance(error, (Unavailable, NoSpace) if self.session_id else Unavailable):
                raise _StreamLost(str(error))
            raise error
        if not reply.HasField("open"):
            raise _StreamLost("not an answer to Open")
        opened = reply.open
        if opened.protocol.version != PROTOCOL_VERSION or opened.protocol.incompatible_features:
            raise WrongFormat(
                f"the coordinator at {self.address} speaks version {opened.protocol.version} or needs what this "
                f"program (version {PROTOCOL_VERSION}) does not know: upgrade the older one"
            )
        if self.session_id and not (opened.resumed and opened.session_id == self.session_id):
            raise LeaseLapsed("the coordinator ended this session while it was away: mount the volume again")
        self.session_id, self._token, self.pool_id = opened.session_id, opened.token, opened.pool_id
        self.last_commit = opened.last_commit
        self._renewed(sent_s, opened.lease_s)

    def _repeat_unanswered(self) -> None:
        """Numbers what is left from the stream before anew (1 was Open) and sends it again, in order."""
        left = [p for p in self._unanswered.values() if not p.renewal]
        self._unanswered = {}
        self._next_id = 2
        self._outgoing.clear()
        self._connected = True
        for pending in left:
            pending.request.request_id = self._next_id
            self._unanswered[self._next_id] = pending
            self._outgoing.append(pending.request)
            self._next_id += 1
        self._wake_writer.set()

    async def _read_all(self, stream: Any) -> None:
        while True:
            reply = await stream.read()
            if reply is EOF:
                raise _StreamLost("the coordinator hung up")
            if reply.request_id == 0:
                self._order(reply)
                continue
            pending = self._unanswered.pop(reply.request_id, None)
            if pending is None:
                continue
            body = reply.WhichOneof("body")
            if body == "failure":
                error = error_of(reply.failure)
                self._settle(pending, error=error)
                if isinstance(error, LeaseLapsed):
                    raise error
            elif body is None:
                self._settle(pending, error=InternalError("the coordinator answered with nothing: is it newer?"))
            else:
                self._settle(pending, result=getattr(reply, body))

    def _order(self, reply: pb.SessionReply) -> None:
        match reply.WhichOneof("body"):
            case "gone":
                self.on_gone(reply.gone.volume_id)
            case "flush":
                self._work_on(partial(self._flush, reply.flush))
            case "rebase":
                self._work_on(partial(self._rebase, reply.rebase))
            case "recall":
                self._work_on(partial(self._recall, reply.recall))
            case "alone":
                self._work_on(partial(self.on_alone, reply.alone.volume_id))
            case "forget":
                self._work_on(partial(self._forget, reply.forget))
            case "moved":
                self.on_moved(reply.moved)
            case "drop_remembered":
                self._work_on(partial(self._drop_remembered, reply.drop_remembered))
            case "return_held":
                self._work_on(partial(self._return_held, reply.return_held))
            case "copy":
                self._begin_copy(reply.copy)
            case _:
                log.info("an order of the coordinator that this client does not know was left out")

    def _work_on(self, work: Callable[[], Awaitable[None]]) -> None:
        """Carries out an order beside everything else. One that fails is not confirmed, so the coordinator knows."""

        async def carry_out() -> None:
            try:
                await work()
            except (RedfsError, OSError) as error:
                log.warning("an order of the coordinator was not carried out: %s", error)

        if len(self._orders) >= MAX_ORDERS:
            log.warning("more than %d orders at once: one was left to its deadline", MAX_ORDERS)
            return
        task = asyncio.create_task(carry_out())
        self._orders.add(task)
        task.add_done_callback(self._orders.discard)

    async def _flush(self, order: pb.Flush) -> None:
        if order.hold:
            await self.on_hold(order.volume_id, order.hold_s)
        else:
            await self.on_flush(order.volume_id)
        await self.call(flush_done=pb.FlushDone(flush_id=order.flush_id))

    async def _rebase(self, order: pb.Rebase) -> None:
        await self.on_rebase(order)
        await self.call(rebase_done=pb.RebaseDone(rebase_id=order.rebase_id))

    async def _recall(self, order: pb.Recall) -> None:
        await self.on_recall(order.volume_id)
        await self.call(recall_done=pb.RecallDone(recall_id=order.recall_id))

    async def _forget(self, order: pb.Forget) -> None:
        await self.on_forget(order.volume_id, order.inodes)
        await self.call(forget_done=pb.ForgetDone(forget_id=order.forget_id))

    async def _drop_remembered(self, order: pb.DropRemembered) -> None:
        self.on_drop_remembered(order.volume_id, order.inodes)
        await self.call(drop_remembered_done=pb.DropRememberedDone(drop_id=order.drop_id))

    async def _return_held(self, order: pb.ReturnHeld) -> None:
        await self.on_return_held(order.volume_id, order.inodes)
        await self.call(return_held_done=pb.ReturnHeldDone(return_id=order.return_id))

    def _begin_copy(self, order: pb.Copy) -> None:
        """Begins to carry out a Copy order. One that came again after a lost stream is under way already: its answer,
        if there is one, is repeated with the other requests."""
        if order.copy_id in self._copies:
            return
        if len(self._copies) >= MAX_COPIES:
            log.warning("more than %d copies at once: one was left out", MAX_COPIES)
            return
        task = self._copies[order.copy_id] = asyncio.create_task(self._copy(order))
        task.add_done_callback(lambda _: self._copies.pop(order.copy_id, None))

    async def _copy(self, order: pb.Copy) -> None:
        done = pb.CopyDone(copy_id=order.copy_id)
        try:
            done.reply.CopyFrom(await self.on_copy(order.volume_id, order.request))
        except RedfsError as error:
            log.warning("a copy to %s failed: %s", order.request.target, error)
            done.failure.CopyFrom(failure_of(error))
        except Exception as error:
            log.exception("a copy to %s broke off", order.request.target)
            broken = InternalError(f"the mount broke off copying ({error!r}): its log says where")
            done.failure.CopyFrom(failure_of(broken))
        try:
            await self.call(copy_done=done)
        except RedfsError as error:
            log.warning("the coordinator was not told how a copy ended: %s", error)

    # ------------------------------------------------------------ the lease

    async def _keep_lease(self) -> None:
        while True:
            await self._sleep(self._lease.renewal_interval_s())
            pending = self._enqueue(pb.SessionRequest(renew=pb.Renew()), renewal=True)
            patience = asyncio.ensure_future(self._sleep(self._lease.renewal_interval_s()))
            try:
                await asyncio.wait([pending.answer, patience], return_when=asyncio.FIRST_COMPLETED)
            finally:
                patience.cancel()
            if not pending.answer.done():
                raise _StreamLost("no answer to a renewal of the lease")
            pending.answer.result()
            self._renewed(pending.since_s, self._lease.lease_s)

    def _renewed(self, sent_s: float, lease_s: float) -> None:
        self._lease.renewed(sent_s, lease_s)
        self._lease_news.set()

    def _lapse(self, error: RedfsError) -> None:
        """The session has ended: everything raises `error` from now on, and its orders are void."""
        if self._dead is not None:
            return
        self._connected = False
        self._dead = error
        self._fail_unanswered(error)
        self._lease_news.set()
        for task in (*self._orders, *self._copies.values()):
            task.cancel()
        if self._first_reply.done() and self._first_reply.exception() is None:
            self.on_lapsed()

    async def _stop(self, error: RedfsError) -> None:
        self._dead = self._dead or error
        self._opening = False
        tasks = [*self._orders, *self._copies.values(), *([self._runner] if self._runner is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not self._first_reply.done():
            self._first_reply.set_exception(self._dead)
        if not self._first_reply.cancelled():
            self._first_reply.exception()
        self._connected = False
        self._fail_unanswered(self._dead)
        self._lease_news.set()


def _short(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name.lower()}: {error.details()}"
    return str(error) or type(error).__name__
