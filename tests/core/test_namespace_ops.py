"""Operations of the namespace engine in the corners that the model does not reach: bounds, cookies, misses."""

from __future__ import annotations

import errno as e
import stat
from collections.abc import Callable
from typing import Any

import pytest

from redfs.core import namespace as ns
from redfs.core.errors import FsError
from redfs.core.namespace import names as names_module
from redfs.core.namespace.truncate import MAX_EAGER_SLOTS, MAX_EAGER_SLOTS_FULL
from redfs.core.namespace.xattrs import MAX_XATTR_LIST_BYTES, MAX_XATTRS_BYTES
from redfs.core.records import (
    INODE_HAS_XATTRS,
    MAX_BUCKET_ENTRIES,
    MAX_FILE_BYTES,
    MAX_GENERATION_RANGES,
    MAX_PIECES,
    MAX_TIME_NS,
    MIN_TIME_NS,
    ROOT_KEY,
    SLOT_BYTES,
    GenerationRange,
    Inode,
    Key,
    Kind,
    Orphan,
    Piece,
    decode_inode,
    dirent_key,
    encode_inode,
    generation_of,
    inode_key,
    name_hash,
    orphan_key,
    slot_key,
    xattr_key,
)

ROOT = 1
CTX = ns.Context(0, 0, 100)


@pytest.fixture
def view() -> ns.MemoryView:
    return ns.MemoryView(ns.make_root(1, hash_seed=9, family=4, mode=0o700, uid=5, gid=6))


def make(view: ns.MemoryView, name: bytes, ino: int, parent: int = ROOT, folder: bool = False) -> None:
    op = ns.mkdir if folder else ns.create
    view.apply(op(view, CTX, parent, name, 0o755, ino).writes)


def inode_of(view: ns.MemoryView, ino: int) -> Inode:
    return ns.getattr(view, ino).value


def put_inode(view: ns.MemoryView, ino: int, **changes: Any) -> None:
    view.apply({inode_key(ino): inode_of(view, ino)._replace(**changes)})


def fails(errno: int, op: Callable[[], object]) -> None:
    with pytest.raises(FsError) as caught:
        op()
    assert caught.value.errno == errno


def write(view: ns.MemoryView, ino: int, slot: int, length: int = SLOT_BYTES) -> None:
    end = slot * SLOT_BYTES + length
    view.apply(ns.record_data(view, ino, {slot: (Piece(0, length, 7, 0),)}, end, 5, 5).writes)


def cut_to(view: ns.MemoryView, ino: int, size: int) -> ns.WriteSet:
    writes = ns.setattr(view, CTX, ino, size=size).writes
    view.apply(writes)
    return writes


def fetched(whole: ns.MemoryView, op: Callable[[ns.View], Any], known: tuple[Key, ...] = ()) -> list[ns.Miss]:
    """The Misses of an operation over a view that knows only `known`."""
    partial = ns.PartialView(whole)
    partial.fetch(ns.Miss(keys=known))
    misses: list[ns.Miss] = []
    while True:
        try:
            op(partial)
        except ns.Miss as miss:
            misses.append(miss)
            partial.fetch(miss)
            continue
        return misses


def test_an_empty_volume_has_its_root(view: ns.MemoryView) -> None:
    root = inode_of(view, ROOT)
    assert (root.mode, root.uid, root.gid, root.nlink, root.size) == (stat.S_IFDIR | 0o700, 5, 6, 2, 0)
    assert [(entry.name, entry.cookie, entry.ino) for entry in ns.readdir(view, ROOT, 0, 10).value] == [
        (b".", 1, ROOT),
        (b"..", 2, ROOT),
    ]
    assert ns.lookup(view, ROOT, b"..").value.ino == ROOT


def test_a_volume_without_its_root_record_says_so() -> None:
    with pytest.raises(FsError, match="redfs check"):
        ns.lookup(ns.MemoryView(), ROOT, b"a")


