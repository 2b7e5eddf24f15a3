"""Commands one by one: what they do, what they refuse, and who is fenced off when."""

from __future__ import annotations

from functools import partial

import pytest

from redfs.coordinator import commits, nodes, reads, segments, sessions, volumes
from redfs.coordinator.commits import CommitRequest, Record
from redfs.coordinator.new_data import SegmentLayout
from redfs.coordinator.reads import reader_of
from redfs.coordinator.requests import node_list_for_people
from redfs.coordinator.status import pool_status
from redfs.core.errors import (
    AlreadyExists,
    Busy,
    CommitRefused,
    InvalidArgument,
    LeaseLapsed,
    NoSpace,
    NotAllowed,
    NotFound,
    TooFewNodes,
)
from redfs.core.policy import Layout
from redfs.core.records import SLOT_BYTES, Kind, Orphan, Piece, encode_orphan, inode_key, orphan_key, slot_key
from redfs.core.tables import (
    DOOMED,
    JOBS,
    OPEN_SEGMENTS,
    SEGMENTS,
    VolumeState,
    decode_segment,
    decode_u64,
    split_doomed_key,
    u64_key,
)
from redfs.core.volume_tree import ReadTree
from tests.coordinator.harness import GIB, SHARD_BYTES, Client, NewBlock, Pool, fingerprint, slot_record


def doomed(pool: Pool) -> set[tuple[int, int, int]]:
    with pool.coordinator.read() as kv:
        return {split_doomed_key(key) for key, _ in kv.scan(DOOMED, b"", b"\xff" * 20)}


# ---------------------------------------------------------------- volumes


def test_a_policy_that_does_not_fit_says_what_would() -> None:
    pool = Pool(2)
    with pytest.raises(TooFewNodes, match=r"the pool has 2: .*--protect mirror:2"):
        pool.create("v", "ec:4+2")
    assert str(pool.create("v").policy) == "mirror:2"
    with pytest.raises(TooFewNodes, match="none has joined"):
        Pool(0).create("v")


def test_nodes_that_are_down_count_for_creating_but_not_for_writing() -> None:
    pool = Pool(6)
    pool.lose(6)
    pool.create("v", "ec:4+2")
    client = Client(pool, "v")
    assert client.open_segments()[0][1].layout == (3, 2)
    assert client.open_segments(small=True)[0][1].layout == (1, 2)
    pool.lose(2, 3, 4, 5)
    with pytest.raises(TooFewNodes, match="needs 3"):
        client.open_segments()


def test_a_lower_minimum_keeps_writing() -> None:
    pool = Pool(3)
    pool.create("v", "mirror:3", minimum_nodes=1)
    client = Client(pool, "v")
    pool.lose(1, 2)
    assert client.open_segments()[0][1].layout == (1, 0)


def test_names_and_the_zero_volume() -> None:
    pool = Pool()
    pool.create("v")
    with pytest.raises(AlreadyExists):
        pool.create("v")
    with pytest.raises(NotFound):
        pool.snapshot("other@s")
    with pytest.raises(NotAllowed):
        pool.delete("zero")
    with pytest.raises(NotAllowed):
        pool.snapshot("zero@s")
    with pytest.raises(InvalidArgument):
        pool.snapshot("v")
    assert pool.clone("zero", "w").parent_id == 1
    with pytest.raises(NotAllowed, match="cannot be mounted"):
        Client(pool, "zero")
    pool.snapshot("v@s")
    with pytest.raises(NotAllowed, match="never changes"):
        Client(pool, "v@s")


def test_a_backed_clone_and_its_source_share_a_named_point() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    client.write({(10, 0): "old"})
    made = pool.clone_backed("v", "c")
    client.write({(10, 0): "new"})
    assert made.parent_id == pool.volume("v@c").volume_id
    assert pool.clone_backed("v", "d", "point").parent_id == pool.volume("v@point").volume_id
    for name, word in (("v@c", "old"), ("c", "old"), ("v", "new"), ("d", "new")):
        assert pool.read_slot(pool.volume(name), 10, 0) == [fingerprint(word).hex()]
    for source in ("v@c", "zero"):
        with pytest.raises(NotAllowed, match="never changes"):
            pool.clone_backed(source, "e")
    with pytest.raises(AlreadyExists):
        pool.clone_backed("v", "c", "other")
    with pytest.raises(NotFound):
        pool.volume("v@other")
    with pytest.raises(AlreadyExists):
        pool.clone_backed("v", "e", "point")
    assert pool.problems() == []


