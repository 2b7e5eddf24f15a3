"""How well the pool's data is protected, as the last look at all segments found it.

The looks are the healing's (`healing/survey.py`); commands and people read the last one here, so that no request scans
all segments. Nothing is known after a restart until the first look, which begins at once. From any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Redundancy(NamedTuple):
    """What one look found."""

    endangered: int = 0
    """Segments with at least one shard lost, damaged or on a node that is away."""
    critical: int = 0
    """Of these, those that one more loss would leave unreadable."""
    lost: int = 0
    """Those that cannot be read now. They are kept, and are readable again when their nodes are."""
    losses: tuple[tuple[int, int, int], ...] = ()
    """(shards that are bad, shards in all, segments), the worst first; without those that cannot be read."""
    lost_with: tuple[int, ...] = ()
    """Nodes that hold shards of segments that cannot be read, and are not up."""
    homeless: int = 0
    """Shards that should be made and that no node can take."""
    widest: int = 0
    """Most shards that a segment with one of those has: so many nodes it takes."""
    segments_on: Mapping[int, int] = {}
    """node -> segments, open ones too, that have a shard there or should."""


@dataclass
class RedundancyBook:
    """The last look."""

    last: Redundancy | None = None
    """None: nobody has looked since the start."""
    stale: bool = True
    """Something has changed that the next look should see soon."""
    current: bool = False
    """Nothing of that kind has happened since the last look began."""
    kept_in: tuple[int, ...] = field(default=())
    """Nodes that are away for long and not given up, because too many are away at once."""

    def is_stale(self) -> None:
        self.stale = True
        self.current = False

    def looked(self, found: Redundancy) -> None:
        """A look has ended."""
        self.last = found
        self.current = not self.stale

    def segments_on(self, node_id: int) -> int | None:
        """None: not known."""
        return None if self.last is None else self.last.segments_on.get(node_id, 0)
