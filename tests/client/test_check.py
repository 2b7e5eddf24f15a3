"""Comparing what nodes hold with what they should hold."""

from __future__ import annotations

import random

from redfs.client.check import RECORD, Spool, Suspect, differences

Row = tuple[int, int, int]


def obvious(listed: list[Row], committed: list[Row], allowed: list[Row]) -> set[Suspect]:
    """The same with dicts."""
    held = {row[:2]: row[2] for row in listed}
    must = {row[:2]: row[2] for row in committed}
    may = {row[:2] for row in allowed}
    found = {Suspect(*key, held.get(key), size) for key, size in must.items() if held.get(key) != size}
    return found | {Suspect(*key, size, None) for key, size in held.items() if key not in must and key not in may}


def test_differences_are_those_of_the_obvious_way() -> None:
    source = random.Random(5)
    found = 0
    for _ in range(500):
        keys = [(segment, shard) for segment in range(1, 6) for shard in range(3)]

        def some(part: float, keys: list[tuple[int, int]] = keys) -> list[Row]:
            return [(*key, source.choice((64, 128))) for key in keys if source.random() < part]

        listed, committed, allowed = some(0.7), some(0.6), some(0.3)
        result = list(differences(listed, committed, allowed))
        assert set(result) == obvious(listed, committed, allowed)
        assert len(set(result)) == len(result)
        found += len(result)
    assert found > 500, "there were differences to find"


def test_equal_lists_differ_in_nothing() -> None:
    rows = [(1, 0, 64), (1, 1, 64), (2, 0, 128)]
    assert list(differences(rows, rows, [])) == []
    assert list(differences(rows[:2], rows[:2], rows[2:])) == []


def test_a_spool_gives_back_what_it_got_in_order() -> None:
    rows = [(segment, shard, 64 * segment) for segment in range(1, 3000) for shard in range(2)]
    in_order, shuffled = Spool(), Spool()
    try:
        for start in range(0, len(rows), 700):
            in_order.add(b"".join(RECORD.pack(*row) for row in rows[start : start + 700]))
        in_order.add(b"")
        mixed = rows[:]
        random.Random(1).shuffle(mixed)
        shuffled.add(b"".join(RECORD.pack(*row) for row in mixed))
        assert list(in_order) == rows == list(in_order), "and again"
        assert list(shuffled) == rows
        assert in_order.records == len(rows)
    finally:
        in_order.close()
        shuffled.close()