def test_clones_have_the_settings_of_their_source_but_for_those_given() -> None:
    pool = Pool()
    pool.create("v", "mirror:3")
    run = pool.coordinator.execute
    run(lambda txn: volumes.set_volume(txn, "v", description="mine", color="red", compression="none"))
    pool.snapshot("v@s")
    clone = run(lambda txn: volumes.clone_volume(txn, "v@s", "c", color="blue"))
    assert (str(clone.policy), clone.description, clone.color, clone.compression) == ("mirror:3", "mine", "blue", 0)
    assert pool.volume("c") == clone
    assert str(run(lambda txn: volumes.clone_volume(txn, "zero", "z", protection="single")).policy) == "single"
    with pytest.raises(InvalidArgument):
        run(lambda txn: volumes.clone_volume(txn, "v", "bad", compression="lz4"))
    with pytest.raises(NotFound):
        pool.volume("bad")


def test_rolling_back_keeps_the_present_unless_told_otherwise() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    client.write({(10, 0): "old"})
    pool.snapshot("v@s")
    client.write({(10, 0): "new"})
    with pytest.raises(Busy, match="mounted by test: unmount it first"):
        pool.roll_back("v@s")
    client.close()
    with pytest.raises(NotFound):
        pool.roll_back("v@other")
    with pytest.raises(InvalidArgument):
        pool.roll_back("v")
    with pytest.raises(AlreadyExists):
        pool.roll_back("v@s", keep="s")
    with pytest.raises(InvalidArgument, match="choose one"):
        pool.roll_back("v@s", keep="k", discard=True)
    assert pool.read_slot(pool.volume("v"), 10, 0) == [fingerprint("new").hex()], "refused ones change nothing"

    kept = [pool.roll_back("v@s").kept, pool.roll_back("v@s").kept]
    assert [row.name for row in kept if row] == [
        "v@before-rollback-20231114-223000", "v@before-rollback-20231114-223000-2",
    ]  # fmt: skip
    assert pool.read_slot(pool.volume("v"), 10, 0) == [fingerprint("old").hex()]
    assert pool.roll_back("v@before-rollback-20231114-223000", discard=True).kept is None
    assert pool.read_slot(pool.volume("v"), 10, 0) == [fingerprint("new").hex()]
    Client(pool, "v").write({(10, 0): "newest"})
    assert pool.read_slot(pool.volume("v@s"), 10, 0) == [fingerprint("old").hex()]
    pool.run_jobs()
    assert pool.problems() == []


def test_a_mount_that_was_away_commits_nothing_after_a_roll_back() -> None:
    pool = Pool()
    pool.create("v")
    pool.snapshot("v@s")
    client = Client(pool, "v")
    pool.pass_time(pool.config.lease_s + 1)
    pool.roll_back("v@s", discard=True)
    with pytest.raises(LeaseLapsed):
        client.write({(10, 0): "late"})


def test_settings_of_volumes() -> None:
    pool = Pool()
    pool.create("v")
    row = pool.coordinator.execute(
        lambda txn: volumes.set_volume(txn, "v", protection="mirror:3", description="mine", compression="none")
    )
    assert (str(row.policy), row.description, row.compression) == ("mirror:3", "mine", 0)
    pool.snapshot("v@s")
    with pytest.raises(NotAllowed, match="only its description"):
        pool.coordinator.execute(lambda txn: volumes.set_volume(txn, "v@s", protection="single"))
    with pytest.raises(InvalidArgument):
        pool.coordinator.execute(lambda txn: volumes.set_volume(txn, "v", compression="lz4"))


def test_a_deleted_node_is_shown_while_something_descends_from_it() -> None:
    pool = Pool()
    pool.create("v")
    Client(pool, "v").write({(10, 0): "a"})
    pool.snapshot("v@s")
    pool.clone("v@s", "c")
    assert pool.delete("v@s").state == VolumeState.DELETED
    pool.delete("v", force=True)
    pool.run_jobs()
    with pool.coordinator.read() as kv:
        states = {row.name: row.state for row in ReadTree(kv).all()}
    assert states == {"zero": 1, "v": VolumeState.DELETED, "v@s": VolumeState.DELETED, "c": VolumeState.OK}
    assert pool.read_slot(pool.volume("c"), 10, 0) == [fingerprint("a").hex()]
    pool.delete("c")
    pool.run_jobs()
    with pool.coordinator.read() as kv:
        assert [row.name for row in ReadTree(kv).all()] == ["zero"]
    assert not any(pool.totals())
    assert pool.problems() == []


