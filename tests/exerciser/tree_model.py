"""A tree of files in memory: what every operation must answer. Slow, obvious, and without any system call.

Errors come in the order in which Linux checks. Times are ranges: an operation that sets a time sets it to some moment
between its beginning and its end, and clocks of file systems may lag by `CLOCK_LAG_NS`.
"""

from __future__ import annotations

import copy
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

from tests.exerciser.operations import RENAME_EXCHANGE, RENAME_NOREPLACE, Operation, Result, Shown, content

CLOCK_LAG_NS = 20_000_000
"""A file system's clock may be that of the timer interrupt, which comes 100 times a second at least."""
MAX_LINKS_FOLLOWED = 40
MAX_NAME_BYTES = 255

Range = tuple[int, int]


class Failure(Exception):
    """An operation's errno, by name."""


class Expected(NamedTuple):
    """What stat must say of a node."""

    node: int
    fields: tuple[str, int, int, int, int, int]
    """As in `Shown` up to the size."""
    atime_ns: Range | None
    """None: reading may have changed it."""
    mtime_ns: Range
    ctime_ns: Range


@dataclass
class Node:
    """A file, folder, link or fifo."""

    number: int
    kind: str
    mode: int
    uid: int
    gid: int
    atime_ns: Range | None
    mtime_ns: Range
    ctime_ns: Range
    nlink: int = 1
    data: bytearray = field(default_factory=bytearray)
    target: bytes = b""
    entries: dict[bytes, Node] = field(default_factory=dict)
    parent: Node | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)


class Opened(NamedTuple):
    """An open file."""

    node: Node
    flags: int


