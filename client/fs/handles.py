"""Open files, as the file system keeps them."""

from __future__ import annotations

import asyncio


class MovedEnd:
    """Where the kernel thinks that a file ends whose end was moved by somebody else. The file's handles share it."""

    __slots__ = ("offset",)

    def __init__(self, offset: int | None) -> None:
        self.offset = offset
        """None: not known."""


class Handle:
    """An open file."""

    __slots__ = ("ahead", "appends", "fetching", "ino", "moved_end", "next_offset", "window")

    def __init__(self, ino: int, appends: bool = False) -> None:
        self.ino = ino
        self.appends = appends
        """It was opened with O_APPEND."""
        self.moved_end: MovedEnd | None = None
        """Set where a roll-back or other mounts may have moved the file's end under it."""
        self.next_offset = 0
        """Where a sequential reader goes on."""
        self.window = 0
        """Bytes of read-ahead; 0 while the reader is not sequential."""
        self.ahead = 0
        """Read-ahead was begun up to here."""
        self.fetching: asyncio.Task[None] | None = None