# ---------------------------------------------------------------- commits


def test_a_commit_sent_again_is_answered_and_not_repeated() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    client.write({(10, 0): "a"})
    substitutions = client.write({(10, 1): "a"})
    assert len(substitutions) == 1
    request = client.last_request
    assert request is not None
    client.write({(10, 2): "b"})
    before = pool.totals()
    assert client.send(request) == substitutions, "also the one before the last"
    pool.restart()
    assert client.send(request) == substitutions
    assert pool.totals() == before
    assert pool.problems() == []


def test_commits_come_in_order() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    request, _ = client.request()
    with pytest.raises(CommitRefused, match="before commit 1"):
        client.send(request._replace(number=2))
    with pytest.raises(InvalidArgument):
        client.send(request._replace(number=0))


def test_a_commit_that_counts_on_lost_blocks_is_refused_whole() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    request, ids = client.request([NewBlock("a")])
    gone = Piece(0, SLOT_BYTES, 12345, 0)
    bad = request._replace(
        records=[slot_record(10, 0, (Piece(0, SLOT_BYTES, ids[0], 0),)), slot_record(10, 1, (gone,))]
    )
    before = pool.totals()
    with pytest.raises(CommitRefused) as refused:
        client.send(bad)
    assert refused.value.missing_blocks == (12345,)
    assert pool.totals() == before
    assert pool.read_slot(pool.volume("v"), 10, 0) is None
    client.send(request._replace(records=[slot_record(10, 0, (Piece(0, SLOT_BYTES, ids[0], 0),))]))
    assert pool.read_slot(pool.volume("v"), 10, 0) == [fingerprint("a").hex()]


def test_equal_blocks_are_stored_once_in_a_domain() -> None:
    pool = Pool()
    pool.create("v", "ec:4+2")
    pool.create("same", "ec:4+2")
    pool.create("other", "mirror:2")
    Client(pool, "v").write({(10, 0): "a", (10, 1): "a"})
    assert pool.totals().blocks == 1
    Client(pool, "same").write({(10, 0): "a"})
    assert pool.totals().blocks == 1
    assert pool.totals().logical_bytes == 3 * SLOT_BYTES
    Client(pool, "other").write({(10, 0): "a"})
    assert pool.totals().blocks == 2, "another policy is another domain"
    assert pool.problems() == []


def test_only_fully_redundant_segments_are_deduplicated_against() -> None:
    pool = Pool(7)
    pool.create("v", "ec:4+2")
    client = Client(pool, "v")
    client.write({(10, 0): "a"})
    with pool.coordinator.read() as kv:
        volume = reader_of(kv, pool.volume("v"))
        wanted = [fingerprint("a"), fingerprint("z")]
        found = reads.find_blocks(kv, volume, wanted, pool.coordinator.cluster.up())
        assert found[0] != 0
        assert found[1] == 0
        segment_id = found[0] >> 16
        (_, row) = next(s for s in reads.locate(kv, found).segments if s[0] == segment_id)
    pool.lose(row.nodes[0])
    client.write({(10, 1): "a"})
    assert pool.totals().blocks == 2
    assert pool.problems() == []
    pool.report_again(row.nodes[0])
    pool.coordinator.execute(lambda txn: nodes.report_damage(txn, segment_id, 1, "checksum"))
    with pool.coordinator.read() as kv:
        volume = reader_of(kv, pool.volume("v"))
        assert reads.find_blocks(kv, volume, [fingerprint("a")], pool.coordinator.cluster.up()) != [found[0]]


def test_blocks_that_nothing_names_are_not_stored_and_their_segment_is_doomed() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    request, _ = client.request([NewBlock("a")])
    client.send(request)
    assert not any(pool.totals())
    assert {segment for _, segment, _ in doomed(pool)} == {request.segments[0].segment_id}
    assert len(doomed(pool)) == 6
    assert pool.problems() == []


