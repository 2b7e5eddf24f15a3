"""Copies relayed to the mount that has the target: orders, answers, lost streams, and mounts that end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redfs.coordinator import copies as module
from redfs.coordinator.copies import Copies
from redfs.coordinator.leases import Leases
from redfs.core.errors import AlreadyExists, Busy, NotAllowed, NotFound, Unavailable
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.rpc_errors import failure_of
from tests.coordinator.harness import Clock, SeededRandomness
from tests.coordinator.test_service import WAIT_S, Stream, World, commit, error_of, until, world

HOLDER, OTHER = 5, 6
LEASE_S = 10.0


class Orders:
    """A stream that remembers what it was told."""

    def __init__(self) -> None:
        self.orders: list[pb.Copy] = []

    def order_copy(self, order: pb.Copy) -> None:
        self.orders.append(order)


class Relay:
    def __init__(self) -> None:
        self.clock = Clock()
        self.leases = Leases(self.clock, LEASE_S)
        self.streams: dict[int, Orders] = {HOLDER: Orders(), OTHER: Orders()}
        for session in self.streams:
            self.leases.start(session)
        self.copies = Copies(self.leases, SeededRandomness(), self.streams.get)

    def ask(self, session: int = HOLDER) -> asyncio.Future[pb.CopyFilesReply]:
        return asyncio.ensure_future(self.copies.carry_out(session, 7, pb.CopyFiles(source="a@s", target="b")))

    async def ordered(self, count: int = 1, session: int = HOLDER) -> list[pb.Copy]:
        await settled(lambda: len(self.streams[session].orders) >= count)
        assert len(self.streams[session].orders) == count
        return self.streams[session].orders


async def settled(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0)


def answer(order: pb.Copy, files: int) -> pb.CopyDone:
    return pb.CopyDone(copy_id=order.copy_id, reply=pb.CopyFilesReply(files=files))


async def test_each_answer_goes_to_who_asked() -> None:
    relay = Relay()
    asked = [relay.ask(), relay.ask(), relay.ask(OTHER)]
    first, second = await relay.ordered(2)
    (other,) = await relay.ordered(1, OTHER)
    assert (first.volume_id, first.request.source) == (7, "a@s")
    assert len({first.copy_id, second.copy_id, other.copy_id}) == 3
    relay.copies.done(HOLDER, answer(second, 2))
    relay.copies.done(HOLDER, answer(second, 9))
    relay.copies.done(HOLDER, answer(other, 9))
    relay.copies.done(HOLDER, pb.CopyDone(copy_id=first.copy_id, failure=failure_of(AlreadyExists("taken"))))
    relay.copies.done(OTHER, answer(other, 3))
    with pytest.raises(AlreadyExists, match="taken"):
        await asked[0]
    assert [(await asked[1]).files, (await asked[2]).files] == [2, 3]
    relay.copies.done(HOLDER, answer(first, 9))


async def test_a_new_stream_gets_what_is_not_answered_again() -> None:
    relay = Relay()
    del relay.streams[HOLDER]
    asked = relay.ask()
    await asyncio.sleep(0)
    again = relay.streams[HOLDER] = Orders()
    relay.copies.stream_opened(HOLDER, again)
    relay.copies.stream_opened(OTHER, relay.streams[OTHER])
    (order,) = await relay.ordered()
    third = Orders()
    relay.copies.stream_opened(HOLDER, third)
    assert third.orders == [order], "under its number, so that it is not carried out twice"
    relay.copies.done(HOLDER, answer(order, 1))
    assert (await asked).files == 1
    relay.copies.stream_opened(HOLDER, third)
    assert third.orders == [order]
    assert not relay.streams[OTHER].orders


async def test_the_end_of_the_mount_is_told() -> None:
    relay = Relay()
    asked, other = relay.ask(), relay.ask(OTHER)
    await relay.ordered()
    relay.copies.session_ended(HOLDER)
    with pytest.raises(Unavailable, match="ended while it copied"):
        await asked
    (order,) = await relay.ordered(1, OTHER)
    relay.copies.done(OTHER, answer(order, 1))
    await other


async def test_a_copy_waits_as_long_as_the_mount_renews_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    relay = Relay()
    asked = relay.ask()
    for _ in range(20):
        relay.clock.now_s += LEASE_S * 0.9
        assert relay.leases.renew(HOLDER)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not asked.done()
    relay.clock.now_s += LEASE_S * 1.1
    with pytest.raises(Unavailable, match="fell silent"):
        await asked


async def test_a_mount_that_never_heard_of_the_copy_counts_as_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    relay = Relay()
    relay.streams.clear()
    asked, other = relay.ask(), relay.ask(OTHER)
    await asyncio.sleep(0)
    relay.copies.session_ended(OTHER)
    assert (await other).unattended
    assert not asked.done()
    relay.clock.now_s += LEASE_S * 1.1
    assert (await asked).unattended


async def test_one_mount_is_asked_for_so_many_copies_at_once() -> None:
    relay = Relay()
    many = [relay.ask() for _ in range(module.MAX_COPIES_PER_SESSION)]
    await relay.ordered(len(many))
    with pytest.raises(Busy):
        await relay.ask()
    relay.ask(OTHER)
    await relay.ordered(1, OTHER)
    many[0].cancel()
    await asyncio.gather(many[0], return_exceptions=True)
    relay.ask()
    await relay.ordered(len(many) + 1)


# ---------------------------------------------------------------- over the wire


async def holding(w: World, name: str) -> tuple[Stream, int]:
    stream = await w.session()
    return stream, (await stream.call(attach=pb.Attach(name=name))).volume.volume_id


async def order_of(stream: Stream) -> Any:
    return await asyncio.wait_for(stream.orders.get(), WAIT_S)


def copying(w: World, source: str, target: str) -> asyncio.Future[Any]:
    request = pb.CopyFiles(source=source, source_path=b"/", target=target, target_path=b"/")
    call: asyncio.Future[Any] = asyncio.ensure_future(w.stub.CopyBetween(request))
    return call


async def test_nobody_has_the_target(tmp_path: Path) -> None:
    async with world(tmp_path, lease_s=0.4) as w:
        for name in ("a", "b"):
            await w.stub.CreateVolume(pb.VolumeCreate(name=name))
        assert (await copying(w, "a", "b")).unattended
        reader = await w.session()
        await reader.call(attach=pb.Attach(name="b", read_only=True))
        assert (await copying(w, "a", "b")).unattended
        stream, _ = await holding(w, "b")
        await until(lambda: not w.coordinator.leases.valid(stream.opened.session_id))
        assert (await copying(w, "a", "b")).unattended, "who fell silent counts as nobody"
        for session in (reader, stream):
            await session.close()


async def test_what_cannot_be_copied_from_or_into(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.stub.CreateVolume(pb.VolumeCreate(name="a"))
        await w.stub.CreateSnapshot(pb.SnapshotCreate(name="a@s"))
        await w.stub.CloneVolume(pb.VolumeClone(source="a", name="gone"))
        await w.stub.DeleteVolume(pb.VolumeDelete(name="gone"))
        for source, target, expected in (
            ("a@none", "a", NotFound), ("none", "a", NotFound), ("a", "none", NotFound), ("gone", "a", NotFound),
            ("a", "gone", NotFound), ("a", "a@s", NotAllowed), ("a", "zero", NotAllowed),
        ):  # fmt: skip
            assert isinstance(await error_of(copying(w, source, target)), expected), (source, target)


async def test_the_mount_of_the_target_is_asked_after_that_of_the_source_has_written(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for name in ("a", "b"):
            await w.stub.CreateVolume(pb.VolumeCreate(name=name))
        (source, source_id), (target, target_id) = await holding(w, "a"), await holding(w, "b")
        asked = copying(w, "a", "b")
        flush = (await order_of(source)).flush
        assert flush.volume_id == source_id
        assert target.orders.empty()
        await (await commit(source, source_id, 1, "dirty"))
        await source.call(flush_done=pb.FlushDone(flush_id=flush.flush_id))
        order = (await order_of(target)).copy
        assert (order.volume_id, order.request.source, order.request.target) == (target_id, "a", "b")
        view = await target.call(attach=pb.Attach(name="a", view=True))
        slots = await target.call(
            read_slots=pb.ReadSlots(volume_id=view.volume.volume_id, ino=10, generation=1, first=0, count=1)
        )
        assert len(slots.rows) == 1
        before = target.opened
        again = Stream(w.channel)
        await again.open(before.session_id, before.token)
        assert (await order_of(again)).copy.copy_id == order.copy_id
        reply = pb.CopyFilesReply(files=3, bytes=4096, path=b"/x")
        await again.call(copy_done=pb.CopyDone(copy_id=order.copy_id, reply=reply))
        assert await asked == reply
        for session in (source, again):
            await session.close()


async def test_errors_of_the_mount_and_its_end(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for name in ("a", "b"):
            await w.stub.CreateVolume(pb.VolumeCreate(name=name))
        target, _ = await holding(w, "b")
        asked = copying(w, "a", "b")
        order = (await order_of(target)).copy
        failure = failure_of(AlreadyExists("b:/a exists already"))
        await target.call(copy_done=pb.CopyDone(copy_id=order.copy_id, failure=failure))
        error = await error_of(asked)
        assert isinstance(error, AlreadyExists)
        assert str(error) == "b:/a exists already"
        asked = copying(w, "a", "b")
        await order_of(target)
        await target.call(close=pb.Close())
        assert isinstance(await error_of(asked), Unavailable)
        await target.close()


async def test_a_source_that_does_not_write_what_it_holds_is_not_copied(tmp_path: Path) -> None:
    async with world(tmp_path, flush_deadline_s=0.05) as w:
        await w.stub.CreateVolume(pb.VolumeCreate(name="a"))
        source, _ = await holding(w, "a")
        error = await error_of(copying(w, "a", "a"))
        assert isinstance(error, Unavailable)
        assert "copy from a snapshot" in str(error)
        await source.close()
