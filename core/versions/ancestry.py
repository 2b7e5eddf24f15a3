"""Who descends from whom, remembered beyond one transaction.

A lineage's parent, fork epoch and family never change and its number is never used again, so an `Ancestor` stays right
for as long as the pool lives: a new reader of a volume with a hundred generations behind it reads one lineage's row
and not a hundred. What does change (heads, pins) is not here.

Only what is committed may be remembered (`keep`): a lineage of a change that is given up never was, and its number
goes to the next one. One `Ancestry` serves many threads: each call is one step on a dict, and a lost entry is made
again.
"""

from __future__ import annotations

from typing import Final

from redfs.core.versions.layout import LineageRecord, inverted, u64

KNOWN_MAX: Final = 16_384
"""Lineages that are remembered (some 400 bytes each): those of a large tree. Past it they are looked up again."""

DIRECT_MAX: Final = 4
"""Ancestors of one family that a look-up just asks one after the other: as many seeks as the index takes for itself."""


class Ancestor:
    """One lineage as its descendants see it; `above` leads on to its own parent."""

    __slots__ = ("above", "family", "inherited_ino_max", "jump", "key", "lineage", "run", "seen")

    def __init__(self, lineage: int, record: LineageRecord, above: Ancestor | None) -> None:
        self.lineage = lineage
        self.key = u64(lineage)
        self.family = record.family
        self.above = above
        """The parent."""
        self.seen = inverted(record.fork_epoch)
        """The end of the keys of the parent's newest versions that this lineage may see."""
        self.inherited_ino_max = u64(record.inherited_ino_max) if above is not None else b""
        """Nothing of an inode after this one (8 bytes) is inherited; empty sorts before all of them."""
        self.run: int = above.run + 1 if above is not None and record.indexed else 0
        """How many lineages from this one upward have all their inodes in the holdings table."""
        self.jump: Ancestor = self
        """Another one of the run, farther up, so that any can be reached in few steps: as far as its own and its
        parent's jumps make them halve the way (Myers, "An applicative random-access stack")."""
        if self.run > 1:
            assert above is not None
            near, far = above.jump, above.jump.jump
            self.jump = far if above.run - near.run == near.run - far.run else above

    def last_younger(self, than: int) -> Ancestor:
        """The last one on the way up whose number is greater than that of `than`, this one at least; the run above
        this one is not left. A few steps, however long it is."""
        at = self
        while at.above is not None and at.above.run and at.above.lineage > than:
            at = at.jump if at.jump is not at and at.jump.lineage > than else at.above
        return at


class Ancestry:
    """The ancestors that are known. `direct_max` is for tests, which have no deep trees."""

    def __init__(self, direct_max: int = DIRECT_MAX) -> None:
        self.direct_max = direct_max
        self._known: dict[int, Ancestor] = {}

    def find(self, lineage: int) -> Ancestor | None:
        return self._known.get(lineage)

    def keep(self, ancestor: Ancestor) -> None:
        """Remembers a committed lineage."""
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[ancestor.lineage] = ancestor
