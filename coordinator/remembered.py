"""What sessions remember of shared volumes: which inodes' attributes, and names in them, each may show without asking.

A look is answered with the word whether the session may `remember` it, for a third of a lease from when it asked. Until
then, a change of such an inode, or of names in such a folder, waits until the session has dropped it (`Remembered`,
`returning.py`); only then is it made. So nobody is shown what is not so any more.

A grant and a change of the same inode meet under one lock. A look takes a mark, reads a committed state, and asks for
the grant; it is refused while a change of the inode is under way, or where one has ended since the mark. A change that
begins after the grant finds it.

An inode that was taken away from somebody is not remembered by anybody for `CONTENDED_S`: where hosts work in one
folder at once, asking is cheaper than taking away. In memory. After a restart no change is made before all who share
the volume have declared what they have open (`shared_opens.require_known`), and they drop all that they remember first.

Changed and asked by the state thread, the event loop and reader threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping

from redfs.coordinator.hold_book import WaitNeeded
from redfs.core.endings import Endings

MAX_REMEMBERED = 1 << 16
"""Inodes that one session may begin to remember of a volume in half a lease: some 8 MiB here. More are not granted."""
CONTENDED_S = 1.0
MAX_CONTENDED = 1 << 14
"""Beyond it the oldest may be remembered again."""


class Remembered(WaitNeeded):
    """Other sessions remember inodes that the operation changes."""

    def __init__(self, volume_id: int, sessions: Mapping[int, set[int]]) -> None:
        super().__init__(volume_id, "another mount has not dropped yet what it remembers of a file: try again")
        self.sessions = sessions
        """session -> inodes."""

    @property
    def inodes(self) -> set[int]:
        return set[int]().union(*self.sessions.values())


class _Memory:
    """Of one session in one volume. What was granted stays for one to two periods."""

    def __init__(self, now_s: float) -> None:
        self.young: set[int] = set()
        self.old: set[int] = set()
        self.since_s = now_s

    def age(self, now_s: float, period_s: float) -> None:
        if now_s - self.since_s >= period_s:
            self.old = self.young if now_s - self.since_s < 2 * period_s else set()
            self.young = set()
            self.since_s = now_s

    def has(self, ino: int) -> bool:
        return ino in self.young or ino in self.old


class RememberedBook:
    """See the module."""

    def __init__(self, monotonic: Callable[[], float], lease_s: float) -> None:
        self._monotonic = monotonic
        self._period_s = lease_s / 2
        """Longer than sessions remember: a third of a lease, from a moment before the grant."""
        self._lock = threading.Lock()
        self._memories: dict[int, dict[int, _Memory]] = {}
        """volume -> session -> what it remembers."""
        self._changing: dict[tuple[int, int], int] = {}
        """(volume, inode) -> changes of it that are under way, or wait."""
        self._ended = Endings()
        self._contended: dict[tuple[int, int], float] = {}
        """(volume, inode) -> until when nobody may remember it."""

    def mark(self) -> int:
        """The present; to be taken before the state is read that `grant` is about."""
        return self._ended.mark()

    def grant(self, volume_id: int, session_id: int, inodes: Collection[int], mark: int) -> bool:
        """Whether the session may remember these, all of them, as they were read since the mark."""
        now_s = self._monotonic()
        keys = [(volume_id, ino) for ino in inodes]
        with self._lock:
            if any(key in self._changing for key in keys) or self._ended.any_since(mark, keys):
                return False
            if self._contended and any(self._is_contended(key, now_s) for key in keys):
                return False
            memories = self._memories.setdefault(volume_id, {})
            memory = memories.get(session_id)
            if memory is None:
                memory = memories[session_id] = _Memory(now_s)
            memory.age(now_s, self._period_s)
            if len(memory.young) + len(inodes) > MAX_REMEMBERED:
                return False
            memory.young.update(inodes)
            return True

    def _is_contended(self, key: tuple[int, int], now_s: float) -> bool:
        until_s = self._contended.get(key)
        if until_s is None:
            return False
        if now_s < until_s:
            return True
        del self._contended[key]
        return False

    def begin(self, volume_id: int, session_id: int, inodes: Iterable[int], forgot: Collection[int]) -> None:
        """A change of these inodes by a session begins; `end` must follow. Raises Remembered, then it must not.

        `forgot`: those that the session itself has dropped.
        """
        touched = list(inodes)
        now_s = self._monotonic()
        with self._lock:
            found: dict[int, set[int]] = {}
            for session, memory in self._memories.get(volume_id, {}).items():
                memory.age(now_s, self._period_s)
                known = {ino for ino in touched if memory.has(ino)}
                if session == session_id:
                    known.difference_update(forgot)
                if known:
                    found[session] = known
            if found:
                raise Remembered(volume_id, found)
            self._count(volume_id, touched)

    def block(self, volume_id: int, inodes: Iterable[int]) -> None:
        """A change of these waits, and nobody may begin to remember them; `end` must follow."""
        with self._lock:
            self._count(volume_id, inodes)

    def _count(self, volume_id: int, inodes: Iterable[int]) -> None:
        for ino in inodes:
            key = volume_id, ino
            self._changing[key] = self._changing.get(key, 0) + 1

    def end(self, volume_id: int, inodes: Iterable[int]) -> None:
        """A change is visible to everybody who reads from now on, or was not made."""
        with self._lock:
            for ino in inodes:
                key = volume_id, ino
                left = self._changing[key] - 1
                if left:
                    self._changing[key] = left
                else:
                    del self._changing[key]
                self._ended.note(key)

    def dropped(self, volume_id: int, session_id: int, inodes: Iterable[int]) -> None:
        """A session does not remember these any more, because others change them."""
        until_s = self._monotonic() + CONTENDED_S
        with self._lock:
            memory = self._memories.get(volume_id, {}).get(session_id)
            for ino in inodes:
                if memory is not None:
                    memory.young.discard(ino)
                    memory.old.discard(ino)
                self._contended.pop((volume_id, ino), None)
                self._contended[volume_id, ino] = until_s
            while len(self._contended) > MAX_CONTENDED:
                del self._contended[next(iter(self._contended))]

    def forget(self, volume_id: int, session_id: int) -> None:
        """A session remembers nothing of the volume: it has it no more, has it alone, or its lease is over."""
        with self._lock:
            memories = self._memories.get(volume_id, {})
            memories.pop(session_id, None)
            if not memories:
                self._memories.pop(volume_id, None)