def test_a_segment_may_be_written_narrower_on_some_of_its_nodes() -> None:
    pool = Pool()
    pool.create("v", "ec:4+2")
    client = Client(pool, "v")
    request, ids = client.request([NewBlock("a")])
    sent = request.segments[0]
    kept = (*sent.nodes[:1], *sent.nodes[2:])
    narrow = SegmentLayout(sent.segment_id, Layout(3, 2), SHARD_BYTES, kept)
    client.send(request._replace(segments=[narrow], records=[slot_record(10, 0, (Piece(0, SLOT_BYTES, ids[0], 0),))]))
    gone = {(node, shard) for node, _, shard in doomed(pool)}
    assert gone == {(node, shard) for shard, node in enumerate(sent.nodes)} - set(zip(kept, range(5), strict=True))
    assert pool.problems() == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s._replace(layout=Layout(5, 2)),
        lambda s: s._replace(layout=Layout(4, 1), nodes=s.nodes[:5]),
        lambda s: s._replace(nodes=(*s.nodes[:5], 99)),
        lambda s: s._replace(nodes=(s.nodes[0], *s.nodes[:5])),
        lambda s: s._replace(shard_bytes=100),
        lambda s: s._replace(shard_bytes=0),
        lambda s: s._replace(shard_bytes=4 << 20),
    ],
)
def test_a_layout_that_was_not_handed_out_is_refused(spoil: object) -> None:
    assert callable(spoil)
    pool = Pool()
    pool.create("v", "ec:4+2")
    client = Client(pool, "v")
    request, _ = client.request([NewBlock("a")])
    with pytest.raises(InvalidArgument):
        client.send(request._replace(segments=[spoil(request.segments[0])]))
    assert pool.problems() == []


@pytest.mark.parametrize(
    "record",
    [
        Record(Kind.ROOT, bytes(8), b"\x01"),
        Record(9, bytes(8), b"\x01"),
        Record(Kind.INODE, bytes(7), b"\x01"),
        slot_record(10, 0, (Piece(0, SLOT_BYTES + 1, 1, 0),)),
        Record(*slot_key(10, 1, 0), b"\x01"),
    ],
)
def test_records_that_cannot_be_are_refused(record: Record) -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    request, _ = client.request()
    with pytest.raises((InvalidArgument, CommitRefused)):
        client.send(request._replace(records=[record]))


def test_a_piece_stays_inside_of_its_block() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    request, ids = client.request([NewBlock("a", 1000)])
    with pytest.raises(InvalidArgument, match="leaves block"):
        client.send(request._replace(records=[slot_record(10, 0, (Piece(0, 1000, ids[0], 1),))]))
    overlapping = (Piece(0, 10, ids[0], 0), Piece(5, 10, ids[0], 0))
    with pytest.raises(InvalidArgument, match="overlap"):
        client.send(request._replace(records=[slot_record(10, 0, overlapping)]))


# ---------------------------------------------------------------- segments


def test_a_failed_shard_finds_another_node() -> None:
    pool = Pool(8)
    pool.create("v", "ec:4+2")
    client = Client(pool, "v")
    segment_id, row = client.open_segments()[0]
    execute = pool.coordinator.execute
    first = execute(lambda txn: segments.replace_shard(txn, client.session_id, segment_id, 2, []))
    assert first not in row.nodes
    second = execute(lambda txn: segments.replace_shard(txn, client.session_id, segment_id, 2, [first]))
    assert second not in {*row.nodes, first}
    with pytest.raises(TooFewNodes, match="new segment"):
        execute(lambda txn: segments.replace_shard(txn, client.session_id, segment_id, 2, []))
    execute(lambda txn: segments.abort_segments(txn, client.session_id, [segment_id]))
    shards = {(node, shard) for node, _, shard in doomed(pool)}
    assert {(row.nodes[2], 2), (first, 2), (second, 2)} <= shards
    assert len(shards) == 8
    execute(lambda txn: segments.abort_segments(txn, client.session_id, [segment_id]))
    assert pool.problems() == []


def test_segments_of_others_cannot_be_touched() -> None:
    pool = Pool()
    pool.create("v")
    pool.create("w")
    mine, other = Client(pool, "v"), Client(pool, "w")
    segment_id, row = other.open_segments()[0]
    request, _ = mine.request([NewBlock("a")], segment=(segment_id, row))
    with pytest.raises(LeaseLapsed):
        mine.send(request)
    with pytest.raises(NotAllowed):
        pool.coordinator.execute(lambda txn: segments.abort_segments(txn, mine.session_id, [segment_id]))


