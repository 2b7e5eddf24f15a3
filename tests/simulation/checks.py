"""What must hold when a schedule has ended and everything that was away is back.

Liveness is checked on the way there: programs end, jobs end, and doomed shards go within stated times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redfs.coordinator import check
from redfs.coordinator.jobs import all_jobs
from redfs.core.erasure import code
from redfs.core.errors import RedfsError
from redfs.core.tables import (
    DAMAGE,
    DOOMED,
    SEGMENTS,
    JobKind,
    SegmentRow,
    SegmentState,
    decode_segment,
    decode_u64,
    split_job_key,
)
from redfs.proto.gen import cluster_pb2 as pb
from tests.simulation.model import Found
from tests.simulation.mount import SimulatedMount
from tests.simulation.node import SimulatedNode
from tests.simulation.program import TRANSIENT, read_all
from tests.simulation.world import World

PROGRAMS_END_S = 120.0
"""After the last fault: waits of a lease, a session's end and some retries one after another, and then the work."""
REST_S = 120.0
"""Until nothing is left to be deleted, freed, compared, or made anew: nodes that were lost are given up, a scrub runs,
and what fails meanwhile waits for a pause or two."""
READ_S = 30.0
"""For reading a volume whole when nothing is wrong any more."""


async def check_everything(world: World) -> None:
    """Waits until the world is at rest and proves all that is promised."""
    await world.until(lambda: all(p.finished for p in world.programs), PROGRAMS_END_S, lambda: _unfinished(world))
    await world.until(lambda: not _jobs(world, JobKind.CLEAN), REST_S, lambda: f"jobs to end: {_jobs(world)}")
    await _check_content(world)
    await check_healed(world)
    await world.until(lambda: not _restless(world), REST_S, lambda: f"at rest: {_restless(world)}")
    _check_metadata(world)
    _check_shards(world)
    for _ in range(2):
        world.loop.look_for_failures()
        await world.sleep(0.1)


async def check_healed(world: World) -> None:
    """All that was lost or damaged is made anew: a scrub finds what nobody has read."""
    await world.until(lambda: not _endangered(world), REST_S, lambda: f"healed: {_endangered(world)}")
    await world.ask_coordinator("StartJob", pb.JobStart(kind="scrub"))
    await world.until(lambda: not _jobs(world), REST_S, lambda: f"jobs to end: {_jobs(world)}")
    await world.until(lambda: not _endangered(world), REST_S, lambda: f"healed: {_endangered(world)}")


def _unfinished(world: World) -> str:
    return ", ".join(f"{p.name} has {p.left} operations to go" for p in world.programs if not p.finished)


# ---------------------------------------------------------------- what was written is there


async def _check_content(world: World) -> None:
    """All that was acknowledged, because each program ended with everything durable; and every snapshot as it was."""
    programs = {program.model.name: program for program in world.programs}
    for name, found in (await _read(world, [*programs, *sorted(world.frozen)])).items():
        if name in programs:
            programs[name].model.recovered(found)
        else:
            expected = world.frozen[name]
            assert found == expected, f"{name} is not what it was: {found.tree} instead of {expected.tree}"


async def _read(world: World, names: Sequence[str]) -> dict[str, Found]:
    """All of them at the same time, each by a mount of its own."""
    found: dict[str, Found] = {}
    mounts = [
        SimulatedMount(world.loop, world.network, f"reader of {name} {world.next_number()}", name) for name in names
    ]
    tasks = [world.loop.spawn(mount.process, _read_one(world, mount, found)) for mount in mounts]
    await world.until(
        lambda: all(task.done() for task in tasks), READ_S, lambda: f"{sorted({*names} - {*found})} are read"
    )
    for task, mount in zip(tasks, mounts, strict=True):
        task.result()
        mount.kill()
    return {name: found[name] for name in names}


async def _read_one(world: World, mount: SimulatedMount, found: dict[str, Found]) -> None:
    while True:
        try:
            await mount.open(read_only=True)
            break
        except TRANSIENT:
            await asyncio.sleep(0.2)
    try:
        while mount.volume not in found:
            try:
                found[mount.volume] = await read_all(mount)
            except TRANSIENT:
                await asyncio.sleep(0.2)
    except RedfsError as error:
        world.failed(AssertionError(f"{mount.volume} cannot be read: {error!r}"))
    await mount.close()