class TreeModel:
    """The tree below one folder, and what is open in it: (hand, slot) -> file."""

    def __init__(self, begin_ns: int, end_ns: int) -> None:
        self.numbers = 0
        self._now: Range = (begin_ns - CLOCK_LAG_NS, end_ns)
        self._hand = 0
        self.top = self._node("folder", 0o755)
        self.top.nlink = 2
        self.opened: dict[tuple[int, int], Opened] = {}

    def do(self, operation: Operation, begin_ns: int, end_ns: int) -> Result:
        """What an operation that ran from `begin_ns` to `end_ns` must have answered."""
        self._now = (begin_ns - CLOCK_LAG_NS, end_ns)
        self._hand = operation.hand
        method: Callable[..., Any] = getattr(self, operation.name)
        try:
            return Result("", method(*operation.arguments))
        except Failure as failure:
            return Result(str(failure))

    def copied(self) -> TreeModel:
        """This tree, to go back to; with nothing open."""
        opened, self.opened = self.opened, {}
        try:
            return copy.deepcopy(self)
        finally:
            self.opened = opened

    def walk(self, folder: Node | None = None, above: bytes = b"") -> Iterator[tuple[bytes, Node]]:
        """Every path with its node, folders first."""
        folder = folder or self.top
        yield above, folder
        for name, node in folder.entries.items():
            path = above + b"/" + name if above else name
            if node.kind == "folder":
                yield from self.walk(node, path)
            else:
                yield path, node

    def resolve(self, path: bytes, *, follow: bool = True) -> Node:
        """The node at a path."""
        return self._place(path, follow=follow)[2] or _fail("ENOENT")

    def expected(self, node: Node) -> Expected:
        """What stat must say of it."""
        size = len(node.target) if node.kind == "link" else len(node.data)
        fields = (node.kind, node.mode, node.nlink, node.uid, node.gid, size)
        return Expected(node.number, fields, node.atime_ns, node.mtime_ns, node.ctime_ns)

    def kind_at(self, path: bytes) -> str:
        """What a path leads to; empty where it leads nowhere."""
        try:
            return self.resolve(path).kind
        except Failure:
            return ""

    # ------------------------------------------------------------ open files

    def open(self, slot: int, path: bytes, flags: int, mode: int) -> None:
        creates, excludes = bool(flags & os.O_CREAT), bool(flags & os.O_EXCL)
        follow = not flags & os.O_NOFOLLOW and not (creates and excludes)
        folder, name, node = self._place(path, follow=follow)
        if node is None:
            if not creates:
                _fail("ENOENT")
            node = self._add(folder, name, self._node("file", mode))
        else:
            if creates and excludes:
                _fail("EEXIST")
            if node.kind == "link":
                _fail("ELOOP")
            if node.kind == "folder" and (creates or flags & os.O_ACCMODE != os.O_RDONLY):
                _fail("EISDIR")
            if flags & os.O_TRUNC:
                self._resize(node, 0)
        self.opened[self._hand, slot] = Opened(node, flags)

    def close(self, slot: int) -> None:
        del self.opened[self._hand, slot]

    def read(self, slot: int, offset: int, length: int) -> bytes:
        opened = self.opened[self._hand, slot]
        if opened.flags & os.O_ACCMODE == os.O_WRONLY:
            _fail("EBADF")
        if opened.node.kind == "folder":
            _fail("EISDIR")
        opened.node.atime_ns = None
        return bytes(opened.node.data[offset : offset + length])

    def write(self, slot: int, offset: int, seed: int, length: int) -> int:
        node, flags = self.opened[self._hand, slot]
        if flags & os.O_ACCMODE == os.O_RDONLY:
            _fail("EBADF")
        if length:
            at = len(node.data) if flags & os.O_APPEND else offset
            node.data.extend(bytes(max(0, at - len(node.data))))
            node.data[at : at + length] = content(seed, length)
            node.mtime_ns = node.ctime_ns = self._now
        return length

    def ftruncate(self, slot: int, size: int) -> None:
        node, flags = self.opened[self._hand, slot]
        if flags & os.O_ACCMODE == os.O_RDONLY:
            _fail("EINVAL")
        self._resize(node, size)

    def fsync(self, slot: int) -> None:
        assert (self._hand, slot) in self.opened

    def fstat(self, slot: int) -> Expected:
        return self.expected(self.opened[self._hand, slot].node)

    def fchmod(self, slot: int, mode: int) -> None:
        node = self.opened[self._hand, slot].node
        node.mode, node.ctime_ns = mode, self._now

    def readdir_open(self, slot: int) -> list[bytes]:
        node = self._open_folder(slot)
        if not node.nlink:
            _fail("ENOENT")
        node.atime_ns = None
        return sorted(node.entries)

    def mkdir_at(self, slot: int, name: bytes) -> None:
        folder = self._open_folder(slot)
        if self._entry(folder, name) is not None:
            _fail("EEXIST")
        if not folder.nlink:
            _fail("ENOENT")
        self._make_folder(folder, name, 0o755)

    def unlink_at(self, slot: int, name: bytes) -> None:
        folder = self._open_folder(slot)
        node = self._entry(folder, name) or _fail("ENOENT")
        if node.kind == "folder":
            _fail("EISDIR")
        self._drop(folder, name)

    def stat_at(self, slot: int, name: bytes) -> Expected:
        return self.expected(self._entry(self._open_folder(slot), name) or _fail("ENOENT"))

    def _open_folder(self, slot: int) -> Node:
        node = self.opened[self._hand, slot].node
        return node if node.kind == "folder" else _fail("ENOTDIR")

    # ------------------------------------------------------------ names

    def mkdir(self, path: bytes, mode: int) -> None:
        self._make_folder(*self._free(path), mode)

    def _make_folder(self, folder: Node, name: bytes, mode: int) -> None:
        node = self._add(folder, name, self._node("folder", mode))
        node.nlink, node.parent = 2, folder
        folder.nlink += 1
        node.mode |= folder.mode & stat.S_ISGID

    def mkfifo(self, path: bytes, mode: int) -> None:
        folder, name = self._free(path)
        self._add(folder, name, self._node("fifo", mode))

    def symlink(self, target: bytes, path: bytes) -> None:
        folder, name = self._free(path)
        self._add(folder, name, self._node("link", 0o777)).target = target

    def link(self, old: bytes, new: bytes) -> None:
        node = self.resolve(old, follow=False)
        folder, name = self._free(new)
        if node.kind == "folder":
            _fail("EPERM")
        node.nlink += 1
        node.ctime_ns = self._now
        self._put(folder, name, node)

    def unlink(self, path: bytes) -> None:
        folder, name, node = self._place(path, follow=False)
        if node is None:
            _fail("ENOENT")
        elif node.kind == "folder":
            _fail("EISDIR")
        else:
            self._drop(folder, name)

    def rmdir(self, path: bytes) -> None:
        folder, name, node = self._place(path, follow=False)
        if node is None:
            _fail("ENOENT")
        elif node.kind != "folder":
            _fail("ENOTDIR")
        elif node.entries:
            _fail("ENOTEMPTY")
        else:
            self._drop(folder, name)

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        old_folder, old_name = self._parent(old)
        new_folder, new_name = self._parent(new)
        source = self._entry(old_folder, old_name) or _fail("ENOENT")
        target = self._entry(new_folder, new_name)
        if target is not None and flags == RENAME_NOREPLACE:
            _fail("EEXIST")
        if target is None and flags == RENAME_EXCHANGE:
            _fail("ENOENT")
        if source.kind == "folder" and _is_above(source, new_folder):
            _fail("EINVAL")
        if target is not None and target.kind == "folder" and _is_above(target, old_folder):
            _fail("EINVAL" if flags == RENAME_EXCHANGE else "ENOTEMPTY")
        if source is target:
            return
        if target is not None and flags != RENAME_EXCHANGE:
            if source.kind == "folder" and target.kind != "folder":
                _fail("ENOTDIR")
            if source.kind != "folder" and target.kind == "folder":
                _fail("EISDIR")
            if target.entries:
                _fail("ENOTEMPTY")
            self._drop(new_folder, new_name)
        self._take(old_folder, old_name)
        if target is not None and flags == RENAME_EXCHANGE:
            self._take(new_folder, new_name)
            self._give(old_folder, old_name, target)
        self._give(new_folder, new_name, source)

    def readlink(self, path: bytes) -> bytes:
        node = self.resolve(path, follow=False)
        if node.kind != "link":
            _fail("EINVAL")
        node.atime_ns = None
        return node.target

    def readdir(self, path: bytes) -> list[tuple[bytes, str]]:
        node = self.resolve(path)
        if node.kind != "folder":
            _fail("ENOTDIR")
        node.atime_ns = None
        return sorted((name, child.kind) for name, child in node.entries.items())

    # ------------------------------------------------------------ attributes

    def stat(self, path: bytes) -> Expected:
        return self.expected(self.resolve(path))

    def lstat(self, path: bytes) -> Expected:
        return self.expected(self.resolve(path, follow=False))

    def statfs(self, path: bytes) -> int:
        self.resolve(path)
        return MAX_NAME_BYTES

    def chmod(self, path: bytes, mode: int) -> None:
        node = self.resolve(path)
        node.mode, node.ctime_ns = mode, self._now

    def chown(self, path: bytes, uid: int, gid: int, follow: bool) -> None:
        node = self.resolve(path, follow=follow)
        node.uid = uid if uid >= 0 else node.uid
        node.gid = gid if gid >= 0 else node.gid
        if node.kind != "folder":
            node.mode &= ~stat.S_ISUID
            if node.mode & stat.S_IXGRP:
                node.mode &= ~stat.S_ISGID
        node.ctime_ns = self._now

    def utimens(self, path: bytes, atime_ns: int, mtime_ns: int, follow: bool) -> None:
        node = self.resolve(path, follow=follow)
        node.atime_ns, node.mtime_ns, node.ctime_ns = (atime_ns, atime_ns), (mtime_ns, mtime_ns), self._now

    def truncate(self, path: bytes, size: int) -> None:
        node = self.resolve(path)
        if node.kind != "file":
            _fail("EISDIR" if node.kind == "folder" else "EINVAL")
        self._resize(node, size)

    def setxattr(self, path: bytes, name: str, value: bytes, flags: int, follow: bool) -> None:
        node = self.resolve(path, follow=follow)
        if name.startswith("user.") and node.kind not in ("file", "folder"):
            _fail("EPERM")
        if flags == os.XATTR_CREATE and name in node.xattrs:
            _fail("EEXIST")
        if flags == os.XATTR_REPLACE and name not in node.xattrs:
            _fail("ENODATA")
        if node.xattrs.get(name) == value:
            node.ctime_ns = _perhaps(node.ctime_ns, self._now)
        else:
            node.ctime_ns = self._now
        node.xattrs[name] = value

    def getxattr(self, path: bytes, name: str, follow: bool) -> bytes:
        node = self.resolve(path, follow=follow)
        return node.xattrs[name] if name in node.xattrs else _fail("ENODATA")

    def listxattr(self, path: bytes, follow: bool) -> list[str]:
        return sorted(self.resolve(path, follow=follow).xattrs)

    def removexattr(self, path: bytes, name: str, follow: bool) -> None:
        node = self.resolve(path, follow=follow)
        if name.startswith("user.") and node.kind not in ("file", "folder"):
            _fail("EPERM")
        if name not in node.xattrs:
            _fail("ENODATA")
        del node.xattrs[name]
        node.ctime_ns = self._now

    def fsync_folder(self, path: bytes) -> None:
        if self.resolve(path).kind != "folder":
            _fail("ENOTDIR")

    # ------------------------------------------------------------ finding

    def _parent(self, path: bytes) -> tuple[Node, bytes]:
        """The folder of a path's last name, and that name."""
        above, _, name = path.rpartition(b"/")
        folder = self.resolve(above) if above else self.top
        if folder.kind != "folder":
            _fail("ENOTDIR")
        return folder, name

    def _entry(self, folder: Node, name: bytes) -> Node | None:
        if len(name) > MAX_NAME_BYTES:
            _fail("ENAMETOOLONG")
        return folder.entries.get(name)

    def _place(self, path: bytes, *, follow: bool) -> tuple[Node, bytes, Node | None]:
        """Folder, name and node of a path, links followed as the kernel does."""
        names = path.split(b"/") if path else []
        folder, name, node = self.top, b"", self.top
        followed = 0
        while names:
            name = names.pop(0)
            if node.kind != "folder":
                _fail("ENOTDIR")
            folder = node
            found = self._entry(folder, name)
            if found is None:
                if names:
                    _fail("ENOENT")
                return folder, name, None
            if found.kind == "link" and (names or follow):
                followed += 1
                if followed > MAX_LINKS_FOLLOWED:
                    _fail("ELOOP")
                found.atime_ns = None
                names = found.target.split(b"/") + names
            else:
                node = found
        return folder, name, node

    def _free(self, path: bytes) -> tuple[Node, bytes]:
        folder, name = self._parent(path)
        if self._entry(folder, name) is not None:
            _fail("EEXIST")
        return folder, name

    # ------------------------------------------------------------ changing

    def _node(self, kind: str, mode: int) -> Node:
        self.numbers += 1
        return Node(self.numbers, kind, mode, os.geteuid(), os.getegid(), self._now, self._now, self._now)

    def _add(self, folder: Node, name: bytes, node: Node) -> Node:
        """A new node."""
        if folder.mode & stat.S_ISGID:
            node.gid = folder.gid
        self._put(folder, name, node)
        return node

    def _put(self, folder: Node, name: bytes, node: Node) -> None:
        folder.entries[name] = node
        folder.mtime_ns = folder.ctime_ns = self._now

    def _drop(self, folder: Node, name: bytes) -> None:
        """A name goes, and its node with the last one."""
        node = folder.entries.pop(name)
        folder.mtime_ns = folder.ctime_ns = node.ctime_ns = self._now
        if node.kind == "folder":
            folder.nlink -= 1
            node.nlink = 0
        else:
            node.nlink -= 1

    def _take(self, folder: Node, name: bytes) -> None:
        node = folder.entries.pop(name)
        folder.nlink -= node.kind == "folder"
        folder.mtime_ns = folder.ctime_ns = self._now

    def _give(self, folder: Node, name: bytes, node: Node) -> None:
        self._put(folder, name, node)
        node.ctime_ns = self._now
        if node.kind == "folder":
            node.parent = folder
            folder.nlink += 1

    def _resize(self, node: Node, size: int) -> None:
        if size == len(node.data):
            node.mtime_ns = _perhaps(node.mtime_ns, self._now)
            node.ctime_ns = _perhaps(node.ctime_ns, self._now)
            return
        del node.data[size:]
        node.data.extend(bytes(size - len(node.data)))
        node.mtime_ns = node.ctime_ns = self._now