def test_open_segments_are_bounded() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    for _ in range(segments.MAX_OPEN_PER_SESSION // 64):
        client.open_segments(64)
    with pytest.raises(NotAllowed):
        client.open_segments(1)


def test_full_nodes_are_not_written_to() -> None:
    pool = Pool(3)
    pool.create("v", "mirror:3")
    client = Client(pool, "v")
    for node_id in (1, 2, 3):
        pool.report(node_id, free_bytes=GIB)  # less than what is held back
    with pytest.raises(NoSpace):
        client.open_segments()


# ---------------------------------------------------------------- sessions


def test_a_second_mount_is_refused_while_the_lease_is_valid() -> None:
    pool = Pool()
    pool.create("v")
    first = Client(pool, "v", "host-a:1:/mnt")
    with pytest.raises(Busy, match="host-a"):
        Client(pool, "v")
    pool.pass_time(pool.config.lease_s - 1)
    assert first.renew()
    pool.pass_time(pool.config.lease_s - 1)
    with pytest.raises(Busy):
        Client(pool, "v")


def test_a_lapsed_session_keeps_its_place_until_somebody_asks() -> None:
    pool = Pool()
    pool.create("v")
    first = Client(pool, "v")
    segment_id, _ = first.open_segments()[0]
    pool.pass_time(pool.config.lease_s + 1)
    first.write({(10, 0): "a"})
    second = Client(pool, "v")
    assert pool.ended == [first.session_id]
    with pytest.raises(LeaseLapsed):
        first.write({(10, 1): "b"})
    assert not first.renew()
    assert segment_id in {segment for _, segment, _ in doomed(pool)}
    second.write({(10, 1): "c"})
    assert pool.problems() == []


def test_a_commit_in_flight_of_an_ended_session_changes_nothing() -> None:
    pool = Pool()
    pool.create("v")
    first = Client(pool, "v")
    request, ids = first.request([NewBlock("a")])
    late = request._replace(records=[slot_record(10, 0, (Piece(0, SLOT_BYTES, ids[0], 0),))])
    pool.pass_time(pool.config.lease_s + 1)
    Client(pool, "v")
    with pytest.raises(LeaseLapsed):
        first.send(late)
    assert pool.read_slot(pool.volume("v"), 10, 0) is None


def test_a_session_that_was_away_too_long_is_ended() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    pool.pass_time(pool.config.lease_s + pool.config.session_keep_s - 1)
    assert not pool.coordinator.forgotten_sessions()
    pool.pass_time(2)
    assert pool.coordinator.execute(pool.coordinator.end_forgotten) == 1
    with pytest.raises(LeaseLapsed):
        client.write({(10, 0): "a"})


def test_a_restart_gives_stored_sessions_a_fresh_lease() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    client.write({(10, 0): "a"})
    pool.pass_time(pool.config.lease_s + 1)
    pool.restart()
    with pytest.raises(Busy):
        Client(pool, "v")
    opened = pool.coordinator.execute(lambda txn: sessions.open_session(txn, "", client.session_id, client.token))
    assert opened.resumed
    assert opened.last_commit == 1
    with pytest.raises(LeaseLapsed, match="another client"):
        pool.coordinator.execute(lambda txn: sessions.open_session(txn, "", client.session_id, bytes(16)))


def test_a_mounted_volume_is_deleted_only_by_force() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v", "host:1:/mnt")
    with pytest.raises(Busy, match="host:1:/mnt"):
        pool.delete("v")
    pool.delete("v", force=True)
    with pytest.raises(LeaseLapsed):
        client.write({(10, 0): "a"})
    with pool.coordinator.read() as kv, pytest.raises(LeaseLapsed):
        reads.volume_reader(kv, client.session_id, client.volume_id)
    pool.run_jobs()
    assert pool.problems() == []


def test_inode_numbers_are_never_given_twice_in_a_family() -> None:
    pool = Pool()
    pool.create("v")
    pool.clone("v", "c")
    pool.create("stranger")
    a, b, stranger = Client(pool, "v"), Client(pool, "c"), Client(pool, "stranger")

    def grant(client: Client, count: int) -> range:
        execute = pool.coordinator.execute
        first, got = execute(lambda txn: sessions.grant_inodes(txn, client.session_id, client.volume_id, count))
        return range(first, first + got)

    seen = [*grant(a, 10), *grant(b, 10), *grant(a, 10)]
    pool.restart()
    seen += [*grant(b, 10)]
    assert len(set(seen)) == 40
    assert min(seen) == 2
    assert grant(stranger, 1) == range(2, 3)
    with pytest.raises(InvalidArgument):
        grant(a, 0)


def test_space_is_promised_once() -> None:
    pool = Pool(6, hold_back=0.0)
    for node_id in range(1, 7):
        pool.report(node_id, free_bytes=GIB)
    for name in ("v", "w"):
        pool.create(name, "ec:4+2")
    a, b = Client(pool, "v"), Client(pool, "w")

    def reserve(client: Client, wanted: int) -> int:
        return pool.coordinator.execute(
            lambda txn: sessions.reserve(txn, client.session_id, client.volume_id, wanted)
        ).bytes

    assert reserve(a, 3 * GIB) == 3 * GIB
    assert reserve(b, 3 * GIB) == GIB
    assert reserve(a, GIB) == GIB
    assert reserve(b, 9 * GIB) == 3 * GIB
    a.close()
    assert reserve(b, 9 * GIB) == 4 * GIB
    b.write({(10, 0): "x"})
    assert reserve(b, 9 * GIB) == 4 * GIB - 4 * SHARD_BYTES, "what was written since the last report counts"


@pytest.mark.parametrize(("full", "written"), [(1, (3, 2)), (2, (2, 2)), (3, (1, 2))])
def test_full_nodes_are_as_if_they_were_away(full: int, written: tuple[int, int]) -> None:
    """Room is promised for the layout that is written then, and full nodes get none of it."""
    pool = Pool(6, hold_back=0.1)
    pool.create("v", "ec:4+2")
    client = Client(pool, "v")
    for node_id in range(1, 7):
        pool.report(node_id, free_bytes=10 * GIB if node_id <= full else 11 * GIB, capacity_bytes=100 * GIB)
    k, m = written
    opened = client.open_segments()[0][1]
    assert (opened.layout.k, opened.layout.m) == written
    assert min(opened.nodes) > full
    assert len(opened.nodes) == k + m == 6 - full
    execute = pool.coordinator.execute
    assert execute(lambda txn: sessions.reserve(txn, client.session_id, client.volume_id, 99 * GIB)).bytes == k * GIB
    pool.report(full + 1, free_bytes=10 * GIB, capacity_bytes=100 * GIB)
    if full == 3:
        assert execute(lambda txn: sessions.reserve(txn, client.session_id, client.volume_id, 99 * GIB)).bytes == 0
        with pytest.raises(NoSpace):
            client.open_segments()


def test_what_is_held_back_is_never_promised() -> None:
    pool = Pool(6, hold_back=0.1)
    pool.create("v", "ec:4+2")
    client = Client(pool, "v")
    for node_id in range(1, 7):
        pool.report(node_id, free_bytes=11 * GIB, capacity_bytes=100 * GIB)
    wanted = 1000 * GIB
    execute = pool.coordinator.execute
    assert execute(lambda txn: sessions.reserve(txn, client.session_id, client.volume_id, wanted)).bytes == 4 * GIB


# ---------------------------------------------------------------- orphans


def test_orphans_are_reaped_when_nobody_holds_the_volume() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    client.create_file("f", 10, 2)
    client.write({(10, 0): "a", (10, 1): "b"})
    pool.snapshot("v@s")
    orphans = [Record(*orphan_key(10, generation), encode_orphan(Orphan(1))) for generation in (0, 7)]
    request, _ = client.request(records=orphans)
    client.send(request)
    assert pool.run_jobs(), "generation 7 is dead already"
    with pool.coordinator.read() as kv:
        assert reader_of(kv, pool.volume("v")).get(*inode_key(10)) is not None, "it is open at the mount"
        assert reader_of(kv, pool.volume("v")).get(*orphan_key(10, 7)) is None
    pool.clone("v", "c")
    pool.run_jobs()
    with pool.coordinator.read() as kv:
        assert reader_of(kv, pool.volume("c")).get(*inode_key(10)) is None, "in the clone it is garbage"
        assert reader_of(kv, pool.volume("v")).get(*inode_key(10)) is not None
    client.close()
    pool.run_jobs()
    with pool.coordinator.read() as kv:
        assert reader_of(kv, pool.volume("v")).get(*inode_key(10)) is None
        assert reader_of(kv, pool.volume("v")).get(*orphan_key(10, 0)) is None
        assert reader_of(kv, pool.volume("v@s")).get(*inode_key(10)) is not None
        assert kv.first(JOBS, b"", b"\xff") is None
    assert pool.read_slot(pool.volume("v@s"), 10, 1) == [fingerprint("b").hex()]


# ---------------------------------------------------------------- nodes and inventories


def test_an_inventory_decides_what_is_surplus_and_what_is_missing() -> None:
    pool = Pool(3)
    pool.create("v", "mirror:3")
    client = Client(pool, "v")
    client.write({(10, 0): "a"})
    client.write({(10, 1): "b"})
    open_id, open_row = client.open_segments()[0]
    with pool.coordinator.read() as kv:
        rows = [int.from_bytes(key, "big") for key, _ in kv.scan(SEGMENTS, b"", b"\xff" * 9)]
    first, second, _ = rows
    shard = pool.shard_on(1, first)
    never = open_id + 1000
    held = sorted([(first, shard, SHARD_BYTES), (first, 9, 5), (open_id, 7, 5), (never, 0, 5)])
    asked = pool.clock.time_ns() + 1
    with pool.coordinator.read() as kv:
        found = nodes.compare_inventory(kv, 1, held, 0, 1 << 48, asked)
    assert found.surplus == [(first, 9)]
    assert found.unknown == 1, "ids that were never handed out are left alone"
    assert [(segment, reason) for segment, _, reason in found.missing] == [(second, "not in the node's inventory")]
    pool.coordinator.execute(lambda txn: nodes.reconcile(txn, 1, held, found, 0))
    assert doomed(pool) == {(1, first, 9)}
    pool.coordinator.execute(lambda txn: nodes.shards_deleted(txn, 1, [(first, 9)]))
    assert doomed(pool) == set()
    complete = sorted([(first, shard, SHARD_BYTES), (second, pool.shard_on(1, second), SHARD_BYTES)])
    with pool.coordinator.read() as kv:
        found = nodes.compare_inventory(kv, 1, complete, 0, 1 << 48, asked)
    assert not found.missing
    assert any("misses 1 shard:" in problem for problem in pool_status(pool.coordinator).problems)
    pool.coordinator.execute(lambda txn: nodes.reconcile(txn, 1, complete, found, 0))
    assert pool_status(pool.coordinator).problems == []
    assert open_row.nodes
    assert pool.problems() == []


def test_what_was_committed_before_the_clock_was_set_back_is_missed_all_the_same() -> None:
    pool = Pool(3)
    pool.create("v", "mirror:3")
    Client(pool, "v").write({(10, 0): "a"})
    now_ns = pool.clock.time_ns()
    asked_ns = now_ns - 86_400_000_000_000
    with pool.coordinator.read() as kv:
        assert nodes.compare_inventory(kv, 1, [], 0, 1 << 48, asked_ns, now_ns=now_ns).missing == []
        assert len(nodes.compare_inventory(kv, 1, [], 0, 1 << 48, asked_ns, now_ns=asked_ns + 1).missing) == 1


def test_what_was_doomed_before_the_clock_was_set_back_is_deleted_all_the_same() -> None:
    pool = Pool()
    pool.coordinator.execute(lambda txn: txn.doom_shard(1, 77, 2))
    doomed_ns = pool.clock.time_ns()
    second = 1_000_000_000
    with pool.coordinator.read() as kv:
        assert nodes.doomed_page(kv, 1, doomed_ns - second, 10, now_ns=doomed_ns) == [], "it waits out its grace time"
        assert nodes.doomed_page(kv, 1, doomed_ns, 10, now_ns=doomed_ns + second) == [(77, 2)]
        day_before = doomed_ns - 86_400 * second
        assert nodes.doomed_page(kv, 1, day_before - second, 10, now_ns=day_before) == [(77, 2)]


def test_a_long_comparison_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "MAX_COMPARED_ROWS", 1)
    pool = Pool(3)
    pool.create("v", "mirror:3")
    client = Client(pool, "v")
    for slot in range(4):
        client.write({(10, slot): f"w{slot}"})
    low, missing = 0, []
    while low < 1 << 48:
        with pool.coordinator.read() as kv:
            found = nodes.compare_inventory(kv, 2, [], low, 1 << 48, pool.clock.time_ns() + 1)
        missing += found.missing
        assert found.resume > low
        low = found.resume
    assert len(missing) == 4


