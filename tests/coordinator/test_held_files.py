"""Files that a session holds: what others ask about them waits, and what is written of them never comes too late."""

from __future__ import annotations

from collections.abc import Callable
from errno import EEXIST
from typing import Any

import pytest

from redfs.coordinator import hold_book, sessions, shared_opens, volumes
from redfs.coordinator.held_writes import write_held
from redfs.coordinator.hold_book import Held, HoldBook, NotDeclared
from redfs.coordinator.reads import reader_of
from redfs.core.endings import Endings
from redfs.core.errors import FsError, InvalidArgument, LeaseLapsed, NotAllowed, RolledBack
from redfs.core.ids import ROOT_INO, block_id
from redfs.core.records import SLOT_BYTES, decode_inode, inode_key
from redfs.proto.gen import cluster_pb2 as pb
from tests.coordinator.harness import SHARD_BYTES, Pool, fingerprint
from tests.coordinator.shared_hosts import O_CREAT, O_EXCL, Host


class Holder(Host):
    """A host that holds the files that it makes."""

    def make(self, name: bytes, parent: int = ROOT_INO) -> int:
        ino = self.change("create", ino=parent, name=name, mode=0o644, flags=O_CREAT, hold=True).row.ino
        assert self.holds(ino)
        return ino

    def holds(self, ino: int) -> bool:
        return self.pool.coordinator.env.holds.holder(self.volume_id, ino) == self.session_id

    def held(self, *files: tuple[int, Any], mtime_ns: int | None = None) -> pb.WriteHeld:
        """A write of (inode, lengths of its blocks) each."""
        segment_id, row = self.segment()
        self.number += 1
        request = pb.WriteHeld(
            volume_id=self.volume_id, lineage=self.lineage, number=self.number, answered=self.answered,
            segments=[
                pb.Segment(
                    segment_id=segment_id, k=row.layout.k, m=row.layout.m, shard_bytes=SHARD_BYTES, nodes=row.nodes
                )
            ],
        )  # fmt: skip
        for ino, lengths in files:
            file = request.files.add(ino=ino, size=sum(lengths), mtime_ns=mtime_ns)
            for length in lengths:
                number = block_id(segment_id, len(request.blocks))
                request.blocks.add(
                    block_id=number, segment_id=segment_id, offset=1000 * len(request.blocks), stored_bytes=100,
                    plain_bytes=length, checksum=1, fingerprint=fingerprint(f"{ino} {len(file.parts)} {length}"),
                )  # fmt: skip
                file.parts.add(block_id=number, bytes=length)
        return request

    def tell_held(self, request: pb.WriteHeld) -> None:
        self.pool.coordinator.execute(lambda txn: write_held(txn, self.session_id, request))

    def let_go(self, *files: tuple[int, Any], mtime_ns: int | None = None) -> None:
        self.tell_held(self.held(*files, mtime_ns=mtime_ns))
        self.answered = self.number

    def declare_held(self, *inodes: int) -> None:
        self.pool.coordinator.execute(
            lambda txn: shared_opens.declare_open(txn, self.session_id, self.volume_id, inodes, inodes)
        )


def holders(**settings: object) -> tuple[Pool, Holder, Holder]:
    pool = Pool(**settings)  # type: ignore[arg-type]
    pool.create("v")
    return pool, Holder(pool, "one"), Holder(pool, "other")


def link(host: Host, file: int) -> None:
    host.change("link", ino=file, new_parent=ROOT_INO, new_name=b"g")


def move(host: Host, new_name: bytes) -> None:
    host.change("rename", ino=ROOT_INO, name=b"f", new_parent=ROOT_INO, new_name=new_name)


