"""Shared mode over real gRPC: operations of two mounts, and the answer that waits until others have forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from redfs.coordinator import sessions
from redfs.core.errors import FsError
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
