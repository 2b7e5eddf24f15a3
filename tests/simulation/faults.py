"""What can happen to a pool, drawn from the seed. At most the tolerance's number of nodes loses what it acknowledged;
everything that only goes away and comes back may hit any number at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from redfs.proto.data_plane import SHARD_KEY
from redfs.storage_node.backing_file import file_name
from tests.simulation.coordinator import NAME as COORDINATOR
from tests.simulation.disk import PAGE_BYTES
from tests.simulation.loop import Process
from tests.simulation.node import SimulatedNode
from tests.simulation.world import World

FREEZE_S = 7.0
"""The longest: beyond a lease, so that sessions lapse."""
CUT_S = 5.0
JUMP_S = 100_000
"""Clocks are set wrong by up to a day."""


class Chaos:
    """Injects faults into a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = random.Random(f"{world.seed} chaos")
        self._faults: list[tuple[int, Callable[[], str | None]]] = [
            (3, self._crash_coordinator),
            (4, self._crash_coordinator_at_a_commit),
            (1, self._coordinator_disk_full),
            (2, self._freeze_coordinator),
            (2, self._set_clock),
            (4, self._lose_power),
            (2, self._kill_node),
            (2, self._freeze_node),
            (1, self._fail_sync),
            (2, self._fill_disk),
            (2, self._lose_for_good),
            (2, self._flip_bit),
            (1, self._truncate_file),
            (3, self._cut_pair),
            (2, self._cut_coordinator_from_nodes),
            (1, self._cut_mount_from_nodes),
            (2, self._cut_mount_from_coordinator),
            (2, self._bad_network),
            (3, self._kill_mount),
            (2, self._freeze_mount),
            (2, self._fail_over),
            (1, self._all_at_once),
        ]

    def strike(self) -> None:
        """One fault."""
        for _ in range(5):
            ((_, fault),) = self._random.choices(self._faults, [weight for weight, _ in self._faults])
            done = fault()
            if done is not None:
                self._world.note(done)
                return

    # ------------------------------------------------------------ the coordinator

    def _crash_coordinator(self) -> str:
        self._world.coordinator.die()
        return "the coordinator is killed"

    def _crash_coordinator_at_a_commit(self) -> str:
        self._world.coordinator.die_in = (self._random.randrange(8), self._random.random() < 0.5)
        return f"the coordinator dies at a commit: {self._world.coordinator.die_in}"

    def _coordinator_disk_full(self) -> str:
        coordinator = self._world.coordinator
        coordinator.full = True
        self._later(self._random.uniform(0.2, 3.0), lambda: setattr(coordinator, "full", False))
        return "the coordinator's disk is full"

    def _freeze_coordinator(self) -> str:
        self._freeze(self._world.coordinator.process)
        return "the coordinator is frozen"

    def _set_clock(self) -> str:
        jump_s = self._random.choice((-1, 1)) * self._random.choice((1, 60, JUMP_S)) * self._random.random()
        self._world.loop.clock.wall_offset_ns += int(jump_s * 1e9)
        return f"clocks jump by {jump_s:.1f} s"

    # ------------------------------------------------------------ nodes

    def _node(self) -> SimulatedNode | None:
        up = [node for node in self._world.nodes if node.is_up]
        return self._random.choice(up) if up else None

    def _victim(self) -> SimulatedNode | None:
        """A node that may lose what it acknowledged."""
        world = self._world
        may = [n for n in world.nodes if n.is_up and (n.number in world.hurt or len(world.hurt) < world.tolerance)]
        return self._random.choice(may) if may else None

    def _lose_power(self) -> str | None:
        node = self._node()
        if node is None:
            return None
        node.disk.lose_power_at = node.disk.operations + 1 + self._random.randrange(12)
        return f"node {node.number} loses power soon"

    def _kill_node(self) -> str | None:
        node = self._node()
        if node is None:
            return None
        node.kill()
        return f"node {node.number} is killed"

    def _freeze_node(self) -> str | None:
        node = self._node()
        if node is None:
            return None
        self._freeze(node.process)
        return f"node {node.number} is frozen"

    def _fail_sync(self) -> str | None:
        node = self._node()
        if node is None:
            return None
        node.disk.fail_next_sync = True
        return f"node {node.number} fails its next fdatasync"

    def _fill_disk(self) -> str | None:
        node = self._node()
        if node is None:
            return None
        disk = node.disk
        disk.capacity_bytes = disk.capacity_bytes - disk.room_bytes() + self._random.randrange(8) * PAGE_BYTES
        self._later(self._random.uniform(0.5, 4.0), lambda: setattr(disk, "capacity_bytes", node.capacity_bytes))
        return f"node {node.number} is full"

    def _lose_for_good(self) -> str | None:
        node = self._victim()
        if node is None:
            return None
        self._world.hurt.add(node.number)
        node.lose_for_good()
        self._later(self._random.uniform(0.0, 3.0), self._world.add_node)
        return f"node {node.number} is lost for good"

    def _flip_bit(self) -> str | None:
        """In a shard's payload, or else anywhere."""
        node = self._victim()
        if node is None:
            return None
        held = node.rig.store.list_page(None, 1000)
        if not held:
            return None
        info = self._random.choice(held)
        entry = node.rig.store.index.get(SHARD_KEY.pack(info.segment, info.shard))
        assert entry is not None
        name = file_name(entry.file_number)
        at = entry.offset + PAGE_BYTES + self._random.randrange(info.payload_bytes)
        if self._random.random() < 0.3:
            at = self._random.randrange(node.disk.size_of(name))
        self._world.hurt.add(node.number)
        node.disk.flip_bit(name, at, self._random.randrange(8))
        return f"node {node.number}: a bit of {name} at {at} flips"

    def _truncate_file(self) -> str | None:
        node = self._victim()
        files = [] if node is None else [n for n in node.disk.list() if n.endswith(".shards")]
        if node is None or not files:
            return None
        self._world.hurt.add(node.number)
        name = self._random.choice(files)
        size = self._random.randrange(node.disk.size_of(name) + 1)
        node.disk.cut_short(name, size)
        node.kill()
        return f"node {node.number}: {name} is cut to {size} bytes"

    # ------------------------------------------------------------ the network

    def _cut(self, pairs: list[tuple[str, str]]) -> None:
        network = self._world.network
        both = self._random.random() < 0.5
        one_way = pairs if self._random.random() < 0.5 else [(b, a) for a, b in pairs]
        cut = [*pairs, *((b, a) for a, b in pairs)] if both else one_way
        for sender, receiver in cut:
            network.cut(sender, receiver, both_ways=False)
        self._later(self._random.uniform(0.3, CUT_S), lambda: network.mend(cut))

    def _cut_pair(self) -> str | None:
        names = self._world.endpoint_names()
        one, other = self._random.sample(names, 2)
        self._cut([(one, other)])
        return f"{one} and {other} are cut"

    def _cut_coordinator_from_nodes(self) -> str:
        nodes = [n.address for n in self._world.nodes]
        some = nodes if self._random.random() < 0.5 else self._random.sample(nodes, 3)
        self._cut([(COORDINATOR, node) for node in some])
        return f"the coordinator is cut from {len(some)} nodes"

    def _mount(self) -> str | None:
        names = [p.mount.name for p in self._world.programs if p.mount is not None and not p.finished]
        return self._random.choice(names) if names else None

    def _cut_mount_from_nodes(self) -> str | None:
        mount = self._mount()
        if mount is None:
            return None
        self._cut([(mount, node.address) for node in self._world.nodes])
        return f"{mount} is cut from the nodes"

    def _cut_mount_from_coordinator(self) -> str | None:
        mount = self._mount()
        if mount is None:
            return None
        self._cut([(mount, COORDINATOR)])
        return f"{mount} is cut from the coordinator"

    def _bad_network(self) -> str:
        network = self._world.network
        network.loss, network.repeat, network.breaks = 0.05, 0.1, 0.01
        slow = self._random.choice(self._world.endpoint_names())
        network.slow[slow] = self._random.choice((0.05, 0.5, 2.5))

        def better() -> None:
            network.loss = network.repeat = network.breaks = 0.0
            network.slow.pop(slow, None)

        self._later(self._random.uniform(0.5, 3.0), better)
        return f"the network loses and repeats, {slow} is slow"

    # ------------------------------------------------------------ mounts, and everybody

    def _kill_mount(self) -> str | None:
        at_work = [p for p in self._world.programs if not p.finished]
        if not at_work:
            return None
        program = self._random.choice(at_work)
        program.kill()
        return f"{program.name} is killed"

    def _freeze_mount(self) -> str | None:
        at_work = [p for p in self._world.programs if not p.finished and p.mount is not None]
        if not at_work:
            return None
        program = self._random.choice(at_work)
        assert program.mount is not None
        self._freeze(program.mount.process)
        return f"{program.name} is frozen"

    def _fail_over(self) -> str | None:
        at_work = [p for p in self._world.programs if not p.finished]
        if not at_work:
            return None
        program = self._random.choice(at_work)
        return None if program.fail_over() is None else f"{program.name} hangs and another host takes over"

    def _all_at_once(self) -> str:
        """The power of the whole room goes."""
        world = self._world
        for node in world.nodes:
            node.power_lost()
        world.coordinator.die()
        for program in world.programs:
            program.kill()
        return "everything loses power at once"

    # ------------------------------------------------------------ helpers

    def _later(self, delay_s: float, what: Callable[[], object]) -> None:
        self._world.loop.outside(delay_s, what)

    def _freeze(self, process: Process) -> None:
        loop = self._world.loop
        process.freezes += 1
        self._later(self._random.uniform(0.1, FREEZE_S), lambda: loop.thaw(process))
