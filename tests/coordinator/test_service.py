"""The coordinator behind real gRPC, in this process: streams, errors over the wire, orders, nodes, checks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from redfs.coordinator.coordinator import ALL_TABLES, Coordinator
from redfs.coordinator.environment import CoordinatorConfig, SystemClock, SystemRandomness
from redfs.coordinator.scheduler import scheduler_of
from redfs.coordinator.service import serve
from redfs.coordinator.shell import Shell, cancel_and_wait
from redfs.coordinator.store import LmdbStore
from redfs.core.errors import (
    BY_CODE,
    AlreadyExists,
    Busy,
    CommitRefused,
    LeaseLapsed,
    NotFound,
    RedfsError,
    TooFewNodes,
)
from redfs.core.records import Kind, Piece, decode_inode, encode_slot, inode_key, slot_key
from redfs.core.tables import DAMAGE, META, POSITION_KEY, decode_u64, pack_held_shards, unpack_shards
from redfs.proto import rpc, rpc_errors
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.gen import cluster_pb2_grpc
from tests.coordinator.harness import fingerprint

WAIT_S = 60.0
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs do not name it
GIB = 1 << 30


class Stream:
    """A session as a client has it."""

    def __init__(self, channel: Any) -> None:
        self._stream = cluster_pb2_grpc.CoordinatorServiceStub(channel).Session()
        self._next = 1
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.orders: asyncio.Queue[Any] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())
        self.opened: Any = None
        self.lost = False
        self.lineage = 0
        """Of the volume that was attached last."""

    async def open(self, session_id: int = 0, token: bytes = b"") -> Any:
        hello = pb.Open(
            protocol=pb.ProtocolVersion(version=1), client_name="test:1:/mnt", session_id=session_id, token=token
        )
        self.opened = await self.call(open=hello)
        return self.opened

    async def send(self, **body: Any) -> asyncio.Future[Any]:
        if self.lost:
            raise TimeoutError("the stream has ended")
        number = self._next
        self._next += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        await self._stream.write(pb.SessionRequest(request_id=number, **body))
        return future

    async def call(self, **body: Any) -> Any:
        return await asyncio.wait_for(await self.send(**body), WAIT_S)

    async def ended(self) -> None:
        await asyncio.wait_for(asyncio.shield(self._reader), WAIT_S)

    async def _read(self) -> None:
        try:
            while (reply := await self._stream.read()) is not EOF:
                await self._take(reply)
        finally:
            self.lost = True
            for future in self._waiting.values():
                if not future.done():
                    future.cancel()

    async def _take(self, reply: Any) -> None:
        if not reply.request_id:
            await self.orders.put(reply)
            return
        future = self._waiting.pop(reply.request_id)
        body = reply.WhichOneof("body")
        if body == "failure":
            future.set_exception(rpc_errors.error_of(reply.failure))
        else:
            if body == "attach":
                self.lineage = reply.attach.lineage
            future.set_result(getattr(reply, body))

    async def close(self) -> None:
        self._stream.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)


class Node:
    """A storage node as the coordinator sees it."""

    def __init__(self, channel: Any, number: int) -> None:
        self._stream = cluster_pb2_grpc.NodeServiceStub(channel).Attach()
        self._number = number
        self._reading: asyncio.Future[Any] | None = None

    async def join(self, **hello: Any) -> Any:
        fields: dict[str, Any] = {
            "protocol": pb.ProtocolVersion(version=1),
            "disk_uuid": f"disk-{self._number}",
            "address": f"127.0.0.1:{9000 + self._number}",
            "generation": 1,
            **hello,
        }
        await self.report(hello=pb.NodeHello(**fields))
        order = await asyncio.wait_for(self._stream.read(), WAIT_S)
        if order.HasField("welcome"):
            await self.beat()
        return order

    async def report(self, **body: Any) -> None:
        await self._stream.write(pb.NodeReport(**body))

    async def beat(self, **more: Any) -> None:
        await self.report(heartbeat=pb.NodeHeartbeat(capacity_bytes=100 * GIB, free_bytes=100 * GIB, **more))

    async def order(self, wait_s: float = WAIT_S) -> Any:
        """The next order. TimeoutError where none comes; it is kept for the next call then."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._stream.read())
        found = await asyncio.wait_for(asyncio.shield(self._reading), wait_s)
        self._reading = None
        return found

    def close(self) -> None:
        self._stream.cancel()


