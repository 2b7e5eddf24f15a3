"""The coordinator session against a scripted server on loopback: matching, order, resume, lease, lapse, flush."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from redfs.client.session import CoordinatorSession, Lease, SessionConfig
from redfs.core.errors import CommitRefused, LeaseLapsed, NoSpace, NotFound, Unavailable, WrongFormat
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.gen import cluster_pb2_grpc as rpc

CONFIG = SessionConfig(open_timeout_s=5.0, reconnect_first_s=0.001, reconnect_max_s=0.001, close_timeout_s=5.0)
Script = Callable[["Stream"], Awaitable[None]]


class Stream:
    """The server's side of one stream, as a script uses it."""

    def __init__(self, requests: AsyncIterator[pb.SessionRequest], send: Callable[[pb.SessionReply], Awaitable[None]]):
        self._requests = requests
        self.send = send

    async def next(self) -> pb.SessionRequest:
        return await anext(self._requests)

    async def accept(self, *, session_id: int = 7, lease_s: float = 15.0, resumed: bool = False) -> pb.Open:
        request = await self.next()
        assert request.request_id == 1
        opened = pb.OpenReply(
            protocol=pb.ProtocolVersion(version=1),
            session_id=session_id,
            token=b"secret",
            lease_s=lease_s,
            pool_id="p",
            last_commit=3,
            resumed=resumed,
        )
        await self.send(pb.SessionReply(request_id=1, open=opened))
        return request.open

    async def fail(self, request_id: int, code: str, message: str = "text") -> None:
        failure = pb.Failure(code=code, message=message, missing_blocks=[5] if code == "commit_refused" else [])
        await self.send(pb.SessionReply(request_id=request_id, failure=failure))

    async def until_closed(self) -> None:
        """Answers everything that has an obvious answer, up to the end of the session."""
        async for request in self._requests:
            await self.answer(request)

    async def answer(self, request: pb.SessionRequest) -> None:
        reply = pb.SessionReply(request_id=request.request_id)
        body = request.WhichOneof("body")
        assert body is not None
        if body == "commit":
            reply.commit.number = request.commit.number
        elif body == "grant_inodes":
            reply.grant_inodes.first = request.grant_inodes.count
        else:
            getattr(reply, body).SetInParent()
        await self.send(reply)


class Coordinator(rpc.CoordinatorServiceServicer):
    """Plays one script for each stream, in order; the last one again and again."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.streams = 0
        self.errors: list[BaseException] = []

    async def Session(self, requests: AsyncIterator[pb.SessionRequest], context: Any) -> None:  # noqa: N802
        script = self.scripts[min(self.streams, len(self.scripts) - 1)]
        self.streams += 1
        try:
            await script(Stream(requests, context.write))
        except StopAsyncIteration:
            pass
        except AssertionError as error:
            self.errors.append(error)
            raise


@asynccontextmanager
async def serving(*scripts: Script) -> AsyncIterator[tuple[str, Coordinator]]:
    coordinator = Coordinator(*scripts)
    server = grpc.aio.server()
    rpc.add_CoordinatorServiceServicer_to_server(coordinator, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", coordinator
    finally:
        await server.stop(None)
    assert not coordinator.errors, coordinator.errors


class Time:
    """A clock that the test moves; `sleep` ends when it was moved far enough."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        wake = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now_s + seconds, wake))
        await wake

    async def asleep(self, count: int = 1) -> None:
        """Waits until that many sleeps are under way."""
        while sum(not wake.done() for _, wake in self._sleepers) < count:
            await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        for due_s, wake in self._sleepers:
            if due_s <= self.now_s and not wake.done():
                wake.set_result(None)
        self._sleepers = [(due_s, wake) for due_s, wake in self._sleepers if not wake.done()]


async def plain(stream: Stream) -> None:
    await stream.accept()
    await stream.until_closed()


async def test_calls_are_matched_by_number_whatever_the_order_of_answers() -> None:
    async def backwards(stream: Stream) -> None:
        opened = await stream.accept()
        assert opened.client_name == "host:1"
        assert opened.protocol.version == 1
        requests = [await stream.next() for _ in range(5)]
        assert [r.request_id for r in requests] == [2, 3, 4, 5, 6]
        for request in reversed(requests):
            await stream.answer(request)
        await stream.until_closed()

    async with serving(backwards) as (address, _):
        session = await CoordinatorSession.open(address, "host:1", config=CONFIG)
        assert (session.session_id, session.pool_id, session.last_commit) == (7, "p", 3)
        calls = [session.call(grant_inodes=pb.GrantInodes(count=n)) for n in range(5)]
        assert [reply.first for reply in await asyncio.gather(*calls)] == [0, 1, 2, 3, 4]
        await session.close()
        with pytest.raises(Unavailable, match="closed"):
            await session.call(list_nodes=pb.ListNodes())


