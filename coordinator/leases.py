"""Which sessions are alive: lease times in memory, by the injected clock.

Sessions themselves are rows; only their times are here, so that renewals cost no write. After a restart every stored
session gets a fresh lease: it had one when the coordinator died. Used by the state thread and the event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from redfs.coordinator.environment import Clock


class Leases:
    """session id -> end of its lease, in monotonic seconds."""

    def __init__(self, clock: Clock, lease_s: float) -> None:
        self._clock = clock
        self._lease_s = lease_s
        self._lock = threading.Lock()
        self._until: dict[int, float] = {}

    def load(self, sessions: Iterable[int]) -> None:
        """Gives stored sessions a fresh lease."""
        until = self._clock.monotonic() + self._lease_s
        with self._lock:
            self._until = dict.fromkeys(sessions, until)

    def start(self, session_id: int) -> None:
        """A new session, or one that came back."""
        with self._lock:
            self._until[session_id] = self._clock.monotonic() + self._lease_s

    def renew(self, session_id: int) -> bool:
        """Extends the lease. False where the session has ended. A lapsed one that is still kept lives on."""
        with self._lock:
            if session_id not in self._until:
                return False
            self._until[session_id] = self._clock.monotonic() + self._lease_s
            return True

    def end(self, session_id: int) -> None:
        with self._lock:
            self._until.pop(session_id, None)

    def valid(self, session_id: int) -> bool:
        """Whether its lease runs: it may be serving files right now."""
        with self._lock:
            return self._until.get(session_id, 0.0) > self._clock.monotonic()

    def lapsed_longer_than(self, seconds: float) -> list[int]:
        """Sessions whose lease ended at least that long ago."""
        before = self._clock.monotonic() - seconds
        with self._lock:
            return [session for session, until in self._until.items() if until <= before]

    def count(self) -> int:
        with self._lock:
            return len(self._until)
