"""Operations as plain data, and the hand that carries them out with system calls.

An operation is repeatable data: a name and arguments that mean the same in every folder. A hand works in one folder and
holds its open files by the slots that operations name. An error of the file system is a result, not an exception;
everything else that goes wrong is one, and ends the run.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
SLOTS = 6
"""Open files of one hand: a few, so that most are used for a while and some of them by several hands."""
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


class Operation(NamedTuple):
    """What to do: `name` is a method of `Hand` and of the model."""

    name: str
    arguments: tuple[Any, ...]
    hand: int = 0
    """Which of several processes does it."""

    def __str__(self) -> str:
        return f"hand {self.hand}: {self.name}({', '.join(_brief(argument) for argument in self.arguments)})"


def _brief(argument: object) -> str:
    """An argument as text, long names shortened so that they can still be told apart."""
    if isinstance(argument, bytes):
        names = [name if len(name) < 20 else name[:3] + b"..%d" % len(name) for name in argument.split(b"/")]
        return repr(b"/".join(names))
    return repr(argument)


class Result(NamedTuple):
    """What came of it."""

    error: str
    """The name of the errno; empty where it worked."""
    value: Any = None


class Shown(NamedTuple):
    """What stat says, as far as it is compared."""

    kind: str
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    """0 for folders: how large one is, is the file system's business."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    ino: int


KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo"}


def shown(status: os.stat_result) -> Shown:
    """The part of a stat result that is compared."""
    kind = KINDS[stat.S_IFMT(status.st_mode)]
    return Shown(
        kind, stat.S_IMODE(status.st_mode), status.st_nlink, status.st_uid, status.st_gid,
        0 if kind == "folder" else status.st_size, status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns,
        status.st_ino,
    )  # fmt: skip


def content(seed: int, length: int) -> bytes:
    """The bytes that a write with this seed writes."""
    return random.Random(seed).randbytes(length)


class Hand:
    """Carries out operations below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.fsencode(folder)
        self._open: dict[int, int] = {}

    def do(self, operation: Operation) -> Result:
        """Carries out one operation."""
        method: Callable[..., Any] = getattr(self, operation.name)
        try:
            return Result("", method(*operation.arguments))
        except OSError as error:
            return Result(errno.errorcode[error.errno or 0])

    def close_all(self) -> None:
        """Closes what is open."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _path(self, path: bytes) -> bytes:
        return self._folder + b"/" + path if path else self._folder

    # ------------------------------------------------------------ open files

    def open(self, slot: int, path: bytes, flags: int, mode: int) -> None:
        self._open[slot] = os.open(self._path(path), flags | os.O_NONBLOCK, mode)

    def close(self, slot: int) -> None:
        os.close(self._open.pop(slot))

    def read(self, slot: int, offset: int, length: int) -> bytes:
        return os.pread(self._open[slot], length, offset)

    def write(self, slot: int, offset: int, seed: int, length: int) -> int:
        return os.pwrite(self._open[slot], content(seed, length), offset)

    def ftruncate(self, slot: int, size: int) -> None:
        os.ftruncate(self._open[slot], size)

    def fsync(self, slot: int) -> None:
        os.fsync(self._open[slot])

    def fstat(self, slot: int) -> Shown:
        return shown(os.fstat(self._open[slot]))

    def fchmod(self, slot: int, mode: int) -> None:
        os.fchmod(self._open[slot], mode)

    def readdir_open(self, slot: int) -> list[bytes]:
        return sorted(os.fsencode(name) for name in os.listdir(self._open[slot]))

    def mkdir_at(self, slot: int, name: bytes) -> None:
        os.mkdir(name, 0o755, dir_fd=self._open[slot])

    def unlink_at(self, slot: int, name: bytes) -> None:
        os.unlink(name, dir_fd=self._open[slot])

    def stat_at(self, slot: int, name: bytes) -> Shown:
        return shown(os.stat(name, dir_fd=self._open[slot], follow_symlinks=False))

    # ------------------------------------------------------------ names

    def mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(self._path(path), mode)

    def mkfifo(self, path: bytes, mode: int) -> None:
        os.mkfifo(self._path(path), mode)

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, self._path(path))

    def link(self, old: bytes, new: bytes) -> None:
        os.link(self._path(old), self._path(new), follow_symlinks=False)

    def unlink(self, path: bytes) -> None:
        os.unlink(self._path(path))

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self._path(path))

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        done = _libc.renameat2(_AT_FDCWD, self._path(old), _AT_FDCWD, self._path(new), ctypes.c_uint(flags))
        if done:
            raise OSError(ctypes.get_errno(), "renameat2")

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(self._path(path))

    def readdir(self, path: bytes) -> list[tuple[bytes, str]]:
        with os.scandir(self._path(path)) as entries:
            return sorted((entry.name, _kind_of(entry)) for entry in entries)

    # ------------------------------------------------------------ attributes

    def stat(self, path: bytes) -> Shown:
        return shown(os.stat(self._path(path)))

    def lstat(self, path: bytes) -> Shown:
        return shown(os.lstat(self._path(path)))

    def statfs(self, path: bytes) -> int:
        return os.statvfs(self._path(path)).f_namemax

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(self._path(path), mode)

    def chown(self, path: bytes, uid: int, gid: int, follow: bool) -> None:
        os.chown(self._path(path), uid, gid, follow_symlinks=follow)

    def utimens(self, path: bytes, atime_ns: int, mtime_ns: int, follow: bool) -> None:
        os.utime(self._path(path), ns=(atime_ns, mtime_ns), follow_symlinks=follow)

    def truncate(self, path: bytes, size: int) -> None:
        os.truncate(self._path(path), size)

    def setxattr(self, path: bytes, name: str, value: bytes, flags: int, follow: bool) -> None:
        os.setxattr(self._path(path), name, value, flags, follow_symlinks=follow)

    def getxattr(self, path: bytes, name: str, follow: bool) -> bytes:
        return os.getxattr(self._path(path), name, follow_symlinks=follow)

    def listxattr(self, path: bytes, follow: bool) -> list[str]:
        names = os.listxattr(self._path(path), follow_symlinks=follow)
        return sorted(name for name in names if name.startswith(("user.", "trusted.")))

    def removexattr(self, path: bytes, name: str, follow: bool) -> None:
        os.removexattr(self._path(path), name, follow_symlinks=follow)

    def fsync_folder(self, path: bytes) -> None:
        descriptor = os.open(self._path(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _kind_of(entry: os.DirEntry[bytes]) -> str:
    """From the type that the folder's entry carries, without stat."""
    if entry.is_symlink():
        return "link"
    with contextlib.suppress(FileNotFoundError):
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        if entry.is_file(follow_symlinks=False):
            return "file"
    return "fifo"
