"""The disk under a storage node: one folder of files, and exactly the operations that the node needs of it.

`Disk` and `DiskFile` are the interface; `FolderDisk` is the real one. Tests run the same contract over a simulated disk
that forgets what was not synced. What is promised about a crash: data is safe once an `fdatasync` that began after
its write has returned; a created or published file's name is safe when the call returns; an unlinked one may come back.

Fails with OSError as the system reports it (ENOSPC: full). Any other error of a write or sync means that nobody knows
what is on the disk: the caller turns it into `DiskFailed` and the node stops, because a second fdatasync after a failed
one reports success without having written anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from redfs.core.errors import Busy

Buffer = bytes | bytearray | memoryview

PAGE_BYTES: Final = 4096
"""Records start and end on this boundary; no disk in use tears a smaller aligned write into more than its sectors."""

_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02
_UNSUPPORTED: Final = (errno.EOPNOTSUPP, errno.ENOSYS)


class DiskFailed(Exception):
    """A write or sync failed: what is on the disk is unknown. The node must stop and read it afresh."""


class DiskFile(Protocol):
    """An open backing file. All methods may be called from several threads at once."""

    @property
    def name(self) -> str: ...

    def size(self) -> int:
        """Bytes up to the end of the file."""
        ...

    def allocated_bytes(self) -> int:
        """Bytes of disk that the file takes."""
        ...

    def pread_into(self, view: memoryview, offset: int) -> int:
        """Reads until the view is full or the file ends; returns the bytes read."""
        ...

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Writes all buffers one after another. After an error any part of them may be there."""
        ...

    def fdatasync(self) -> None:
        """Makes everything durable whose write returned before this call."""
        ...

    def preallocate(self, offset: int, length: int) -> bool:
        """Takes disk space without changing the size; False where the file system cannot."""
        ...

    def punch_hole(self, offset: int, length: int) -> bool:
        """Gives the range back; it reads as zeros. False where the file system cannot (nothing has changed then)."""
        ...

    def truncate(self, size: int) -> None:
        """Cuts to the size; disk space preallocated beyond it is given back."""
        ...

    def seek_data(self, offset: int) -> int | None:
        """The first offset >= `offset` that may hold data; None where only a hole or the end follows."""
        ...

    def forget_cache(self) -> None:
        """Later reads see what the disk holds, not what memory remembers. Only after `fdatasync`."""
        ...

    def forget_range(self, offset: int, length: int) -> None:
        """As `forget_cache` for a range, where the system can; what is not synced stays as it is."""
        ...

    def sendfile(self, out_fd: int, offset: int, length: int) -> int:
        """Sends bytes of the file to a socket without copying them; returns how many."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """The folder."""

    def list(self) -> list[str]:
        """Names of all files, sorted."""
        ...

    def create(self, name: str) -> DiskFile:
        """A new empty file whose name is durable. FileExistsError."""
        ...

    def open(self, name: str) -> DiskFile:
        """FileNotFoundError."""
        ...

    def has(self, name: str) -> bool:
        """Whether a file of that name is there."""
        ...

    def unlink(self, name: str) -> None:
        """Removes the file; a crash may bring it back. Open handles stay good."""
        ...

    def publish(self, name: str, content: bytes) -> None:
        """Replaces a small file as a whole: durable when it returns, the old or the new one after any crash."""
        ...

    def read(self, name: str) -> bytes | None:
        """A small file's content; None where there is none."""
        ...

    def total_bytes(self) -> int:
        """Size of the file system."""
        ...

    def free_bytes(self) -> int:
        """What can still be taken on the file system."""
        ...


def _libc_fallocate() -> ctypes._CFuncPtr:  # type: ignore[name-defined,unused-ignore]
    function = ctypes.CDLL(None, use_errno=True).fallocate
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    function.restype = ctypes.c_int
    return function


_fallocate_c = _libc_fallocate()


def _fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    """fallocate(2), which Python offers without its modes only."""
    while _fallocate_c(fd, mode, offset, length) != 0:
        code = ctypes.get_errno()
        if code in _UNSUPPORTED:
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True


class FolderFile:
    """A `DiskFile` of the operating system."""

    def __init__(self, name: str, fd: int) -> None:
        self._name = name
        self._fd = fd

    @property
    def name(self) -> str:
        return self._name

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def allocated_bytes(self) -> int:
        return os.fstat(self._fd).st_blocks * 512

    def pread_into(self, view: memoryview, offset: int) -> int:
        done = 0
        while done < len(view):
            got = os.preadv(self._fd, [view[done:]], offset + done)
            if got == 0:
                break
            done += got
        return done

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        total = sum(memoryview(buffer).nbytes for buffer in buffers)
        done = os.pwritev(self._fd, buffers, offset)
        while done < total:
            rest = []
            skip = done
            for buffer in buffers:
                view = memoryview(buffer)
                if skip < len(view):
                    rest.append(view[skip:])
                skip = max(0, skip - len(view))
            wrote = os.pwritev(self._fd, rest, offset + done)
            if wrote == 0:
                raise OSError(errno.EIO, "the disk took no bytes")
            done += wrote

    def fdatasync(self) -> None:
        os.fdatasync(self._fd)

    def preallocate(self, offset: int, length: int) -> bool:
        return _fallocate(self._fd, _KEEP_SIZE, offset, length)

    def punch_hole(self, offset: int, length: int) -> bool:
        return _fallocate(self._fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def seek_data(self, offset: int) -> int | None:
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise

    def forget_cache(self) -> None:
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def forget_range(self, offset: int, length: int) -> None:
        os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)

    def sendfile(self, out_fd: int, offset: int, length: int) -> int:
        return os.sendfile(out_fd, self._fd, offset, length)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FolderDisk:
    """A `Disk` that is a folder of the operating system."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def list(self) -> list[str]:
        with os.scandir(self.folder) as entries:
            return sorted(entry.name for entry in entries if stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode))

    def create(self, name: str) -> FolderFile:
        fd = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self._sync_folder()
        except OSError:
            os.close(fd)
            raise
        return FolderFile(name, fd)

    def open(self, name: str) -> FolderFile:
        return FolderFile(name, os.open(self.folder / name, os.O_RDWR | os.O_CLOEXEC))

    def has(self, name: str) -> bool:
        return os.path.lexists(self.folder / name)

    def unlink(self, name: str) -> None:
        os.unlink(self.folder / name)

    def publish(self, name: str, content: bytes) -> None:
        beside = self.folder / f"{name}.new"
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(content)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(beside, self.folder / name)
        self._sync_folder()

    def read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def total_bytes(self) -> int:
        status = os.statvfs(self.folder)
        return status.f_blocks * status.f_frsize

    def free_bytes(self) -> int:
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def _sync_folder(self) -> None:
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class FolderLock:
    """Keeps a second process from serving the same folder. Released when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Raises Busy where another process holds the lock."""
        self._fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise Busy(f"another process serves {folder}: stop it first, or give each its own folder") from error

    def release(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._fd)
