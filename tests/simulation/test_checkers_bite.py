"""Every checker of the simulation is seen to bite: one protection of the product taken out, and a schedule fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from redfs.coordinator import commits, new_data, segments, sessions
from redfs.coordinator.healing.worker import Worker
from redfs.coordinator.txn import Txn
from redfs.core.tables import (
    SEGMENTS,
    SESSIONS,
    SegmentRow,
    VolumeRow,
    decode_segment,
    decode_u64,
    u64_key,
)
from redfs.storage_node.group_sync import GroupSync
from tests.simulation.schedule import ScheduleFailed, run_schedule

FIRST_SEED = 1_000


def no_fdatasync() -> Any:
    """Nodes answer before anything is durable."""
    return mock.patch.object(GroupSync, "wait")


def dooms_a_named_shard() -> Any:
    """A commit queues a shard for deletion that it has just named."""
    count = new_data._count_written

    def doom_too(txn: Txn, row: SegmentRow) -> None:
        count(txn, row)
        for key, raw in txn.kv.scan(SEGMENTS, b"", b"\xff" * 9):
            if decode_segment(raw)._replace(live_bytes=0) == row:
                txn.doom_shard(row.nodes[0], decode_u64(key), 0)

    return mock.patch.object(new_data, "_count_written", doom_too)


def loses_a_reference() -> Any:
    """A slot that goes takes a reference of a block away that another one needs."""
    settle = Txn.settle

    def settle_wrongly(self: Txn, *blocks: Any) -> None:
        for block, delta in list(self._references.items()):
            row = self.block(block)
            if delta < 0 and row is not None and row.refs + delta > 1:
                self._references[block] = delta - 1
        settle(self, *blocks)

    return mock.patch.object(Txn, "settle", settle_wrongly)


@contextmanager
def accepts_commits_of_ended_sessions() -> Iterator[None]:
    """A session whose lease lapsed goes on after another one has got its volume."""

    end = sessions.end_session

    def without_end(txn: Txn, session_id: int) -> None:
        row = txn.kv.get(SESSIONS, u64_key(session_id))
        end(txn, session_id)
        txn.after_commit.clear()
        if row is not None:
            txn.kv.put(SESSIONS, u64_key(session_id), row)

    def anybody(txn: Txn, _session_id: int, volume_id: int) -> VolumeRow:
        return txn.tree.require(volume_id)

    with (
        mock.patch.object(sessions, "end_session", without_end),
        mock.patch.object(commits, "require_delegation", anybody),
        mock.patch.object(segments, "require_writer", anybody),
    ):
        yield


def cleaning_mistakes_where_blocks_are() -> Any:
    """Packed blocks are looked for a byte before where they lie."""
    move = Txn.move_blocks

    def move_wrongly(self: Txn, target: int, row: SegmentRow, moves: Any) -> None:
        move(self, target, row, [(block_id, block, max(0, offset - 1)) for block_id, block, offset in moves])

    return mock.patch.object(Txn, "move_blocks", move_wrongly)


def heals_nothing() -> Any:
    async def rests(self: Worker) -> None:
        return None

    return mock.patch.object(Worker, "run_for_ever", rests)


MUTATIONS: list[tuple[Callable[[], Any], int]] = [
    (no_fdatasync, 20),
    (dooms_a_named_shard, 20),
    (heals_nothing, 20),
    (cleaning_mistakes_where_blocks_are, 40),
    (loses_a_reference, 100),
    (accepts_commits_of_ended_sessions, 100),
]
"""With the number of schedules within which it shows: some four times what was seen, and at least 20."""


@pytest.mark.slow
@pytest.mark.parametrize(("mutation", "within"), MUTATIONS, ids=[mutation.__name__ for mutation, _ in MUTATIONS])
def test_a_protection_taken_out_shows(mutation: Callable[[], Any], within: int) -> None:
    with mutation():
        for seed in range(FIRST_SEED, FIRST_SEED + within):
            try:
                run_schedule(seed)
            except ScheduleFailed as failed:
                print(f"{mutation.__name__}: {seed - FIRST_SEED + 1} schedules, {str(failed).splitlines()[0]}")
                return
    pytest.fail(f"{within} schedules and nobody noticed")
