"""The data path against real processes: a coordinator and storage nodes, killed and damaged while it works."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from redfs.client.data.cache import BlockCache
from redfs.client.data.config import MIB, DataConfig
from redfs.client.data.reader import BlockReader
from redfs.client.data.store import BlockStore, StoredBatch
from redfs.client.local_pool import port_is_free, running_pid
from redfs.client.node_pool import NodePool
from redfs.client.session import CoordinatorSession, SessionConfig
from redfs.core.records import Kind, Piece, encode_slot, slot_key
from redfs.proto.gen import cluster_pb2 as pb
from tests.integration.pools import RunningPool

pytestmark = pytest.mark.slow

BLOCK = 128 * 1024
INO = 77


def noise(size: int, seed: int) -> list[bytes]:
    data = random.Random(seed).randbytes(size)
    return [data[at : at + BLOCK] for at in range(0, size, BLOCK)]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPool]:
    running = RunningPool(tmp_path_factory.mktemp("pool"), nodes=6)
    try:
        # A port of its own, that no other pool takes while the coordinator is down; below those that connections get,
        # since one that tries to reach a port that nobody listens on may be given the very port itself.
        port = next(p for p in iter(lambda: random.randrange(20_000, 32_000), None) if port_is_free(p))
        running.local.start(running.nodes, port)
        yield running
    finally:
        running.destroy()


class Client:
    """What a mount has, without the file system."""

    def __init__(self, session: CoordinatorSession, attached: pb.AttachReply) -> None:
        self.session = session
        self.volume = volume = attached.volume
        self.lineage = attached.lineage
        self.nodes = NodePool(session, DataConfig())
        self.store = BlockStore(session, volume, self.nodes, BlockCache(0))
        self.committed = 0

    async def commit(self, batch: StoredBatch) -> pb.CommitReply:
        self.committed += 1
        rows = []
        for slot, (block, length) in enumerate(batch.refs):
            key = slot_key(INO, self.committed, slot)
            rows.append(pb.Row(kind=Kind.SLOT, obj=key.obj, value=encode_slot((Piece(0, length, block, 0),))))
        commit = pb.Commit(
            volume_id=self.volume.volume_id,
            number=self.committed,
            lineage=self.lineage,
            segments=batch.segments,
            blocks=batch.blocks,
            rows=rows,
        )
        reply: pb.CommitReply = await self.session.call(commit=commit)
        return reply

    async def read(self, batch: StoredBatch) -> list[bytes]:
        """By a reader that knows nothing."""
        reader = BlockReader(self.session, self.nodes, BlockCache(64 * MIB))
        try:
            return [bytes(block) for block in await reader.read_many([block for block, _ in batch.refs])]
        finally:
            await reader.close()

    async def close(self) -> None:
        await self.store.close()
        await self.nodes.close()
        await self.session.close()


@asynccontextmanager
async def a_client(pool: RunningPool, name: str, policy: str = "ec:4+2") -> AsyncIterator[Client]:
    with pool.api() as api:
        api.create_volume(name, policy)
    session = await CoordinatorSession.open(str(pool.local.folder), "test", config=SessionConfig())
    attached = await session.call(attach=pb.Attach(name=name))
    client = Client(session, attached)
    try:
        yield client
    finally:
        await client.close()


def backing_files(pool: RunningPool) -> list[Path]:
    return [path for path in pool.local.folder.glob("node-*/**/*") if path.is_file() and path.stat().st_size > MIB]


def flip(pool: RunningPool, content: bytes) -> None:
    """Damages every place on the disks where these bytes are stored."""
    found = 0
    for path in backing_files(pool):
        at = path.read_bytes().find(content)
        if at >= 0:
            found += 1
            with path.open("r+b") as file:
                file.seek(at + 10)
                byte = file.read(1)[0]
                file.seek(at + 10)
                file.write(bytes([byte ^ 1]))
    assert found >= 1


async def test_store_commit_read(pool: RunningPool) -> None:
    async with a_client(pool, "plain") as client:
        for seed, size in enumerate((100, 4096, 60_000, 300_000, 8 * MIB)):
            blocks = noise(size, seed)
            batch = await client.store.store(blocks)
            await client.commit(batch)
            assert await client.read(batch) == blocks
        again = await client.store.store(noise(8 * MIB, 4))
        assert (again.segments, again.blocks) == ([], []), "the index knows them all"
        small = await client.store.store([noise(100, 0)[0]])
        reply = await client.commit(small)
        assert [s.block for s in reply.substitutions] == [small.refs[0][0]]


@pytest.mark.parametrize("policy", ["mirror:3", "single"])
async def test_copies(pool: RunningPool, policy: str) -> None:
    async with a_client(pool, policy.replace(":", ""), policy) as client:
        blocks = noise(3 * MIB, hash(policy) % 1000)
        batch = await client.store.store(blocks)
        await client.commit(batch)
        assert await client.read(batch) == blocks


async def test_a_damaged_byte_is_read_around_and_reported(pool: RunningPool) -> None:
    async with a_client(pool, "damaged") as client:
        blocks = noise(2 * MIB, 100)
        batch = await client.store.store(blocks)
        await client.commit(batch)
        flip(pool, blocks[5][1000:1100])
        with pool.api() as api:
            before = api.status().damage_reports
        assert await client.read(batch) == blocks
        with pool.api() as api:
            assert api.status().damage_reports == before + 1


async def test_nodes_killed_in_the_middle_of_writing_and_reading(pool: RunningPool) -> None:
    async with a_client(pool, "killed") as client:
        before = await client.store.store(noise(8 * MIB, 200))
        await client.commit(before)
        writing = [asyncio.create_task(client.store.store(noise(4 * MIB, 300 + n))) for n in range(6)]
        await asyncio.wait(writing, return_when=asyncio.FIRST_COMPLETED)
        for name in ("node-1", "node-4"):
            pid = running_pid(pool.member(name))
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        batches = [await task for task in writing]
        small = await client.store.store([b"small"])
        late = await client.store.store(noise(MIB, 400))
        assert (late.segments[0].k, late.segments[0].m) == (2, 2)
        for batch in (*batches, small, late):
            await client.commit(batch)
        assert await client.read(before) == noise(8 * MIB, 200)
        for n, batch in enumerate(batches):
            assert await client.read(batch) == noise(4 * MIB, 300 + n)
        assert await client.read(small) == [b"small"]
        assert await client.read(late) == noise(MIB, 400)
        pool.local.start()
        client.nodes.forgive()
        wide = await client.store.store(noise(MIB, 500))
        await client.commit(wide)
        assert await client.read(wide) == noise(MIB, 500)


async def test_a_coordinator_killed_in_the_middle(pool: RunningPool) -> None:
    async with a_client(pool, "coordinator") as client:
        first = await client.store.store(noise(MIB, 600))
        await client.commit(first)
        pool.kill("coordinator")
        waiting = asyncio.create_task(client.store.store(noise(5 * MIB, 601)))
        try:
            await asyncio.to_thread(pool.local.start)
        finally:
            second = await waiting
        await client.commit(second)
        assert await client.read(first) == noise(MIB, 600)
        assert await client.read(second) == noise(5 * MIB, 601)
