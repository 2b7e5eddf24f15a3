"""Room that is kept for starting and stopping: others may fill the disk, and both write the node's state and its index.

A file of nothing, which lends its room for the while and takes it again, as much as there is: so a node starts on a
full disk as often as it has to, since what a start writes takes the place of what the last one wrote. ZFS keeps slop
space for the same reason.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Final

from redfs.storage_node.disk import PAGE_BYTES, Disk

ROOM_FILE: Final = "room"
ROOM_BYTES: Final = 4 << 20

log = logging.getLogger("redfs.storage_node.room")


@contextlib.contextmanager
def lent(disk: Disk) -> Iterator[None]:
    """While the block runs, there is that room on the disk. Takes less afterwards, or nothing, where there is less."""
    with contextlib.suppress(OSError):
        disk.unlink(ROOM_FILE)
    try:
        yield
    finally:
        _keep(disk)


def _keep(disk: Disk) -> None:
    try:
        length = min(ROOM_BYTES, disk.free_bytes() // PAGE_BYTES * PAGE_BYTES)
        with contextlib.closing(disk.create(ROOM_FILE)) as file:
            while length >= PAGE_BYTES and file.allocated_bytes() == 0:
                with contextlib.suppress(OSError):
                    file.preallocate(0, length)
                length //= 2
    except OSError as error:
        log.warning("no room is kept for the next start: %s", error)
