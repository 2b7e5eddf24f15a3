"""The namespace engine against a slow, obvious file system made of Python objects.

A state machine, and walks of seeded random steps, send every operation to both and compare results, errors,
attributes, listings and data. Each operation runs twice in the engine: over a view that knows everything, and over
one that knows only what earlier Misses named. After each step the records themselves are checked for the engine's
invariants.
"""

from __future__ import annotations

import errno as e
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
import xxhash
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from redfs.core import namespace as ns
from redfs.core.errors import FsError
from redfs.core.namespace import names as names_module
from redfs.core.namespace import xattrs as xattrs_module
from redfs.core.records import (
    INODE_HAS_CAPABILITY,
    INODE_HAS_XATTRS,
    SLOT_BYTES,
    Inode,
    Key,
    Kind,
    Orphan,
    Piece,
    Slot,
    generation_of,
    inode_key,
    object_ino,
    orphan_key,
    slot_key,
    split_dirent_object,
    split_orphan_object,
    split_slot_object,
)
from redfs.core.slots import check_slot, overlay, resolve
from tests.lengths import examples

CELL = 16 * 1024
"""The model keeps data in cells; writes and cuts of the machine fall on their borders."""
CELLS = SLOT_BYTES // CELL
SLOTS = (0, 1, 2, 64, 66, 130, 9000)
"""Slots that the machine writes to: near and far enough for cuts that delete and cuts that start a generation."""
ROOT = 1
FETCH_ROUNDS = 12
"""Misses that one operation may raise: a few, and one for each folder above a moved one."""


@dataclass
class Node:
    """One file, folder or link of the model."""

    ino: int
    mode: int
    uid: int
    gid: int
    atime: int
    mtime: int
    ctime: int
    btime: int
    names: int = 1
    parent: int = 0
    rdev: int = 0
    target: bytes = b""
    size: int = 0
    children: dict[bytes, Node] = field(default_factory=dict)
    cells: dict[int, tuple[int, int]] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def nlink(self) -> int:
        if self.is_folder and self.names:
            return 2 + sum(child.is_folder for child in self.children.values())
        return self.names

    @property
    def st_size(self) -> int:
        if self.is_folder:
            return len(self.children)
        return len(self.target) or self.size


