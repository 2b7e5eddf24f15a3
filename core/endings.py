"""What has ended lately: for those who read a state that may be older than an end, and then look who is left.

Whoever reads takes a mark first. Afterwards it is known of each thing whether it ended since, or may have: only the
newest ends are kept.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

KEPT = 1 << 16
"""Ends that are remembered: more than there are while one look is under way."""


class Endings:
    """See the module. One thread notes; others may look meanwhile."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._ended: dict[Hashable, int] = {}
        self._count = 0
        self._forgotten = 0
        """Ends up to this number may be forgotten."""

    def note(self, thing: Hashable) -> None:
        """It ends now."""
        self._ended.pop(thing, None)
        self._ended[thing] = self._count + 1
        self._count += 1
        if len(self._ended) > self._kept:
            oldest = next(iter(self._ended))
            self._forgotten = self._ended[oldest]
            del self._ended[oldest]

    def mark(self) -> int:
        """The present, to be named later."""
        return self._count

    def any_since(self, mark: int, things: Iterable[Hashable]) -> bool:
        """Whether one of these ended since, or may have."""
        if mark == self._count:
            return False
        return mark < self._forgotten or any(self._ended.get(thing, 0) > mark for thing in things)
