"""Inodes made like others: what they take over, what is their own, and what is refused."""

from __future__ import annotations

import errno as e
import stat

import pytest

from redfs.core import namespace as ns
from redfs.core.errors import FsError
from redfs.core.namespace.names import name_place
from redfs.core.records import (
    INODE_HAS_CAPABILITY,
    INODE_HAS_XATTRS,
    MAX_PIECES,
    SLOT_BYTES,
    GenerationRange,
    Inode,
    Piece,
    Xattr,
    dirent_key,
    inode_key,
    name_hash,
    slot_key,
)

ROOT, SEED = 1, 9
CTX = ns.Context(0, 0, 100)
FILE = Inode(
    stat.S_IFREG | 0o4755, 5, 6, 3, 7 * SLOT_BYTES, 11, 12, 13, 14, 15, INODE_HAS_XATTRS, 77, 88,
    next_generation=9, generations=(GenerationRange(0, 4),),
)  # fmt: skip


@pytest.fixture
def view() -> ns.MemoryView:
    return ns.MemoryView(ns.make_root(1, hash_seed=SEED, family=4))


def test_a_file_takes_over_what_is_the_files_and_not_what_is_the_places(view: ns.MemoryView) -> None:
    slots = {0: (Piece(0, SLOT_BYTES, 3, 0),), 2: (Piece(5, 100, 4, 7),), 6: (Piece(0, 10, 5, 0),)}
    xattrs = [Xattr(b"user.a", b"1"), Xattr(b"security.capability", b"c")]
    size = 2 * SLOT_BYTES + 50
    view.apply(ns.make_copy(view, CTX, ROOT, b"copy", FILE, xattrs, slots, size, 30).writes)
    made = ns.getattr(view, 30).value
    assert made[:9] == (stat.S_IFREG | 0o4755, 5, 6, 1, size, 11, 12, 100, 100)
    assert (made.rdev, made.flags) == (15, INODE_HAS_XATTRS | INODE_HAS_CAPABILITY)
    assert (made.next_generation, made.generations) == (2, (GenerationRange(0, 1),))
    assert (made.parent, made.name_hash) == name_place(dirent_key(ROOT, name_hash(SEED, b"copy")))
    found = ns.read_slots(view, 30, 0, 9).value
    assert found == [slots[0], (), (Piece(5, 45, 4, 7),)], "cut at the size, nothing behind it"
    assert slot_key(30, 1, 6) not in view.records
    assert sorted(ns.all_xattrs(view, 30).value) == sorted(xattrs)
    assert ns.getxattr(view, 30, b"user.a").value == b"1"
    root = ns.getattr(view, ROOT).value
    assert (root.size, root.nlink, root.mtime_ns) == (1, 2, 100)


def test_other_sorts(view: ns.MemoryView) -> None:
    for ino, mode in enumerate((stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFLNK), 30):
        like = FILE._replace(mode=mode | 0o640, flags=0, symlink=b"there" if mode == stat.S_IFLNK else b"")
        view.apply(ns.make_copy(view, CTX, ROOT, b"%d" % ino, like, [], {}, 0, ino).writes)
        made = ns.getattr(view, ino).value
        assert (made.mode, made.rdev, made.symlink, made.size) == (like.mode, 15, like.symlink, len(like.symlink))
        assert made.nlink == (2 if mode == stat.S_IFDIR else 1)
        assert not ns.all_xattrs(view, ino).value
    assert ns.getattr(view, ROOT).value.nlink == 3
    assert ns.readlink(view, 33).value == b"there"


def test_what_is_refused(view: ns.MemoryView) -> None:
    view.apply(ns.create(view, CTX, ROOT, b"taken", 0o644, 2).writes)
    view.apply(ns.mkdir(view, CTX, ROOT, b"gone", 0o755, 3).writes)
    view.apply(ns.rmdir(view, CTX, ROOT, b"gone", {3}).writes)
    for parent, name, errno in (
        (ROOT, b"taken", e.EEXIST), (ROOT, b".", e.EEXIST), (2, b"x", e.ENOTDIR), (3, b"x", e.ENOENT),
        (99, b"x", e.ENOENT), (ROOT, b"x" * 256, e.ENAMETOOLONG), (ROOT, b"a/b", e.EINVAL),
    ):  # fmt: skip
        with pytest.raises(FsError) as caught:
            ns.make_copy(view, CTX, parent, name, FILE, [], {}, 0, 30)
        assert caught.value.errno == errno
    many = tuple(Piece(2 * n, 1, 5, 0) for n in range(MAX_PIECES + 1))
    with pytest.raises(ValueError, match="pieces"):
        ns.make_copy(view, CTX, ROOT, b"x", FILE, [], {0: many}, SLOT_BYTES, 30)
    assert inode_key(30) not in view.records


def test_one_miss_names_what_lacks(view: ns.MemoryView) -> None:
    partial = ns.PartialView(view)
    misses = 0
    while True:
        try:
            ns.make_copy(partial, CTX, ROOT, b"copy", FILE, [Xattr(b"user.a", b"1")], {}, 0, 30)
            break
        except ns.Miss as miss:
            misses += 1
            partial.fetch(miss)
    assert misses == 2, "the volume's root with the folder, then the name"
