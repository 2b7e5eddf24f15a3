"""Which sessions have which inodes of shared volumes open: in memory, told by the sessions, lost with the process.

An inode without a name lives as long as somebody has it open. In exclusive mode the holder of the delegation knows; in
shared mode it is known here. Sessions tell their first open and last close of an inode, in order with everything else
on the state thread. After a restart each session declares on its new stream what it has open, and until all that share
a volume have done so (or ended) nothing without a name is taken from it.

Used by the state thread, and for its figures by others. Entering is safe to repeat, and what is entered in vain (the
command failed afterwards) goes with the session.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable

MAX_OPEN_INODES = 1 << 20
"""That one session may have open in a volume: some 200 MiB here for one that goes mad. Refused above."""


class OpenBook:
    """See the module."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[int, dict[int, set[int]]] = {}
        """volume -> inode -> sessions."""
        self._inodes: dict[tuple[int, int], set[int]] = {}
        """(volume, session) -> inodes."""
        self._declared: set[tuple[int, int]] = set()
        """(volume, session) of those that said all that they had open when this process began, or began after it."""

    def declare(self, volume_id: int, session_id: int, inodes: Iterable[int] = ()) -> None:
        """A session says what it has open. What it told before stays: it may be opening more meanwhile."""
        with self._lock:
            self._declared.add((volume_id, session_id))
            for ino in inodes:
                self._enter(volume_id, session_id, ino)

    def has_declared(self, volume_id: int, session_id: int) -> bool:
        """Whether the session said what it has open since this process began."""
        with self._lock:
            return (volume_id, session_id) in self._declared

    def enter(self, volume_id: int, session_id: int, ino: int) -> None:
        """A session opens an inode. Safe to repeat."""
        with self._lock:
            self._enter(volume_id, session_id, ino)

    def leave(self, volume_id: int, session_id: int, ino: int) -> None:
        """A session has closed an inode for the last time. Safe to repeat."""
        with self._lock:
            self._inodes.get((volume_id, session_id), set()).discard(ino)
            self._forget(volume_id, session_id, ino)

    def end(self, volume_id: int, session_id: int) -> None:
        """A session has the volume no more, or holds it alone and knows by itself."""
        with self._lock:
            self._declared.discard((volume_id, session_id))
            for ino in self._inodes.pop((volume_id, session_id), ()):
                self._forget(volume_id, session_id, ino)

    def open_inodes(self, volume_id: int) -> frozenset[int]:
        """Inodes that somebody has open."""
        with self._lock:
            return frozenset(self._sessions.get(volume_id, ()))

    def container(self, volume_id: int) -> Container[int]:
        """Inodes that somebody has open, as they are when they are asked for; nothing is copied."""
        return _OpenInodes(self, volume_id)

    def is_open(self, volume_id: int, ino: int) -> bool:
        """Whether somebody has an inode open."""
        with self._lock:
            return ino in self._sessions.get(volume_id, ())

    def sessions_with(self, volume_id: int, ino: int) -> frozenset[int]:
        """Who has an inode open."""
        with self._lock:
            return frozenset(self._sessions.get(volume_id, {}).get(ino, ()))

    def count(self, volume_id: int, session_id: int) -> int:
        """Inodes that a session has open."""
        with self._lock:
            return len(self._inodes.get((volume_id, session_id), ()))

    def _enter(self, volume_id: int, session_id: int, ino: int) -> None:
        self._inodes.setdefault((volume_id, session_id), set()).add(ino)
        self._sessions.setdefault(volume_id, {}).setdefault(ino, set()).add(session_id)

    def _forget(self, volume_id: int, session_id: int, ino: int) -> None:
        inodes = self._sessions.get(volume_id, {})
        sessions = inodes.get(ino)
        if sessions is None:
            return
        sessions.discard(session_id)
        if not sessions:
            del inodes[ino]
            if not inodes:
                del self._sessions[volume_id]


class _OpenInodes:
    """The open inodes of one volume, to be asked one by one."""

    def __init__(self, book: OpenBook, volume_id: int) -> None:
        self._book = book
        self._volume_id = volume_id

    def __contains__(self, ino: object) -> bool:
        return isinstance(ino, int) and self._book.is_open(self._volume_id, ino)