ASKING: dict[str, Callable[[Host, int], object]] = {
    "lookup": lambda host, file: host.look("lookup", ino=ROOT_INO, name=b"f"),
    "getattr": lambda host, file: host.look("getattr", ino=file),
    "readdir": lambda host, file: host.look("readdir", ino=ROOT_INO),
    "read": lambda host, file: host.look("read", ino=file, size=100),
    "getxattr": lambda host, file: host.look("listxattr", ino=file),
    "open": lambda host, file: host.open(file),
    "create": lambda host, file: host.create(b"f"),
    "unlink": lambda host, file: host.unlink(b"f"),
    "link": lambda host, file: link(host, file),
    "rename": lambda host, file: move(host, b"new"),
    "rename over it": lambda host, file: host.change(
        "rename", ino=ROOT_INO, name=b"x", new_parent=ROOT_INO, new_name=b"f"
    ),
    "setattr": lambda host, file: host.change("setattr", ino=file, attributes=pb.SetAttributes(mode=0o600)),
    "setxattr": lambda host, file: host.change("setxattr", ino=file, name=b"user.a", value=b"1"),
    "write": lambda host, file: host.write(file, "more", 10, offset=0),
    "append": lambda host, file: host.write(file, "more", 10),
}


@pytest.mark.parametrize("ask", ASKING.values(), ids=ASKING)
def test_whatever_others_ask_about_a_held_file_waits_for_its_data(ask: Callable[[Host, int], object]) -> None:
    pool, one, other = holders()
    other.create(b"x")
    file = one.make(b"f")
    before = one.inode(file)
    with pytest.raises(Held) as held:
        ask(other, file)
    assert held.value.holders == {file: one.session_id}
    assert one.inode(file) == before, "nothing was done"
    assert not pool.coordinator.env.open_book.sessions_with(one.volume_id, file) - {one.session_id}
    one.let_go((file, [5000]), mtime_ns=before.mtime_ns + 1000)
    after = other.inode(file)
    assert (after.size, after.mtime_ns, after.ctime_ns) == (5000, *[before.mtime_ns + 1000] * 2)
    ask(other, file)
    assert not one.holds(file)
    assert pool.problems() == []


def test_a_page_of_a_folder_names_all_that_is_held() -> None:
    _, one, other = holders()
    files = [one.make(name) for name in (b"a", b"b")]
    mine = other.make(b"c")
    with pytest.raises(Held) as held:
        other.look("readdir", ino=ROOT_INO)
    assert held.value.holders == dict.fromkeys(files, one.session_id)
    one.let_go(*[(file, [100]) for file in files])
    listed = {entry.ino: decode_inode(entry.inode).size for entry in other.look("readdir", ino=ROOT_INO).entries}
    assert [listed[file] for file in (*files, mine)] == [100, 100, 0]


def test_the_holder_works_on_its_file_meanwhile() -> None:
    pool, one, other = holders()
    file = one.make(b"f")
    ASKING["setattr"](one, file)
    link(one, file)
    one.change("setxattr", ino=file, name=b"user.a", value=b"1")
    assert one.look("lookup", ino=ROOT_INO, name=b"f").ino == file
    move(one, b"h")
    assert one.holds(file)
    with pytest.raises(FsError) as error:
        other.create(b"h", O_CREAT | O_EXCL)
    assert error.value.errno == EEXIST, "that asks only for the name"
    changed = one.inode(file)
    one.let_go((file, [SLOT_BYTES, 77]))
    assert one.inode(file) == changed._replace(size=SLOT_BYTES + 77), "times stay where none come with the data"
    assert pool.problems() == []


def test_a_repeated_write_is_not_applied_again() -> None:
    pool, one, other = holders()
    file = one.make(b"f")
    request = one.held((file, [100]))
    one.tell_held(request)
    other.write(file, "later", 30, offset=0)
    slot = pool.read_slot(pool.volume("v"), file, 0)
    one.tell_held(request)
    assert pool.read_slot(pool.volume("v"), file, 0) == slot
    pool.restart()
    one.tell_held(request)
    assert pool.read_slot(pool.volume("v"), file, 0) == slot


