"""What the kernel remembers of a mount, and how it is made to forget it when the volume was rolled back.

Names and attributes time out within a second. Pages do not: those of open (and so of all mapped) files are dropped by
telling the kernel, those of all others at the next open, the first one of each inode since. Names of folders that the
roll-back moved are dropped by telling it too.

Telling the kernel may block until a request of ours is answered (it waits for pages that are being read, and writes
changed ones first). So it is done in a thread, never in a request's handler and never on the event loop, and only while
requests are answered. What needs a system call on the mount itself is done by another process (`own_mount.py`).

What programs change through a shared mapping reaches the mount when the kernel writes it: `write_back` has that done
before the mount is held, else it would be written over what the file is after the roll-back. What is changed through a
mapping while the roll-back goes on may land on either side of it.

Nothing here fails: what the kernel does not know it need not forget.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pyfuse3

from redfs.client.fs.own_mount import OwnMount

log = logging.getLogger("redfs.fs")

TIMEOUT_S = 1.0
"""Names and attributes of a volume that can change are remembered for this long."""
MAX_MOVED = 256
"""Folders that others moved and that nobody has looked at yet."""
MAX_LOOKS = 20
LOOK_PAUSE_S = 0.001
LOOK_PAUSE_MAX_S = 0.5
"""Between looks that found nothing where a folder was thought to be: some ten seconds in all."""
LOOK_S = 0.1
"""Longest wait for looks at moved folders. Who waits may be the one whose rename makes them fail."""
REMEMBERED_OPENS = 64 * 1024
"""Inodes opened since a roll-back; beyond it all count as not opened yet, whose pages are read again. 4 MiB."""


class KernelCache:
    """See the module. Belongs to the event loop of the mount's requests."""

    def __init__(self, mountpoint: Path) -> None:
        self.timeout_s = TIMEOUT_S
        self._own_mount = OwnMount(mountpoint)
        self._opened: set[int] | None = None
        """Inodes opened since the last roll-back; None before the first one."""
        self._moved: dict[int, int] = {}
        """Folders that are to be looked at, and how many more times at most."""
        self._look_now = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def may_keep_pages(self, ino: int) -> bool:
        """Whether the pages of an inode that is being opened are those of the volume as it is."""
        opened = self._opened
        if opened is None or ino in opened:
            return True
        if len(opened) >= REMEMBERED_OPENS:
            opened.clear()
        opened.add(ino)
        return False

    def rolled_back(self) -> None:
        """From now on the first open of an inode does not keep its pages."""
        self._opened = set()

    async def answers(self) -> None:
        """Returns when the mount answers."""
        try:
            await self._own_mount.stat()
        except OSError as error:
            log.warning("the mount is not looked at: %s", error)
        await self._own_mount.close()  # most mounts need it no more

    async def write_back(self) -> None:
        """Has the kernel write what programs changed through shared mappings."""
        try:
            await self._own_mount.sync()
        except OSError as error:
            log.warning("changes in mappings are not written yet: %s", error)

    async def forget(self, inodes: Sequence[int]) -> None:
        """Drops the pages and attributes of open inodes."""
        await asyncio.to_thread(self._invalidate, list(inodes))

    async def forget_names(self, names: Sequence[tuple[int, bytes]]) -> None:
        """Drops names, given with the inode of their folder.

        For folders that the roll-back moved: the kernel lets a folder have one name. It moves one that it meets under
        another name, but not while a program renames something; that program's neighbour would get ESTALE.
        """
        await asyncio.to_thread(self._invalidate_names, list(names))

    def looks(self, pid: int) -> bool:
        """Whether a request comes from a look at moved folders."""
        return pid == self._own_mount.pid

    def is_looking_at(self, ino: int) -> bool:
        """Whether the kernel may not know yet where a folder is now."""
        return ino in self._moved

    def moved(self, ino: int, path: Callable[[int], Sequence[bytes] | None]) -> None:
        """Another host has moved a folder: it is looked at, and the kernel learns where it is.

        It does so by itself when it meets it, but not while it renames something: that program would get ESTALE. Only
        where names are not remembered (`timeout_s` does not count in shared mode). `path` gives the names that lead to
        it from the top, as far as they are known at that moment. Beyond MAX_MOVED the oldest are left to the programs
        that meet them, and so are those whose path leads nowhere for long.
        """
        self._moved.pop(ino, None)
        self._moved[ino] = MAX_LOOKS
        if len(self._moved) > MAX_MOVED:
            del self._moved[next(iter(self._moved))]
        self._look_now.set()
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(path), name="look at moved folders")

    async def looked(self) -> bool:
        """Returns when the kernel has been shown all moved folders; False where that takes more than LOOK_S."""
        if self._looking is not None:
            await asyncio.wait([self._looking], timeout=LOOK_S)
        return self._looking is None

    async def _look(self, path: Callable[[int], Sequence[bytes] | None]) -> None:
        pause_s = LOOK_PAUSE_S
        try:
            while self._moved:
                if self._look_now.is_set():
                    self._look_now.clear()
                    pause_s = LOOK_PAUSE_S
                asked = [(ino, names) for ino in list(self._moved) if (names := path(ino)) is not None]
                seen = await self._own_mount.look_at([names for _, names in asked])
                known = {ino for (ino, names), found in zip(asked, seen, strict=True) if found == ino}
                for ino, looks_left in list(self._moved.items()):
                    if ino in known or not looks_left:
                        del self._moved[ino]
                    else:
                        self._moved[ino] = looks_left - 1
                if self._moved:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._look_now.wait(), pause_s)
                    pause_s = min(2 * pause_s, LOOK_PAUSE_MAX_S)
        except OSError as error:
            log.warning("a program may get ESTALE once for a folder that another host moved: %s", error)
            self._moved.clear()
        finally:
            self._looking = None

    async def close(self) -> None:
        """The mount has ended."""
        if self._looking is not None:
            self._looking.cancel()
        await self._own_mount.close()

    def _invalidate_names(self, names: list[tuple[int, bytes]]) -> None:
        for parent, name in names:
            try:
                pyfuse3.invalidate_entry(parent, name)
            except OSError as error:
                log.debug("the kernel does not forget a name in folder %d: %s", parent, error)

    def _invalidate(self, inodes: list[int]) -> None:
        for ino in inodes:
            try:
                pyfuse3.invalidate_inode(ino)
            except OSError as error:
                log.debug("the kernel does not forget inode %d: %s", ino, error)