class World:
    def __init__(self, channel: Any, shell: Shell, address: str) -> None:
        self.address = address
        self.channel = channel
        self.shell = shell
        self.coordinator = shell.coordinator
        self.stub: Any = cluster_pb2_grpc.CoordinatorServiceStub(channel)
        self.nodes: list[Node] = []

    async def add_nodes(self, count: int) -> None:
        for number in range(len(self.nodes), len(self.nodes) + count):
            node = Node(self.channel, number)
            await node.join()
            self.nodes.append(node)
        await until(lambda: len(self.coordinator.cluster.up()) == len(self.nodes))

    async def session(self) -> Stream:
        stream = Stream(self.channel)
        await stream.open()
        return stream


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def world(folder: Path, nodes: int = 6, **settings: Any) -> AsyncIterator[World]:
    store = LmdbStore(folder, ALL_TABLES, 1 << 28)
    config = CoordinatorConfig.from_mapping({"node_down_s": 60.0, **settings})
    coordinator = Coordinator(store, config, SystemClock(), SystemRandomness())
    shell = Shell(coordinator)
    server = rpc.make_server()
    port = rpc.listen(server, "127.0.0.1:0")
    await serve(shell, server)
    channel = rpc.open_channel(f"127.0.0.1:{port}")
    made = World(channel, shell, f"127.0.0.1:{port}")
    try:
        await made.add_nodes(nodes)
        yield made
    finally:
        for node in made.nodes:
            node.close()
        await channel.close(None)
        await server.stop(None)
        await asyncio.get_running_loop().run_in_executor(None, shell.stop)
        store.close()


async def error_of(call: Awaitable[Any]) -> RedfsError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    found = rpc_errors.error_from_rpc(failed.value)
    assert found is not None
    return found


async def commit(stream: Stream, volume_id: int, number: int, word: str, slot: int = 0) -> Any:
    """Writes one block through the wire; the future of the reply."""
    opened = await stream.call(open_segments=pb.OpenSegments(volume_id=volume_id, count=1))
    segment = opened.segments[0]
    segment.shard_bytes = 64
    block = segment.segment_id << 16
    return await stream.send(
        commit=pb.Commit(
            volume_id=volume_id,
            number=number,
            lineage=stream.lineage,
            segments=[segment],
            blocks=[
                pb.Block(
                    block_id=block, segment_id=segment.segment_id, stored_bytes=50, plain_bytes=4096, codec=1,
                    fingerprint=fingerprint(word),
                )
            ],
            rows=[
                pb.Row(
                    kind=Kind.SLOT, obj=slot_key(10, 1, slot).obj, value=encode_slot((Piece(0, 4096, block, 0),))
                )
            ],
        )
    )  # fmt: skip


