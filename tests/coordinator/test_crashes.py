"""The process dies around every commit point: what was answered is there, what was not is whole or absent.

The store keeps what was committed; everything else is forgotten. The client sends its commit again, as it would.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from redfs.coordinator.store import MemoryStore
from redfs.core.errors import NoSpace, NotFound
from redfs.core.records import SLOT_BYTES, Piece
from redfs.core.tables import StatsRow
from tests.coordinator.harness import Client, NewBlock, Pool, fingerprint, slot_record


class Died(BaseException):
    """Not an error that anybody handles."""


def story(pool: Pool) -> list[Callable[[], object]]:
    """Steps that each may be the last."""
    client: list[Client] = []

    def commit(word: str, slot: int) -> Callable[[], object]:
        def step() -> object:
            request, ids = client[0].request([NewBlock(word)])
            records = [slot_record(10, slot, (Piece(0, SLOT_BYTES, ids[0], 0),))]
            return client[0].send(request._replace(records=records))

        return step

    def mount() -> None:
        client.append(Client(pool, "v"))

    return [
        lambda: pool.create("v", "ec:4+2"),
        mount,
        commit("a", 0),
        commit("b", 1),
        lambda: pool.snapshot("v@s"),
        commit("c", 0),
        lambda: pool.clone("v@s", "c"),
        lambda: pool.delete("v@s"),
        pool.coordinator.background_step,
        lambda: pool.delete("c"),
        pool.run_jobs,
        commit("d", 1),
    ]


@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("point", range(1, 30))
def test_a_death_at_any_commit_point_leaves_a_sound_store(point: int, after: bool) -> None:
    store = MemoryStore()
    pool = Pool(6, store, reclaim_budget_rows=2)
    base = store.transactions
    answered = 0

    def die(number: int) -> None:
        if number == base + point + after - 1:
            raise Died

    if after:
        store.after_commit = die
    else:
        store.before_commit = die
    steps = story(pool)
    try:
        for step in steps:
            step()
            answered += 1
    except Died:
        pass
    store.before_commit = store.after_commit = lambda number: None
    pool.restart()
    assert pool.problems() == []
    if answered == len(steps):
        return
    pool.run_jobs()
    assert pool.problems() == []
    expected = {1: [], 2: [], 3: [(0, "a")], 4: [(0, "a"), (1, "b")], 5: [(0, "a"), (1, "b")]}
    seen = [(0, "c"), (1, "b")] if answered >= 6 else expected.get(answered, [])
    if answered:
        row = pool.volume("v")
        for slot, word in seen:
            found = pool.read_slot(row, 10, slot)
            newer = {0: "c", 1: "d"}[slot]
            assert found in ([fingerprint(word).hex()], [fingerprint(newer).hex()]), "acknowledged and lost"
    for name in ("c", "v@s", "v"):
        with contextlib.suppress(NotFound):  # whether the node is there depends on the point
            pool.delete(name, force=True)
    pool.run_jobs()
    assert pool.totals() == StatsRow()
    assert pool.problems() == []


def test_a_failed_commit_fails_its_commands_and_leaves_memory_as_it_was() -> None:
    store = MemoryStore()
    pool = Pool(6, store)
    pool.create("v")
    client = Client(pool, "v")
    sessions_before = pool.coordinator.leases.count()

    def full(number: int) -> None:
        raise NoSpace("the disk is full")

    store.before_commit = full
    with pytest.raises(NoSpace):
        client.write({(10, 0): "a"})
    with pytest.raises(NoSpace):
        client.close()
    assert pool.coordinator.leases.count() == sessions_before
    assert pool.ended == []
    store.before_commit = lambda number: None
    client.write({(10, 0): "a"})
    assert pool.problems() == []
