"""The version store against a slow, obvious model: a whole copy of the records for every head and every pin."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from redfs.core.kv import MemoryKv, Overlay
from redfs.core.records import Kind
from redfs.core.versions import (
    TABLES,
    Ancestry,
    Holder,
    HolderType,
    VersionReader,
    VersionStore,
    Weight,
    audit_weights,
    verify,
)
from redfs.core.versions.ancestry import DIRECT_MAX
from redfs.core.versions.store import ReclaimStep
from redfs.core.versions.weights import HEAD, freed_by_head, freed_by_pin, shown_by
from tests.lengths import examples

EXAMPLES = examples(60)
STEPS = 60

Object = tuple[int, bytes]


def _ino(number: int) -> bytes:
    return number.to_bytes(8)


OBJECTS: list[Object] = [
    (Kind.INODE, _ino(1)),
    (Kind.DIRENT, _ino(1) + _ino(7)),
    (Kind.DIRENT, _ino(1) + _ino(8)),
    (Kind.SLOT, _ino(1) + bytes(4) + _ino(0)),
    (Kind.SLOT, _ino(1) + bytes(4) + _ino(1)),
    (Kind.INODE, _ino(2)),
    (Kind.DIRENT, _ino(2) + _ino(7)),
    (Kind.SLOT, _ino(2) + bytes(4) + _ino(0)),
    (Kind.INODE, _ino(3)),
    (Kind.SLOT, _ino(3) + bytes(4) + _ino(0)),
    (Kind.INODE, _ino(9)),
]

WRITES = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "delete"]),
        st.sampled_from(OBJECTS[:2]) | st.sampled_from(OBJECTS),
    ),
    min_size=1,
    max_size=4,
)


def weigh(value: bytes) -> Weight:
    number = int(value.split()[1])
    return Weight(number, 2 * number)


Records = dict[Object, bytes]


@dataclass
class Volume:
    """A lineage as the model sees it."""

    head: Records | None
    epoch: int = 1
    fork: tuple[int, int] | None = None
    pins: dict[int, Records] = field(default_factory=dict)
    holders: dict[int, set[Holder]] = field(default_factory=dict)
    born: dict[int, set[int]] = field(default_factory=dict)
    """Epoch -> inodes written at it."""


class VersionMachine(RuleBasedStateMachine):
    """Writes, snapshots, clones, deletions and reclaim steps in any order."""

    stacked = False
    direct_max = DIRECT_MAX

    def __init__(self) -> None:
        super().__init__()
        self.base = MemoryKv()
        self.ancestry = Ancestry(self.direct_max)
        self.volumes: dict[int, Volume] = {}
        self.jobs: list[tuple[int, int]] = []  # (lineage, pin's epoch or 0 for the head)
        self.live: set[bytes] = set()
        self.freed = Weight()
        self.next_id = 1
        self.renew()
        self.store.create_lineage(1, family=9)
        self.volumes[1] = Volume(head={})

    # -- plumbing

    def renew(self) -> None:
        self.outer = Overlay(self.base)
        self.kv = Overlay(self.outer) if self.stacked else self.outer
        self.store = VersionStore(self.kv, self.on_freed, weigh, self.ancestry)

    def on_freed(self, kind: int, obj: bytes, value: bytes) -> None:
        assert value in self.live, "freed what is not there"
        self.live.remove(value)
        if kind == Kind.SLOT:
            self.freed = self.freed.plus(weigh(value))

    def fresh_id(self) -> int:
        self.next_id += 1
        return self.next_id

    def heads(self) -> list[int]:
        return [lineage for lineage, volume in self.volumes.items() if volume.head is not None]

    def pins(self) -> list[tuple[int, int]]:
        return [(lineage, epoch) for lineage, volume in self.volumes.items() for epoch in volume.pins]

    def snapshots(self) -> list[tuple[int, int, Holder]]:
        return [
            (lineage, epoch, holder)
            for lineage, volume in self.volumes.items()
            for epoch, holders in volume.holders.items()
            for holder in sorted(holders)
            if holder.type is HolderType.SNAPSHOT
        ]

    # -- writes

    def write(self, lineage: int, verb: str, known: Object) -> None:
        kind, obj = known
        volume = self.volumes[lineage]
        volume.born.setdefault(volume.epoch, set()).add(int.from_bytes(obj[:8]))
        assert volume.head is not None
        if verb == "put":
            value = b"value %d" % self.fresh_id()
            self.live.add(value)
            self.store.put(lineage, kind, obj, value)
            volume.head[known] = value
        else:
            self.store.delete(lineage, kind, obj)
            volume.head.pop(known, None)

    @precondition(lambda self: self.heads())
    @rule(data=st.data(), writes=WRITES, then_pin=st.booleans())
    def write_some(self, data: st.DataObject, writes: list[tuple[str, Object]], then_pin: bool) -> None:
        lineage = data.draw(st.sampled_from(self.heads()))
        for verb, known in writes:
            self.write(lineage, verb, known)
        if then_pin:
            self.pin(lineage, Holder(HolderType.SNAPSHOT, self.fresh_id()))

    # -- the tree

    def pin(self, lineage: int, holder: Holder) -> int:
        volume = self.volumes[lineage]
        assert volume.head is not None
        epoch = self.store.pin_head(lineage, holder)
        assert epoch == volume.epoch
        assert self.store.head_epoch(lineage) == epoch + 1
        volume.epoch += 1
        volume.pins[epoch] = dict(volume.head)
        volume.holders[epoch] = {holder}
        return epoch

    def fork_at(self, parent: int, epoch: int, child: int) -> None:
        self.store.fork(parent, epoch, child, family=9)
        self.volumes[parent].holders[epoch].add(Holder(HolderType.FORK, child))
        self.volumes[child] = Volume(head=dict(self.volumes[parent].pins[epoch]), fork=(parent, epoch))

    @precondition(lambda self: self.heads())
    @rule(data=st.data())
    def snapshot(self, data: st.DataObject) -> None:
        self.pin(data.draw(st.sampled_from(self.heads())), Holder(HolderType.SNAPSHOT, self.fresh_id()))

    @precondition(lambda self: self.heads() and len(self.volumes) < 8)
    @rule(data=st.data())
    def clone_head(self, data: st.DataObject) -> None:
        parent = data.draw(st.sampled_from(self.heads()))
        child = self.fresh_id()
        self.fork_at(parent, self.pin(parent, Holder(HolderType.FORK, child)), child)

    @precondition(lambda self: self.pins() and len(self.volumes) < 8)
    @rule(data=st.data())
    def clone_pin(self, data: st.DataObject) -> None:
        self.fork_at(*data.draw(st.sampled_from(self.pins())), self.fresh_id())

    @precondition(lambda self: self.pins())
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        lineage, epoch = data.draw(st.sampled_from(self.pins()))
        holder = Holder(HolderType.SNAPSHOT, self.fresh_id())
        self.store.add_holder(lineage, epoch, holder)
        self.volumes[lineage].holders[epoch].add(holder)

    @precondition(lambda self: self.snapshots())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lineage, epoch, holder = data.draw(st.sampled_from(self.snapshots()))
        last = self.store.release(lineage, epoch, holder)
        assert last == self.model_release(lineage, epoch, holder)

    def model_release(self, lineage: int, epoch: int, holder: Holder) -> bool:
        volume = self.volumes[lineage]
        volume.holders[epoch].remove(holder)
        if volume.holders[epoch]:
            return False
        del volume.pins[epoch], volume.holders[epoch]
        self.jobs.append((lineage, epoch))
        return True

    @precondition(lambda self: len(self.heads()) > 1)
    @rule(data=st.data())
    def drop_head(self, data: st.DataObject) -> None:
        self.end_head(data.draw(st.sampled_from(self.heads())))

    def end_head(self, lineage: int) -> None:
        self.store.drop_head(lineage)
        self.volumes[lineage].head = None
        self.jobs.append((lineage, 0))

    # -- reclaim

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), budget=st.integers(1, 5), steps=st.integers(1, 3))
    def reclaim(self, data: st.DataObject, budget: int, steps: int) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        for _ in range(steps):
            if self.step(job, budget).done:
                break

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), budget=st.integers(1, 5))
    def finish(self, data: st.DataObject, budget: int) -> None:
        self.run_to_end(data.draw(st.sampled_from(self.jobs)), budget)

    @precondition(lambda self: self.snapshots() or len(self.heads()) > 1)
    @rule(data=st.data())
    def free_exactly(self, data: st.DataObject) -> None:
        self.free_one(lambda choices: data.draw(st.sampled_from(choices)))

    def free_one(self, choose: Callable[[list[Any]], Any]) -> None:
        """What a deletion frees is what was charged to the deleted one alone."""
        self.finish_all()
        choices: list[tuple[int, int, Holder] | int] = [*self.snapshots()]
        if len(self.heads()) > 1:
            choices += self.heads()
        chosen = choose(choices)
        before = self.freed
        if isinstance(chosen, int):
            expected = freed_by_head(self.kv, self.store, chosen)
            self.end_head(chosen)
        else:
            lineage, epoch, holder = chosen
            expected = freed_by_pin(self.kv, self.store, lineage, epoch)
            self.store.release(lineage, epoch, holder)
            self.model_release(lineage, epoch, holder)
        self.finish_all()
        assert self.freed == before.plus(expected)

    def finish_all(self) -> None:
        while self.jobs:
            self.run_to_end(self.jobs[0], 100)
        self.store.flush()

    def run_to_end(self, job: tuple[int, int], budget: int) -> None:
        steps = 0
        while not self.step(job, budget).done:
            steps += 1
            assert steps < 1000, "reclaim does not end"

    def step(self, job: tuple[int, int], budget: int) -> ReclaimStep:
        lineage, epoch = job
        if epoch:
            done = self.store.reclaim_pin_step(lineage, epoch, budget)
        else:
            done = self.store.reclaim_head_step(lineage, budget)
        assert done.rows <= budget
        if done.done:
            self.jobs.remove(job)
        if lineage in self.volumes and not self.store.exists(lineage):
            volume = self.volumes.pop(lineage)
            assert volume.head is None
            assert not volume.pins
            assert done.done
            holder = Holder(HolderType.FORK, lineage)
            if volume.fork is not None and self.model_release(*volume.fork, holder):
                assert done.dropped_pin == volume.fork
            else:
                assert done.dropped_pin is None
        else:
            assert done.dropped_pin is None
        return done

    @rule()
    def commit(self) -> None:
        """What a restart is to the store: nothing but the tables lives on."""
        self.store.flush()
        if self.kv is not self.outer:
            for table, key, value in self.kv.changes():
                if value is None:
                    self.outer.delete(table, key)
                else:
                    self.outer.put(table, key, value)
        self.base.apply(self.outer.changes())
        self.renew()
        reader = VersionReader(self.base, self.ancestry)
        for lineage, volume in self.volumes.items():
            for epoch, records in volume.pins.items():
                self.compare(reader, lineage, epoch, records, 99)

    # -- checks

    @invariant()
    def tables_are_sound(self) -> None:
        assert verify(self.kv) == []
        self.store.flush()
        assert list(audit_weights(self.kv, weigh)) == []
        rows = [value for _, value in self.kv.scan("versions", b"", b"\xff") if value]
        assert sorted(rows) == sorted(self.live)

    @rule(budget=st.integers(1, 4))
    def look(self, budget: int) -> None:
        self.store.flush()
        for lineage, volume in self.volumes.items():
            points = dict(volume.pins)
            if volume.head is not None:
                points[volume.epoch] = volume.head
            assert self.store.pins(lineage) == sorted(volume.pins)
            for epoch, records in points.items():
                assert set(self.store.holders(lineage, epoch)) == volume.holders.get(epoch, set())
                self.compare(self.store, lineage, epoch, records, budget)
                at = epoch if epoch in volume.pins else HEAD
                shown = sum(weigh(value).logical_bytes for (kind, _), value in records.items() if kind == Kind.SLOT)
                assert shown_by(self.kv, lineage, at) == Weight(shown, 2 * shown)
            self.compare_births(lineage, volume)

    def compare(self, reader: VersionReader, lineage: int, epoch: int, records: Records, limit: int) -> None:
        for kind, obj in OBJECTS:
            assert reader.get(lineage, epoch, kind, obj) == records.get((kind, obj))
        for kind in (Kind.INODE, Kind.DIRENT, Kind.SLOT):
            wanted = [(obj, v) for (k, obj), v in sorted(records.items()) if k == kind]
            found: list[tuple[bytes, bytes]] = []
            start = b""
            while page := reader.scan(lineage, epoch, kind, start, None, limit):
                assert len(page) <= limit
                found += page
                start = page[-1][0] + b"\0"
            assert found == wanted
            paged: list[tuple[bytes, bytes]] = []
            resume: bytes | None = b""
            while resume is not None:
                rows, resume = reader.scan_page(lineage, epoch, kind, resume, None, 99, limit)
                paged += rows
            assert paged == found
            for number in (1, 2, 3, 9):
                inode = reader.scan(lineage, epoch, kind, _ino(number), _ino(number + 1), 99)
                assert inode == [row for row in found if row[0][:8] == _ino(number)]

    def compare_births(self, lineage: int, volume: Volume) -> None:
        """Between neighbouring pins every inode that differs is named, and none that was never written there."""
        pins = sorted(volume.pins)
        for older, newer in pairwise(pins):
            named = {int(ino) for _, ino in self.store.born_between(lineage, older, newer)}
            before, after = volume.pins[older], volume.pins[newer]
            differ = {int.from_bytes(known[1][:8]) for known in OBJECTS if before.get(known) != after.get(known)}
            written = set().union(*(inos for epoch, inos in volume.born.items() if older < epoch <= newer))
            assert differ <= named <= written

    def teardown(self) -> None:
        """Everything goes, in small steps: only the empty tables are left."""
        self.look(2)
        for turn, (lineage, epoch, holder) in enumerate(sorted(self.snapshots(), key=lambda row: row[2].id * 37 % 101)):
            self.store.release(lineage, epoch, holder)
            self.model_release(lineage, epoch, holder)
            if self.jobs and turn % 3:
                self.run_to_end(self.jobs[-turn % len(self.jobs)], turn)
            self.tables_are_sound()
        self.look(3)
        for lineage in self.heads():
            self.end_head(lineage)
        rounds = 0
        while self.jobs:
            self.step(self.jobs[rounds % len(self.jobs)], 1 + rounds % 3)
            rounds += 1
            assert rounds < 10_000, "reclaim does not end"
            if rounds % 7 == 0:
                self.tables_are_sound()
        assert not self.live
        assert not self.volumes
        for table in TABLES:
            assert list(self.kv.scan(table, b"", b"\xff" * 9)) == []


class StackedVersionMachine(VersionMachine):
    """The same over an overlay on an overlay."""

    stacked = True


class DeepVersionMachine(VersionMachine):
    """Clones of clones and roll-backs, read through the index of holdings wherever there is one."""

    direct_max = 0

    @precondition(lambda self: self.heads() and len(self.volumes) < 24)
    @rule(generations=st.integers(1, 4), data=st.data(), writes=WRITES)
    def descend(self, generations: int, data: st.DataObject, writes: list[tuple[str, Object]]) -> None:
        lineage = data.draw(st.sampled_from(self.heads()[-3:]))
        for _ in range(generations):
            child = self.fresh_id()
            self.fork_at(lineage, self.pin(lineage, Holder(HolderType.FORK, child)), child)
            lineage = child
        for verb, known in writes:
            self.write(lineage, verb, known)

    @precondition(lambda self: self.pins() and self.heads() and len(self.volumes) < 24)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        lineage, epoch = data.draw(st.sampled_from(self.pins()))
        self.fork_at(lineage, epoch, self.fresh_id())
        if self.volumes[lineage].head is not None:
            self.end_head(lineage)

    @precondition(lambda self: len(self.heads()) > 1)
    @rule(data=st.data(), budget=st.integers(1, 3))
    def end_middle(self, data: st.DataObject, budget: int) -> None:
        """A generation with others on both sides of it goes."""
        forked = [
            lineage for lineage in self.heads() if any(v.fork and v.fork[0] == lineage for v in self.volumes.values())
        ]
        if forked:
            lineage = data.draw(st.sampled_from(forked))
            self.end_head(lineage)
            self.run_to_end((lineage, 0), budget)


def random_history(machine: VersionMachine, seed: int, steps: int) -> None:
    """A long life of few lineages with many pins, which the strategies above seldom make."""
    dice = random.Random(seed)
    for turn in range(steps):
        roll = dice.random()
        heads, pins, snapshots, jobs = machine.heads(), machine.pins(), machine.snapshots(), machine.jobs
        if not heads:
            break
        lineage = dice.choice(heads)
        if roll < 0.5:
            for _ in range(dice.randint(1, 4)):
                verb = dice.choice(["put", "put", "delete"])
                machine.write(lineage, verb, dice.choice(OBJECTS))
        elif roll < 0.68:
            machine.pin(lineage, Holder(HolderType.SNAPSHOT, machine.fresh_id()))
        elif roll < 0.80 and snapshots:
            lineage, epoch, holder = dice.choice(snapshots)
            assert machine.store.release(lineage, epoch, holder) == machine.model_release(lineage, epoch, holder)
        elif roll < 0.88 and jobs:
            machine.step(dice.choice(jobs), dice.randint(1, 5))
        elif roll < 0.94 and jobs:
            machine.run_to_end(dice.choice(jobs), dice.randint(1, 5))
        elif roll < 0.97 and pins and len(machine.volumes) < (12 if machine.direct_max == 0 else 4):
            machine.fork_at(*dice.choice(pins), machine.fresh_id())
        elif roll < 0.98 and len(heads) > 1:
            machine.free_one(dice.choice)
        elif roll < 0.99:
            machine.commit()
        if turn % 4 == 0:
            machine.tables_are_sound()
        if turn % 40 == 0:
            machine.look(dice.randint(1, 4))
    machine.teardown()


@pytest.mark.parametrize("seed", range(12))
def test_random_histories(seed: int) -> None:
    random_history((VersionMachine, StackedVersionMachine, DeepVersionMachine)[seed % 3](), seed, 250)


TestVersions = VersionMachine.TestCase
TestVersions.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
TestStackedVersions = StackedVersionMachine.TestCase
TestStackedVersions.settings = settings(max_examples=max(1, EXAMPLES // 2), stateful_step_count=STEPS, deadline=None)
TestDeepVersions = DeepVersionMachine.TestCase
TestDeepVersions.settings = settings(max_examples=max(1, EXAMPLES // 2), stateful_step_count=STEPS, deadline=None)


@pytest.mark.slow
@pytest.mark.parametrize("machine", [VersionMachine, StackedVersionMachine, DeepVersionMachine])
def test_long_histories(machine: type[VersionMachine]) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples(60), stateful_step_count=120, deadline=None)
    )