async def test_who_had_a_volume_before_finds_it_by_its_number(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
        first = await w.session()
        volume = (await first.call(attach=pb.Attach(name="v"))).volume.volume_id
        await first.call(close=pb.Close())
        await first.ended()
        await w.stub.RenameVolume(pb.VolumeRename(name="v", new_name="w"))
        other = await w.stub.CreateVolume(pb.VolumeCreate(name="v"))

        again = await w.session()
        wanted = pb.Attach(name="v", volume_id=volume)
        attached = await again.call(attach=wanted)
        assert (attached.volume.volume_id, attached.volume.name) == (volume, "w")
        assert attached.exclusive
        assert attached.volume.volume_id != other.volume_id
        by_name = await again.call(attach=pb.Attach(name="v"))
        assert by_name.volume.volume_id == other.volume_id
        await again.call(close=pb.Close())
        await again.ended()

        await w.stub.DeleteVolume(pb.VolumeDelete(name="w"))
        last = await w.session()
        for view in (False, True):
            with pytest.raises(NotFound, match="deleted"):
                await last.call(attach=pb.Attach(name="v", volume_id=volume, view=view))
        assert (await last.call(attach=pb.Attach(name="v"))).exclusive, "and the session is as good as before"


async def test_a_volume_from_creation_to_deletion(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        made = await w.stub.CreateVolume(pb.VolumeCreate(name="v", protection="raid6", description="d"))
        assert (made.protection, made.state, made.kind, made.parent_id) == ("ec:4+2", "ok", "live", 1)
        assert isinstance(await error_of(w.stub.CreateVolume(pb.VolumeCreate(name="v"))), AlreadyExists)
        too_wide = await error_of(w.stub.CreateVolume(pb.VolumeCreate(name="w", protection="ec:6+2")))
        assert isinstance(too_wide, TooFewNodes)
        assert "--protect ec:4+2" in str(too_wide)
        stream = await w.session()
        attached = await stream.call(attach=pb.Attach(name="v"))
        assert attached.exclusive
        assert attached.writable_bytes > 0
        volume = attached.volume.volume_id
        reply = await (await commit(stream, volume, 1, "a"))
        assert reply.number == 1
        slots = await stream.call(read_slots=pb.ReadSlots(volume_id=volume, ino=10, generation=1, first=0, count=9))
        assert len(slots.rows) == len(slots.blocks) == len(slots.segments) == 1
        assert slots.segments[0].k == 4
        rows = await stream.call(
            get_rows=pb.GetRows(volume_id=volume, keys=[pb.Key(kind=2, obj=inode_key(n).obj) for n in (1, 2)])
        )
        assert decode_inode(rows.rows[0].value).nlink == 2
        assert rows.rows[1].value == b""
        folder = await stream.call(read_folder=pb.ReadFolder(volume_id=volume, ino=1))
        assert folder.complete
        space = await stream.call(stat_volume=pb.StatVolume(volume_id=volume))
        assert 0 < space.free_bytes <= space.total_bytes
        shown = await w.stub.ListVolumes(pb.Empty())
        assert [(v.name, list(v.mounts)) for v in shown.volumes] == [("zero", []), ("v", ["test:1:/mnt"])]
        await stream.call(attach=pb.Attach(name="v", view=True))
        status = await w.stub.GetStatus(pb.Empty())
        assert (status.mounts, status.sessions) == (1, 1), "a view is no mount"
        assert isinstance(await error_of(w.stub.DeleteVolume(pb.VolumeDelete(name="v"))), Busy)
        await stream.call(close=pb.Close())
        await stream.ended()
        await w.stub.DeleteVolume(pb.VolumeDelete(name="v"))
        async with asyncio.timeout(WAIT_S):
            while len((await w.stub.ListVolumes(pb.Empty())).volumes) > 1:
                await asyncio.sleep(0.01)
        items = [item async for item in w.stub.Check(pb.CheckRequest())]
        assert [item.problem for item in items if item.HasField("problem")] == []
        assert items[-1].HasField("summary")
        status = await w.stub.GetStatus(pb.Empty())
        assert (status.health, status.commits, status.blocks) == ("ok", 1, 0)
        assert status.shards_to_delete == 6


async def test_commits_are_pipelined_in_order_and_resumed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
        stream = await w.session()
        volume = (await stream.call(attach=pb.Attach(name="v"))).volume.volume_id
        replies = [await commit(stream, volume, number, f"w{number}", number) for number in range(1, 40)]
        assert [(await reply).number for reply in replies] == list(range(1, 40))
        out_of_order = await commit(stream, volume, 50, "x")
        with pytest.raises(CommitRefused):
            await out_of_order
        before = stream.opened
        again = Stream(w.channel)
        resumed = await again.open(before.session_id, before.token)
        assert (resumed.resumed, resumed.last_commit) == (True, 39)
        await stream.ended()
        await again.call(renew=pb.Renew())
        await again.close()
        stranger = Stream(w.channel)
        with pytest.raises(LeaseLapsed):
            await stranger.open(before.session_id, bytes(16))
        await stranger.close()


async def test_a_snapshot_asks_the_mount_to_flush(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
        stream = await w.session()
        volume = (await stream.call(attach=pb.Attach(name="v"))).volume.volume_id
        wanted = asyncio.ensure_future(w.stub.CreateSnapshot(pb.SnapshotCreate(name="v@s")))
        order = await asyncio.wait_for(stream.orders.get(), WAIT_S)
        assert order.flush.volume_id == volume
        await (await commit(stream, volume, 1, "dirty"))
        await stream.call(flush_done=pb.FlushDone(flush_id=order.flush.flush_id))
        reply = await wanted
        assert reply.holder_flushed
        assert 0 < reply.coordinator_ms < 1000 * WAIT_S
        assert reply.snapshot.name == "v@s"
        silent = await w.stub.CloneVolume(pb.VolumeClone(source="v@s", name="c"))
        assert silent.holder_flushed, "nobody has a snapshot dirty"
        late = await w.stub.CreateSnapshot(pb.SnapshotCreate(name="v@t", flush_deadline_s=0.05))
        assert not late.holder_flushed
        reader = await w.session()
        attached = await reader.call(attach=pb.Attach(name="v@s", read_only=True))
        assert not attached.exclusive
        assert attached.epoch
        slots = await reader.call(
            read_slots=pb.ReadSlots(volume_id=attached.volume.volume_id, ino=10, generation=1, first=0, count=1)
        )
        assert len(slots.rows) == 1, "what was dirty is in the snapshot"
        await reader.close()
        await stream.close()


async def test_a_session_is_told_the_snapshots_of_its_volume(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
        for name in ("v@one", "v@two", "v@three"):
            await w.stub.CreateSnapshot(pb.SnapshotCreate(name=name))
        await w.stub.CloneVolume(pb.VolumeClone(source="v@one", name="clone"))
        await w.stub.DeleteVolume(pb.VolumeDelete(name="v@one"))
        await w.stub.DeleteVolume(pb.VolumeDelete(name="v@two"))
        stream = await w.session()
        volume = (await stream.call(attach=pb.Attach(name="v", read_only=True))).volume.volume_id
        listed = (await stream.call(list_snapshots=pb.ListSnapshots(volume_id=volume))).snapshots
        assert [(s.name, s.kind, s.created_ns > 0) for s in listed] == [("v@three", "snapshot", True)]
        await stream.call(detach=pb.Detach(volume_id=volume))
        with pytest.raises(LeaseLapsed):
            await stream.call(list_snapshots=pb.ListSnapshots(volume_id=volume))
        await stream.close()


async def test_what_a_session_may_not_ask(tmp_path: Path) -> None:
    async with world(tmp_path, nodes=1) as w:
        await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
        early = Stream(w.channel)
        with pytest.raises(BY_CODE["invalid"]):
            await early.call(renew=pb.Renew())
        stream = Stream(w.channel)
        with pytest.raises(BY_CODE["wrong_format"]):
            await stream.call(open=pb.Open(protocol=pb.ProtocolVersion(version=99)))
        stream = await w.session()
        with pytest.raises(BY_CODE["not_found"]):
            await stream.call(attach=pb.Attach(name="nothing"))
        with pytest.raises(BY_CODE["lease_lapsed"]):
            await stream.call(get_rows=pb.GetRows(volume_id=1, keys=[]))
        with pytest.raises(BY_CODE["not_allowed"]):
            await stream.call(attach=pb.Attach(name="zero", read_only=True))
        zero = await stream.call(attach=pb.Attach(name="zero", view=True))
        with pytest.raises(BY_CODE["invalid"]):
            await stream.call(get_rows=pb.GetRows(volume_id=zero.volume.volume_id, keys=[pb.Key(kind=77)]))
        nodes = await stream.call(list_nodes=pb.ListNodes())
        assert [n.state for n in nodes.nodes] == ["up"]
        await early.close()
        await stream.close()


async def test_nodes_are_told_what_to_delete_and_asked_what_they_hold(tmp_path: Path) -> None:
    async with world(tmp_path, nodes=0, delete_grace_s=0.0) as w:
        node = Node(w.channel, 0)
        w.nodes.append(node)
        welcome = await node.join()
        assert welcome.welcome.node_id == 1
        asked = (await node.order()).send_inventory
        await until(lambda: w.coordinator.cluster.up() == {1})
        await w.stub.CreateVolume(pb.VolumeCreate(name="v", protection="single"))
        stream = await w.session()
        volume = (await stream.call(attach=pb.Attach(name="v"))).volume.volume_id
        opened = (await stream.call(open_segments=pb.OpenSegments(volume_id=volume, count=2))).segments
        first, second = (segment.segment_id for segment in opened)
        await stream.call(abort_segments=pb.AbortSegments(segment_ids=[first]))
        order = await node.order()
        assert unpack_shards(order.delete.packed) == [(first, 0)]
        await node.report(deleted=pb.ShardsDeleted(packed=order.delete.packed))
        held = pack_held_shards([(first, 0, 64), (second, 0, 64)])
        await node.report(inventory=pb.Inventory(inventory_id=asked.inventory_id, packed=held[:14]))
        await node.report(inventory=pb.Inventory(inventory_id=asked.inventory_id, packed=held[14:], last=True))
        order = await node.order()
        assert unpack_shards(order.delete.packed) == [(first, 0)], "came back after its deletion; the open one stays"
        await node.report(deleted=pb.ShardsDeleted(packed=order.delete.packed))

        async def nothing_left() -> bool:
            return bool((await w.stub.GetStatus(pb.Empty())).shards_to_delete == 0)

        async with asyncio.timeout(WAIT_S):
            while not await nothing_left():
                await asyncio.sleep(0.01)
        await node.beat(failed=True)
        await until(lambda: w.coordinator.cluster.up() == set())
        status = await w.stub.GetStatus(pb.Empty())
        assert "has a failed disk" in status.problems[0]
        await stream.close()


async def test_an_inventory_is_taken_when_somebody_wants_one(tmp_path: Path) -> None:
    async with world(tmp_path, nodes=0, inventory_interval_s=1e6) as w:
        node = Node(w.channel, 0)
        w.nodes.append(node)
        await node.join()
        first = (await node.order()).send_inventory.inventory_id
        await node.report(inventory=pb.Inventory(inventory_id=first, last=True))
        await until(lambda: w.coordinator.cluster.up() == {1})
        await w.stub.CreateVolume(pb.VolumeCreate(name="v", protection="single"))
        stream = await w.session()
        volume = (await stream.call(attach=pb.Attach(name="v"))).volume.volume_id
        await (await commit(stream, volume, 1, "word", slot=0))
        taken = asyncio.create_task(w.shell.take_inventory(1))
        asked = (await node.order()).send_inventory.inventory_id
        also = asyncio.create_task(w.shell.take_inventory(1))
        again = (await node.order()).send_inventory.inventory_id
        assert first < asked < again
        await node.report(inventory=pb.Inventory(inventory_id=again, last=True))
        assert await asyncio.wait_for(taken, WAIT_S) == 1, "the committed shard is missing"
        assert await asyncio.wait_for(also, WAIT_S) == 1
        with w.coordinator.read() as kv:
            assert len(list(kv.scan(DAMAGE, b"", b"\xff" * 11))) == 1
        taken = asyncio.create_task(w.shell.take_inventory(1))
        last = (await node.order()).send_inventory.inventory_id
        await node.report(inventory=pb.Inventory(inventory_id=last, last=True))
        assert await asyncio.wait_for(taken, WAIT_S) == 0, "it is known by now"
        taken = asyncio.create_task(w.shell.take_inventory(1))
        await node.order()
        node.close()
        with pytest.raises(BY_CODE["unavailable"], match="lost its stream"):
            await asyncio.wait_for(taken, WAIT_S)
        with pytest.raises(BY_CODE["unavailable"], match="not attached"):
            await w.shell.take_inventory(1)
        await stream.close()


class SlowJournal:
    """A journal whose nodes are behind; counts how often it was asked how far they are."""

    def __init__(self) -> None:
        self.reached = 0
        self.looks = 0

    @property
    def durable_position(self) -> int:
        self.looks += 1
        return self.reached

    def begin(self, *_: object) -> None:
        return None

    def committed(self) -> None:
        return None

    def abandoned(self) -> None:
        return None


async def test_nothing_is_deleted_before_the_journal_has_its_doom(tmp_path: Path) -> None:
    async with world(tmp_path, nodes=0, delete_grace_s=0.0) as w:
        journal = SlowJournal()
        w.coordinator.journal = journal  # type: ignore[assignment]
        node = Node(w.channel, 0)
        w.nodes.append(node)
        await node.join()
        await node.order()  # the inventory
        await until(lambda: w.coordinator.cluster.up() == {1})
        await w.stub.CreateVolume(pb.VolumeCreate(name="v", protection="single"))
        stream = await w.session()
        volume = (await stream.call(attach=pb.Attach(name="v"))).volume.volume_id
        (opened,) = (await stream.call(open_segments=pb.OpenSegments(volume_id=volume, count=1))).segments
        with w.coordinator.read() as kv:
            journal.reached = decode_u64(kv.get(META, POSITION_KEY) or b"")
        await stream.call(abort_segments=pb.AbortSegments(segment_ids=[opened.segment_id]))
        looks = journal.looks
        await until(lambda: journal.looks >= looks + 2)
        with pytest.raises(TimeoutError):
            await node.order(0.0)
        with w.coordinator.read() as kv:
            journal.reached = decode_u64(kv.get(META, POSITION_KEY) or b"")
        order = await node.order()
        assert unpack_shards(order.delete.packed) == [(opened.segment_id, 0)]
        await stream.close()


async def test_a_node_of_another_pool_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path, nodes=1) as w:
        node = Node(w.channel, 5)
        order = await node.join(pool_id="another")
        assert order.refused.code == "wrong_format"
        node.close()


async def test_a_deleted_volume_takes_its_mount_down(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
        stream = await w.session()
        volume = (await stream.call(attach=pb.Attach(name="v"))).volume.volume_id
        await w.stub.DeleteVolume(pb.VolumeDelete(name="v", force=True))
        assert (await asyncio.wait_for(stream.orders.get(), WAIT_S)).gone.volume_id == volume
        with pytest.raises(LeaseLapsed):
            await stream.call(commit=pb.Commit(volume_id=volume, number=1))
        await stream.close()


async def test_jobs_are_controlled_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path, reclaim_budget_rows=1) as w:
        go_on = threading.Event()
        step = w.coordinator.background_step
        monkeypatch.setattr(w.coordinator, "background_step", lambda: go_on.is_set() and step())
        await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
        stream = await w.session()
        volume = (await stream.call(attach=pb.Attach(name="v"))).volume.volume_id
        for number in range(1, 100):
            await (await commit(stream, volume, number, f"w{number}", number))
        watching = w.stub.Watch(pb.WatchRequest())
        assert (await watching.read()).jobs
        await w.stub.DeleteVolume(pb.VolumeDelete(name="v", force=True))
        status = await w.stub.GetStatus(pb.Empty())
        (job,) = [job for job in status.jobs if job.kind == "reclaim"]
        paused = await w.stub.ControlJob(pb.JobControl(job_id=job.job_id, action="pause"))
        assert (paused.state, list(paused.allowed)) == ("paused", ["resume"])
        assert isinstance(
            await error_of(w.stub.ControlJob(pb.JobControl(job_id=job.job_id, action="cancel"))), BY_CODE["not_allowed"]
        )
        assert isinstance(
            await error_of(w.stub.ControlJob(pb.JobControl(job_id=12345, action="pause"))), BY_CODE["not_found"]
        )
        await w.stub.ControlJob(pb.JobControl(job_id=job.job_id, action="resume"))
        go_on.set()
        told = False
        async with asyncio.timeout(WAIT_S):
            while (await w.stub.GetStatus(pb.Empty())).jobs:
                told = (await watching.read()).jobs or told
        assert told
        watching.cancel()
        await stream.close()


async def test_a_schedule_is_kept_and_its_mount_flushes(tmp_path: Path) -> None:
    async with world(tmp_path, schedule_min_s=0.1) as w:
        await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
        watching = w.stub.Watch(pb.WatchRequest())
        assert (await watching.read()).schedules
        wanted = pb.Schedule(volume="v", every_s=1, keep=2)
        made = await w.stub.SetSchedule(wanted)
        assert (made.label, made.every_s, made.keep, made.schedule_id) == ("every-1s", 1, 2, 1)
        assert (await watching.read()).schedules
        assert await w.stub.SetSchedule(wanted) == made, "a retry changes nothing"
        assert list((await w.stub.ListSchedules(pb.ScheduleName())).schedules) == [made]
        assert list((await w.stub.ListSchedules(pb.ScheduleName(volume="v", label="x"))).schedules) == []
        missing = await error_of(w.stub.ListSchedules(pb.ScheduleName(volume="w")))
        assert isinstance(missing, BY_CODE["not_found"])
        stream = await w.session()
        volume = (await stream.call(attach=pb.Attach(name="v"))).volume.volume_id
        running = asyncio.create_task(scheduler_of(w.shell).run_for_ever())
        order = await asyncio.wait_for(stream.orders.get(), WAIT_S)
        assert order.flush.volume_id == volume
        await (await commit(stream, volume, 1, "dirty"))
        await stream.call(flush_done=pb.FlushDone(flush_id=order.flush.flush_id))

        async def nodes() -> list[Any]:
            return [v for v in (await w.stub.ListVolumes(pb.Empty())).volumes if v.kind == "snapshot"]

        async with asyncio.timeout(WAIT_S):
            while not await nodes():
                await asyncio.sleep(0.01)
        await cancel_and_wait([running])
        (snapshot,) = await nodes()
        assert snapshot.schedule_id == made.schedule_id
        reader = await w.session()
        attached = await reader.call(attach=pb.Attach(name=snapshot.name, read_only=True))
        slots = await reader.call(
            read_slots=pb.ReadSlots(volume_id=attached.volume.volume_id, ino=10, generation=1, first=0, count=1)
        )
        assert len(slots.rows) == 1, "what was dirty is in it"
        assert (await w.stub.RemoveSchedule(pb.ScheduleName(volume="v"))).label == "every-1s"
        gone = await error_of(w.stub.RemoveSchedule(pb.ScheduleName(volume="v")))
        assert isinstance(gone, BY_CODE["not_found"])
        watching.cancel()
        await reader.close()
        await stream.close()