def test_a_segment_committed_after_the_question_is_not_missed() -> None:
    pool = Pool(3)
    pool.create("v", "mirror:3")
    asked = pool.clock.time_ns()
    Client(pool, "v").write({(10, 0): "a"})
    with pool.coordinator.read() as kv:
        assert nodes.compare_inventory(kv, 1, [], 0, 1 << 48, asked).missing == []


def test_nodes_join_once_and_are_recognised() -> None:
    pool = Pool(1)
    register = nodes.register
    pool_id = pool.coordinator.pool_id
    hello = nodes.Hello("", 0, "disk-0", "host:1", 2, "", "/d")
    execute = pool.coordinator.execute
    assert execute(lambda txn: register(txn, hello))[0] == 1, "its welcome got lost: the same id again"
    known = hello._replace(pool_id=pool_id, node_id=1)
    assert execute(lambda txn: register(txn, known))[0] == 1
    for wrong in (
        known._replace(pool_id="another"),
        known._replace(node_id=7),
        known._replace(disk_uuid="copy"),
        known._replace(generation=1),
    ):
        with pytest.raises(Exception, match=r"pool|disk|back in time|not known"):
            execute(partial(register, hello=wrong))
    with pytest.raises(InvalidArgument):
        execute(lambda txn: register(txn, hello._replace(disk_uuid="")))


