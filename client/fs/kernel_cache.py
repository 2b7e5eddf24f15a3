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
MAX_IN_DOUBT = 4096
"""Folders that others moved and that could not be looked at yet."""
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
        self._in_doubt: dict[int, int] = {}
        """Folders that the kernel may know elsewhere, and how many looks more are taken at each by itself."""
        self._looked_for: set[int] = set()
        """Those that are being looked at."""
        self._pass_done = asyncio.Event()
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

    async def answers(self, *, is_shared: bool) -> None:
        """Returns when the mount answers. What looked is ready to look at moved folders where the volume is shared: to
        begin anew would take it longer than LOOK_S."""
        try:
            await self._own_mount.stat()
        except OSError as error:
            log.warning("the mount is not looked at: %s", error)
        if not is_shared:
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

    def is_in_doubt(self, ino: int) -> bool:
        """Whether the kernel may not know yet where a folder is now."""
        return ino in self._in_doubt

    def moved(self, ino: int, path: Callable[[int], Sequence[bytes] | None]) -> None:
        """Another host has moved a folder: it is looked at, and the kernel learns where it is.

        It does so by itself when it meets it, but not while it renames something: that program would get ESTALE. Only
        where names are not remembered (`timeout_s` does not count in shared mode). `path` gives the names that lead to
        it from the top, as far as they are known at that moment. A folder whose path is not known, or leads nowhere for
        long, stays in doubt until a program meets it; beyond MAX_IN_DOUBT the oldest do not.
        """
        self._in_doubt.pop(ino, None)
        self._in_doubt[ino] = MAX_LOOKS
        if len(self._in_doubt) > MAX_IN_DOUBT:
            del self._in_doubt[next(iter(self._in_doubt))]
        self._looked_for.add(ino)
        self._look_now.set()
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(path), name="look at moved folders")

    async def looked(self, ino: int) -> None:
        """Returns when the kernel has been shown that folder, at the latest after LOOK_S."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                while ino in self._looked_for:
                    await self._pass_done.wait()

    async def _look(self, path: Callable[[int], Sequence[bytes] | None]) -> None:
        pause_s = LOOK_PAUSE_S
        wanted = self._looked_for
        try:
            while wanted:
                if self._look_now.is_set():
                    self._look_now.clear()
                    pause_s = LOOK_PAUSE_S
                asked = {ino: names for ino in list(wanted) if (names := path(ino)) is not None}
                wanted.intersection_update(asked, self._in_doubt)
                seen = await self._own_mount.look_at(list(asked.values()))
                for ino, found in zip(asked, seen, strict=True):
                    left = self._in_doubt.get(ino, 0)
                    if found == ino and path(ino) == asked[ino]:  # it may have moved on meanwhile
                        self._in_doubt.pop(ino, None)
                    elif left:
                        self._in_doubt[ino] = left - 1
                    if ino not in self._in_doubt or not left:
                        wanted.discard(ino)
                done, self._pass_done = self._pass_done, asyncio.Event()
                done.set()
                if wanted:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._look_now.wait(), pause_s)
                    pause_s = min(2 * pause_s, LOOK_PAUSE_MAX_S)
        except OSError as error:
            log.warning("a program may get ESTALE once for a folder that another host moved: %s", error)
            wanted.clear()
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
