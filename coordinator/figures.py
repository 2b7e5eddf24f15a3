"""What all mounts have done since the coordinator started: the sums of what they report, in memory.

A mount reports what it did since it began, once a second while that changes. Here the steps between reports are added
up, so a session that ended stays counted, one that reports twice is counted once, and a client that begins anew under
a new session begins at 0. A session that was there before the coordinator started counts from its first report on.
Used by the state thread (sessions begin and end) and the event loop (reports).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import NamedTuple, Self


class MountFigures(NamedTuple):
    """Counters that only grow."""

    read_bytes: int = 0
    written_bytes: int = 0
    operations: int = 0
    busy_us: int = 0

    def plus(self, other: Self) -> Self:
        return type(self)(*[a + b for a, b in zip(self, other, strict=True)])

    def since(self, before: Self) -> Self:
        """What was added. A counter that went back adds nothing."""
        return type(self)(*[max(0, a - b) for a, b in zip(self, before, strict=True)])


class FiguresBook:
    """session id -> its last report, and the total."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reported: dict[int, MountFigures | None] = {}
        """None: it was there before the coordinator started, and its first report is where it counts from."""
        self._total = MountFigures()

    def load(self, sessions: Iterable[int]) -> None:
        """The stored sessions, at start."""
        with self._lock:
            self._reported = dict.fromkeys(sessions)

    def start(self, session_id: int) -> None:
        """A new session, or one that came back."""
        with self._lock:
            self._reported.setdefault(session_id, MountFigures())

    def end(self, session_id: int) -> None:
        """The session has ended: what it did stays counted, what it says from now on is not."""
        with self._lock:
            self._reported.pop(session_id, None)

    def report(self, session_id: int, figures: MountFigures) -> bool:
        """A session's counters. Whether they changed the total. Safe to repeat."""
        with self._lock:
            if session_id not in self._reported:
                return False
            before = self._reported[session_id]
            self._reported[session_id] = figures
            step = MountFigures() if before is None else figures.since(before)
            self._total = self._total.plus(step)
            return any(step)

    def total(self) -> MountFigures:
        with self._lock:
            return self._total