def test_nodes_go_down_by_the_clock_and_by_their_stream() -> None:
    pool = Pool(3)
    cluster = pool.coordinator.cluster
    assert cluster.up() == {1, 2, 3}
    pool.clock.now_s += pool.config.node_down_s - 0.1
    pool.report(1)
    pool.clock.now_s += 0.2
    assert cluster.up() == {1}
    old = pool.streams[1]
    pool.report_again(1)
    assert not cluster.reported(1, old, cluster.view()[0].report), "the older stream must end"
    cluster.detached(1, old)
    assert cluster.up() == {1}, "and its end changes nothing"
    pool.lose(1)
    assert cluster.up() == set()


def test_status_says_what_is_wrong() -> None:
    pool = Pool(6)
    pool.create("v", "ec:4+2")
    assert pool_status(pool.coordinator).health == "ok"
    pool.lose(3)
    pool.clock.now_s += 2
    status = pool_status(pool.coordinator)
    assert status.health == "degraded"
    assert status.problems == ["node 3 (host:2) is not to be reached since 2 s: ec:4+2 volumes can lose 1 more"]
    pool.lose(4)
    assert all(p.endswith("ec:4+2 volumes cannot lose another node") for p in pool_status(pool.coordinator).problems)
    pool.lose(5)
    assert pool_status(pool.coordinator).health == "failed"


