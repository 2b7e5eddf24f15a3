"""Plain blocks that were read or written lately, least recently used out first, bounded in bytes.

Blocks never change, so nothing here is ever stale; an entry is dropped only for room. Belongs to one event loop.
"""

from __future__ import annotations

from collections import OrderedDict

ENTRY_OVERHEAD_BYTES = 200
"""What an entry costs beside its bytes, so that millions of tiny blocks count too."""

Bytes = bytes | memoryview
"""A view must be the only user of its buffer, all of it: what it keeps alive is what is counted."""


class BlockCache:
    """Block id -> plain bytes, at most `capacity_bytes` together."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self._blocks: OrderedDict[int, Bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def __contains__(self, block: int) -> bool:
        """Whether the block is here; asking does not count as a use."""
        return block in self._blocks

    def get(self, block: int) -> Bytes | None:
        """The block's bytes, which become the most recently used, or None."""
        found = self._blocks.get(block)
        if found is not None:
            self._blocks.move_to_end(block)
        return found

    def put(self, block: int, plain: Bytes) -> None:
        """Keeps the block; others make room. One larger than the whole cache is not kept."""
        cost = len(plain) + ENTRY_OVERHEAD_BYTES
        if cost > self.capacity_bytes:
            return
        before = self._blocks.pop(block, None)
        if before is not None:
            self.used_bytes -= len(before) + ENTRY_OVERHEAD_BYTES
        self._blocks[block] = plain
        self.used_bytes += cost
        while self.used_bytes > self.capacity_bytes:
            _, evicted = self._blocks.popitem(last=False)
            self.used_bytes -= len(evicted) + ENTRY_OVERHEAD_BYTES

    def clear(self) -> None:
        """Forgets everything."""
        self._blocks.clear()
        self.used_bytes = 0