class Model:
    """POSIX, the obvious way."""

    def __init__(self) -> None:
        root = Node(ROOT, stat.S_IFDIR | 0o755, 0, 0, 1, 1, 1, 1, parent=ROOT)
        self.nodes = {ROOT: root}
        self.open: Counter[int] = Counter()

    def node(self, ino: int) -> Node:
        if ino not in self.nodes:
            raise FsError(e.ENOENT)
        return self.nodes[ino]

    def folder(self, ino: int, name: bytes = b"x") -> Node:
        if len(name) > 255:
            raise FsError(e.ENAMETOOLONG)
        if not name or b"/" in name or b"\0" in name:
            raise FsError(e.EINVAL)
        node = self.node(ino)
        if not node.is_folder:
            raise FsError(e.ENOTDIR)
        return node

    def lookup(self, parent: int, name: bytes) -> Node:
        folder = self.folder(parent, name)
        if name == b".":
            return folder
        if name == b"..":
            return self.node(folder.parent)
        if name not in folder.children:
            raise FsError(e.ENOENT)
        return folder.children[name]

    def make(self, ctx: ns.Context, parent: int, name: bytes, mode: int, ino: int, **more: Any) -> Node:
        folder = self.folder(parent, name)
        if name in (b".", b"..") or name in folder.children:
            raise FsError(e.EEXIST)
        if not folder.names:
            raise FsError(e.ENOENT)
        gid = ctx.gid
        if folder.mode & stat.S_ISGID:
            gid = folder.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
            elif ctx.uid != 0 and ctx.gid != folder.gid and mode & stat.S_ISGID and mode & stat.S_IXGRP:
                mode &= ~stat.S_ISGID
        now = ctx.now_ns
        node = Node(ino, mode, ctx.uid, gid, now, now, now, now, **more)
        if node.is_folder:
            node.parent = parent
        folder.children[name] = self.nodes[ino] = node
        folder.mtime = folder.ctime = now
        return node

    def link(self, ctx: ns.Context, ino: int, parent: int, name: bytes) -> Node:
        folder = self.folder(parent, name)
        node = self.node(ino)
        if name in (b".", b"..") or name in folder.children:
            raise FsError(e.EEXIST)
        if node.is_folder:
            raise FsError(e.EPERM)
        if not node.names or not folder.names:
            raise FsError(e.ENOENT)
        folder.children[name] = node
        node.names += 1
        node.ctime = folder.mtime = folder.ctime = ctx.now_ns
        return node

    def lose_name(self, ctx: ns.Context, node: Node) -> None:
        node.names -= 1
        node.ctime = ctx.now_ns
        if not node.names and not self.open[node.ino]:
            del self.nodes[node.ino]

    def unlink(self, ctx: ns.Context, parent: int, name: bytes) -> int:
        folder = self.folder(parent, name)
        if name in (b".", b".."):
            raise FsError(e.EISDIR)
        node = self.lookup(parent, name)
        if node.is_folder:
            raise FsError(e.EISDIR)
        del folder.children[name]
        folder.mtime = folder.ctime = ctx.now_ns
        self.lose_name(ctx, node)
        return node.ino

    def rmdir(self, ctx: ns.Context, parent: int, name: bytes) -> int:
        folder = self.folder(parent, name)
        if name in (b".", b".."):
            raise FsError(e.EINVAL if name == b"." else e.ENOTEMPTY)
        node = self.lookup(parent, name)
        if not node.is_folder:
            raise FsError(e.ENOTDIR)
        if node.children:
            raise FsError(e.ENOTEMPTY)
        del folder.children[name]
        folder.mtime = folder.ctime = ctx.now_ns
        self.lose_name(ctx, node)
        return node.ino

    def lies_in(self, inner: Node, outer: Node) -> bool:
        """Whether `inner` is `outer` or somewhere below it."""
        return inner is outer or any(self.lies_in(inner, child) for child in outer.children.values())

    def rename(self, ctx: ns.Context, p1: int, n1: bytes, p2: int, n2: bytes, flags: int) -> int:
        if flags not in (0, ns.RENAME_NOREPLACE, ns.RENAME_EXCHANGE):
            raise FsError(e.EINVAL)
        old, new = self.folder(p1, n1), self.folder(p2, n2)
        dots = (b".", b"..")
        if n1 in dots or n2 in dots:
            raise FsError(e.EEXIST if flags == ns.RENAME_NOREPLACE and n1 not in dots else e.EBUSY)
        source, target = old.children.get(n1), new.children.get(n2)
        if source is None:
            raise FsError(e.ENOENT)
        if flags == ns.RENAME_NOREPLACE and target:
            raise FsError(e.EEXIST)
        if not target and (flags == ns.RENAME_EXCHANGE or not new.names):
            raise FsError(e.ENOENT)
        if self.lies_in(new, source):
            raise FsError(e.EINVAL)
        if target and self.lies_in(old, target):
            raise FsError(e.EINVAL if flags == ns.RENAME_EXCHANGE else e.ENOTEMPTY)
        if source is target:
            return source.ino
        if flags != ns.RENAME_EXCHANGE and target:
            if source.is_folder and not target.is_folder:
                raise FsError(e.ENOTDIR)
            if target.is_folder and not source.is_folder:
                raise FsError(e.EISDIR)
            if target.children:
                raise FsError(e.ENOTEMPTY)
        del old.children[n1]
        new.children[n2] = source
        if source.is_folder:
            source.parent = p2
        for touched in (old, new):
            touched.mtime = touched.ctime = ctx.now_ns
        source.ctime = ctx.now_ns
        if target and flags == ns.RENAME_EXCHANGE:
            old.children[n1] = target
            target.ctime = ctx.now_ns
            if target.is_folder:
                target.parent = p1
        elif target:
            self.lose_name(ctx, target)
        return source.ino

    def truncate(self, ctx: ns.Context, ino: int, size: int) -> None:
        node = self.node(ino)
        if not stat.S_ISREG(node.mode):
            raise FsError(e.EISDIR if node.is_folder else e.EINVAL)
        if size < 0 or size > 1 << 60:
            raise FsError(e.EINVAL if size < 0 else e.EFBIG)
        node.size = size
        node.cells = {cell: what for cell, what in node.cells.items() if cell * CELL < size}
        node.mtime = node.ctime = ctx.now_ns


def expected_inode(node: Node) -> tuple[object, ...]:
    return (
        node.mode, node.uid, node.gid, node.nlink, node.st_size, node.atime, node.mtime, node.ctime, node.btime,
        node.rdev, node.parent if node.is_folder else 0, node.target,
    )  # fmt: skip