def test_files_that_are_gone_are_left_out() -> None:
    pool, one, other = holders()
    gone, kept, closed = one.make(b"gone"), one.make(b"kept"), one.make(b"closed")
    for file in (gone, kept, closed):
        one.release(file)
    one.unlink(b"gone")
    assert not one.holds(gone)
    one.change("release", ino=closed, let_go=True)
    assert not one.holds(closed)
    other.look("getattr", ino=closed)
    open_one = one.make(b"open")
    one.unlink(b"open")
    request = one.held((kept, [100]), (open_one, [200]))
    one.release(open_one)
    with pytest.raises(NotAllowed):
        one.tell_held(request)
    one.let_go((kept, [100]), (gone, []))
    assert other.inode(kept).size == 100
    pool.run_jobs()
    assert pool.problems() == []


def test_data_is_never_taken_of_files_that_are_not_held() -> None:
    _, one, other = holders()
    kept, lost = one.make(b"kept"), one.make(b"lost")
    one.let_go((lost, []))
    assert other.inode(lost).size == 0
    with pytest.raises(NotAllowed, match=f"inode {lost}"):
        one.let_go((kept, [100]), (lost, [100]))
    with pytest.raises(NotAllowed):
        other.let_go((kept, [100]))
    assert one.holds(kept)
    assert (one.inode(kept).size, one.inode(lost).size) == (0, 0)
    one.let_go((kept, [100]))
    assert other.inode(kept).size == 100


def test_when_the_lease_of_a_holder_is_over_its_session_ends_and_others_go_on() -> None:
    pool, one, other = holders()
    file = one.make(b"f")
    request = one.held((file, [100]))
    pool.pass_time(pool.config.lease_s + 1)
    pool.coordinator.leases.renew(other.session_id)
    with pytest.raises(Held):
        other.inode(file)
    ended = [one.session_id, other.session_id]
    pool.coordinator.execute(lambda txn: sessions.end_lapsed(txn, ended))
    assert pool.ended == [one.session_id]
    assert other.inode(file).size == 0
    with pytest.raises(LeaseLapsed):
        one.tell_held(request)
    assert other.inode(file).size == 0
    pool.run_jobs()
    assert pool.problems() == []


def test_after_a_restart_everybody_waits_until_it_is_known_what_is_held() -> None:
    pool, one, other = holders()
    reader = Host(pool, "reader", read_only=True)
    file = one.make(b"f")
    made = one.request("create", ino=ROOT_INO, name=b"g", mode=0o644, flags=O_CREAT, hold=True)
    lost_answer = one.send(made).row.ino
    pool.restart()
    assert one.send(made).row.ino == lost_answer
    assert not one.holds(lost_answer), "what is repeated is not held again"
    request = one.held((file, [100]))
    for host in (other, reader):
        with pytest.raises(NotDeclared) as error:
            host.look("lookup", ino=ROOT_INO, name=b"f")
        assert error.value.sessions == [one.session_id, other.session_id]
    for work in (lambda: other.create(b"x"), lambda: other.write(file, "w", 10, 0), lambda: one.tell_held(request)):
        with pytest.raises(NotDeclared):
            work()
    other.declare()
    with pytest.raises(NotDeclared):
        other.inode(lost_answer)
    one.declare_held(file)
    with pytest.raises(Held):
        other.inode(file)
    one.tell_held(request)
    assert other.inode(file).size == 100
    one.declare_held(file)
    assert not one.holds(file), "a declaration that travelled"
    assert other.inode(lost_answer).size == 0
    assert reader.inode(file).size == 100


def test_a_restart_where_the_holder_never_comes_back() -> None:
    pool, one, other = holders()
    file = one.make(b"f")
    pool.restart()
    other.declare()
    with pytest.raises(NotDeclared):
        other.inode(file)
    one.end()
    assert other.inode(file).size == 0


