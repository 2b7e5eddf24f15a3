"""Which session holds which inodes of shared volumes: files that it made, and whose data it keeps until others ask.

In memory, like the open book. A hold begins with the change that makes the file, is granted before anybody else can
read the new inode, and ends after the transaction is durable that has its data, or ends the session. So whoever reads
an INODE record asks here afterwards (`Guard`): where another session holds it, the answer must wait (`Held`), and where
a hold ended since the state was read, it is read again.

Only the holder and the end of its session end a hold: one whose lease is over is ended as a session before anybody sees
its files without their data, so it can never write them later.

After a restart the sessions declare what they hold, as they do what they have open. Until all that write to a volume
have, or ended, nothing of it is answered (`NotDeclared`): somebody may hold just that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from redfs.core.endings import Endings
from redfs.core.errors import Unavailable

MAX_HELD_INODES = 16 * 1024
"""That one session may hold in a volume: some 5 MiB here. None is granted above."""


class WaitNeeded(Unavailable):
    """The operation must be run again when others have done something; `returning.py` waits for that.

    A client is told only where that took too long.
    """

    def __init__(self, volume_id: int, message: str) -> None:
        super().__init__(message)
        self.volume_id = volume_id


class Held(WaitNeeded):
    """Other sessions hold inodes that the operation reads."""

    def __init__(self, volume_id: int, holders: Mapping[int, int]) -> None:
        super().__init__(volume_id, "another mount has not written yet what it holds of a new file: try again")
        self.holders = holders
        """inode -> session."""


class NotDeclared(WaitNeeded):
    """Sessions have not said yet what they hold."""

    def __init__(self, volume_id: int, sessions: Iterable[int]) -> None:
        super().__init__(volume_id, "another mount has not come back yet after the coordinator's start: try again")
        self.sessions = list(sessions)


class HoldBook:
    """See the module. Changed by the state thread, asked by all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: dict[tuple[int, int], int] = {}
        """(volume, inode) -> session."""
        self._inodes: dict[tuple[int, int], set[int]] = {}
        """(volume, session) -> inodes."""
        self.endings = Endings()
        """Of (volume, inode)."""
        self.known: set[int] = set()
        """Volumes of which no session has anything to declare any more."""

    def grant(self, volume_id: int, session_id: int, ino: int) -> bool:
        """A session holds a new inode from now on, unless it has too many. What is granted in vain does no harm."""
        with self._lock:
            held = self._inodes.setdefault((volume_id, session_id), set())
            if len(held) >= MAX_HELD_INODES:
                return False
            before = self._holders.get((volume_id, ino))
            if before is not None:
                self._inodes[volume_id, before].discard(ino)
            self._holders[volume_id, ino] = session_id
            held.add(ino)
            return True

    def let_go(self, volume_id: int, session_id: int, inodes: Iterable[int]) -> None:
        """A session holds these no more. After the commit with their data. Safe to repeat."""
        with self._lock:
            held = self._inodes.get((volume_id, session_id), set())
            for ino in inodes:
                if ino in held:
                    # In this order: who asks between the two waits in vain.
                    self.endings.note((volume_id, ino))
                    held.discard(ino)
                    self._holders.pop((volume_id, ino), None)

    def end(self, volume_id: int, session_id: int) -> None:
        """A session has the volume no more, or has it alone."""
        self.let_go(volume_id, session_id, list(self._inodes.get((volume_id, session_id), ())))
        with self._lock:
            self._inodes.pop((volume_id, session_id), None)

    def holder(self, volume_id: int, ino: int) -> int:
        """Who holds an inode; 0: nobody."""
        return self._holders.get((volume_id, ino), 0)

    def count(self, volume_id: int, session_id: int) -> int:
        """Inodes that a session holds."""
        with self._lock:
            return len(self._inodes.get((volume_id, session_id), ()))

    def guard(self, volume_id: int, session_id: int) -> Guard:
        """For one operation of a session; to be made before the state is read."""
        return Guard(self, volume_id, session_id)


class Guard:
    """What one operation reads of inodes, to be compared with what others hold."""

    def __init__(self, book: HoldBook, volume_id: int, session_id: int) -> None:
        self._book = book
        self._volume_id = volume_id
        self._session_id = session_id
        self._mark = book.endings.mark()
        self._read: dict[int, None] = {}

    def reads(self, ino: int) -> None:
        """An INODE record is being read."""
        self._read[ino] = None

    def check(self) -> None:
        """Raises Held, with all of them, where others hold what was read so far."""
        book, volume_id = self._book, self._volume_id
        holders = {ino: book.holder(volume_id, ino) for ino in self._read}
        held = {ino: holder for ino, holder in holders.items() if holder not in (0, self._session_id)}
        if held:
            raise Held(volume_id, held)

    @property
    def is_outdated(self) -> bool:
        """Whether a hold of what was read has ended since this was made: the state may be from before."""
        volume_id = self._volume_id
        return self._book.endings.any_since(self._mark, ((volume_id, ino) for ino in self._read))