def seen_inode(i: Inode) -> tuple[object, ...]:
    return (*i[:9], i.rdev, i.parent if stat.S_ISDIR(i.mode) else 0, i.symlink)


def check_records(view: ns.MemoryView, open_inodes: Counter[int]) -> None:
    """The engine's invariants, from the records alone."""
    records: dict[Key, Any] = view.records
    inodes: dict[int, Inode] = {object_ino(k.obj): rec for k, rec in records.items() if k.kind == Kind.INODE}
    named: Counter[int] = Counter()
    places: dict[int, set[tuple[int, int]]] = {}
    entries: Counter[int] = Counter()
    subfolders: Counter[int] = Counter()
    for key, record in records.items():
        ino = object_ino(key.obj)
        assert key.kind in (Kind.ROOT, Kind.ORPHAN, Kind.SLOT) or ino in inodes, "record of an inode that is gone"
        if key.kind == Kind.DIRENT:
            parent, name_hash = split_dirent_object(key.obj)
            assert stat.S_ISDIR(inodes[parent].mode)
            assert inodes[parent].nlink
            assert record
            assert [entry.position for entry in record] == sorted({entry.position for entry in record})
            for entry in record:
                child = inodes[entry.ino]
                assert names_module.name_hash(0, entry.name) == name_hash  # type: ignore[attr-defined]
                assert entry.file_type == child.mode >> 12
                entries[parent] += 1
                named[entry.ino] += 1
                places.setdefault(entry.ino, set()).add((parent, name_hash))
                if stat.S_ISDIR(child.mode):
                    subfolders[parent] += 1
        elif key.kind == Kind.SLOT:
            _, generation, slot = split_slot_object(key.obj)
            check_slot(record)
            assert record
            inode = inodes.get(ino)
            if ns.slot_is_dead(inode, generation, slot):
                assert orphan_key(ino, generation) in records, "dead slot that no orphan record covers"
            else:
                assert inode is not None
                assert slot * SLOT_BYTES + record[-1].offset + record[-1].length <= inode.size
    for ino, inode in inodes.items():
        orphan = records.get(orphan_key(ino, 0))
        if named[ino]:
            known = {(inode.parent, inode.name_hash)}
            assert known <= places[ino] or (known == {(0, 0)} and not stat.S_ISDIR(inode.mode)), "the way to the name"
        if stat.S_ISDIR(inode.mode):
            assert inode.size == entries[ino]
            assert inode.nlink == (2 + subfolders[ino] if ino == ROOT or named[ino] else 0)
            assert named[ino] == (0 if ino == ROOT or not inode.nlink else 1)
        else:
            assert inode.nlink == named[ino]
        assert (orphan is not None) == (not inode.nlink)
        assert inode.nlink or open_inodes[ino], "unlinked inode that nobody holds"
        attrs = [attr.name for _, bucket in view.xattrs(ino) for attr in bucket]
        assert bool(inode.flags & INODE_HAS_XATTRS) == bool(attrs)
        assert bool(inode.flags & INODE_HAS_CAPABILITY) == (b"security.capability" in attrs)
        firsts = [r.first_slot for r in inode.generations]
        generations = [r.generation for r in inode.generations]
        assert firsts[0] == 0
        assert firsts == sorted(set(firsts))
        assert generations == sorted(set(generations))
        assert generations[-1] < inode.next_generation


NAMES = (b"a", b"b", b"c", b"dd", "é".encode(), b"x" * 255)
BAD_NAMES = (b"", b"a/b", b"n\0", b"y" * 256, b".", b"..")
any_name = st.sampled_from(NAMES * 6 + BAD_NAMES)
attr_names = st.sampled_from((b"user.a", b"user.b", b"security.capability", b"user.c", b"", b"z" * 256))
modes = st.sampled_from((0o644, 0o755, 0o2755, 0o6755, 0o2644, 0o1777, 0))
picks = st.sampled_from(range(240))
"""Picks one of what there is; even, where integers would nearly always be small."""
owners = st.sampled_from(((0, 0), (1000, 1000), (1000, 50)))
cell_sizes = st.sampled_from([slot * CELLS + more for slot in (*SLOTS, 65, 70) for more in (0, 3)])


