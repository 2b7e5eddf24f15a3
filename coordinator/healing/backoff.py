"""Which shards could not be made lately: how long each waits, and which nodes failed to make it. Bounded, in memory."""

from __future__ import annotations

from typing import NamedTuple

FIRST_BACKOFF_S = 5.0
MAX_BACKOFF_S = 300.0
"""The pause doubles from the first to this: what is broken for good costs a task every five minutes."""
MAX_HELD = 4096
"""Shards that wait. Beyond, those that failed first are tried again at once: a pool with more has other troubles."""
MAX_AVOIDED = 4
"""Nodes that are remembered to have failed for one shard."""

Shard = tuple[int, int]
"""(segment, shard)."""


class _Held(NamedTuple):
    until_s: float
    pause_s: float
    failed: tuple[int, ...]


class Backoff:
    """See the module."""

    def __init__(self) -> None:
        self._held: dict[Shard, _Held] = {}

    def failed(self, shard: Shard, node: int, now_s: float) -> None:
        """A node could not make it."""
        before = self._held.pop(shard, None)
        pause_s = FIRST_BACKOFF_S if before is None else min(MAX_BACKOFF_S, 2 * before.pause_s)
        others = () if before is None else tuple(n for n in before.failed if n != node)
        self._held[shard] = _Held(now_s + pause_s, pause_s, (*others, node)[-MAX_AVOIDED:])
        while len(self._held) > MAX_HELD:
            del self._held[next(iter(self._held))]

    def made(self, shard: Shard) -> None:
        self._held.pop(shard, None)

    def holds(self, shard: Shard, now_s: float) -> bool:
        held = self._held.get(shard)
        return held is not None and now_s < held.until_s

    def avoid(self, shard: Shard) -> tuple[int, ...]:
        """Nodes that failed to make it."""
        held = self._held.get(shard)
        return () if held is None else held.failed

    def segments(self, now_s: float) -> frozenset[int]:
        """Segments with a shard that waits."""
        return frozenset(segment for (segment, _), held in self._held.items() if now_s < held.until_s)

    def next_s(self) -> float | None:
        """When the first of them may be tried again."""
        return min((held.until_s for held in self._held.values()), default=None)