async def test_failures_are_raised_as_their_classes() -> None:
    async def failing(stream: Stream) -> None:
        await stream.accept()
        await stream.fail((await stream.next()).request_id, "not_found", "no such volume")
        await stream.fail((await stream.next()).request_id, "commit_refused")
        await stream.until_closed()

    async with serving(failing) as (address, _):
        session = await CoordinatorSession.open(address, "c", config=CONFIG)
        with pytest.raises(NotFound, match="no such volume"):
            await session.call(attach=pb.Attach(name="x"))
        with pytest.raises(CommitRefused) as caught:
            await session.call(commit=pb.Commit(number=1))
        assert caught.value.missing_blocks == (5,)
        await session.close()


async def test_requests_under_way_are_bounded() -> None:
    seen = asyncio.Queue[int]()
    go_on = asyncio.Event()

    async def slow(stream: Stream) -> None:
        await stream.accept()
        held = [await stream.next() for _ in range(2)]
        seen.put_nowait(len(held))
        await go_on.wait()
        for request in held:
            await stream.answer(request)
        await stream.until_closed()

    async with serving(slow) as (address, _):
        session = await CoordinatorSession.open(address, "c", config=SessionConfig(in_flight=2))
        calls = [asyncio.create_task(session.call(stat_volume=pb.StatVolume(volume_id=n))) for n in range(5)]
        await seen.get()
        assert len(session._unanswered) == 2
        go_on.set()
        await asyncio.gather(*calls)
        await session.close()


async def test_a_broken_stream_is_resumed_and_the_unanswered_sent_again_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def breaks(stream: Stream) -> None:
        await stream.accept()
        requests = [await stream.next() for _ in range(3)]
        await stream.answer(requests[1])

    async def resumes(stream: Stream) -> None:
        opened = await stream.accept(resumed=True)
        assert (opened.session_id, opened.token) == (7, b"secret")
        again = [await stream.next() for _ in range(2)]
        assert [r.request_id for r in again] == [2, 3]
        assert [r.commit.number for r in again] == [1, 3]
        for request in again:
            await stream.answer(request)
        await stream.until_closed()

    caplog.set_level(logging.INFO, "redfs.session")
    async with serving(breaks, resumes) as (address, coordinator):
        session = await CoordinatorSession.open(address, "c", config=CONFIG)
        calls = [session.call(commit=pb.Commit(number=n)) for n in (1, 2, 3)]
        assert [reply.number for reply in await asyncio.gather(*calls)] == [1, 2, 3]
        assert coordinator.streams == 2
        await session.close()
    told = [r.getMessage() for r in caplog.records]
    assert sum("is away" in text for text in told) == 1
    assert sum("is back" in text for text in told) == 1


