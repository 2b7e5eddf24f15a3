"""Measures the client's data path alone: a real coordinator and real storage nodes, no file system in front.

    bench/data_path.py [--nodes 6] [--mib 512] [--policy ec:4+2] [--data DIR]

Prints, one line each: the rate of `store()` on incompressible data, the latency of storing a few KiB, the rate of
reading whole segments ahead, and the latency of reading one block that is in no cache of the client. The nodes sync
every shard to the disk under DIR before they answer; nothing is committed, so all of it is deleted at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from redfs.client.api import Pool
from redfs.client.data.cache import BlockCache
from redfs.client.data.config import MIB, DataConfig
from redfs.client.data.reader import BlockReader
from redfs.client.data.store import BlockStore, StoredBatch
from redfs.client.local_pool import LocalPool
from redfs.client.node_pool import NodePool
from redfs.client.session import CoordinatorSession, SessionConfig
from redfs.proto.gen import cluster_pb2 as pb

BLOCK = 128 * 1024
SEGMENT_BLOCKS = 64
WRITERS = 5


def stamped(seed: bytearray, number: int) -> list[memoryview]:
    """A segment's worth of blocks that no other call returns."""
    copy = bytearray(seed)
    for at in range(0, len(copy), BLOCK):
        copy[at : at + 8] = (number << 16 | at // BLOCK).to_bytes(8, "big")
    return [memoryview(copy)[at : at + BLOCK] for at in range(0, len(copy), BLOCK)]


def percentiles(what: str, seconds: Sequence[float]) -> None:
    cuts = statistics.quantiles(seconds, n=100)
    p50, p90, p99 = (cuts[n] * 1000 for n in (49, 89, 98))
    print(f"{what:44} p50 {p50:6.2f} ms   p90 {p90:6.2f} ms   p99 {p99:6.2f} ms", flush=True)


def rate(what: str, size: int, wall_s: float, cpu_s: float) -> None:
    print(f"{what:44} {size / MIB / wall_s:7.0f} MiB/s   client CPU {cpu_s / wall_s:4.0%} of a core", flush=True)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def write(store: BlockStore, total_bytes: int) -> list[StoredBatch]:
    """Stores segments from a few writers at once, as the flusher does."""
    seed = bytearray(os.urandom(SEGMENT_BLOCKS * BLOCK))
    count = max(1, total_bytes // len(seed))
    ready = [stamped(seed, number) for number in range(min(count, 16))]
    batches: list[StoredBatch] = []
    numbers = iter(range(count))

    async def writer() -> None:
        for number in numbers:
            blocks = ready[number] if number < len(ready) else ready[number % len(ready)]
            if number >= len(ready):
                for index, block in enumerate(blocks):
                    block[:8] = (number << 16 | index).to_bytes(8, "big")
            batches.append(await store.store(blocks))

    cpu, start = cpu_s(), time.perf_counter()
    await asyncio.gather(*(writer() for _ in range(WRITERS)))
    rate("store(), 8 MiB incompressible each", count * len(seed), time.perf_counter() - start, cpu_s() - cpu)
    return batches


async def write_small(store: BlockStore, size: int, count: int) -> list[StoredBatch]:
    batches = []
    seconds = []
    for _ in range(count):
        data = os.urandom(size)
        start = time.perf_counter()
        batches.append(await store.store([data]))
        seconds.append(time.perf_counter() - start)
    percentiles(f"store(), {size // 1024} KiB, one after another", seconds[10:])
    return batches


async def read_ahead(session: CoordinatorSession, nodes: NodePool, batches: Sequence[StoredBatch]) -> None:
    config = DataConfig()
    reader = BlockReader(session, nodes, BlockCache(config.cache_bytes), config)
    for batch in batches:
        reader.learn(batch.blocks, batch.segments)
    wanted = [[block for block, _ in batch.refs] for batch in batches]
    cpu, start, size = cpu_s(), time.perf_counter(), 0
    for turn, ids in enumerate(wanted):
        for ahead in wanted[turn : turn + 4]:
            reader.prefetch(ahead, whole_segments=False)
        for block in ids:
            size += len(reader.cached(block) or await reader.read(block))
    rate("read(), whole segments ahead", size, time.perf_counter() - start, cpu_s() - cpu)
    await reader.close()


async def read_single(session: CoordinatorSession, nodes: NodePool, batches: Sequence[StoredBatch]) -> None:
    reader = BlockReader(session, nodes, BlockCache(DataConfig().cache_bytes))
    seconds = []
    size = 0
    for batch in batches:
        reader.learn(batch.blocks, batch.segments)
    for batch in batches:
        block, size = batch.refs[len(batch.refs) // 2]
        start = time.perf_counter()
        await reader.read(block)
        seconds.append(time.perf_counter() - start)
    percentiles(f"read(), one cold block of {size // 1024} KiB", seconds[2:])
    await reader.close()


async def measure(address: str, args: argparse.Namespace) -> None:
    session = await CoordinatorSession.open(address, "bench", config=SessionConfig())
    attached: pb.AttachReply = await session.call(attach=pb.Attach(name="bench"))
    nodes = NodePool(session)
    store = BlockStore(session, attached.volume, nodes, BlockCache(0))
    trips = []
    for _ in range(300):
        start = time.perf_counter()
        await session.call(stat_volume=pb.StatVolume(volume_id=attached.volume.volume_id))
        trips.append(time.perf_counter() - start)
    percentiles("round trip to the coordinator", trips[10:])
    for batch in await write(store, 64 * MIB):
        await store.abandon(batch)
    batches = await write(store, args.mib * MIB)
    await read_ahead(session, nodes, batches)
    await read_ahead(session, nodes, batches)
    await read_single(session, nodes, batches)
    for batch in batches:
        await store.abandon(batch)
    small = await write_small(store, 4096, 150)
    await read_single(session, nodes, small)
    for batch in small:
        await store.abandon(batch)
    await store.close()
    await nodes.close()
    await session.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--mib", type=int, default=512, help="written in large segments (at most 1536)")
    parser.add_argument("--policy", default="ec:4+2")
    parser.add_argument("--data", type=Path, help="folder for the pool; a temporary one by default")
    args = parser.parse_args()
    sys.setswitchinterval(0.0005)
    with tempfile.TemporaryDirectory(prefix="redfs-bench-", dir=args.data) as folder:
        pool = LocalPool(Path(folder))
        pool.start(args.nodes)
        try:
            address = pool.pool_file().coordinator
            with Pool.connect(address) as api:
                api.create_volume("bench", args.policy)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(measure(address, args))
        finally:
            pool.stop()


if __name__ == "__main__":
    main()
