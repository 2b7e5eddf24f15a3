"""The journal: what was answered is on its nodes, and a coordinator made from them goes on as if nothing happened."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from redfs.coordinator import nodes, segments, sessions, volumes
from redfs.coordinator.coordinator import ALL_TABLES
from redfs.coordinator.journal import JOURNAL, point_in
from redfs.coordinator.store import LmdbStore, MemoryStore
from redfs.core.errors import AlreadyExists, Corrupt, Fenced, NoSpace, NotFound, Unavailable
from redfs.core.ids import segment_incarnation
from redfs.core.tables import (
    INCARNATION_KEY,
    META,
    NEXT_SEGMENT_KEY,
    POSITION_KEY,
    NodeState,
    decode_u64,
    encode_u64,
)
from tests.coordinator.harness import Client, fingerprint
from tests.coordinator.journal_rig import JournaledPool
from tests.coordinator.test_crashes import Died, story

MAP_BYTES = 64 << 20


def position_of(pool: JournaledPool) -> int:
    with pool.coordinator.read() as kv:
        return decode_u64(kv.get(META, POSITION_KEY) or encode_u64(0))


def opened(folder: Path) -> LmdbStore:
    return LmdbStore(folder, (*ALL_TABLES, JOURNAL), MAP_BYTES)


def move_to(pool: JournaledPool, folder: Path) -> None:
    """The pool goes on with the restored coordinator; nodes that it does not know are none of its."""
    pool.store = opened(folder)
    with pool.store.read() as kv:
        known = dict(nodes.stored_nodes(kv))
    pool.streams = {node_id: stream for node_id, stream in pool.streams.items() if node_id in known}
    pool.restart_with_journal()
    pool.step()
    pool.step()


# ---------------------------------------------------------------- nothing acknowledged is lost


@pytest.mark.parametrize("lost", [(), (1, 2)], ids=["all nodes", "as many lost as may be"])
@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("point", range(1, 30, 2))
def test_a_death_at_any_commit_point_and_the_disk_lost(
    point: int, after: bool, lost: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    pool = JournaledPool(6, store, reclaim_budget_rows=2)
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
    with contextlib.suppress(Died):
        for step in steps:
            step()
            answered += 1
    for node_id in lost:
        pool.lose_node(node_id)
    for node in pool.nodes.values():
        if node.is_up:
            node.power_cycle()
    done = pool.restore(tmp_path, monkeypatch)
    assert done.is_sure
    move_to(pool, tmp_path)
    assert pool.problems() == []
    words = [[], [], [], [(0, "a")], [(0, "a"), (1, "b")], [(0, "a"), (1, "b")]]
    seen = [(0, "c"), (1, "b")] if answered >= 6 else words[answered]
    if answered:
        row = pool.volume("v")
        for slot, word in seen:
            newer = {0: "c", 1: "d"}[slot]
            expected = ([fingerprint(word).hex()], [fingerprint(newer).hex()])
            assert pool.read_slot(row, 10, slot) in expected, "acknowledged and lost"
    for name in ("c", "v@s", "v"):
        with contextlib.suppress(NotFound):
            pool.delete(name, force=True)
    pool.run_jobs()
    assert pool.problems() == []


def test_nothing_is_answered_before_all_members_have_it() -> None:
    pool = JournaledPool(6)
    assert len(pool.journal.members()) == 3
    for number in range(5):
        pool.create(f"v{number}")
        for node_id in pool.journal.members():
            (name, size) = pool.nodes[node_id].journal.state()["files"][0]
            assert name.endswith(".lists")
            assert pool.nodes[node_id].journal.open_writer(pool.journal.term, [])[1].end == point_of(pool)
            assert size > 0
            pool.restart_with_journal()  # the look took the writers away
    assert pool.journal.durable_position == position_of(pool)


def point_of(pool: JournaledPool) -> object:
    with pool.coordinator.read() as kv:
        return point_in(kv)


def test_a_restored_pool_goes_on_with_the_nodes_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = JournaledPool(6)
    pool.create("v")
    members = pool.journal.members()
    pool.restore(tmp_path, monkeypatch)
    pool.store = opened(tmp_path)
    pool.restart_with_journal()
    assert pool.journal.members() == members, "at once, and without a checkpoint"
    with pytest.raises(AlreadyExists, match="has metadata"):
        pool.restore(tmp_path, monkeypatch)


def test_checkpoints_and_lists_together_are_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = JournaledPool(4, journal_checkpoint_bytes=3000)
    for number in range(30):
        pool.create(f"v{number}")
        pool.step()
    pool.create("last")
    first = pool.nodes[1].journal.state()["files"][0][0]
    assert first != "00000001.lists", "what is behind a checkpoint went"
    done = pool.restore(tmp_path, monkeypatch)
    assert 7 < done.checkpoint_position < done.position
    with pool.coordinator.read() as kv:
        before = {table: list(kv.scan(table, b"", b"\xff" * 64)) for table in ALL_TABLES}
    store = opened(tmp_path)
    with store.read() as kv:
        for table in ALL_TABLES:
            rows = dict(kv.scan(table, b"", b"\xff" * 64))
            if table not in (META, "families"):
                assert rows == dict(before[table])


# ---------------------------------------------------------------- deletions


def test_no_shard_is_due_before_the_journal_has_its_doom() -> None:
    pool = JournaledPool(6)
    pool.create("v", "ec:4+2")
    client = Client(pool, "v")
    client.write({(10, 0): "a"})
    for node_id in pool.journal.members():
        pool.nodes[node_id].hangs = True
    others = [n for n in pool.nodes if n not in pool.journal.members()]
    for node_id in others:
        pool.nodes[node_id].is_up = False
    client.write({(10, 0): None})  # goes on without a journal
    assert pool.journal.members() == ()
    position = position_of(pool)
    assert pool.journal.durable_position < position, "a restore would name the shards that this dooms"
    for node in pool.nodes.values():
        node.is_up, node.hangs = True, False
    pool.clock.now_s += 60
    for node_id in pool.streams:
        pool.report(node_id)
    pool.step()
    pool.step()
    assert pool.journal.durable_position >= position


# ---------------------------------------------------------------- ids


def test_ids_never_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = JournaledPool(6)
    seen: dict[str, set[int]] = {}

    def note(kind: str, number: int) -> None:
        assert number not in seen.setdefault(kind, set()), f"{kind} {number} came twice"
        seen[kind].add(number)

    def hand_out(name: str, disk: int) -> None:
        row = pool.create(name)
        note("volume", row.volume_id)
        note("lineage", row.lineage)
        client = Client(pool, name)
        note("session", client.session_id)
        for segment_id, _ in client.open_segments(2):
            note("segment", segment_id)
        note("node", pool.add_node(disk))
        first, _ = pool.coordinator.execute(
            lambda txn: sessions.grant_inodes(txn, client.session_id, row.volume_id, 10, 0)
        )
        note(f"inode of {row.lineage}", first)

    hand_out("a", 50)
    restored: set[int] = set()
    for round_number in range(1, 4):
        # What was handed out and then lost with everything: the newest list never reached a node.
        for node in pool.nodes.values():
            node.hangs = True
        pool.journal.close()
        hand_out(f"lost-{round_number}", 60 + round_number)
        for node in pool.nodes.values():
            node.hangs = False
        folder = tmp_path / str(round_number)
        done = pool.restore(folder, monkeypatch, force=True)
        restored.add(done.incarnation)
        move_to(pool, folder)
        assert pool.problems() == []
        hand_out(f"b-{round_number}", 70 + round_number)
    assert restored == {1, 2, 3}
    assert {segment_incarnation(segment) for segment in seen["segment"]} == {0, 1, 2, 3}


def test_shards_of_segments_that_a_restore_does_not_know_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = JournaledPool(6)
    pool.create("v", "ec:4+2")
    client = Client(pool, "v")
    (known, _), (dropped, _) = client.open_segments(2)
    pool.coordinator.execute(lambda txn: segments.abort_segments(txn, client.session_id, [dropped]))
    pool.journal.close()
    ((unknown, _),) = client.open_segments(1)
    pool.restore(tmp_path, monkeypatch, force=True)
    move_to(pool, tmp_path)
    with pool.coordinator.read() as kv:
        held = [(dropped, 0, 10), (unknown, 0, 10)]
        found = nodes.compare_inventory(kv, 1, held, 0, 1 << 63, 0)
    assert (found.surplus, found.unknown) == ([(dropped, 0)], 1)
    assert known != unknown


# ---------------------------------------------------------------- the zombie


def test_a_coordinator_that_comes_back_from_the_dead_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = JournaledPool(6)
    pool.create("v")
    zombie = pool.coordinator
    zombie_store = pool.store
    pool.restore(tmp_path, monkeypatch)
    with pytest.raises(Fenced):
        zombie.execute(lambda txn: volumes.create_volume(txn, "w"))
    with pytest.raises(Fenced):  # and for good
        zombie.execute(lambda txn: volumes.create_volume(txn, "x"))
    # The same when it is started again, however often.
    for _ in range(3):
        with pytest.raises(Fenced):
            pool.restart_with_journal()
    pool.store = zombie_store
    move_to(pool, tmp_path)
    assert pool.volume("v").name == "v"
    with pytest.raises(NotFound):
        pool.volume("w")


# ---------------------------------------------------------------- nodes come and go


def test_a_member_that_fails_is_replaced_and_one_that_returns_starts_where_it_is() -> None:
    pool = JournaledPool(6)
    first = pool.journal.members()
    lost = first[0]
    pool.lose_node(lost)
    pool.create("v")
    assert lost not in pool.journal.members(), "nobody waits for it any more"
    assert pool.journal.is_recorded
    pool.step()
    assert len(pool.journal.members()) == 3
    assert lost not in pool.journal.members()
    pool.nodes[lost].is_up = True
    pool.report_again(lost)
    pool.clock.now_s += 30
    for node_id in pool.streams:
        pool.report(node_id)
    pool.step()
    assert lost not in pool.journal.members(), "there are three"


def test_the_set_is_recorded_before_anything_is_answered_without_a_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = JournaledPool(6)
    stale = pool.journal.members()[0]
    pool.nodes[stale].hangs = True
    pool.create("after")
    pool.nodes[stale].hangs = False
    # Only the one that lacks it, and enough others to know that: it is not taken for the whole.
    others = [n for n in pool.nodes if n not in {1, 2, 3}]
    with pytest.raises(Unavailable, match="none of the nodes that had the journal last"):
        pool.restore(tmp_path / "a", monkeypatch, [stale, *others])
    done = pool.restore(tmp_path / "b", monkeypatch, [stale, *others], force=True)
    assert not done.is_sure
    assert done.warnings


def test_a_node_that_is_no_member_any_more_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    pool = JournaledPool(3, store)

    def full(_: int) -> None:
        raise NoSpace("the disk is full")

    store.before_commit = full
    with pytest.raises(NoSpace):
        pool.create("refused")
    store.before_commit = lambda number: None
    pool.nodes[1].hangs = True
    pool.create("kept")
    assert pool.journal.members() == (2, 3)
    # Node 1 has as many lists, and its last one was refused.
    done = pool.restore(tmp_path, monkeypatch, [1, 2, 3])
    assert (done.is_sure, done.node_id) == (True, 2)
    pool.nodes[1].hangs = False
    move_to(pool, tmp_path)
    assert pool.volume("kept").name == "kept"
    with pytest.raises(NotFound):
        pool.volume("refused")
    assert pool.journal.members() == (1, 2, 3)


def test_too_few_nodes_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = JournaledPool(6)
    pool.create("v")
    member = pool.journal.members()[0]
    with pytest.raises(Unavailable, match="2 of the pool's 6 nodes answered, and 3 must"):
        pool.restore(tmp_path, monkeypatch, [member, 6])
    pool.create("w")  # nothing was changed, and nobody was fenced
    assert pool.restore(tmp_path, monkeypatch, [member, 5, 6]).is_sure


def test_a_damaged_journal_gives_way_to_another_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = JournaledPool(6)
    for number in range(4):
        pool.create(f"v{number}")
    for node_id in pool.journal.members()[:2]:
        pool.nodes[node_id].disk.flip_bit("00000001.lists", 400)
    done = pool.restore(tmp_path, monkeypatch)
    assert done.node_id == pool.journal.members()[2]
    assert done.is_sure
    move_to(pool, tmp_path)
    assert pool.volume("v3").name == "v3"


def test_nothing_is_made_of_damaged_journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = JournaledPool(6)
    for number in range(4):
        pool.create(f"v{number}")
    for node_id in pool.journal.members():
        pool.nodes[node_id].disk.flip_bit("00000001.lists", 400)
    with pytest.raises(Corrupt, match="no journal can be read"):
        pool.restore(tmp_path, monkeypatch)
    assert not (tmp_path / "metadata.lmdb").exists()


def test_a_node_that_was_away_for_a_moment_needs_no_checkpoint() -> None:
    pool = JournaledPool(3)
    pool.lose_node(2)
    for number in range(5):
        pool.create(f"v{number}")
    assert pool.journal.members() == (1, 3)
    files = pool.nodes[2].journal.state()["files"]
    pool.nodes[2].power_cycle()
    pool.nodes[2].is_up = True
    pool.report_again(2)
    pool.keeper.step()
    assert pool.journal.members() == (1, 2, 3)
    assert [name for name, _ in pool.nodes[2].journal.state()["files"]] == [name for name, _ in files]


@pytest.mark.parametrize("after", [False, True], ids=["nodes are ahead", "nodes are behind"])
def test_a_crash_between_the_store_and_the_nodes_is_made_good_at_the_start(after: bool) -> None:
    store = MemoryStore()
    pool = JournaledPool(3, store)
    pool.create("first")

    def die(_: int) -> None:
        raise Died

    if after:
        for node in pool.nodes.values():
            node.hangs = True
        store.after_commit = die
    else:
        store.before_commit = die
    with pytest.raises(Died):
        pool.create("v")
    store.before_commit = store.after_commit = lambda number: None
    for node in pool.nodes.values():
        node.hangs = False
    pool.restart_with_journal()
    assert pool.journal.members() == (1, 2, 3)
    pool.create("w")
    assert pool.journal.durable_position == position_of(pool)
    assert pool.problems() == []


def test_a_refused_commit_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    pool = JournaledPool(3, store)

    def full(_: int) -> None:
        raise NoSpace("the disk is full")

    store.before_commit = full
    with pytest.raises(NoSpace):
        pool.create("v")
    store.before_commit = lambda number: None
    pool.create("w")
    assert pool.journal.members() == (1, 2, 3)
    pool.restore(tmp_path, monkeypatch)
    move_to(pool, tmp_path)
    assert pool.volume("w").name == "w"
    with pytest.raises(NotFound):
        pool.volume("v")
    assert pool.problems() == []


def test_all_nodes_away_is_told_and_goes_on() -> None:
    pool = JournaledPool(3)
    for node_id in list(pool.nodes):
        pool.lose_node(node_id)
    pool.create("v")
    pool.keeper.step()
    assert pool.keeper.problems() == [], "a node that restarts is back by then"
    pool.clock.now_s += 10
    pool.keeper.step()
    (problem,) = pool.keeper.problems()
    assert "no storage node has the metadata's journal" in problem
    pool.nodes[1].is_up = True
    pool.report_again(1)
    pool.clock.now_s += 10
    pool.report(1)
    pool.step()
    pool.step()
    (problem,) = pool.keeper.problems()
    assert "on 1 of 3 storage nodes" in problem


def test_a_pool_on_one_disk_has_one_copy_and_no_problem() -> None:
    pool = JournaledPool(0)
    pool.keeper.step()
    pool.clock.now_s += 60
    pool.keeper.step()
    assert pool.keeper.problems() == []


def test_a_member_that_is_drained_hands_over() -> None:
    pool = JournaledPool(6)
    leaving = pool.journal.members()[0]
    with pool.coordinator.read() as kv:
        row = dict(nodes.stored_nodes(kv))[leaving]
    pool.coordinator.cluster.set_row(leaving, row._replace(state=NodeState.DRAINING))
    pool.step()
    pool.step()
    assert leaving not in pool.journal.members()
    assert len(pool.journal.members()) == 3


def test_a_node_that_falls_behind_the_kept_frames_gets_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redfs.coordinator.journal.OUTBOX_BYTES", 2000)
    pool = JournaledPool(3)
    pool.lose_node(2)
    for number in range(20):
        pool.create(f"v{number}")
    with pool.coordinator.read() as kv:
        kept = sum(len(frame) for _, frame in kv.scan(JOURNAL, b"frame", b"frame\xff"))
    assert 0 < kept <= 2000
    pool.nodes[2].is_up = True
    pool.report_again(2)
    pool.keeper.step()
    assert [f.node_id for f in pool.keeper.due()] == [2]
    pool.step()
    assert pool.journal.members() == (1, 2, 3)


def test_switching_the_journal_off_and_on_begins_anew() -> None:
    pool = JournaledPool(3)
    pool.restart()  # without a journal
    pool.create("v")
    pool.restart_with_journal()
    assert pool.journal.members() == (), "what they have does not lead to here"
    pool.step()
    pool.step()
    assert pool.journal.members() == (1, 2, 3)
    assert pool.journal.durable_position == position_of(pool)


def test_incarnations_and_counters_after_a_restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = JournaledPool(3)
    row = pool.create("v")
    client = Client(pool, "v")
    client.open_segments(3)

    def grant() -> int:
        return pool.coordinator.execute(
            lambda txn: sessions.grant_inodes(txn, client.session_id, row.volume_id, 10, 0)
        )[0]

    first = grant()
    pool.journal.close()
    lost = grant()
    assert lost == first + 10
    pool.restore(tmp_path, monkeypatch)
    move_to(pool, tmp_path)
    assert grant() > lost + 10, "the session goes on, and its inode numbers are new ones"
    with pool.coordinator.read() as kv:
        assert decode_u64(kv.get(META, INCARNATION_KEY) or b"") == 1
        assert decode_u64(kv.get(META, NEXT_SEGMENT_KEY) or b"") == 1
    assert pool.journal.term >> 32 == 1


def test_a_coordinator_without_its_own_journal_nodes_is_refused_by_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = JournaledPool(6)
    told: list[bool] = []
    pool.journal.on_fenced = lambda: told.append(True)
    pool.restore(tmp_path, monkeypatch, [4, 5, *pool.journal.members()])
    for node_id in pool.journal.members():
        pool.lose_node(node_id)  # those that it would write to are out of its reach
    with pytest.raises(Fenced):
        pool.create("v")
    assert told == [True]
    assert isinstance(pool.journal.fenced, Fenced)