@pytest.mark.parametrize("error", [asyncio.InvalidStateError("RPC already finished."), OSError("broken pipe")])
async def test_a_write_that_meets_the_end_of_its_stream_only_breaks_the_stream(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answers(stream: Stream) -> None:
        await stream.accept(resumed=True)
        await stream.until_closed()

    write_all = CoordinatorSession._write_all
    failures = [error]

    async def write_or_fail(self: CoordinatorSession, stream: Any) -> None:
        while failures and not self._outgoing:
            await asyncio.sleep(0)
        if failures:
            raise failures.pop()
        await write_all(self, stream)

    monkeypatch.setattr(CoordinatorSession, "_write_all", write_or_fail)
    async with serving(answers, answers) as (address, coordinator):
        session = await CoordinatorSession.open(address, "c", config=CONFIG)
        assert (await session.call(commit=pb.Commit(number=4))).number == 4
        assert coordinator.streams == 2
        await session.close()


async def test_calls_wait_while_the_coordinator_is_away_and_give_up_in_the_end() -> None:
    time = Time()

    async def breaks(stream: Stream) -> None:
        await stream.accept()
        await stream.next()

    async def away(stream: Stream) -> None:
        await stream.next()
        await stream.fail(1, "unavailable", "starting")

    async with serving(breaks, away) as (address, coordinator):
        session = await CoordinatorSession.open(address, "c", config=CONFIG, clock=time.clock, sleep=time.sleep)
        call = asyncio.create_task(session.call(list_nodes=pb.ListNodes()))
        while coordinator.streams < 4:
            await time.asleep()
            assert not call.done()
            time.advance(1.0)
        while not call.done():
            time.advance(600.0)
            await asyncio.sleep(0.001)
        with pytest.raises(Unavailable, match="does not answer"):
            await call
        await session.close()


async def test_the_lease_is_renewed_and_serving_waits_when_it_is_not() -> None:
    time = Time()
    renewals = asyncio.Queue[pb.SessionRequest]()
    go_on = asyncio.Event()

    async def keeps(stream: Stream) -> None:
        await stream.accept(lease_s=15.0)
        request = await stream.next()
        assert request.HasField("renew")
        renewals.put_nowait(request)
        await go_on.wait()
        await stream.answer(request)
        await stream.until_closed()

    async with serving(keeps) as (address, _):
        session = await CoordinatorSession.open(address, "c", config=CONFIG, clock=time.clock, sleep=time.sleep)
        assert session.is_serving
        await session.serving()
        await time.asleep()
        time.advance(5.0)
        await renewals.get()
        assert session.is_serving
        time.now_s += 5.5
        assert not session.is_serving, "the first contact is 10.5 s old, the limit is 10"
        waiting = asyncio.create_task(session.serving())
        await asyncio.sleep(0)
        assert not waiting.done()
        go_on.set()
        await waiting
        time.now_s = 114.9
        assert session.is_serving
        time.now_s = 115.0
        assert not session.is_serving, "it counts from when the renewal was sent, not from the answer"
        await session.close()


async def test_serving_goes_on_after_a_renewal() -> None:
    time = Time()
    async with serving(plain) as (address, _):
        session = await CoordinatorSession.open(address, "c", config=CONFIG, clock=time.clock, sleep=time.sleep)
        await time.asleep()
        time.now_s += 10.5
        waiting = asyncio.create_task(session.serving())
        await asyncio.sleep(0)
        assert not waiting.done()
        time.advance(0.0)
        await waiting
        assert session.is_serving
        await session.close()


async def test_an_unanswered_renewal_breaks_the_stream() -> None:
    time = Time()

    async def deaf(stream: Stream) -> None:
        await stream.accept()
        await stream.next()
        await stream.next()
        await asyncio.Event().wait()

    async def resumes(stream: Stream) -> None:
        await stream.accept(resumed=True)
        await stream.until_closed()

    async with serving(deaf, resumes) as (address, coordinator):
        session = await CoordinatorSession.open(address, "c", config=CONFIG, clock=time.clock, sleep=time.sleep)
        call = asyncio.create_task(session.call(list_nodes=pb.ListNodes()))
        while coordinator.streams < 2:
            await asyncio.sleep(0.001)
            time.advance(5.0)
        await call
        await session.close()


async def test_after_a_lapse_everything_raises() -> None:
    lapses: list[int] = []

    async def ends(stream: Stream) -> None:
        await stream.accept()
        await stream.next()
        await stream.fail((await stream.next()).request_id, "lease_lapsed", "ended")

    async with serving(ends) as (address, coordinator):
        session = await CoordinatorSession.open(address, "c", config=CONFIG)
        session.on_lapsed = lambda: lapses.append(1)
        calls = [asyncio.create_task(session.call(commit=pb.Commit(number=n))) for n in (1, 2)]
        for call in calls:
            with pytest.raises(LeaseLapsed):
                await call
        with pytest.raises(LeaseLapsed):
            await session.call(list_nodes=pb.ListNodes())
        with pytest.raises(LeaseLapsed):
            await session.serving()
        assert not session.is_serving
        await session.close()
        assert lapses == [1]
        assert coordinator.streams == 1


@pytest.mark.parametrize("as_failure", [True, False])
async def test_a_session_that_is_not_known_any_more_has_lapsed(as_failure: bool) -> None:
    lapsed = asyncio.Event()

    async def breaks(stream: Stream) -> None:
        await stream.accept()
        await stream.next()

    async def forgot(stream: Stream) -> None:
        if as_failure:
            await stream.next()
            await stream.fail(1, "lease_lapsed", "ended")
        else:
            await stream.accept(session_id=8)

    async with serving(breaks, forgot) as (address, coordinator):
        session = await CoordinatorSession.open(address, "c", config=CONFIG)
        session.on_lapsed = lapsed.set
        with pytest.raises(LeaseLapsed):
            await session.call(commit=pb.Commit(number=1))
        await lapsed.wait()
        await session.close()
        assert coordinator.streams == 2


async def test_a_session_outlives_a_full_disk_of_the_coordinator() -> None:
    async def breaks(stream: Stream) -> None:
        await stream.accept()
        await stream.next()

    async def full(stream: Stream) -> None:
        await stream.next()
        await stream.fail(1, "no_space", "the coordinator's disk is full")

    async def resumes(stream: Stream) -> None:
        await stream.accept(resumed=True)
        await stream.until_closed()

    async with serving(breaks, full, full, resumes) as (address, coordinator):
        session = await CoordinatorSession.open(address, "c", config=CONFIG)
        assert (await session.call(commit=pb.Commit(number=1))).number == 1
        assert coordinator.streams == 4
        await session.close()
    async with serving(full) as (address, coordinator):
        with pytest.raises(NoSpace):
            await CoordinatorSession.open(address, "c", config=CONFIG)
        assert coordinator.streams == 1


async def test_a_flush_order_is_answered_when_it_is_done() -> None:
    done = asyncio.Queue[int]()

    async def orders(stream: Stream) -> None:
        await stream.accept()
        await stream.next()
        await stream.send(pb.SessionReply(flush=pb.Flush(flush_id=9, volume_id=42)))
        request = await stream.next()
        done.put_nowait(request.flush_done.flush_id)
        await stream.answer(request)
        await stream.until_closed()

    flushed: list[int] = []

    async def flush(volume_id: int) -> None:
        flushed.append(volume_id)

    async with serving(orders) as (address, _):
        session = await CoordinatorSession.open(address, "c", config=CONFIG)
        session.on_flush = flush
        first = asyncio.create_task(session.call(list_nodes=pb.ListNodes()))
        assert await done.get() == 9
        assert flushed == [42]
        first.cancel()
        await session.close()


async def test_a_hold_and_a_rebase_are_answered_when_they_are_done_and_not_where_they_fail() -> None:
    done = asyncio.Queue[pb.SessionRequest]()

    async def orders(stream: Stream) -> None:
        await stream.accept()
        await stream.next()
        await stream.send(pb.SessionReply(flush=pb.Flush(flush_id=8, volume_id=41, hold=True, hold_s=15.0)))
        await stream.send(pb.SessionReply(flush=pb.Flush(flush_id=9, volume_id=42, hold=True, hold_s=15.0)))
        await stream.send(pb.SessionReply(rebase=pb.Rebase(rebase_id=10, volume_id=42, lineage=77, root=b"r")))
        for _ in range(2):
            request = await stream.next()
            done.put_nowait(request)
            await stream.answer(request)
        await stream.until_closed()

    told: list[object] = []

    async def hold(volume_id: int, hold_s: float) -> None:
        if volume_id == 41:
            raise Unavailable("not everything is written")
        told.append((volume_id, hold_s))

    async def rebase(order: pb.Rebase) -> None:
        told.append((order.volume_id, order.lineage, order.root))

    async with serving(orders) as (address, _):
        session = await CoordinatorSession.open(address, "c", config=CONFIG)
        session.on_hold, session.on_rebase = hold, rebase
        first = asyncio.create_task(session.call(list_nodes=pb.ListNodes()))
        answers = [await done.get(), await done.get()]
        assert sorted([a.flush_done.flush_id or a.rebase_done.rebase_id for a in answers]) == [9, 10]
        assert told == [(42, 15.0), (42, 77, b"r")]
        first.cancel()
        await session.close()


async def test_the_owner_is_told_that_the_stream_is_back() -> None:
    async def breaks(stream: Stream) -> None:
        await stream.accept()
        await stream.next()

    async def goes_on(stream: Stream) -> None:
        await stream.accept(resumed=True)
        await stream.until_closed()

    resumed = asyncio.Event()

    async def asks() -> None:
        await session.call(attach=pb.Attach(volume_id=42))
        resumed.set()

    async with serving(breaks, goes_on) as (address, _):
        session = await CoordinatorSession.open(address, "c", config=CONFIG)
        session.on_resumed = asks
        await session.call(list_nodes=pb.ListNodes())
        await resumed.wait()
        await session.close()


async def test_a_deleted_volume_is_told_to_the_owner() -> None:
    async def orders(stream: Stream) -> None:
        await stream.accept()
        await stream.next()
        await stream.send(pb.SessionReply(gone=pb.Gone(volume_id=42)))
        await stream.until_closed()

    async with serving(orders) as (address, _):
        session = await CoordinatorSession.open(address, "c", config=CONFIG)
        gone: asyncio.Queue[int] = asyncio.Queue()
        session.on_gone = gone.put_nowait
        asking = asyncio.create_task(session.call(list_nodes=pb.ListNodes()))
        assert await gone.get() == 42
        asking.cancel()
        await session.close()


async def test_a_copy_order_that_comes_again_is_carried_out_once() -> None:
    order = pb.SessionReply(copy=pb.Copy(copy_id=9, volume_id=42, request=pb.CopyFiles(source="a", target="b")))
    may_end, ordered, answered = asyncio.Event(), asyncio.Event(), asyncio.Queue[pb.CopyDone]()

    async def lost(stream: Stream) -> None:
        await stream.accept()
        await stream.next()
        await stream.send(order)
        await asyncio.wait_for(ordered.wait(), 5)

    async def again(stream: Stream) -> None:
        await stream.accept(resumed=True)
        await stream.send(order)
        await stream.answer(await stream.next())
        may_end.set()
        request = await stream.next()
        answered.put_nowait(request.copy_done)
        # Lost before the answer to it arrives: both sides repeat what they do not know to be over.

    async def third(stream: Stream) -> None:
        await stream.accept(resumed=True)
        await stream.send(order)
        request = await stream.next()
        answered.put_nowait(request.copy_done)
        await stream.answer(request)
        await stream.until_closed()

    copies: list[str] = []

    async def copy(volume_id: int, request: pb.CopyFiles) -> pb.CopyFilesReply:
        copies.append(f"{volume_id} {request.source} {request.target}")
        ordered.set()
        await may_end.wait()
        return pb.CopyFilesReply(files=3)

    async with serving(lost, again, third) as (address, _):
        session = await CoordinatorSession.open(address, "c", config=CONFIG)
        session.on_copy = copy
        await session.call(list_nodes=pb.ListNodes())
        expected = pb.CopyDone(copy_id=9, reply=pb.CopyFilesReply(files=3))
        assert [await answered.get(), await answered.get()] == [expected, expected]
        await session.close()
    assert copies == ["42 a b"]


async def test_a_copy_that_fails_is_answered_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    answered = asyncio.Queue[pb.CopyDone]()

    async def orders(stream: Stream) -> None:
        await stream.accept()
        for copy_id in (1, 2, 3):
            await stream.send(pb.SessionReply(copy=pb.Copy(copy_id=copy_id, volume_id=copy_id)))
            request = await stream.next()
            answered.put_nowait(request.copy_done)
            await stream.answer(request)
        await stream.until_closed()

    async def copy(volume_id: int, request: pb.CopyFiles) -> pb.CopyFilesReply:
        if volume_id == 2:
            raise NotFound("no such file")
        raise ValueError("nobody thought of that")

    async with serving(orders) as (address, _):
        with caplog.at_level(logging.CRITICAL):
            session = await CoordinatorSession.open(address, "c", config=CONFIG)
            first = await answered.get()  # the owner has not said yet what it does with copies
            assert first == pb.CopyDone(copy_id=1, reply=pb.CopyFilesReply(unattended=True))
            session.on_copy = copy
            second, third = await answered.get(), await answered.get()
            await session.close()
    assert (second.failure.code, second.failure.message) == ("not_found", "no such file")
    assert third.failure.code == "internal"
    assert "nobody thought of that" in third.failure.message


async def test_nobody_at_the_address() -> None:
    with pytest.raises(Unavailable, match="no coordinator answers"):
        await CoordinatorSession.open("127.0.0.1:1", "c", config=SessionConfig(open_timeout_s=0.05))


async def test_something_else_at_the_address() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with pytest.raises(WrongFormat, match="no coordinator of RedFS"):
            await CoordinatorSession.open(f"127.0.0.1:{port}", "c", config=CONFIG)
    finally:
        await server.stop(None)


async def test_a_refused_open_is_raised() -> None:
    async def refuses(stream: Stream) -> None:
        await stream.next()
        await stream.fail(1, "wrong_format", "version 2 is needed")

    async with serving(refuses) as (address, _):
        with pytest.raises(WrongFormat, match="version 2"):
            await CoordinatorSession.open(address, "c", config=CONFIG)


async def test_a_coordinator_of_another_version_is_refused() -> None:
    async def newer(stream: Stream) -> None:
        await stream.next()
        opened = pb.OpenReply(protocol=pb.ProtocolVersion(version=2), session_id=1, lease_s=15.0)
        await stream.send(pb.SessionReply(request_id=1, open=opened))
        await stream.until_closed()

    async with serving(newer) as (address, _):
        with pytest.raises(WrongFormat, match="version 2"):
            await CoordinatorSession.open(address, "c", config=CONFIG)


def test_a_lease_serves_two_thirds_from_when_the_renewal_was_sent() -> None:
    lease = Lease()
    assert not lease.serving(0.0)
    lease.renewed(10.0, 15.0)
    assert lease.serving(19.9)
    assert not lease.serving(20.0)
    lease.renewed(5.0, 15.0)
    assert lease.serving(19.9), "a late answer to an older renewal takes nothing away"
    assert lease.renewal_interval_s() == 5.0


async def test_after_a_lapse_another_session_is_begun_on_the_same_object() -> None:
    reached = asyncio.Event()
    go_on = asyncio.Event()

    async def ends(stream: Stream) -> None:
        await stream.accept()
        await stream.fail((await stream.next()).request_id, "lease_lapsed", "ended")

    async def away(stream: Stream) -> None:
        opened = (await stream.next()).open
        assert (opened.session_id, opened.token) == (0, b"")
        reached.set()
        await go_on.wait()
        await stream.fail(1, "unavailable", "starting")

    async def begins(stream: Stream) -> None:
        opened = await stream.accept(session_id=8)
        assert (opened.session_id, opened.token) == (0, b"")
        request = await stream.next()
        assert request.WhichOneof("body") == "commit", "nothing of the old session, no question after a resumed stream"
        await stream.answer(request)
        await stream.until_closed()

    async def resumed() -> None:
        raise AssertionError("it was not resumed")

    async with serving(ends, away, begins) as (address, _):
        session = await CoordinatorSession.open(address, "c", config=CONFIG)
        lapsed = asyncio.Event()

        def on_lapsed() -> None:
            session.goes_on_anew()
            lapsed.set()

        session.on_lapsed = on_lapsed
        session.on_resumed = resumed
        with pytest.raises(LeaseLapsed):
            await session.call(commit=pb.Commit(number=4))
        await lapsed.wait()
        beginning = asyncio.create_task(session.begin_anew())
        waiting = asyncio.create_task(session.serving())
        await reached.wait()
        with pytest.raises(LeaseLapsed):
            await session.call(commit=pb.Commit(number=5))
        assert not session.is_serving
        assert not waiting.done()
        go_on.set()
        await beginning
        await waiting
        assert (session.session_id, session.last_commit) == (8, 3)
        assert (await session.call(commit=pb.Commit(number=1))).number == 1
        await session.close()


async def test_a_session_that_is_closed_is_not_begun_anew() -> None:
    async def ends(stream: Stream) -> None:
        await stream.accept()
        await stream.fail((await stream.next()).request_id, "lease_lapsed", "ended")

    async def silent(stream: Stream) -> None:
        await stream.next()
        await stream.next()

    async with serving(ends, silent) as (address, _):
        session = await CoordinatorSession.open(address, "c", config=CONFIG)
        lapsed = asyncio.Event()

        def on_lapsed() -> None:
            session.goes_on_anew()
            lapsed.set()

        session.on_lapsed = on_lapsed
        with pytest.raises(LeaseLapsed):
            await session.call(commit=pb.Commit(number=4))
        await lapsed.wait()
        beginning = asyncio.create_task(session.begin_anew())
        waiting = asyncio.create_task(session.serving())
        await asyncio.sleep(0)
        await session.close()
        with pytest.raises((LeaseLapsed, Unavailable)):
            await beginning
        with pytest.raises(LeaseLapsed):
            await waiting