class NamespaceMachine(RuleBasedStateMachine):
    """Sends operations to the engine and to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.view = ns.MemoryView(ns.make_root(1, hash_seed=0, family=1))
        self.partial = ns.PartialView(self.view)
        self.inos = [ROOT]
        self.now = 1
        self.next_block = 1

    def ctx(self, owner: tuple[int, int] = (0, 0), umask: int = 0) -> ns.Context:
        self.now += 1
        return ns.Context(*owner, self.now, umask)

    def engine(self, op: Callable[..., ns.Outcome[Any]], *args: Any, **kwargs: Any) -> Any:
        """Runs the operation over both views, applies it, returns its value or the errno."""
        result: Any
        try:
            outcome = op(self.view, *args, **kwargs)
            result = outcome
        except FsError as error:
            result = error.errno
        for _ in range(FETCH_ROUNDS):
            try:
                again: Any = op(self.partial, *args, **kwargs)
            except FsError as error:
                again = error.errno
            except ns.Miss as miss:
                self.partial.fetch(miss)
                continue
            break
        else:
            pytest.fail(f"{op} still lacks records after {FETCH_ROUNDS} fetches")
        if isinstance(result, int):
            assert again == result
            return result
        if op is not ns.readdir:  # which inodes a listing carries depends on the view
            assert again == result
        self.view.apply(result.writes)
        return result.value

    def both(
        self, engine: Callable[[], Any], model: Callable[[], Any], same: Callable[[Any, Any], bool] | None = None
    ) -> Any:
        """Compares errors, and values by `same`; returns the engine's value, or None after an error."""
        value = engine()
        expected, failed = None, 0
        try:
            expected = model()
        except FsError as error:
            failed = error.errno
        if failed:
            assert value == failed, f"{value} instead of {e.errorcode[failed]}"
            return None
        assert not isinstance(value, int) or isinstance(value, bool), f"{e.errorcode[value]} instead of success"
        if same:
            assert same(value, expected)
        return value

    def pick(self, pick: int) -> int:
        """Any inode number that there ever was."""
        return self.inos[pick % len(self.inos)]

    def pick_folder(self, pick: int) -> int:
        """Nearly always a live folder."""
        if pick % 16 == 15:
            return self.pick(pick >> 4)
        folders = [ino for ino, node in self.model.nodes.items() if node.is_folder]
        return folders[pick % len(folders)]

    def pick_file(self, pick: int) -> int:
        """A live regular file, if there is one."""
        files = [ino for ino, node in self.model.nodes.items() if stat.S_ISREG(node.mode)]
        return files[pick % len(files)] if files and pick % 16 else self.pick(pick)

    @rule(
        folder=picks,
        name=any_name,
        kind=st.sampled_from(("create", "create", "mkdir", "mkdir", "symlink", "fifo", "device", "block", "plain")),
        mode=modes,
        owner=owners,
        umask=st.sampled_from((0, 0o022)),
    )
    def make(self, folder: int, name: bytes, kind: str, mode: int, owner: tuple[int, int], umask: int) -> None:
        parent, ino, ctx = self.pick_folder(folder), len(self.inos) + 1, self.ctx(owner, umask)
        self.inos.append(ino)
        engine: Callable[..., Any]
        more: dict[str, Any] = {}
        bits = mode & ~umask
        if kind == "create":
            engine, args, bits = ns.create, (mode, ino), stat.S_IFREG | bits
        elif kind == "mkdir":
            engine, args, bits = ns.mkdir, (mode, ino), stat.S_IFDIR | bits
        elif kind == "symlink":
            engine, args, bits, more = ns.symlink, (b"to", ino), stat.S_IFLNK | 0o777, {"target": b"to"}  # type: ignore[assignment]
        else:
            file_type = {"fifo": stat.S_IFIFO, "device": stat.S_IFCHR, "block": stat.S_IFBLK, "plain": 0}[kind]
            engine, args, bits = ns.mknod, (file_type | mode, 77, ino), (file_type or stat.S_IFREG) | bits  # type: ignore[assignment]
            more = {"rdev": 77} if kind in ("device", "block") else {}
        self.both(
            lambda: self.engine(engine, ctx, parent, name, *args),
            lambda: self.model.make(ctx, parent, name, bits, ino, **more),
            lambda got, node: got.ino == node.ino and seen_inode(got.inode) == expected_inode(node),
        )

    @rule(folder=picks, name=any_name)
    def lookup(self, folder: int, name: bytes) -> None:
        parent = self.pick_folder(folder)
        self.both(
            lambda: self.engine(ns.lookup, parent, name),
            lambda: self.model.lookup(parent, name),
            lambda got, node: got.ino == node.ino and seen_inode(got.inode) == expected_inode(node),
        )

    @rule(pick=picks)
    def getattr_and_readlink(self, pick: int) -> None:
        ino = self.pick(pick)
        self.both(
            lambda: self.engine(ns.getattr, ino),
            lambda: self.model.node(ino),
            lambda got, node: seen_inode(got) == expected_inode(node),
        )

        def target() -> bytes:
            node = self.model.node(ino)
            if not node.target:
                raise FsError(e.EINVAL)
            return node.target

        self.both(lambda: self.engine(ns.readlink, ino), target, lambda a, b: bool(a == b))

    @rule(pick=picks, folder=picks, name=any_name)
    def link(self, pick: int, folder: int, name: bytes) -> None:
        ino, parent, ctx = self.pick_file(pick), self.pick_folder(folder), self.ctx()
        self.both(
            lambda: self.engine(ns.link, ctx, ino, parent, name),
            lambda: self.model.link(ctx, ino, parent, name),
            lambda got, node: got.ino == node.ino and got.inode.nlink == node.names,
        )

    @rule(folder=picks, name=any_name, is_folder=st.booleans())
    def remove(self, folder: int, name: bytes, is_folder: bool) -> None:
        self._remove(self.pick_folder(folder), name, is_folder)

    @rule(pick=picks)
    def remove_what_is_there(self, pick: int) -> None:
        entries = [(i, n) for i, node in self.model.nodes.items() for n in node.children]
        if entries:
            parent, name = entries[pick % len(entries)]
            self._remove(parent, name, self.model.nodes[parent].children[name].is_folder)

    def _remove(self, parent: int, name: bytes, is_folder: bool) -> None:
        ctx = self.ctx()
        self.both(
            lambda: self.engine(ns.rmdir if is_folder else ns.unlink, ctx, parent, name, +self.model.open),
            lambda: (self.model.rmdir if is_folder else self.model.unlink)(ctx, parent, name),
            lambda got, ino: got.ino == ino and (got.inode is None) == (ino not in self.model.nodes),
        )

    @rule(
        folder1=picks, name1=st.sampled_from(NAMES), folder2=picks, name2=any_name,
        flags=st.sampled_from((0, 0, 0, 1, 2, 2, 3, 4)),
    )  # fmt: skip
    def rename(self, folder1: int, name1: bytes, folder2: int, name2: bytes, flags: int) -> None:
        parent1, parent2, ctx = self.pick_folder(folder1), self.pick_folder(folder2), self.ctx()
        self._rename(ctx, parent1, name1, parent2, name2, flags)

    @rule(pick=picks, folder=picks, name=any_name, flags=st.sampled_from((0, 0, 1, 2)))
    def rename_what_is_there(self, pick: int, folder: int, name: bytes, flags: int) -> None:
        entries = [(i, n) for i, node in self.model.nodes.items() for n in node.children]
        if entries:
            parent, old_name = entries[pick % len(entries)]
            self._rename(self.ctx(), parent, old_name, self.pick_folder(folder), name, flags)

    @rule(pick1=picks, pick2=picks, flags=st.sampled_from((0, 2)))
    def rename_over_what_is_there(self, pick1: int, pick2: int, flags: int) -> None:
        entries = [(i, n) for i, node in self.model.nodes.items() for n in node.children]
        if entries:
            self._rename(self.ctx(), *entries[pick1 % len(entries)], *entries[pick2 % len(entries)], flags)

    def _rename(self, ctx: ns.Context, p1: int, n1: bytes, p2: int, n2: bytes, flags: int) -> None:
        self.both(
            lambda: self.engine(ns.rename, ctx, p1, n1, p2, n2, flags, +self.model.open),
            lambda: self.model.rename(ctx, p1, n1, p2, n2, flags),
            lambda got, ino: (
                got.ino == ino
                and seen_inode(got.inode) == expected_inode(self.model.node(ino))
                and (not got.replaced or (got.replaced.inode is None) == (got.replaced.ino not in self.model.nodes))
            ),
        )

    @rule(pick=picks)
    def open(self, pick: int) -> None:
        ino = self.pick(pick)
        if ino in self.model.nodes:
            self.model.open[ino] += 1

    @rule(pick=picks)
    def close(self, pick: int) -> None:
        opened = list(+self.model.open)
        if not opened:
            return
        ino = opened[pick % len(opened)]
        self.model.open[ino] -= 1
        if self.model.open[ino]:
            return
        node = self.model.nodes[ino]
        assert self.engine(ns.release, self.ctx(), ino) is (not node.names)
        if not node.names:
            del self.model.nodes[ino]
        assert self.engine(ns.release, self.ctx(), ino) is False

    @rule(
        pick=picks,
        mode=st.none() | modes,
        owner=st.none() | owners,
        times=st.sampled_from(((None, None, None), (5, None, None), (5, 6, None), (None, None, 7))),
        kill_priv=st.booleans(),
    )
    def setattr(
        self,
        pick: int,
        mode: int | None,
        owner: tuple[int, int] | None,
        times: tuple[int | None, int | None, int | None],
        kill_priv: bool,
    ) -> None:
        ino, ctx = self.pick(pick), self.ctx()
        uid, gid = owner or (None, None)
        atime, mtime, ctime = times

        def model() -> Node:
            node = self.model.node(ino)
            if mode is not None:
                node.mode = stat.S_IFMT(node.mode) | mode
            if kill_priv and not node.is_folder:
                node.mode &= ~stat.S_ISUID
                if node.mode & stat.S_IXGRP:
                    node.mode &= ~stat.S_ISGID
                node.xattrs.pop(b"security.capability", None)
            node.uid = node.uid if uid is None else uid
            node.gid = node.gid if gid is None else gid
            node.atime = node.atime if atime is None else atime
            node.mtime = node.mtime if mtime is None else mtime
            node.ctime = ctx.now_ns if ctime is None else ctime
            return node

        self.both(
            lambda: self.engine(
                ns.setattr, ctx, ino, mode=mode, uid=uid, gid=gid, atime_ns=atime, mtime_ns=mtime, ctime_ns=ctime,
                kill_priv=kill_priv,
            ),
            model,
            lambda got, node: seen_inode(got) == expected_inode(node),
        )  # fmt: skip

    @rule(pick=picks, cells=cell_sizes | st.just(-1) | st.just((1 << 60) // CELL + 1))
    def truncate(self, pick: int, cells: int) -> None:
        ino, ctx = self.pick_file(pick), self.ctx()
        self.both(
            lambda: self.engine(ns.setattr, ctx, ino, size=cells * CELL),
            lambda: self.model.truncate(ctx, ino, cells * CELL),
        )

    @rule(
        pick=picks,
        slots=st.lists(st.sampled_from(SLOTS), min_size=1, max_size=3, unique=True),
        start=st.integers(0, CELLS - 1),
        count=st.integers(1, CELLS),
        extend=st.booleans(),
    )
    def write(self, pick: int, slots: list[int], start: int, count: int, extend: bool) -> None:
        ino, ctx = self.pick_file(pick), self.ctx()
        node = self.model.nodes.get(ino)
        if node and not stat.S_ISREG(node.mode):
            assert self.engine(ns.record_data, ino, {}, None, None, None) == e.EINVAL
            return
        count = min(count, CELLS - start)
        written: dict[int, Slot] = {}
        for number in slots:
            block, self.next_block = self.next_block, self.next_block + 1
            stored = self.engine(ns.read_slots, ino, number, 1) if node else []
            written[number] = overlay(stored[0] if stored else (), Piece(start * CELL, count * CELL, block, 0))
            if node:
                for i in range(count):
                    node.cells[number * CELLS + start + i] = (block, i * CELL)
        end = max(slots) * SLOT_BYTES + (start + count) * CELL
        value = self.engine(ns.record_data, ino, written, end if extend else None, ctx.now_ns, ctx.now_ns)
        if node is None:
            assert value is None
            return
        node.size = max(node.size, end) if extend else node.size
        node.cells = {cell: what for cell, what in node.cells.items() if cell * CELL < node.size}
        node.mtime = node.ctime = ctx.now_ns

    @rule(pick=picks, name=attr_names, value=st.sampled_from((b"", b"v", b"w" * 65536, b"w" * 65537)), flags=picks)
    def set_xattr(self, pick: int, name: bytes, value: bytes, flags: int) -> None:
        ino, ctx, flags = self.pick(pick), self.ctx(), (0, 0, 0, 1, 2, 3)[flags % 6]

        def model() -> None:
            if not 0 < len(name) <= 255:
                raise FsError(e.ERANGE)
            if len(value) > 65536:
                raise FsError(e.E2BIG)
            if flags == 3:
                raise FsError(e.EINVAL)
            node = self.model.node(ino)
            if name in node.xattrs and flags == ns.XATTR_CREATE:
                raise FsError(e.EEXIST)
            if name not in node.xattrs and flags == ns.XATTR_REPLACE:
                raise FsError(e.ENODATA)
            node.xattrs[name] = value
            node.ctime = ctx.now_ns

        self.both(lambda: self.engine(ns.setxattr, ctx, ino, name, value, flags), model)

    @rule(pick=picks, name=attr_names, remove=st.booleans())
    def get_or_remove_xattr(self, pick: int, name: bytes, remove: bool) -> None:
        ino, ctx = self.pick(pick), self.ctx()

        def model() -> bytes:
            if not 0 < len(name) <= 255:
                raise FsError(e.ERANGE)
            node = self.model.node(ino)
            if name not in node.xattrs:
                raise FsError(e.ENODATA)
            if not remove:
                return node.xattrs[name]
            node.ctime = ctx.now_ns
            return node.xattrs.pop(name)

        if remove:
            self.both(lambda: self.engine(ns.removexattr, ctx, ino, name), model)
        else:
            self.both(lambda: self.engine(ns.getxattr, ino, name), model, lambda a, b: bool(a == b))

    @rule(pick=picks, limit=st.integers(1, 4))
    def list(self, pick: int, limit: int) -> None:
        ino = self.pick_folder(pick)
        listed: dict[bytes, int] = {}
        cookie = 0
        while True:
            page = self.engine(ns.readdir, ino, cookie, limit)
            if isinstance(page, int):
                node = self.model.nodes.get(ino)
                expected = e.ENOENT if node is None or (node.is_folder and not node.names) else e.ENOTDIR
                assert page == expected
                return
            assert len(page) <= limit
            if not page:
                break
            for entry in page:
                assert entry.cookie > cookie
                assert entry.name not in listed
                assert entry.inode is None or entry.inode.mode >> 12 == entry.file_type
                cookie, listed[entry.name] = entry.cookie, entry.ino
        node = self.model.nodes[ino]
        assert listed == {b".": ino, b"..": node.parent} | {n: child.ino for n, child in node.children.items()}

    @rule()
    def forget(self) -> None:
        self.partial.forget()

    @rule()
    def reap(self) -> None:
        """What the background job does with dead generations."""
        for key in [k for k in self.view.records if k.kind == Kind.ORPHAN]:
            ino, generation = split_orphan_object(key.obj)
            if not generation:
                continue
            inode: Any = self.view.get(inode_key(ino))
            for slot in SLOTS:
                if ns.slot_is_dead(inode, generation, slot):
                    self.view.apply({slot_key(ino, generation, slot): None})
            self.view.apply({key: None})

    @invariant()
    def records_are_sound(self) -> None:
        check_records(self.view, self.model.open)

    @invariant()
    def everything_is_as_in_the_model(self) -> None:
        inodes = {object_ino(key.obj) for key in self.view.records if key.kind == Kind.INODE}
        assert inodes == set(self.model.nodes)
        for ino, node in self.model.nodes.items():
            inode: Any = self.view.get(inode_key(ino))
            assert seen_inode(inode) == expected_inode(node)
            for slot in SLOTS if stat.S_ISREG(node.mode) else ():
                self._compare_slot(inode, node, slot)
            attrs = {attr.name: attr.value for _, bucket in self.view.xattrs(ino) for attr in bucket}
            assert attrs == node.xattrs

    def _compare_slot(self, inode: Inode, node: Node, slot: int) -> None:
        record: Any = self.view.get(slot_key(node.ino, generation_of(inode.generations, slot), slot)) or ()
        seen: dict[int, tuple[int, int]] = {}
        for extent in resolve(record, 0, SLOT_BYTES):
            for i in range(extent.length // CELL if extent.block else 0):
                seen[slot * CELLS + extent.offset // CELL + i] = (extent.block, extent.block_offset + i * CELL)
        assert seen == {cell: what for cell, what in node.cells.items() if cell // CELLS == slot}


def step_of(machine: NamespaceMachine, rng: Random) -> Callable[[], None]:
    """One operation, mostly one that can succeed."""

    def pick() -> int:
        return rng.randrange(240)

    def name() -> bytes:
        return rng.choice(NAMES if rng.random() < 0.93 else BAD_NAMES)

    def of(*choices: Any) -> Any:
        return rng.choice(choices)

    owner = of((0, 0), (1000, 1000), (1000, 50))
    mode = of(0o644, 0o755, 0o2755, 0o4755, 0o6755, 0o2644)
    kind = of("create", "create", "create", "mkdir", "mkdir", "mkdir", "symlink", "fifo", "device")
    flags = of(0, 0, 0, 1, 2, 2)
    times = of((None, None, None), (5, None, None), (5, 6, None), (None, None, 7))
    sizes = [slot * CELLS + more for slot in (*SLOTS, 65, 70) for more in (0, 3)]
    attr = of(b"user.a", b"user.b", b"security.capability")
    steps: list[tuple[int, Callable[[], None]]] = [
        (10, lambda: machine.make(pick(), name(), kind, mode, owner, of(0, 0o022))),
        (1, lambda: machine.lookup(pick(), name())),
        (1, lambda: machine.getattr_and_readlink(pick())),
        (2, lambda: machine.link(pick(), pick(), name())),
        (1, lambda: machine.remove(pick(), name(), of(True, False))),
        (4, lambda: machine.remove_what_is_there(pick())),
        (1, lambda: machine.rename(pick(), name(), pick(), name(), of(0, 1, 2, 3, 4))),
        (5, lambda: machine.rename_what_is_there(pick(), pick(), name(), flags)),
        (5, lambda: machine.rename_over_what_is_there(pick(), pick(), of(0, 2))),
        (2, lambda: machine.open(pick())),
        (2, lambda: machine.close(pick())),
        (2, lambda: machine.setattr(pick(), of(None, mode), of(None, owner), times, of(True, False))),
        (4, lambda: machine.truncate(pick(), of(*sizes, 0, -1))),
        (6, lambda: machine.write(
            pick(), rng.sample(SLOTS, rng.randint(1, 3)), rng.randrange(CELLS), rng.randint(1, CELLS), of(True, False)
        )),
        (4, lambda: machine.set_xattr(pick(), attr, of(b"", b"v"), of(0, 1, 2, 3, 4))),
        (4, lambda: machine.get_or_remove_xattr(pick(), attr, of(True, False))),
        (1, lambda: machine.list(pick(), rng.randint(1, 4))),
        (1, machine.forget),
        (1, machine.reap),
    ]  # fmt: skip
    return rng.choices([step for _, step in steps], [weight for weight, _ in steps])[0]


def run_walks(seeds: range, steps: int) -> None:
    """Long walks of operations that mostly succeed, each from a seed that a failure names."""
    for seed in seeds:
        rng, machine = Random(seed), NamespaceMachine()
        for step in range(steps):
            try:
                step_of(machine, rng)()
                machine.records_are_sound()
                machine.everything_is_as_in_the_model()
            except Exception as error:
                error.add_note(f"at step {step} of the walk from seed {seed}")
                raise


def run_machine(max_examples: int, steps: int) -> None:
    run_state_machine_as_test(
        NamespaceMachine,
        settings=settings(max_examples=max_examples, stateful_step_count=steps, deadline=None),
    )


@pytest.fixture
def crowded_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of which about half share a hash."""

    def crowded_hash(seed: int, name: bytes) -> int:
        return xxhash.xxh3_64_intdigest(name, seed) % 2

    monkeypatch.setattr(names_module, "name_hash", crowded_hash)
    monkeypatch.setattr(xattrs_module, "name_hash", crowded_hash)


def test_the_engine_is_the_model_in_short_programs() -> None:
    run_machine(30, 40)


def test_the_engine_is_the_model_on_long_walks() -> None:
    run_walks(range(40), 150)


@pytest.mark.usefixtures("crowded_hashes")
def test_the_engine_is_the_model_where_names_share_hashes() -> None:
    run_walks(range(1000, 1040), 150)


@pytest.mark.slow
def test_the_engine_is_the_model_at_length() -> None:
    run_machine(examples(40), 60)
    run_walks(range(2000, 2000 + examples(25)), 400)


@pytest.mark.slow
@pytest.mark.usefixtures("crowded_hashes")
def test_the_engine_is_the_model_at_length_where_names_share_hashes() -> None:
    run_machine(examples(40), 60)
    run_walks(range(3000, 3000 + examples(25)), 400)


def test_an_orphan_record_tells_since_when() -> None:
    view = ns.MemoryView(ns.make_root(1, hash_seed=0, family=1))
    view.apply(ns.create(view, ns.Context(0, 0, 2), ROOT, b"a", 0o644, 2).writes)
    view.apply(ns.unlink(view, ns.Context(0, 0, 3), ROOT, b"a", {2}).writes)
    assert view.get(orphan_key(2, 0)) == Orphan(3)