def test_a_refused_command_spoils_nothing_of_its_batch() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    good, ids = client.request([NewBlock("a")])
    good = good._replace(records=[slot_record(10, 0, (Piece(0, SLOT_BYTES, ids[0], 0),))])
    bad = CommitRequest(client.volume_id, 2, [], [], [slot_record(10, 1, (Piece(0, 1, 999, 0),))], client.lineage)
    after = CommitRequest(client.volume_id, 2, [], [], [Record(*slot_key(10, 0, 0), b"")], client.lineage)
    outcomes = pool.coordinator.execute_batch(
        [partial(commits.commit, session_id=client.session_id, request=r) for r in (good, bad, after)]
    )
    assert [type(o.error) for o in outcomes] == [type(None), CommitRefused, type(None)]
    assert pool.read_slot(pool.volume("v"), 10, 0) == [fingerprint("a").hex()]
    assert pool.problems() == []
    with pool.coordinator.read() as kv:
        assert kv.first(OPEN_SEGMENTS, b"", b"\xff" * 20) is None


def test_nodes_tell_what_is_wrong_on_them() -> None:
    pool = Pool(6)
    pool.create("v", "ec:4+2")
    client = Client(pool, "v")
    client.write({(10, 0): "a"})
    with pool.coordinator.read() as kv:
        segment_id = decode_u64(next(kv.scan(SEGMENTS, b"", b"\xff" * 9))[0])
        node = decode_segment(kv.get(SEGMENTS, u64_key(segment_id)) or b"").nodes[1]
    pool.coordinator.execute(lambda txn: nodes.report_damage(txn, segment_id, 1, "checksum"))
    shown = {n.node_id: n for n in node_list_for_people(pool.coordinator).nodes}
    assert (shown[node].damaged_shards, shown[node].missing_shards, shown[node].disk_failed) == (1, 0, False)
    assert sum(n.damaged_shards for n in shown.values()) == 1


def test_a_full_disk_of_the_coordinator_is_said_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(3)
    pool.create("v")

    def full(_: object) -> None:
        raise NoSpace("the coordinator's disk is full (/data): free some space there")

    with monkeypatch.context() as patch:
        patch.setattr(pool.coordinator.store, "write", full)
        with pytest.raises(NoSpace):
            pool.create("w")
    status = pool_status(pool.coordinator)
    assert status.problems == ["the coordinator's disk is full (/data): free some space there"]
    assert status.health == "degraded"
    pool.create("w")
    assert pool_status(pool.coordinator).problems == status.problems, "a small change may find room in between"
    pool.clock.now_s += 11
    assert not set(status.problems) & set(pool_status(pool.coordinator).problems)
