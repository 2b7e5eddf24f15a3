"""Power goes or the process is killed, at any operation: what was acknowledged is there, what was deleted is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from redfs.core.errors import AlreadyExists, Corrupt
from redfs.storage_node.backing_file import BackingFile, file_name
from redfs.storage_node.disk import PAGE_BYTES
from redfs.storage_node.record import Kind, RecordHeader
from tests.lengths import examples
from tests.simulation.disk import PowerLost
from tests.storage_node.rig import DISK_UUID, Rig, payload_of

Key = tuple[int, int]
State = bytes | None
"""A shard's content, None where it is not held."""


class Model:
    """What may be on the disk: for each shard the states that are allowed."""

    def __init__(self) -> None:
        self.allowed: dict[Key, list[State]] = {}

    def certain(self, key: Key, state: State) -> None:
        self.allowed[key] = [state]

    def possible(self, key: Key, state: State) -> None:
        self.allowed[key] = [*self.allowed.get(key, [None]), state]

    def check(self, rig: Rig) -> None:
        """What is found is allowed, and from now on certain."""
        held: dict[Key, bytes] = rig.held()
        assert held.keys() <= self.allowed.keys()
        for key, states in self.allowed.items():
            assert held.get(key) in states, f"shard {key}"
            self.allowed[key] = [held.get(key)]


def put(rig: Rig, model: Model, key: Key, payload: bytes) -> None:
    model.possible(key, payload)
    rig.put(*key, payload)
    model.certain(key, payload)


def delete(rig: Rig, model: Model, keys: Sequence[Key]) -> None:
    for key in keys:
        model.possible(key, None)
    rig.store.delete(keys)
    for key in keys:
        model.certain(key, None)


SIZES = (1, 4096, 4097, 12000, 20000)


def a_life(rig: Rig, model: Model, base: int) -> None:
    """Fills files, deletes from sealed and active ones, empties one, and stops cleanly."""
    for number in range(9):
        put(rig, model, (base, number), payload_of(base * 100 + number, SIZES[number % len(SIZES)]))
    delete(rig, model, [(base, 1), (base, 3), (base, 8)])
    put(rig, model, (base, 1), payload_of(base * 100 + 50, 9000))
    delete(rig, model, [(base, number) for number in (0, 1, 2, 4)])
    put(rig, model, (base + 1, 0), payload_of(base * 100 + 51, 5000))
    rig.stop()


def operations_of_a_life() -> int:
    rig = Rig()
    rig.start()
    before = rig.disk.operations
    a_life(rig, Model(), 1)
    return rig.disk.operations - before


@pytest.mark.parametrize("seed", range(4))
def test_power_may_go_at_any_operation(seed: int) -> None:
    count = operations_of_a_life()
    assert count > 40
    for at in range(1, count + 1):
        rig, model = Rig(seed=seed * 1000 + at), Model()
        rig.start()
        rig.disk.lose_power_at = rig.disk.operations + at
        with pytest.raises(PowerLost):
            a_life(rig, model, 1)
        rig.power_cycle()
        model.check(rig)
        rig.power_cycle()  # what was found once is found again
        model.check(rig)
        a_life(rig, model, 3)
        rig.start()
        model.check(rig)


def test_power_may_go_again_while_the_node_starts() -> None:
    for at in range(1, 40):
        rig, model = Rig(seed=at), Model()
        rig.start()
        rig.disk.lose_power_at = rig.disk.operations + 30 + at % 7
        with pytest.raises(PowerLost):
            a_life(rig, model, 1)
        rig.disk.restart()
        rig.disk.lose_power_at = rig.disk.operations + at
        try:
            rig.start()
        except PowerLost:
            rig.power_cycle()
        model.check(rig)


def test_what_a_killed_node_finds_is_durable() -> None:
    for at in range(1, operations_of_a_life() + 1):
        rig, model = Rig(seed=at), Model()
        rig.start()
        rig.disk.lose_power_at = rig.disk.operations + at
        with pytest.raises(PowerLost):
            a_life(rig, model, 1)
        rig.restart_after_kill()
        model.check(rig)
        rig.power_cycle()
        model.check(rig)