def _is_above(node: Node, folder: Node) -> bool:
    at: Node | None = folder
    while at is not None:
        if at is node:
            return True
        at = at.parent
    return False


def _perhaps(before: Range, now: Range) -> Range:
    """A time that the operation may have set, or not."""
    return min(before[0], now[0]), max(before[1], now[1])


def _fail(error: str) -> NoReturn:
    raise Failure(error)


def difference(expected: Result, got: Result, *, with_ctime: bool) -> str:
    """What differs, in words; empty where nothing does."""
    if expected.error or got.error:
        return "" if expected.error == got.error else f"expected {_told(expected)}, got {_told(got)}"
    if not isinstance(expected.value, Expected):
        return "" if expected.value == got.value else _bytes_difference(expected.value, got.value)
    wanted, seen = expected.value, got.value
    assert isinstance(seen, Shown)
    if wanted.fields != seen[:6]:
        return f"expected (kind, mode, nlink, uid, gid, size) {wanted.fields}, got {seen[:6]}"
    times = [("mtime", wanted.mtime_ns, seen.mtime_ns)]
    if wanted.atime_ns is not None:
        times.append(("atime", wanted.atime_ns, seen.atime_ns))
    if with_ctime:
        times.append(("ctime", wanted.ctime_ns, seen.ctime_ns))
    for name, (low, high), value in times:
        if not low <= value <= high:
            return f"{name} is {value}: expected it from {low} to {high} ({(value - low) / 1e9:+.3f} s off its begin)"
    return ""


def _told(result: Result) -> str:
    return result.error or f"success ({repr(result.value)[:60]})"


def _bytes_difference(expected: Any, got: Any) -> str:
    if isinstance(expected, bytes) and isinstance(got, bytes):
        at = next(
            (i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), min(len(expected), len(got))
        )
        return (
            f"{len(expected)} bytes expected, got {len(got)}; first other byte at {at}: "
            f"expected {expected[at : at + 16].hex()}, got {got[at : at + 16].hex()}"
        )
    return f"expected {expected!r}, got {got!r}"
