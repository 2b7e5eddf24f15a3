"""Operations in shared mode: several hosts change one volume, the coordinator runs all of it."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EEXIST, EFBIG, EINVAL, EISDIR, ENOENT, EROFS, ESTALE
from stat import S_ISDIR
from typing import Any

import pytest

from redfs.coordinator import sessions, volumes
from redfs.coordinator.numbered import MAX_STORED_ANSWERS
from redfs.coordinator.reads import reader_of
from redfs.coordinator.store import MemoryStore
from redfs.core.errors import (
    Busy,
    CommitRefused,
    FsError,
    InvalidArgument,
    LeaseLapsed,
    NoSpace,
    NotAllowed,
    RolledBack,
    Unavailable,
)
from redfs.core.ids import ROOT_INO
from redfs.core.namespace import RENAME_EXCHANGE
from redfs.core.records import (
    MAX_FILE_BYTES,
    MAX_PIECES,
    SLOT_BYTES,
    Kind,
    Piece,
    Xattr,
    decode_inode,
    decode_slot,
    encode_inode,
    encode_slot,
    encode_xattrs,
    inode_key,
    orphan_key,
    slot_key,
    xattr_key,
)
from redfs.core.tables import DELEGATIONS, OPEN_SEGMENTS, OPERATIONS, encode_u64, pair_key, u64_key
from redfs.proto.gen import cluster_pb2 as pb
from tests.coordinator.harness import Client, Pool
from tests.coordinator.shared_hosts import O_CREAT, O_EXCL, O_TRUNC, Host, hosts


def errno_of(error: pytest.ExceptionInfo[FsError]) -> int:
    return error.value.errno


def exists(pool: Pool, kind: int, obj: bytes) -> bool:
    with pool.coordinator.read() as kv:
        return reader_of(kv, pool.volume("v")).get(kind, obj) is not None


# ---------------------------------------------------------------- names


def test_what_one_host_does_the_other_sees_at_once() -> None:
    pool, (one, other) = hosts(2)
    folder = one.change("mkdir", ino=ROOT_INO, name=b"d", mode=0o750, uid=7, gid=8).row.ino
    found = other.look("lookup", ino=ROOT_INO, name=b"d")
    inode = decode_inode(found.inode)
    assert (found.ino, S_ISDIR(inode.mode), inode.uid, inode.gid) == (folder, True, 7, 8)
    file = other.create(b"f", parent=folder)
    link = one.change("symlink", ino=folder, name=b"l", value=b"f").row.ino
    assert other.look("readlink", ino=link).value == b"f"
    one.change("link", ino=file, new_parent=ROOT_INO, new_name=b"g")
    one.change("setxattr", ino=file, name=b"user.a", value=b"1")
    assert other.look("getxattr", ino=file, name=b"user.a").value == b"1"
    assert list(other.look("listxattr", ino=file).names) == [b"user.a"]
    other.change("removexattr", ino=file, name=b"user.a")
    assert list(one.look("listxattr", ino=file).names) == []
    listed = {e.name: e for e in one.look("readdir", ino=folder, limit=10).entries}
    assert listed.keys() == {b".", b"..", b"f", b"l"}
    assert decode_inode(listed[b"f"].inode).nlink == 2
    after = one.look("readdir", ino=folder, after_cookie=max(e.cookie for e in listed.values())).entries
    assert not list(after), "the end"
    fifo = one.change("mknod", ino=folder, name=b"p", mode=0o010600).row.ino
    moved = other.change("rename", ino=folder, name=b"p", new_parent=folder, new_name=b"l").row
    assert (moved.ino, moved.replaced, moved.replaced_inode) == (fifo, link, b"")
    with pytest.raises(FsError) as error:
        one.look("lookup", ino=folder, name=b"p")
    assert errno_of(error) == ENOENT
    with pytest.raises(FsError):
        one.change("rmdir", ino=ROOT_INO, name=b"d")
    for name in (b"l", b"f"):
        other.change("unlink", ino=folder, name=name)
    assert one.change("rmdir", ino=ROOT_INO, name=b"d").row.inode == b""
    assert one.inode(file).nlink == 1
    assert pool.problems() == []


def test_one_of_two_that_make_a_name_exclusively_is_told_that_it_exists() -> None:
    pool, (one, other) = hosts(2)
    made = one.create(b"lock", O_CREAT | O_EXCL)
    with pytest.raises(FsError) as error:
        other.create(b"lock", O_CREAT | O_EXCL)
    assert errno_of(error) == EEXIST
    same = other.change("create", ino=ROOT_INO, name=b"lock", mode=0o600, flags=O_CREAT).row
    assert (same.ino, same.existed) == (made, True)
    assert pool.coordinator.env.open_book.sessions_with(one.volume_id, made) == {one.session_id, other.session_id}
    one.change("mkdir", ino=ROOT_INO, name=b"d", mode=0o700)
    one.change("symlink", ino=ROOT_INO, name=b"l", value=b"d")
    for name, errno in ((b"d", EISDIR), (b"l", ESTALE)):
        with pytest.raises(FsError) as error:
            other.create(name)
        assert errno_of(error) == errno


def test_numbers_of_inodes_are_never_given_twice_and_not_spent_on_what_fails() -> None:
    pool, (one, other) = hosts(2)
    numbers = [host.create(name) for host, name in ((one, b"a"), (other, b"b"), (one, b"c"))]
    with pytest.raises(FsError):
        one.change("mkdir", ino=ROOT_INO, name=b"a", mode=0)
    numbers.append(other.create(b"d"))
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    assert pool.problems() == []


def test_times_only_grow() -> None:
    pool, (one, other) = hosts(2)
    file = one.create(b"f")
    stamps = [one.inode(file).mtime_ns]
    for number in range(4):
        (one, other)[number % 2].write(file, f"w{number}", 5, offset=0)
        stamps.append(one.inode(file).mtime_ns)
    assert stamps == sorted(set(stamps)), "the clock of this test stands still"
    pool.restart()
    one.declare(file)
    other.declare()
    pool.pass_time(1)
    other.write(file, "later", 5, offset=0)
    assert one.inode(file).mtime_ns > stamps[-1]


# ---------------------------------------------------------------- open files


def test_a_file_that_is_unlinked_lives_as_long_as_another_host_has_it_open() -> None:
    pool, (one, other) = hosts(2)
    file = one.create(b"f")
    one.write(file, "data", 100)
    other.open(file)
    one.release(file)
    left = one.unlink(b"f").row
    assert decode_inode(left.inode).nlink == 0
    pool.run_jobs()
    assert other.inode(file).size == 100
    assert len(other.look("read", ino=file, size=100).blocks) == 1
    assert other.release(file).row.inode == b""
    with pytest.raises(FsError):
        other.inode(file)
    assert pool.totals().blocks == 0
    assert pool.problems() == []


def test_a_file_that_nobody_has_open_goes_with_its_name() -> None:
    pool, (one, other) = hosts(2)
    file = one.create(b"f")
    one.write(file, "data", 100)
    one.release(file)
    assert other.unlink(b"f").row.inode == b""
    assert not exists(pool, *orphan_key(file, 0))
    assert pool.totals().blocks == 0


def test_what_a_host_had_open_goes_with_its_session() -> None:
    pool, (one, other) = hosts(2)
    file = one.create(b"f")
    other.unlink(b"f")
    pool.run_jobs()
    assert exists(pool, *inode_key(file)), "one has it open"
    one.end()
    pool.run_jobs()
    assert not exists(pool, *inode_key(file))
    assert not exists(pool, *orphan_key(file, 0))
    assert pool.problems() == []


def test_after_a_restart_nothing_is_taken_until_all_have_said_what_they_have_open() -> None:
    pool, (one,) = hosts(1)
    other = Host(pool, "reader", read_only=True)
    kept, closed, shut = [one.create(name) for name in (b"kept", b"closed", b"shut")]
    other.open(kept)
    for file in (kept, shut):
        one.release(file)
    one.unlink(b"kept")
    pool.restart()
    assert one.declare(closed, 999) == [999]
    pool.run_jobs()
    assert exists(pool, *inode_key(kept)), "the other has not declared"
    one.unlink(b"closed")
    one.unlink(b"shut")
    one.release(closed)
    pool.run_jobs()
    assert exists(pool, *inode_key(closed)), "the other might have it open"
    assert other.declare(kept) == []
    pool.run_jobs()
    assert [exists(pool, *inode_key(file)) for file in (kept, closed, shut)] == [True, False, False]
    other.release(kept)
    assert not exists(pool, *inode_key(kept))
    assert pool.problems() == []


def test_a_restart_where_one_never_comes_back() -> None:
    pool, (one, other) = hosts(2)
    file = other.create(b"f")
    one.unlink(b"f")
    pool.restart()
    one.declare()
    pool.run_jobs()
    assert exists(pool, *inode_key(file))
    other.end()
    pool.run_jobs()
    assert not exists(pool, *inode_key(file))


def test_opening() -> None:
    _, (one, other) = hosts(2)
    file = one.create(b"f")
    one.write(file, "data", SLOT_BYTES)
    other.change("open", ino=ROOT_INO)
    other.change("open", ino=file, flags=O_TRUNC)
    assert one.inode(file).size == 0
    with pytest.raises(FsError) as error:
        other.open(12345)
    assert errno_of(error) == ENOENT


def test_one_that_only_reads_changes_nothing() -> None:
    pool = Pool()
    pool.create("v")
    writer, reader = Host(pool, "w"), Host(pool, "r", read_only=True)
    file = writer.create(b"f")
    reader.open(file)
    writer.release(file)
    writer.unlink(b"f")
    assert reader.inode(file).nlink == 0
    for request in (
        reader.request("open", ino=file, flags=O_TRUNC),
        reader.request("mkdir", ino=ROOT_INO, name=b"d", mode=0),
        reader.request("setattr", ino=file, attributes=pb.SetAttributes(mode=0)),
    ):
        with pytest.raises(FsError) as error:
            reader.send(request)
        assert errno_of(error) == EROFS
    with pytest.raises(LeaseLapsed):
        reader.segment()
    with pytest.raises(FsError) as error:
        reader.tell(writer.writing(file, [("w", 1)]))
    assert errno_of(error) == EROFS
    assert reader.release(file).row.inode == b""
    assert not exists(pool, *inode_key(file))


# ---------------------------------------------------------------- data


def test_appends_of_two_hosts_lie_one_behind_the_other() -> None:
    pool, (one, other) = hosts(2)
    file = one.create(b"log")
    stored = [one.writing(file, [("a", 10)]), other.writing(file, [("b", 20)]), one.writing(file, [("c", 5)])]
    written = [one.tell(stored[0]), other.tell(stored[1]), one.tell(stored[2])]
    assert [w.row.offset for w in written] == [0, 10, 30]
    assert one.inode(file).size == 35
    reply = other.look("read", ino=file, size=1000)
    assert [p[:2] for p in decode_slot(reply.slots[0].value)] == [(0, 10), (10, 20), (30, 5)]
    assert len(reply.blocks) == 3
    assert pool.problems() == []


def test_a_write_over_slots_and_holes() -> None:
    pool, (one, other) = hosts(2)
    file = one.create(b"f")
    one.tell(one.writing(file, [("x", SLOT_BYTES), ("y", 100)], offset=SLOT_BYTES - 50))
    assert other.inode(file).size == 2 * SLOT_BYTES + 50
    slots = {row.obj: decode_slot(row.value) for row in other.look("read", ino=file, size=1 << 20).slots}
    assert [[p[:2] for p in slots[slot_key(file, 1, n).obj]] for n in range(3)] == [
        [(SLOT_BYTES - 50, 50)],
        [(0, SLOT_BYTES - 50), (SLOT_BYTES - 50, 50)],
        [(0, 50)],
    ]
    other.change("setattr", ino=file, attributes=pb.SetAttributes(size=10))
    assert not one.look("read", ino=file, size=1 << 20).slots
    assert pool.totals().blocks == 0
    assert pool.problems() == []


def test_equal_bytes_are_stored_once() -> None:
    pool, (one, other) = hosts(2)
    file = one.create(b"f")
    one.write(file, "same", 100)
    other.write(file, "same", 100)
    reply = one.look("read", ino=file, size=200)
    assert len({p.block for p in decode_slot(reply.slots[0].value)}) == 1
    assert (pool.totals().blocks, pool.totals().segments) == (1, 1)
    assert pool.problems() == []


def filled(host: Host, file: int) -> None:
    for at in range(MAX_PIECES):
        assert not host.write(file, f"p{at}", 10, offset=100 * at).full


def test_a_slot_with_too_many_pieces_is_merged_by_the_client() -> None:
    pool, (one, other) = hosts(2)
    file = one.create(b"f")
    filled(one, file)
    segment = one.segment()
    refused = one.tell(one.writing(file, [("more", 10)], offset=5000, segment=segment))
    assert [obj for obj, _ in refused.full] == [slot_key(file, 1, 0).obj]
    assert refused.row.offset == 5000
    assert one.inode(file).size == 100 * (MAX_PIECES - 1) + 10, "nothing was done"
    with pool.coordinator.read() as kv:
        assert kv.get(OPEN_SEGMENTS, pair_key(one.session_id, segment[0])) is not None
    rows = [pb.Row(kind=Kind.SLOT, obj=obj, value=value) for obj, value in refused.full]
    other.write(file, "meanwhile", 10, offset=0)
    merged = one.writing(file, [("merged", 5010)], 0, rows, segment)
    changed = one.tell(merged)
    assert changed.full
    assert changed.full != refused.full, "as it is now"
    rows = [pb.Row(kind=Kind.SLOT, obj=obj, value=value) for obj, value in changed.full]
    done = one.tell(one.writing(file, [("merged", 5010)], 0, rows, segment))
    assert not done.full
    slot = decode_slot(other.look("read", ino=file, size=9999).slots[0].value)
    assert slot == (Piece(0, 5010, segment[0] << 16, 0),)
    assert pool.totals().blocks == 1
    assert pool.problems() == []


def test_an_append_to_a_full_slot_goes_on_after_the_slot_was_merged() -> None:
    _, (one, other) = hosts(2)
    file = one.create(b"f")
    filled(one, file)
    full = other.tell(other.writing(file, [("end", 7)])).full
    rows = [pb.Row(kind=Kind.SLOT, obj=obj, value=value) for obj, value in full]
    with pytest.raises(InvalidArgument, match="append"):
        other.tell(other.writing(file, [("merged", 1510)], None, rows))
    assert not other.tell(other.writing(file, [("merged", 1510)], 0, rows)).full
    one.write(file, "first", 3)
    written = other.tell(other.writing(file, [("end", 7)]))
    assert (written.full, written.row.offset) == ((), 1513)


def test_a_slot_that_was_cut_away_is_not_as_expected() -> None:
    _, (one, other) = hosts(2)
    file = one.create(b"f")
    filled(one, file)
    full = one.tell(one.writing(file, [("x", 7)], 9000)).full
    other.change("setattr", ino=file, attributes=pb.SetAttributes(size=0))
    rows = [pb.Row(kind=Kind.SLOT, obj=obj, value=value) for obj, value in full]
    assert one.tell(one.writing(file, [("merged", 9007)], 0, rows)).full == ((slot_key(file, 1, 0).obj, b""),)


def test_a_write_that_is_refused_leaves_its_segment_open() -> None:
    pool, (one, other) = hosts(2)
    file = one.create(b"f")
    segment = one.segment()
    wrong = one.writing(file, [("x", 10)], 0, segment=segment)
    wrong.parts[0].block_id = 77
    with pytest.raises(CommitRefused) as refused:
        one.tell(wrong)
    assert refused.value.missing_blocks == (77,)
    with pytest.raises(FsError) as error:
        one.tell(one.writing(4711, [("x", 10)], 0, segment=segment))
    assert errno_of(error) == ENOENT
    with pytest.raises(FsError) as error:
        one.tell(one.writing(file, [("x", 10)], MAX_FILE_BYTES - 9, segment=segment))
    assert errno_of(error) == EFBIG
    with pytest.raises(FsError) as error:
        one.tell(one.writing(ROOT_INO, [("x", 10)], 0, segment=segment))
    assert errno_of(error) == EINVAL
    with pytest.raises(LeaseLapsed):
        other.tell(other.writing(file, [("x", 10)], 0, segment=segment))
    beyond = one.writing(file, [("x", 10)], 0, segment=segment)
    beyond.parts[0].bytes = 11
    with pytest.raises(InvalidArgument):
        one.tell(beyond)
    one.tell(one.writing(file, [("x", 10)], 0, segment=segment))
    assert one.inode(file).size == 10
    assert pool.problems() == []


def test_the_quota_is_kept_exactly() -> None:
    pool, (one, other) = hosts(2)
    pool.run_jobs()
    pool.coordinator.execute(lambda txn: volumes.set_volume(txn, "v", quota_bytes=1000))
    file = one.create(b"f")
    one.write(file, "a", 900)
    with pytest.raises(NoSpace, match="quota of 'v'"):
        other.write(file, "b", 101)
    other.write(file, "b", 100)
    other.write(file, "c", 1000, offset=0)
    slot = pb.Row(kind=Kind.SLOT, obj=slot_key(0, 1, 0).obj, value=one.look("read", ino=file, size=1).slots[0].value)
    like = encode_inode(one.inode(file))
    with pytest.raises(NoSpace):
        one.change("make_copy", ino=ROOT_INO, name=b"copy", inode=like, rows=[slot], size=1000)
    one.change("setattr", ino=file, attributes=pb.SetAttributes(size=500))
    one.write(file, "d", 500)
    assert pool.problems() == []


def test_a_full_volume_waits_for_what_is_being_freed() -> None:
    pool, (one, other) = hosts(2)
    pool.run_jobs()
    pool.coordinator.execute(lambda txn: volumes.set_volume(txn, "v", quota_bytes=70 * SLOT_BYTES))
    file = one.create(b"f")
    for number in range(70):
        one.write(file, "same", SLOT_BYTES, offset=number * SLOT_BYTES)
    with pytest.raises(NoSpace):
        one.write(file, "more", 10)
    other.change("setattr", ino=file, attributes=pb.SetAttributes(size=0))
    write = one.writing(file, [("more", 10)])
    with pytest.raises(Unavailable, match="being freed"):
        one.tell(write)
    pool.run_jobs()
    assert not one.tell(write).full
    assert pool.problems() == []


def test_copies_name_stored_blocks() -> None:
    pool, (one, other) = hosts(2)
    file = one.create(b"f")
    one.tell(one.writing(file, [("x", SLOT_BYTES), ("y", 1000)], offset=0))
    rows = [
        pb.Row(kind=Kind.SLOT, obj=slot_key(0, 1, number).obj, value=row.value)
        for number, row in enumerate(one.look("read", ino=file, size=1 << 20).slots)
    ]
    like = encode_inode(one.inode(file)._replace(mtime_ns=5))
    attr = pb.Row(kind=Kind.XATTR, obj=xattr_key(0, 0).obj, value=encode_xattrs((Xattr(b"user.a", b"b"),)))
    copy = other.change(
        "make_copy", ino=ROOT_INO, name=b"copy", inode=like, rows=[attr, rows[0]], size=SLOT_BYTES
    ).row.ino
    other.change("record_slots", ino=copy, rows=rows[1:], size=SLOT_BYTES + 1000)
    assert one.inode(copy).size == SLOT_BYTES + 1000
    assert one.inode(copy).mtime_ns == 5
    assert one.look("getxattr", ino=copy, name=b"user.a").value == b"b"
    assert len(one.look("read", ino=copy, size=1 << 20).slots) == 2
    assert pool.totals().blocks == 2
    missing = pb.Row(kind=Kind.SLOT, obj=slot_key(0, 1, 0).obj, value=encode_slot((Piece(0, 1, 77, 0),)))
    with pytest.raises(CommitRefused):
        one.change("record_slots", ino=copy, rows=[missing], size=0)
    with pytest.raises(FsError) as error:
        one.change("record_slots", ino=999, rows=rows, size=0)
    assert errno_of(error) == ENOENT
    broken = pb.Row(kind=Kind.SLOT, obj=b"short", value=rows[0].value)
    with pytest.raises(InvalidArgument):
        one.change("record_slots", ino=copy, rows=[broken], size=0)
    assert pool.problems() == []


def test_a_long_cut_is_finished_by_the_reaper() -> None:
    pool, (one, other) = hosts(2)
    file = one.create(b"f")
    for number in range(70):
        one.write(file, "same", SLOT_BYTES, offset=number * SLOT_BYTES)
    other.change("setattr", ino=file, attributes=pb.SetAttributes(size=0))
    assert pool.totals().logical_bytes > 0
    pool.run_jobs()
    assert pool.totals().logical_bytes == 0
    one.write(file, "new", 10, offset=3 * SLOT_BYTES)
    reply = other.look("read", ino=file, offset=0, size=4 * SLOT_BYTES)
    assert [row.obj for row in reply.slots] == [slot_key(file, 2, 3).obj]
    assert pool.problems() == []


# ---------------------------------------------------------------- repetitions


def test_a_repetition_is_answered_the_same_and_changes_nothing_also_after_a_restart() -> None:
    pool, (one, other) = hosts(2)
    file = one.create(b"f")
    requests = [
        one.request("mkdir", ino=ROOT_INO, name=b"d", mode=0o700),
        one.request("create", ino=ROOT_INO, name=b"x", mode=0o600, flags=O_CREAT | O_EXCL),
        one.request("rename", ino=ROOT_INO, name=b"x", new_parent=ROOT_INO, new_name=b"f"),
        one.request("rmdir", ino=ROOT_INO, name=b"d"),
    ]
    first = [one.send(request) for request in requests]
    append = one.writing(first[1].row.ino, [("w", 10)])
    written = one.tell(append)
    state = dict(pool_rows(pool))
    assert [one.send(request) for request in requests] == first
    assert one.tell(append) == written
    pool.restart()
    assert [one.send(request) for request in requests] == first
    assert one.tell(append) == written
    assert dict(pool_rows(pool)) == state
    for host in (one, other):
        host.declare()
    assert one.inode(first[1].row.ino).size == 10
    assert first[2].row.replaced == file
    assert pool.problems() == []


def pool_rows(pool: Pool) -> list[tuple[tuple[str, bytes], bytes]]:
    assert isinstance(pool.store, MemoryStore)
    kv = pool.store.committed
    return [
        ((table, key), value)
        for table in ("versions", "blocks", "segments", "families", OPERATIONS)
        for key, value in kv.scan(table, b"", b"\xff" * 40)
    ]


def test_stored_answers_go_when_the_client_has_them_and_with_the_session() -> None:
    pool, (one, _) = hosts(2)
    for number in range(5):
        one.create(b"%d" % number)
    with pool.coordinator.read() as kv:
        assert [key for key, _ in kv.scan(OPERATIONS, b"", b"\xff" * 17)] == [pair_key(one.session_id, 5)]
    late = one.request("unlink", ino=ROOT_INO, name=b"4")
    one.create(b"next")
    one.send(late)
    again = one.request("unlink", ino=ROOT_INO, name=b"3")
    again.number = 2
    with pytest.raises(InvalidArgument, match="answered long ago"):
        one.send(again)
    one.end()
    with pool.coordinator.read() as kv:
        assert kv.first(OPERATIONS, b"", b"\xff" * 17) is None
    assert pool.problems() == []
    pool.coordinator.execute(lambda txn: txn.kv.put(OPERATIONS, pair_key(one.session_id, 7), b"left"))
    assert pool.problems() == [f"the answer of operation 7 is kept for session {one.session_id}, which has ended"]
    with pytest.raises(LeaseLapsed):
        one.create(b"gone")


def test_a_request_from_an_old_stream_that_comes_late_is_not_run_again() -> None:
    _, (one, _) = hosts(2)
    late = one.request("mkdir", ino=ROOT_INO, name=b"d", mode=0)
    one.send(late)
    one.answered = one.number
    one.change("rmdir", ino=ROOT_INO, name=b"d")
    with pytest.raises(InvalidArgument):
        one.send(late)


def test_a_client_that_takes_no_answers_is_stopped() -> None:
    pool, (one, _) = hosts(2)
    file = one.create(b"f")

    def change() -> None:
        one.send(one.request("setattr", ino=file, attributes=pb.SetAttributes(mode=0o600)))

    for _ in range(MAX_STORED_ANSWERS):
        change()
    with pytest.raises(InvalidArgument, match="take the answers"):
        change()
    one.answered = one.number - 1
    change()
    assert pool.problems() == []


# ---------------------------------------------------------------- who may, and what for


def test_what_was_meant_for_a_state_before_a_roll_back_is_refused() -> None:
    pool, (one, _) = hosts(2)
    file = one.create(b"f")
    pool.snapshot("v@s")
    write = one.writing(file, [("x", 10)])
    held = volumes.Held(one.volume_id, frozenset({1, 2, 3, 4}), pool.clock.now_s + 10)
    pool.roll_back("v@s", keep="old", held=held)
    with pytest.raises(RolledBack):
        one.create(b"g")
    with pytest.raises(RolledBack):
        one.tell(write)
    with pytest.raises(RolledBack):
        one.inode(file)
    one.lineage = pool.volume("v").lineage
    one.create(b"g")
    one.answered = 0
    write.lineage = one.lineage
    write.number = one.number + 1
    write.answered = 0
    one.tell(write)
    assert one.inode(file).size == 10
    assert pool.problems() == []


def test_only_those_that_share_take_part() -> None:
    pool, (one, other) = hosts(2)
    file = one.create(b"f")
    with pool.coordinator.read() as kv:
        sessions.require_shared(kv, one.session_id, one.volume_id, write=True)
        with pytest.raises(LeaseLapsed):
            sessions.require_shared(kv, 999, one.volume_id, write=False)
    pool.coordinator.execute(lambda txn: sessions.detach(txn, other.session_id, other.volume_id))
    with pytest.raises(LeaseLapsed):
        other.inode(file)
    with pytest.raises(LeaseLapsed):
        other.create(b"x")
    pool.coordinator.execute(lambda txn: txn.kv.put(DELEGATIONS, u64_key(one.volume_id), encode_u64(one.session_id)))
    with pytest.raises(Busy):
        one.create(b"x")
    pool.create("w")
    alone = Client(pool, "w")
    with pytest.raises(NotAllowed, match="--shared"), pool.coordinator.read() as kv:
        sessions.require_shared(kv, alone.session_id, alone.volume_id, write=False)


def test_operations_that_are_not_known_are_refused() -> None:
    _, (one, _) = hosts(2)
    with pytest.raises(InvalidArgument, match="client newer"):
        one.change("fallocate", ino=ROOT_INO)
    with pytest.raises(InvalidArgument, match="client newer"):
        one.look("seek", ino=ROOT_INO)
    with pytest.raises(InvalidArgument):
        one.look("read", ino=ROOT_INO, size=1 << 40)


def test_setting_a_files_time_makes_others_forget_it() -> None:
    pool, (one, other) = hosts(2)
    third = Host(pool, "third")
    reader = Host(pool, "reader", read_only=True)
    file = one.create(b"f")
    other.open(file)
    times = pb.SetAttributes(mtime_ns=5)
    request = one.request("setattr", ino=file, attributes=times)
    assert one.send(request).forget == {other.session_id}
    assert one.send(request).forget == {other.session_id}, "also where it is repeated"
    assert one.change("setattr", ino=file, attributes=pb.SetAttributes(mode=0)).forget == frozenset()
    assert third.change("setattr", ino=file, attributes=times).forget == {one.session_id, other.session_id}
    pool.restart()
    for host in (one, other, third):
        host.declare(*([] if host is other else [file]))
    forget = one.change("setattr", ino=file, attributes=times).forget
    assert forget == {reader.session_id, third.session_id}, "one has not said what it has open"


def test_the_others_are_told_of_folders_that_move_into_other_folders() -> None:
    pool, (one, two) = hosts(2)
    Host(pool, "reader", read_only=True)
    a, b = (one.change("mkdir", ino=ROOT_INO, name=name, mode=0o755).row.ino for name in (b"a", b"b"))
    inner = one.change("mkdir", ino=a, name=b"inner", mode=0o755).row.ino
    other = one.change("mkdir", ino=b, name=b"other", mode=0o755).row.ino
    one.create(b"file", parent=a)

    def moved(**fields: Any) -> tuple[Sequence[int], list[tuple[int, int, bytes]]]:
        request = one.request("rename", **fields)
        changed = one.send(request)
        assert one.send(request) == changed
        return changed.others, [(order.ino, order.parent, order.name) for order in changed.moved]

    assert moved(ino=a, name=b"inner", new_parent=b, new_name=b"i") == ([two.session_id], [(inner, b, b"i")])
    assert moved(ino=b, name=b"i", new_parent=b, new_name=b"j") == ((), [])
    assert moved(ino=a, name=b"file", new_parent=b, new_name=b"file") == ((), [])
    one.change("rename", ino=b, name=b"j", new_parent=a, new_name=b"inner")
    exchanged = moved(ino=a, name=b"inner", new_parent=b, new_name=b"other", flags=RENAME_EXCHANGE)
    assert exchanged == ([two.session_id], [(inner, b, b"other"), (other, a, b"inner")])