def test_a_record_behind_a_torn_one_is_found() -> None:
    lost = 0
    for seed in range(40):
        rig = Rig(seed=seed)
        rig.start()
        rig.put(1, 0, payload_of(0, 5000))
        torn = RecordHeader(Kind.SHARD, 1, 1, 12000, 1234)
        # A writer that has reserved its place and not synced when the next one is acknowledged.
        file, offset = rig.store._reserve(4 * PAGE_BYTES)
        rig.put(1, 2, payload_of(2, 9000))
        file.write(offset, torn, payload_of(1, 12000))
        rig.power_cycle()
        assert sorted(rig.held()) == [(1, 0), (1, 2)]
        found = BackingFile(rig.disk.open(file_name(1)), 1, DISK_UUID).read_header(offset)
        lost += found is None
    assert 0 < lost < 40  # both kinds were met


def test_a_repair_cut_short_leaves_one_good_record() -> None:
    payload = payload_of(1, 9000)
    for at in range(1, 8):
        rig = Rig(seed=at)
        rig.start()
        rig.put(1, 0, payload)
        rig.put(1, 1, b"neighbour")
        rig.disk.flip_bit(file_name(1), PAGE_BYTES + 100)
        with pytest.raises(Corrupt):
            rig.store.verify(1, 0)
        rig.disk.lose_power_at = rig.disk.operations + at
        try:
            rig.put(1, 0, payload)
        except PowerLost:
            rig.power_cycle()
            rig.put(1, 0, payload)
        assert rig.held() == {(1, 0): payload, (1, 1): b"neighbour"}
        rig.power_cycle()
        assert rig.held() == {(1, 0): payload, (1, 1): b"neighbour"}


def test_a_damaged_record_that_was_replaced_does_not_come_back() -> None:
    payload = payload_of(1, 9000)
    for at in range(1, 8):
        rig = Rig(seed=at)
        rig.start()
        rig.put(1, 0, payload)
        for shard in range(8):  # fills the file: its footer names the record
            rig.put(2, shard, payload_of(shard, 9000))
        rig.disk.flip_bit(file_name(1), PAGE_BYTES + 100)
        with pytest.raises(Corrupt):
            rig.store.verify(1, 0)
        rig.disk.lose_power_at = rig.disk.operations + at
        try:
            rig.put(1, 0, payload)
        except PowerLost:
            rig.power_cycle()
        rig.disk.lose_power_at = None
        rig.store.delete([(1, 0)])
        rig.power_cycle()
        assert rig.get(1, 0) is None


class StoreMachine(RuleBasedStateMachine):
    """Any order of requests, stops, kills and losses of power, against a dictionary."""

    keys = st.tuples(st.integers(1, 3), st.integers(0, 3))

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.version = 0

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.rig = Rig(seed=seed)
        self.rig.start()

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except PowerLost:
            self.rig.power_cycle()

    @rule(key=keys, size=st.sampled_from(SIZES))
    def put(self, key: Key, size: int) -> None:
        self.version += 1
        payload = payload_of(self.version, size)
        states = self.model.allowed.get(key, [None])
        if states == [None]:
            self._attempt(lambda: put(self.rig, self.model, key, payload))
        elif states[0] is not None:
            if payload != states[0]:  # one byte may come twice
                with pytest.raises(AlreadyExists):
                    self.rig.put(*key, payload)
            self.rig.put(*key, states[0])

    @rule(chosen=st.lists(keys, max_size=4))
    def delete(self, chosen: list[Key]) -> None:
        self._attempt(lambda: delete(self.rig, self.model, chosen))

    @rule(after=st.integers(1, 12))
    def lose_power_soon(self, after: int) -> None:
        self.rig.disk.lose_power_at = self.rig.disk.operations + after

    @rule()
    def stop_and_start(self) -> None:
        def action() -> None:
            self.rig.stop()
            self.rig.start()

        self._attempt(action)

    @rule()
    def kill(self) -> None:
        self.rig.restart_after_kill()

    @rule()
    def lose_power(self) -> None:
        self.rig.power_cycle()

    @precondition(lambda self: hasattr(self, "rig"))
    @invariant()
    def agrees(self) -> None:
        self.model.check(self.rig)
        store = self.rig.store
        assert store.used_bytes == sum(file.used_bytes for file in store.files.values())
        live = [state for states in self.model.allowed.values() for state in states if state is not None]
        assert store.stat().shards == len(live) == sum(file.live_records for file in store.files.values())
        if not live:
            assert store.used_bytes == 0


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=examples(150), stateful_step_count=25, deadline=None)