def test_an_entry_without_its_inode_is_reported(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    view.apply({inode_key(2): None})
    fails(e.EIO, lambda: ns.lookup(view, ROOT, b"a"))
    fails(e.EIO, lambda: ns.unlink(view, CTX, ROOT, b"a"))
    fails(e.EIO, lambda: ns.rename(view, CTX, ROOT, b"a", ROOT, b"b"))


def test_nothing_is_made_in_a_removed_folder(view: ns.MemoryView) -> None:
    make(view, b"gone", 2, folder=True)
    make(view, b"file", 3)
    view.apply(ns.rmdir(view, CTX, ROOT, b"gone", {2}).writes)
    fails(e.ENOENT, lambda: ns.create(view, CTX, 2, b"x", 0o644, 9))
    fails(e.ENOENT, lambda: ns.mkdir(view, CTX, 2, b"x", 0o755, 9))
    fails(e.ENOENT, lambda: ns.symlink(view, CTX, 2, b"x", b"y", 9))
    fails(e.ENOENT, lambda: ns.link(view, CTX, 3, 2, b"x"))
    fails(e.ENOENT, lambda: ns.rename(view, CTX, ROOT, b"file", 2, b"x"))
    fails(e.ENOENT, lambda: ns.readdir(view, 2, 0, 10))


def test_special_files(view: ns.MemoryView) -> None:
    fails(e.EPERM, lambda: ns.mknod(view, CTX, ROOT, b"a", stat.S_IFDIR | 0o755, 0, 2))
    fails(e.EINVAL, lambda: ns.mknod(view, CTX, ROOT, b"a", stat.S_IFLNK | 0o755, 0, 2))
    assert ns.mknod(view, CTX, ROOT, b"a", stat.S_IFIFO | 0o644, 5, 2).value.inode.rdev == 0
    assert ns.mknod(view, CTX, ROOT, b"a", stat.S_IFBLK | 0o644, 5, 2).value.inode.rdev == 5


def test_symbolic_links_point_somewhere(view: ns.MemoryView) -> None:
    fails(e.ENOENT, lambda: ns.symlink(view, CTX, ROOT, b"a", b"", 2))
    fails(e.ENAMETOOLONG, lambda: ns.symlink(view, CTX, ROOT, b"a", b"x" * 4096, 2))
    fails(e.EINVAL, lambda: ns.symlink(view, CTX, ROOT, b"a", b"x\0", 2))
    made = ns.symlink(view, CTX, ROOT, b"a", b"x" * 4095, 2)
    view.apply(made.writes)
    assert (made.value.inode.size, ns.readlink(view, 2).value) == (4095, b"x" * 4095)


def test_link_counts_are_bounded(view: ns.MemoryView) -> None:
    make(view, b"file", 2)
    make(view, b"folder", 3, folder=True)
    make(view, b"other", 4, folder=True)
    put_inode(view, 2, nlink=ns.MAX_LINKS)
    put_inode(view, 3, nlink=ns.MAX_LINKS)
    fails(e.EMLINK, lambda: ns.link(view, CTX, 2, ROOT, b"x"))
    fails(e.EMLINK, lambda: ns.mkdir(view, CTX, 3, b"x", 0o755, 9))
    fails(e.EMLINK, lambda: ns.rename(view, CTX, ROOT, b"other", 3, b"x"))
    ns.create(view, CTX, 3, b"x", 0o644, 9)


def test_a_full_bucket_takes_no_more_names(view: ns.MemoryView, monkeypatch: pytest.MonkeyPatch) -> None:
    def always(_seed: int, _name: bytes) -> int:
        return 77

    monkeypatch.setattr(names_module, "name_hash", always)
    for i in range(MAX_BUCKET_ENTRIES):
        make(view, b"n%d" % i, 2 + i)
    fails(e.ENOSPC, lambda: ns.create(view, CTX, ROOT, b"more", 0o644, 99))
    cookies = {entry.name: entry.cookie for entry in ns.readdir(view, ROOT, 2, 100).value}
    view.apply(ns.unlink(view, CTX, ROOT, b"n3").writes)
    make(view, b"more", 99)
    after = {entry.name: entry.cookie for entry in ns.readdir(view, ROOT, 2, 100).value}
    assert after.pop(b"more") == cookies.pop(b"n3")
    assert after == cookies


def test_a_listing_is_stable_while_the_folder_changes(view: ns.MemoryView) -> None:
    lasting = {b"keep%d" % i: 1000 + i for i in range(50)}
    for name, ino in lasting.items():
        make(view, name, ino)
    for i in range(50):
        make(view, b"temp%d" % i, 2000 + i)
    seen: list[bytes] = []
    cookie, step = 0, 0
    while page := ns.readdir(view, ROOT, cookie, 7).value:
        seen += [entry.name for entry in page]
        cookie = page[-1].cookie
        for _ in range(3):
            view.apply(ns.unlink(view, CTX, ROOT, b"temp%d" % step).writes)
            make(view, b"new%d" % step, 3000 + step)
            step += 1
    assert len(seen) == len(set(seen))
    assert set(lasting) <= set(seen)
    assert step < 50


def test_a_listing_goes_on_behind_a_removed_entry(view: ns.MemoryView) -> None:
    for i in range(10):
        make(view, b"f%d" % i, 2 + i)
    entries = ns.readdir(view, ROOT, 2, 100).value
    view.apply(ns.unlink(view, CTX, ROOT, entries[4].name).writes)
    assert [x.name for x in ns.readdir(view, ROOT, entries[4].cookie, 100).value] == [x.name for x in entries[5:]]


@pytest.mark.parametrize("flags", [0, ns.RENAME_EXCHANGE])
def test_an_entry_keeps_its_cookie_when_another_inode_takes_its_name(view: ns.MemoryView, flags: int) -> None:
    make(view, b"a", 2)
    make(view, b"b", 3)
    before = {x.name: x.cookie for x in ns.readdir(view, ROOT, 2, 100).value}
    view.apply(ns.rename(view, CTX, ROOT, b"a", ROOT, b"b", flags).writes)
    after = {x.name: x.cookie for x in ns.readdir(view, ROOT, 2, 100).value}
    assert after[b"b"] == before[b"b"]


def test_bad_listings_are_refused(view: ns.MemoryView) -> None:
    make(view, b"file", 2)
    fails(e.EINVAL, lambda: ns.readdir(view, ROOT, -1, 10))
    fails(e.EINVAL, lambda: ns.readdir(view, ROOT, 0, 0))
    fails(e.ENOTDIR, lambda: ns.readdir(view, 2, 0, 10))
    assert len(ns.readdir(view, ROOT, 0, 10**9).value) == 3


def test_a_removed_name_takes_data_and_attributes_along(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    view.apply(ns.setxattr(view, CTX, 2, b"user.x", b"1").writes)
    write(view, 2, 3)
    removed = ns.unlink(view, CTX, ROOT, b"a")
    assert removed.value == ns.Removed(2, None)
    view.apply(removed.writes)
    assert set(view.records) == {ROOT_KEY, inode_key(ROOT)}


def test_a_long_file_leaves_its_data_to_the_reaper(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    write(view, 2, MAX_EAGER_SLOTS)
    writes = ns.unlink(view, CTX, ROOT, b"a").writes
    assert writes[orphan_key(2, 1)] == Orphan(CTX.now_ns)
    assert not any(key.kind == Kind.SLOT for key in writes)
    assert ns.slot_is_dead(None, 1, MAX_EAGER_SLOTS)


def test_an_open_file_outlives_its_name(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    write(view, 2, 0)
    removed = ns.unlink(view, CTX, ROOT, b"a", {2})
    view.apply(removed.writes)
    assert removed.value.inode is not None
    assert inode_of(view, 2).nlink == 0
    write(view, 2, 1)
    assert len(ns.read_slots(view, 2, 0, 5).value) == 2
    fails(e.ENOENT, lambda: ns.link(view, CTX, 2, ROOT, b"back"))
    ended = ns.release(view, CTX, 2)
    view.apply(ended.writes)
    assert ended.value
    assert set(view.records) == {ROOT_KEY, inode_key(ROOT)}
    assert ns.record_data(view, 2, {0: (Piece(0, 5, 9, 0),)}, 5, 1, 1) == ns.Outcome(None, {})


def test_release_leaves_a_file_with_names_alone(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    assert ns.release(view, CTX, 2) == ns.Outcome(False, {})
    assert ns.release(view, CTX, 99) == ns.Outcome(False, {})


def test_a_short_cut_deletes_and_cuts_slots(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    for slot in range(3):
        write(view, 2, slot)
    cut_to(view, 2, SLOT_BYTES + 100)
    assert ns.read_slots(view, 2, 0, 9).value == [(Piece(0, SLOT_BYTES, 7, 0),), (Piece(0, 100, 7, 0),)]
    assert view.get(slot_key(2, 1, 2)) is None
    cut_to(view, 2, 3 * SLOT_BYTES)
    assert ns.read_slots(view, 2, 0, 9).value[1:] == [(Piece(0, 100, 7, 0),), ()]
    assert inode_of(view, 2).generations == (GenerationRange(0, 1),)


def test_a_long_cut_starts_a_generation(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    write(view, 2, 0)
    write(view, 2, 500)
    writes = cut_to(view, 2, 10 * SLOT_BYTES)
    assert len(writes) == 2
    assert view.get(orphan_key(2, 1)) == Orphan(CTX.now_ns)
    inode = inode_of(view, 2)
    assert inode.generations == (GenerationRange(0, 1), GenerationRange(10, 2))
    assert ns.slot_is_dead(inode, 1, 500)
    assert not ns.slot_is_dead(inode, 1, 9)
    cut_to(view, 2, 600 * SLOT_BYTES)
    assert ns.read_slots(view, 2, 500, 1).value == [()]
    cut_to(view, 2, 0)
    assert inode_of(view, 2).generations == (GenerationRange(0, 3),)


def full_of_ranges(view: ns.MemoryView) -> int:
    """File 2 with as many generations as it can list; returns its size in slots."""
    make(view, b"a", 2)
    for step in range(1, MAX_GENERATION_RANGES):
        cut_to(view, 2, (step * 100 + 100) * SLOT_BYTES)
        cut_to(view, 2, step * 100 * SLOT_BYTES + (step % 2) * (SLOT_BYTES // 2))
    assert len(inode_of(view, 2).generations) == MAX_GENERATION_RANGES
    return MAX_GENERATION_RANGES * 100


def test_cuts_behind_too_many_others_delete_up_to_a_bound(view: ns.MemoryView) -> None:
    slots = full_of_ranges(view)
    cut_to(view, 2, (slots + MAX_EAGER_SLOTS_FULL) * SLOT_BYTES)
    write(view, 2, slots + 5)
    writes = cut_to(view, 2, slots * SLOT_BYTES)
    assert sum(key.kind == Kind.SLOT for key in writes) == MAX_EAGER_SLOTS_FULL
    cut_to(view, 2, (slots + 9) * SLOT_BYTES)
    assert ns.read_slots(view, 2, slots + 5, 1).value == [()]
    cut_to(view, 2, (slots + MAX_EAGER_SLOTS_FULL + 1) * SLOT_BYTES)
    fails(e.EFBIG, lambda: ns.setattr(view, CTX, 2, size=slots * SLOT_BYTES))
    cut_to(view, 2, 0)
    assert len(inode_of(view, 2).generations) == 1


def test_every_generation_that_dies_is_left_to_the_reaper(view: ns.MemoryView) -> None:
    full_of_ranges(view)
    writes = cut_to(view, 2, 150 * SLOT_BYTES)
    left = {generation for generation in range(1, 99) if orphan_key(2, generation) in writes}
    living = {generation_of(inode_of(view, 2).generations, slot) for slot in range(150)}
    # The newest one begins behind the end of the file.
    assert left == set(range(2, MAX_GENERATION_RANGES))
    assert living == {1, 2}


def test_a_generation_of_which_one_slot_dies_is_left_to_the_reaper(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    write(view, 2, 10)
    cut_to(view, 2, 500 * SLOT_BYTES)
    cut_to(view, 2, 11 * SLOT_BYTES)
    cut_to(view, 2, 500 * SLOT_BYTES)
    writes = cut_to(view, 2, 10 * SLOT_BYTES)
    assert inode_of(view, 2).generations == (GenerationRange(0, 1), GenerationRange(10, 3))
    assert {orphan_key(2, 1), orphan_key(2, 2)} <= set(writes)


def test_sizes_are_bounded(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    cut_to(view, 2, MAX_FILE_BYTES)
    fails(e.EFBIG, lambda: ns.setattr(view, CTX, 2, size=MAX_FILE_BYTES + 1))
    fails(e.EFBIG, lambda: ns.record_data(view, 2, {}, MAX_FILE_BYTES + 1, None, None))
    fails(e.EINVAL, lambda: ns.setattr(view, CTX, 2, size=-1))


@pytest.mark.parametrize("field", ["atime_ns", "mtime_ns", "ctime_ns"])
@pytest.mark.parametrize(("asked", "kept"), [(1 << 63, MAX_TIME_NS), (-(1 << 63) - 1, MIN_TIME_NS), (-1, -1)])
def test_times_are_bounded_by_what_a_record_holds(view: ns.MemoryView, field: str, asked: int, kept: int) -> None:
    view.apply(ns.create(view, CTX, ROOT, b"f", 0o644, 2).writes)
    times: dict[str, Any] = {field: asked}
    writes = ns.setattr(view, CTX, 2, **times).writes
    changed = writes[inode_key(2)]
    assert isinstance(changed, Inode)
    assert getattr(changed, field) == kept
    assert decode_inode(encode_inode(changed)) == changed


@pytest.mark.parametrize(("uid", "gid", "groups", "keeps"), [
    (0, 0, (), True), (1, 7, (), True), (1, 1, (7,), True), (1, 1, (), False), (1, 1, (8,), False),
])  # fmt: skip
def test_a_set_group_id_program_needs_a_member_of_its_group(
    view: ns.MemoryView, uid: int, gid: int, groups: tuple[int, ...], keeps: bool
) -> None:
    view.apply(ns.setattr(view, CTX, ROOT, mode=0o2777, gid=7).writes)
    who = ns.Context(uid, gid, 5, groups=frozenset(groups))
    made = ns.create(view, who, ROOT, b"program", 0o2755, 2).value.inode
    assert (made.gid, made.mode & 0o7777) == (7, 0o2755 if keeps else 0o755)
    assert ns.create(view, who, ROOT, b"data", 0o2644, 3).value.inode.mode & 0o7777 == 0o2644


def test_recorded_data_never_passes_the_size(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    cut_to(view, 2, SLOT_BYTES + 10)
    full = (Piece(0, SLOT_BYTES, 7, 0),)
    done = ns.record_data(view, 2, {0: full, 1: full, 2: full}, None, None, None)
    assert done.value is not None
    assert done.value.size == SLOT_BYTES + 10
    assert done.writes[slot_key(2, 1, 1)] == (Piece(0, 10, 7, 0),)
    assert slot_key(2, 1, 2) not in done.writes
    shrunk = ns.record_data(view, 2, {0: ()}, 5, 8, 9)
    assert shrunk.value is not None
    assert (shrunk.value.size, shrunk.value.mtime_ns, shrunk.value.ctime_ns) == (SLOT_BYTES + 10, 8, 9)
    assert shrunk.writes[slot_key(2, 1, 0)] is None


def test_a_slot_of_too_many_pieces_is_not_recorded(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    slot = tuple(Piece(i * 2, 1, 1, 0) for i in range(MAX_PIECES + 1))
    with pytest.raises(ValueError, match="merge them"):
        ns.record_data(view, 2, {0: slot}, SLOT_BYTES, None, None)


def test_attributes_are_bounded(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    big = b"v" * 65536
    for i in range(MAX_XATTRS_BYTES // len(big) - 1):
        view.apply(ns.setxattr(view, CTX, 2, b"user.%d" % i, big).writes)
    fails(e.ENOSPC, lambda: ns.setxattr(view, CTX, 2, b"user.more", big))
    view.apply(ns.setxattr(view, CTX, 2, b"user.0", big).writes)
    make(view, b"b", 3)
    for i in range(MAX_XATTR_LIST_BYTES // 256):
        view.apply(ns.setxattr(view, CTX, 3, b"%0255d" % i, b"").writes)
    fails(e.ENOSPC, lambda: ns.setxattr(view, CTX, 3, b"x", b""))
    assert sum(len(name) + 1 for name in ns.listxattr(view, 3).value) == MAX_XATTR_LIST_BYTES
    fails(e.EINVAL, lambda: ns.setxattr(view, CTX, 3, b"x\0", b""))


def test_a_missing_capability_costs_no_record(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    view.apply(ns.setxattr(view, CTX, 2, b"user.x", b"1").writes)
    partial = ns.PartialView(view)
    partial.fetch(ns.Miss(keys=(inode_key(2),)))
    fails(e.ENODATA, lambda: ns.getxattr(partial, 2, b"security.capability"))
    assert inode_of(view, 2).flags == INODE_HAS_XATTRS


def test_the_folders_above_a_target_are_walked_up_to_the_root(view: ns.MemoryView) -> None:
    make(view, b"f2", 2, folder=True)
    for ino in range(3, 40):
        make(view, b"f%d" % ino, ino, parent=ino - 1, folder=True)
    fails(e.EINVAL, lambda: ns.rename(view, CTX, ROOT, b"f2", 39, b"x"))
    fails(e.ENOTEMPTY, lambda: ns.rename(view, CTX, 38, b"f39", ROOT, b"f2"))
    fails(e.EINVAL, lambda: ns.rename(view, CTX, 38, b"f39", ROOT, b"f2", ns.RENAME_EXCHANGE))


def test_a_circle_of_folders_ends_the_walk(view: ns.MemoryView) -> None:
    for ino in (2, 3, 4):
        make(view, b"f%d" % ino, ino, folder=True)
    put_inode(view, 2, parent=3)
    put_inode(view, 3, parent=2)
    fails(e.ELOOP, lambda: ns.rename(view, CTX, ROOT, b"f4", 2, b"x"))


def test_one_miss_names_all_that_an_operation_knows_it_needs(view: ns.MemoryView) -> None:
    make(view, b"d", 2, folder=True)
    make(view, b"a", 3)
    make(view, b"b", 4, parent=2)

    def entry(parent: int, name: bytes) -> Key:
        return dirent_key(parent, name_hash(9, name))

    def keys(op: Callable[[ns.View], Any]) -> list[set[Key]]:
        return [set(miss.keys) for miss in fetched(view, op, (ROOT_KEY,))]

    top, folder, a, b = inode_key(ROOT), inode_key(2), inode_key(3), inode_key(4)
    assert keys(lambda v: ns.create(v, CTX, ROOT, b"new", 0o644, 9)) == [{top, entry(ROOT, b"new")}]
    assert keys(lambda v: ns.lookup(v, ROOT, b"a")) == [{top, entry(ROOT, b"a")}, {a}]
    assert keys(lambda v: ns.unlink(v, CTX, ROOT, b"a")) == [{top, entry(ROOT, b"a")}, {a}]
    assert keys(lambda v: ns.link(v, CTX, 3, 2, b"x")) == [{a, folder, entry(2, b"x")}]
    both = {top, folder, entry(ROOT, b"a"), entry(2, b"b")}
    assert keys(lambda v: ns.rename(v, CTX, ROOT, b"a", 2, b"b")) == [both, {a, b}]
    assert keys(lambda v: ns.record_data(v, 3, {0: (), 5: ()}, 10, 1, 1)) == [{a}]


def test_a_volume_that_is_quite_unknown_costs_one_round_more(view: ns.MemoryView) -> None:
    misses = fetched(view, lambda v: ns.create(v, CTX, ROOT, b"new", 0o644, 9))
    assert [set(miss.keys) for miss in misses] == [
        {ROOT_KEY, inode_key(ROOT)},
        {dirent_key(ROOT, name_hash(9, b"new"))},
    ]


def test_a_listing_asks_for_folder_and_page_at_once(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    misses = fetched(view, lambda v: ns.readdir(v, ROOT, 0, 10))
    assert [(miss.keys, miss.folders) for miss in misses] == [
        ((inode_key(ROOT),), (ns.FolderPage(ROOT, None, 11),)),
    ]


def test_a_cold_attribute_is_asked_for_with_its_inode(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    view.apply(ns.setxattr(view, CTX, 2, b"user.x", b"1").writes)
    misses = fetched(view, lambda v: ns.getxattr(v, 2, b"user.x"), (ROOT_KEY,))
    assert [set(miss.keys) for miss in misses] == [{inode_key(2), xattr_key(2, name_hash(9, b"user.x"))}]


def test_the_slots_of_a_range_are_asked_for_at_once(view: ns.MemoryView) -> None:
    make(view, b"a", 2)
    write(view, 2, 4)
    misses = fetched(view, lambda v: ns.read_slots(v, 2, 1, 100))
    assert [set(miss.keys) for miss in misses] == [{inode_key(2)}, {slot_key(2, 1, slot) for slot in range(1, 5)}]


def test_a_miss_says_what_lacks() -> None:
    assert "attributes of (5,)" in str(ns.Miss(xattrs_of=(5,)))
