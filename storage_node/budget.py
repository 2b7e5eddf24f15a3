"""A bound on the memory that threads hold together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Budget:
    """Bytes that threads may hold together; who asks for more waits."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._changed = threading.Condition()

    def take(self, count_bytes: int) -> None:
        """Waits for room. What is over the whole limit waits until it is alone."""
        with self._changed:
            while self._held_bytes and self._held_bytes + count_bytes > self._limit_bytes:
                self._changed.wait()
            self._held_bytes += count_bytes

    def give_back(self, count_bytes: int) -> None:
        with self._changed:
            self._held_bytes -= count_bytes
            self._changed.notify_all()

    @contextlib.contextmanager
    def holding(self, count_bytes: int) -> Iterator[None]:
        """`take` for the time of a `with`."""
        self.take(count_bytes)
        try:
            yield
        finally:
            self.give_back(count_bytes)