# ---------------------------------------------------------------- at rest


def _jobs(world: World, *kinds: JobKind) -> list[str]:
    """Jobs of these kinds, or all."""
    with world.coordinator.coordinator.read() as kv:
        jobs = [(JobKind(split_job_key(key)[0]), row) for key, row in all_jobs(kv)]
    return [f"{kind.name.lower()} {row.volume_id}" for kind, row in jobs if not kinds or kind in kinds]


def _endangered(world: World) -> list[str]:
    """Shards that are known to be damaged, or named on nodes that are gone."""
    gone = {node.node_id for node in world.nodes if node.lost_for_good}
    found = [
        f"shard {shard} of segment {segment:#x} on node {node_id}, which is gone"
        for segment, row in _segments(world)
        for shard, node_id in enumerate(row.nodes)
        if node_id in gone
    ]
    with world.coordinator.coordinator.read() as kv:
        found += [f"damaged: {key.hex()}" for key, _ in kv.scan(DAMAGE, b"", b"\xff" * 16)]
    return found


def _restless(world: World) -> list[str]:
    """What is still to be done."""
    left = [*_jobs(world), *_endangered(world)]
    # A session whose end could not be stored, because the coordinator's disk was full, keeps its own until it lapses.
    left += [f"segment {segment:#x} is open" for segment, row in _segments(world) if row.state == SegmentState.OPEN]
    gone = {node.node_id for node in world.nodes if node.lost_for_good}
    with world.coordinator.coordinator.read() as kv:
        doomed = [key for key, _ in kv.scan(DOOMED, b"", b"\xff" * 16) if int.from_bytes(key[:4], "big") not in gone]
        if doomed:
            left.append(f"{len(doomed)} shards are to be deleted")
    for node in world.nodes:
        if not node.lost_for_good:
            surplus = _held(node) - _named(world, node.node_id)
            if surplus:
                left.append(f"node {node.number} holds {sorted(surplus)} that nothing names")
    return left


def _segments(world: World) -> list[tuple[int, SegmentRow]]:
    with world.coordinator.coordinator.read() as kv:
        return [(decode_u64(key), decode_segment(raw)) for key, raw in kv.scan(SEGMENTS, b"", b"\xff" * 9)]


def _named(world: World, node_id: int) -> set[tuple[int, int]]:
    return {
        (segment, shard)
        for segment, row in _segments(world)
        for shard, named in enumerate(row.nodes)
        if named == node_id
    }


def _held(node: SimulatedNode) -> set[tuple[int, int]]:
    return {(info.segment, info.shard) for info in node.rig.store.list_page(None, 100_000)}


def _check_metadata(world: World) -> None:
    with world.coordinator.coordinator.read() as kv:
        problems = [item for item in check.check(kv) if isinstance(item, str)]
    assert problems == [], problems


def _check_shards(world: World) -> None:
    """Every segment has all its shards, each on its node as the code wants it."""
    for segment, row in _segments(world):
        name = f"segment {segment:#x}"
        assert row.state == SegmentState.COMMITTED, f"{name} is open and nobody works"
        shards: dict[int, bytes] = {}
        for shard, node_id in enumerate(row.nodes):
            node = world.node_called(node_id)
            assert node is not None, f"{name} names node {node_id}, which never was"
            assert not node.lost_for_good, f"{name} names node {node_id}, which is gone"
            try:
                node.rig.store.verify(segment, shard, fresh=True)
                shards[shard] = node.rig.store.read(segment, shard)
            except RedfsError as error:
                raise AssertionError(f"shard {shard} of {name} on node {node.number}: {error}") from error
            assert len(shards[shard]) == row.shard_bytes, f"shard {shard} of {name} has another length"
        k, m = row.layout
        parity = list(range(k, k + m))
        for shard, right in zip(parity, code(k, m).rebuild(parity, shards), strict=True):
            assert right == shards[shard], f"shard {shard} of {name} does not belong to its siblings"
