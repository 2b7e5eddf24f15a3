"""The block cache: bounded in bytes, least recently used out first."""

from __future__ import annotations

from redfs.client.data.cache import ENTRY_OVERHEAD_BYTES, BlockCache


def test_the_least_recently_used_goes_first() -> None:
    cache = BlockCache(3 * (100 + ENTRY_OVERHEAD_BYTES))
    for block in (1, 2, 3):
        cache.put(block, bytes(100))
    assert cache.get(1) == bytes(100)
    assert 2 in cache
    cache.put(4, bytes(100))
    assert [block in cache for block in (1, 2, 3, 4)] == [True, False, True, True]
    assert cache.get(2) is None
    assert len(cache) == 3


def test_bytes_are_bounded_and_counted_once() -> None:
    cache = BlockCache(10_000)
    for block in range(1000):
        cache.put(block % 70, bytes(block))
        assert cache.used_bytes <= 10_000
    before = cache.used_bytes
    cache.put(9999, bytes(20_000))
    assert 9999 not in cache
    assert cache.used_bytes == before
    cache.clear()
    assert (cache.used_bytes, len(cache)) == (0, 0)


def test_empty_blocks_cost_something() -> None:
    cache = BlockCache(ENTRY_OVERHEAD_BYTES * 10)
    for block in range(100):
        cache.put(block, b"")
    assert len(cache) == 10
