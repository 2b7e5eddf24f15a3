"""The engine's errors against those of the machine's own file system.

Hypothesis makes small trees and then one operation on them; both must succeed or raise the same errno.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redfs.core import namespace as ns
from redfs.core.errors import FsError

ROOT = 1
CTX = ns.Context(0, 0, 2)
PATHS = ("a", "b", "a/a", "a/b", "b/a", "b/b", "a/a/a", "a/b/a", "b/a/b")
"""Places in the tree: few, so that operations meet one another."""
paths = st.sampled_from(PATHS)
building = st.lists(
    st.tuples(st.sampled_from(("mkdir", "mkdir", "file", "symlink", "link")), paths, paths), max_size=8
)  # fmt: skip


class Twins:
    """The same tree on disk and in the engine, driven by paths."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.view = ns.MemoryView(ns.make_root(1, hash_seed=0, family=1))
        self.next_ino = ROOT

    def place(self, path: str) -> tuple[int, bytes]:
        """(inode of the folder, last name); walks as the kernel does."""
        parent = ROOT
        *folders, last = path.split("/")
        for name in folders:
            parent = ns.lookup(self.view, parent, name.encode()).value.ino
            mode = ns.getattr(self.view, parent).value.mode
            if not stat.S_ISDIR(mode):
                # The trees' links point nowhere.
                raise FsError(errno.ENOENT if stat.S_ISLNK(mode) else errno.ENOTDIR)
        return parent, last.encode()

    def ino(self, path: str) -> int:
        return ns.lookup(self.view, *self.place(path)).value.ino

    def new_ino(self) -> int:
        self.next_ino += 1
        return self.next_ino

    def same(self, on_disk: Callable[[], object], in_engine: Callable[[], ns.WriteSet]) -> None:
        """Both succeed, or fail with the same errno."""
        disk_errno = engine_errno = 0
        try:
            on_disk()
        except OSError as error:
            disk_errno = error.errno or 0
        try:
            self.view.apply(in_engine())
        except FsError as error:
            engine_errno = error.errno
        assert engine_errno == disk_errno, f"{os.strerror(engine_errno)} instead of {os.strerror(disk_errno)}"

    def run(self, op: str, path: str, other: str) -> None:
        disk, disk_other = self.top / path, self.top / other
        view, place = self.view, self.place
        if op == "mkdir":
            self.same(disk.mkdir, lambda: ns.mkdir(view, CTX, *place(path), 0o755, self.new_ino()).writes)
        elif op == "file":
            self.same(
                lambda: disk.open("x").close(), lambda: ns.create(view, CTX, *place(path), 0o644, self.new_ino()).writes
            )
        elif op == "symlink":
            self.same(
                lambda: disk.symlink_to("nowhere"),
                lambda: ns.symlink(view, CTX, *place(path), b"nowhere", self.new_ino()).writes,
            )
        elif op == "link":
            self.same(
                lambda: os.link(disk_other, disk, follow_symlinks=False),
                lambda: ns.link(view, CTX, self.ino(other), *place(path)).writes,
            )
        elif op == "rename":
            self.same(
                lambda: disk.rename(disk_other),
                lambda: ns.rename(view, CTX, *place(path), *place(other)).writes,
            )
        elif op == "unlink":
            self.same(disk.unlink, lambda: ns.unlink(view, CTX, *place(path)).writes)
        else:
            self.same(disk.rmdir, lambda: ns.rmdir(view, CTX, *place(path)).writes)

    def compare(self) -> None:
        """Both trees hold the same names of the same types and link counts."""
        self._compare(self.top, ROOT)

    def _compare(self, folder: Path, ino: int) -> None:
        listed = {entry.name.decode(): entry for entry in ns.readdir(self.view, ino, 2, 100).value}
        assert set(listed) == set(os.listdir(folder))
        for name, entry in listed.items():
            found = (folder / name).lstat()
            inode = ns.getattr(self.view, entry.ino).value
            assert stat.S_IFMT(found.st_mode) == stat.S_IFMT(inode.mode)
            if stat.S_ISDIR(inode.mode):
                self._compare(folder / name, entry.ino)
            else:
                assert found.st_nlink == inode.nlink


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    building,
    st.lists(
        st.tuples(st.sampled_from(("rename", "rename", "rename", "unlink", "rmdir", "link")), paths, paths),
        min_size=1,
        max_size=4,
    ),
)
def test_errors_are_those_of_a_local_file_system(
    tree: list[tuple[str, str, str]], steps: list[tuple[str, str, str]]
) -> None:
    with TemporaryDirectory() as top:
        twins = Twins(Path(top))
        for op, path, other in tree + steps:
            twins.run(op, path, other)
        twins.compare()
