"""Shared mode over real gRPC: operations of two mounts, and the answer that waits until others have forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from redfs.coordinator import sessions
from redfs.coordinator.hold_book import HoldBook
from redfs.coordinator.open_book import OpenBook
from redfs.coordinator.returning import RETURN_ROUNDS
from redfs.core.errors import FsError, Unavailable
from redfs.core.ids import ROOT_INO
from redfs.core.records import decode_inode
from redfs.core.tables import SESSIONS, u64_key
from redfs.proto.gen import cluster_pb2 as pb
from tests.coordinator.shared_hosts import O_CREAT, O_EXCL
from tests.coordinator.test_service import WAIT_S, Stream, World, until, world


class Mount:
    """A sharing mount."""

    def __init__(self, stream: Stream, volume_id: int) -> None:
        self.stream = stream
        self.volume_id = volume_id
        self.lineage = stream.lineage
        self.number = 0

    def _change(self, operation: str, fields: dict[str, Any]) -> pb.Change:
        self.number += 1
        return pb.Change(
            volume_id=self.volume_id, lineage=self.lineage, number=self.number, operation=operation, **fields
        )

    async def change(self, operation: str, **fields: Any) -> Any:
        return await self.stream.call(change=self._change(operation, fields))

    async def begin(self, operation: str, **fields: Any) -> asyncio.Future[Any]:
        return await self.stream.send(change=self._change(operation, fields))

    async def look(self, operation: str, **fields: Any) -> Any:
        look = pb.Look(volume_id=self.volume_id, lineage=self.lineage, operation=operation, **fields)
        return await self.stream.call(look=look)

    async def forget_order(self) -> Any:
        while True:
            order = await asyncio.wait_for(self.stream.orders.get(), WAIT_S)
            if order.HasField("forget"):
                return order.forget

    async def held_order(self) -> Any:
        while True:
            order = await asyncio.wait_for(self.stream.orders.get(), WAIT_S)
            if order.HasField("return_held"):
                return order.return_held

    async def hold(self, name: bytes) -> int:
        """Makes a file and holds it."""
        made = await self.change("create", ino=ROOT_INO, name=name, mode=0o644, flags=O_CREAT, hold=True)
        assert made.held
        number: int = made.ino
        return number

    async def let_go(self, order: Any, mtime_ns: int = 0) -> None:
        """Lets go what an order names, with a time to tell it by; and says so."""
        self.number += 1
        files = [pb.HeldFile(ino=ino, mtime_ns=mtime_ns or None) for ino in order.inodes]
        await self.stream.call(
            write_held=pb.WriteHeld(volume_id=self.volume_id, lineage=self.lineage, number=self.number, files=files)
        )
        await self.stream.call(return_held_done=pb.ReturnHeldDone(return_id=order.return_id))

    async def begin_look(self, operation: str, **fields: Any) -> asyncio.Future[Any]:
        look = pb.Look(volume_id=self.volume_id, lineage=self.lineage, operation=operation, **fields)
        return await self.stream.send(look=look)

    async def forgot(self, order: Any) -> None:
        await self.stream.call(forget_done=pb.ForgetDone(forget_id=order.forget_id))


@asynccontextmanager
async def two_mounts(folder: Path, **config: Any) -> AsyncIterator[tuple[World, Mount, Mount]]:
    async with world(folder, **config) as w:
        await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
        first = await w.session()
        volume = (await first.call(attach=pb.Attach(name="v", shared=True))).volume.volume_id
        await first.call(give_back=pb.GiveBack(volume_id=volume))
        w.coordinator.env.recalled.pop(volume)
        second = await w.session()
        attached = await second.call(attach=pb.Attach(name="v", shared=True))
        assert attached.shared
        yield w, Mount(first, volume), Mount(second, volume)


async def test_operations_over_the_wire(tmp_path: Path) -> None:
    async with two_mounts(tmp_path) as (_, one, other):
        made = await one.change("create", ino=ROOT_INO, name=b"f", mode=0o644, flags=O_CREAT | O_EXCL)
        with pytest.raises(FsError) as error:
            await other.change("create", ino=ROOT_INO, name=b"f", mode=0o644, flags=O_CREAT | O_EXCL)
        assert error.value.errno == 17
        found = await other.look("lookup", ino=ROOT_INO, name=b"f")
        assert (found.ino, found.inode) == (made.ino, made.inode)
        listed = await other.look("readdir", ino=ROOT_INO)
        assert [entry.name for entry in listed.entries] == [b".", b"..", b"f"], "a long look"
        reply = await other.stream.call(
            declare_open=pb.DeclareOpen(volume_id=one.volume_id, open_inodes=[made.ino, 99])
        )
        assert list(reply.gone) == [99]


async def test_the_time_of_a_file_is_set_when_others_have_forgotten_it(tmp_path: Path) -> None:
    async with two_mounts(tmp_path) as (_, one, other):
        file = (await one.change("create", ino=ROOT_INO, name=b"f", mode=0o644, flags=O_CREAT)).ino
        await other.change("open", ino=file)
        setting = await one.begin("setattr", ino=file, attributes=pb.SetAttributes(mtime_ns=5))
        order = await other.forget_order()
        assert (order.volume_id, list(order.inodes)) == (other.volume_id, [file])
        assert decode_inode((await one.look("getattr", ino=file)).inode).mtime_ns == 5
        assert not setting.done(), "the other's kernel may still show old pages"
        await other.forgot(order)
        assert decode_inode((await asyncio.wait_for(setting, WAIT_S)).inode).mtime_ns == 5


async def test_nobody_waits_for_a_mount_whose_lease_is_over(tmp_path: Path) -> None:
    async with two_mounts(tmp_path) as (w, one, other):
        file = (await one.change("create", ino=ROOT_INO, name=b"f", mode=0o644, flags=O_CREAT)).ino
        await other.change("open", ino=file)
        setting = await one.begin("setattr", ino=file, attributes=pb.SetAttributes(mtime_ns=5))
        await other.forget_order()
        assert not setting.done()
        session = other.stream.opened.session_id
        w.coordinator.leases.end(session)
        await asyncio.wait_for(setting, WAIT_S)


async def test_a_mount_that_comes_back_is_told_again_to_forget(tmp_path: Path) -> None:
    async with two_mounts(tmp_path) as (w, one, other):
        file = (await one.change("create", ino=ROOT_INO, name=b"f", mode=0o644, flags=O_CREAT)).ino
        await other.change("open", ino=file)
        opened = other.stream.opened
        setting = await one.begin("setattr", ino=file, attributes=pb.SetAttributes(mtime_ns=5))
        first = await other.forget_order()
        await other.stream.close()
        again = Stream(w.channel)
        await again.open(opened.session_id, opened.token)
        mount = Mount(again, other.volume_id)
        order = await mount.forget_order()
        assert order.forget_id == first.forget_id
        assert not setting.done()
        await mount.forgot(order)
        await asyncio.wait_for(setting, WAIT_S)
        await again.close()


async def test_who_sets_a_time_and_goes_away_leaves_nothing_behind(tmp_path: Path) -> None:
    async with two_mounts(tmp_path) as (w, one, other):
        file = (await one.change("create", ino=ROOT_INO, name=b"f", mode=0o644, flags=O_CREAT)).ino
        await other.change("open", ino=file)
        await one.begin("setattr", ino=file, attributes=pb.SetAttributes(mtime_ns=5))
        order = await other.forget_order()
        w.coordinator.execute(lambda txn: sessions.end_session(txn, one.stream.opened.session_id))
        await one.stream.ended()
        await until(lambda: not w.shell._orders)
        await other.forgot(order)
        with w.coordinator.read() as kv:
            assert kv.get(SESSIONS, u64_key(one.stream.opened.session_id)) is None


async def test_what_is_held_is_asked_back_and_the_answers_wait(tmp_path: Path) -> None:
    async with two_mounts(tmp_path) as (w, one, other):
        file = await one.hold(b"f")
        quick = await other.begin_look("getattr", ino=file)
        long = await other.begin_look("readdir", ino=ROOT_INO)
        change = await other.begin("setattr", ino=file, attributes=pb.SetAttributes(mode=0o600))
        order = await one.held_order()
        assert (order.volume_id, list(order.inodes)) == (one.volume_id, [file])
        await one.look("getattr", ino=file)
        assert not any(asking.done() for asking in (quick, long, change))
        await one.let_go(order, mtime_ns=5)
        assert decode_inode((await asyncio.wait_for(quick, WAIT_S)).inode).mtime_ns == 5
        listed = (await asyncio.wait_for(long, WAIT_S)).entries
        assert [decode_inode(entry.inode).mtime_ns for entry in listed if entry.ino == file] == [5]
        changed = decode_inode((await asyncio.wait_for(change, WAIT_S)).inode)
        assert (changed.mtime_ns, changed.mode & 0o777) == (5, 0o600)
        assert not w.shell._orders


async def test_one_order_at_a_time_for_all_that_others_ask(tmp_path: Path) -> None:
    async with two_mounts(tmp_path) as (_, one, other):
        files = [await one.hold(name) for name in (b"a", b"b", b"c")]
        first = await other.begin_look("getattr", ino=files[0])
        order = await one.held_order()
        asking = [await other.begin_look("getattr", ino=file) for file in files]
        await other.look("getattr", ino=ROOT_INO)
        assert one.stream.orders.empty()
        await one.let_go(order)
        await asyncio.wait_for(first, WAIT_S)
        again = await one.held_order()
        assert sorted(again.inodes) in (files, files[1:])
        await one.let_go(again)
        await asyncio.wait_for(asyncio.gather(*asking), WAIT_S)


async def test_a_holder_that_comes_back_is_asked_again(tmp_path: Path) -> None:
    async with two_mounts(tmp_path) as (w, one, other):
        file = await one.hold(b"f")
        asking = await other.begin_look("getattr", ino=file)
        first = await one.held_order()
        opened, number = one.stream.opened, one.number
        await one.stream.close()
        again = Stream(w.channel)
        await again.open(opened.session_id, opened.token)
        mount = Mount(again, one.volume_id)
        mount.lineage, mount.number = one.lineage, number
        order = await mount.held_order()
        assert order.return_id == first.return_id
        assert not asking.done()
        await mount.let_go(order, mtime_ns=5)
        assert decode_inode((await asyncio.wait_for(asking, WAIT_S)).inode).mtime_ns == 5
        await again.close()


async def test_a_holder_whose_lease_is_over_is_ended(tmp_path: Path) -> None:
    async with two_mounts(tmp_path) as (w, one, other):
        file = await one.hold(b"f")
        asking = await other.begin_look("getattr", ino=file)
        await one.held_order()
        assert not asking.done()
        session = one.stream.opened.session_id
        w.coordinator.leases._until[session] = 0.0
        assert decode_inode((await asyncio.wait_for(asking, WAIT_S)).inode).size == 0
        with w.coordinator.read() as kv:
            assert kv.get(SESSIONS, u64_key(session)) is None


async def test_a_holder_that_cannot_write_is_asked_a_few_times(tmp_path: Path) -> None:
    async with two_mounts(tmp_path) as (_, one, other):
        file = await one.hold(b"f")
        asking = await other.begin_look("getattr", ino=file)
        for _ in range(RETURN_ROUNDS):
            order = await one.held_order()
            await one.stream.call(return_held_done=pb.ReturnHeldDone(return_id=order.return_id))
        with pytest.raises(Unavailable):
            await asyncio.wait_for(asking, WAIT_S)


async def test_after_a_start_operations_wait_for_declarations(tmp_path: Path) -> None:
    async with two_mounts(tmp_path) as (w, one, other):
        file = await one.hold(b"f")
        env = w.coordinator.env
        env.holds, env.open_book = HoldBook(), OpenBook()  # as a new process has them
        asking = await other.begin_look("getattr", ino=file)
        await other.stream.call(declare_open=pb.DeclareOpen(volume_id=one.volume_id))
        assert not asking.done()
        await one.stream.call(
            declare_open=pb.DeclareOpen(volume_id=one.volume_id, open_inodes=[file], held_inodes=[file])
        )
        await one.let_go(await one.held_order(), mtime_ns=5)
        assert decode_inode((await asyncio.wait_for(asking, WAIT_S)).inode).mtime_ns == 5


async def test_after_a_start_nobody_waits_for_one_that_never_comes_back(tmp_path: Path) -> None:
    async with two_mounts(tmp_path) as (w, one, other):
        file = await one.hold(b"f")
        env = w.coordinator.env
        env.holds, env.open_book = HoldBook(), OpenBook()
        await other.stream.call(declare_open=pb.DeclareOpen(volume_id=one.volume_id))
        asking = await other.begin_look("getattr", ino=file)
        w.coordinator.leases._until[one.stream.opened.session_id] = 0.0
        assert decode_inode((await asyncio.wait_for(asking, WAIT_S)).inode).size == 0