def test_no_holds_under_a_quota_nor_above_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, one, other = holders()
    monkeypatch.setattr(hold_book, "MAX_HELD_INODES", 2)
    for name in (b"a", b"b"):
        one.make(name)
    file = one.change("create", ino=ROOT_INO, name=b"c", mode=0o644, flags=O_CREAT, hold=True).row.ino
    assert not one.holds(file)
    volume_id = pool.volume("v").volume_id
    pool.coordinator.execute(lambda txn: volumes.set_volume(txn, "v", quota_bytes=1 << 30))
    file = other.change("create", ino=ROOT_INO, name=b"d", mode=0o644, flags=O_CREAT, hold=True).row.ino
    assert pool.coordinator.env.holds.holder(volume_id, file) == 0


def test_the_last_one_that_shares_holds_nothing() -> None:
    pool, one, other = holders()
    file = one.make(b"f")
    one.let_go((file, []))
    again = one.make(b"g")
    other.end()
    pool.coordinator.execute(lambda txn: sessions.become_exclusive(txn, one.session_id, one.volume_id))
    assert not one.holds(again)
    assert pool.coordinator.env.holds.count(one.volume_id, one.session_id) == 0


def test_times_that_come_with_held_data() -> None:
    _, one, other = holders()
    first, second = one.make(b"a"), one.make(b"b")
    ahead = one.inode(first).mtime_ns + 500_000_000
    one.let_go((first, [10]), mtime_ns=ahead)
    other.write(first, "later", 10, offset=0)
    assert other.inode(first).mtime_ns > ahead, "the clock stands still, and stamps grow all the same"
    one.let_go((second, [10]), mtime_ns=ahead + (3600 << 30))
    assert other.inode(second).mtime_ns < ahead + 1_000_000_000, "a clock that is too far ahead"


def test_held_writes_that_cannot_be() -> None:
    pool, one, _ = holders()
    file = one.make(b"f")
    twice = one.held((file, [10]), (file, [10]))
    short = one.held((file, [10]))
    short.files[0].size = 5
    outside = one.held((file, [10]))
    outside.files[0].parts[0].block_offset = SLOT_BYTES
    nothing = pb.WriteHeld(volume_id=one.volume_id, lineage=one.lineage, number=one.number + 1)
    for request in (twice, short, outside, nothing):
        with pytest.raises(InvalidArgument):
            one.tell_held(request)
    another = one.held((file, [10]))
    another.lineage += 1
    with pytest.raises(RolledBack):
        one.tell_held(another)
    with pool.coordinator.read() as kv:
        raw = reader_of(kv, pool.volume("v")).get(*inode_key(file))
    assert raw is not None
    assert decode_inode(raw).size == 0


def test_what_was_read_before_a_hold_ended_is_read_again() -> None:
    book = HoldBook()
    book.grant(1, 10, 5)
    guard = book.guard(1, 20)
    guard.reads(5)
    book.let_go(1, 10, [5])
    guard.check()
    assert guard.is_outdated
    later = book.guard(1, 20)
    later.reads(5)
    book.grant(1, 10, 6)
    book.end(1, 10)
    assert not later.is_outdated
    assert book.holder(1, 6) == 0


def test_a_number_that_was_granted_in_vain_goes_to_whoever_gets_it() -> None:
    book = HoldBook()
    book.grant(1, 10, 5)
    book.grant(1, 20, 5)
    book.end(1, 10)
    assert (book.holder(1, 5), book.count(1, 10), book.count(1, 20)) == (20, 0, 1)


def test_ends_that_are_forgotten_count_as_late() -> None:
    endings = Endings(kept=2)
    mark = endings.mark()
    endings.note("a")
    assert endings.any_since(mark, ["a", "b"])
    assert not endings.any_since(mark, ["b"])
    assert not endings.any_since(endings.mark(), ["a"])
    for thing in "abc":
        endings.note(thing)
    assert endings.any_since(mark, ["x"]), "it may have"
    assert not endings.any_since(endings.mark(), ["a", "c"])
