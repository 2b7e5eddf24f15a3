"""What must hold when a schedule has ended and everything that was away is back.

Liveness is checked on the way there: programs end, jobs end, and doomed shards go within stated times.
"""

from __future__ import annotations

import asyncio

import xxhash

from redfs.coordinator import check
from redfs.coordinator.jobs import next_job
from redfs.core.erasure import code
from redfs.core.errors import RedfsError
from redfs.core.tables import DOOMED, SEGMENTS, SegmentRow, SegmentState, decode_segment, decode_u64
from tests.simulation.model import Found
from tests.simulation.mount import SimulatedMount
from tests.simulation.program import TRANSIENT, Program, read_all
from tests.simulation.world import World

PROGRAMS_END_S = 120.0
"""After the last fault: waits of a lease, a session's end and some retries one after another, and then the work."""
REST_S = 60.0
"""Until nothing is left to be deleted, freed or compared."""
READ_S = 30.0
"""For reading a volume whole when nothing is wrong any more."""


async def check_everything(world: World) -> None:
    """Waits until the world is at rest and proves all that is promised."""
    await world.until(lambda: all(p.finished for p in world.programs), PROGRAMS_END_S, lambda: _unfinished(world))
    for program in world.programs:
        await _check_volume(world, program.model.name, program)
    for name in sorted(world.frozen):
        await _check_snapshot(world, name)
    await world.until(lambda: _at_rest(world), REST_S, lambda: f"at rest: {_restless(world)}")
    _check_metadata(world)
    _check_shards(world)
    for _ in range(2):
        world.loop.look_for_failures()
        await world.sleep(0.1)


def _unfinished(world: World) -> str:
    return ", ".join(f"{p.name} has {p.left} operations to go" for p in world.programs if not p.finished)


# ---------------------------------------------------------------- what was written is there


async def _check_volume(world: World, name: str, program: Program) -> None:
    """All that was acknowledged: the program ended with everything durable."""
    program.model.recovered(await _read(world, name))


async def _check_snapshot(world: World, name: str) -> None:
    found, expected = await _read(world, name), world.frozen[name]
    assert found == expected, f"{name} is not what it was: {found.tree} instead of {expected.tree}"


async def _read(world: World, name: str) -> Found:
    mount = SimulatedMount(world.loop, world.network, f"reader of {name} {world.next_number()}", name)
    result: list[Found] = []

    async def work() -> None:
        while True:
            try:
                await mount.open(read_only=True)
                break
            except TRANSIENT:
                await asyncio.sleep(0.2)
        try:
            while not result:
                try:
                    result.append(await read_all(mount))
                except TRANSIENT:
                    await asyncio.sleep(0.2)
        except RedfsError as error:
            world.failed(AssertionError(f"{name} cannot be read: {error!r}"))
        await mount.close()

    task = world.loop.spawn(mount.process, work())
    await world.until(task.done, READ_S, f"{name} is read")
    task.result()
    mount.kill()
    return result[0]


# ---------------------------------------------------------------- at rest


def _restless(world: World) -> list[str]:
    """What is still to be done."""
    left: list[str] = []
    with world.coordinator.coordinator.read() as kv:
        if next_job(kv, b"") is not None:
            left.append("a job runs")
        gone = {node.node_id for node in world.nodes if node.lost_for_good}
        doomed = [key for key, _ in kv.scan(DOOMED, b"", b"\xff" * 16) if int.from_bytes(key[:4], "big") not in gone]
        if doomed:
            left.append(f"{len(doomed)} shards are to be deleted")
    for node in world.nodes:
        if not node.lost_for_good:
            surplus = _held(world, node.number) - _named(world, node.node_id)
            if surplus:
                left.append(f"node {node.number} holds {sorted(surplus)} that nothing names")
    return left


def _at_rest(world: World) -> bool:
    return not _restless(world)


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


def _held(world: World, number: int) -> set[tuple[int, int]]:
    return {(info.segment, info.shard) for info in world.nodes[number].rig.store.list_page(None, 100_000)}


def _check_metadata(world: World) -> None:
    with world.coordinator.coordinator.read() as kv:
        problems = [item for item in check.check(kv) if isinstance(item, str)]
    assert problems == [], problems


def _check_shards(world: World) -> None:
    """Every shard that a row names is on its node as the code wants it, unless that node was hurt."""
    for segment, row in _segments(world):
        assert row.state == SegmentState.COMMITTED, f"segment {segment:#x} is open and nobody works"
        shards: dict[int, bytes] = {}
        bad: list[int] = []
        for shard, node_id in enumerate(row.nodes):
            node = world.node_called(node_id)
            assert node is not None, f"segment {segment:#x} names node {node_id}"
            try:
                payload = b"" if node.lost_for_good else node.rig.store.read(segment, shard)
            except RedfsError:
                payload = b""
            if len(payload) == row.shard_bytes:
                shards[shard] = payload
            else:
                bad.append(shard)
                hurt = node.number in world.hurt
                assert hurt, f"shard {shard} of segment {segment:#x} is not on node {node.number}, or not whole"
        k, m = row.layout
        assert len(shards) >= k, f"segment {segment:#x} is lost: shards {bad}"
        sound = {s: p for s, p in shards.items() if _number_of(world, row.nodes[s]) not in world.hurt}
        assert len(sound) >= k, f"segment {segment:#x} is below its tolerance"
        wanted = sorted(set(range(k + m)) - set(sorted(sound)[:k]))
        for shard, right in zip(wanted, code(k, m).rebuild(wanted, sound), strict=True):
            if shard in sound:
                same = xxhash.xxh3_64_intdigest(right) == xxhash.xxh3_64_intdigest(sound[shard])
                assert same, f"shard {shard} of segment {segment:#x} does not belong to its siblings"


def _number_of(world: World, node_id: int) -> int:
    node = world.node_called(node_id)
    return -1 if node is None else node.number
