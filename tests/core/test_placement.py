"""Placement: distinct nodes and domains, weights, and how much a pool can hold, against a slow model."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redfs.core.errors import TooFewNodes
from redfs.core.placement import Candidate, place, replacement, usable_plain_bytes
from redfs.core.policy import Layout

GIB = 1 << 30
nodes = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["", "a", "b", "c"])), min_size=1, max_size=12)


def candidates(drawn: list[tuple[int, str]]) -> list[Candidate]:
    return [Candidate(number + 1, free * GIB, domain) for number, (free, domain) in enumerate(drawn)]


@given(nodes, st.integers(0, 2**48), st.integers(1, 12))
def test_shards_lie_on_distinct_nodes_and_spread_over_domains(
    drawn: list[tuple[int, str]], segment: int, width: int
) -> None:
    line = candidates(drawn)
    if width > len(line):
        with pytest.raises(TooFewNodes):
            place(segment, line, width)
        return
    chosen = place(segment, line, width)
    assert len(set(chosen)) == width
    assert place(segment, line, width) == chosen
    by_id = {c.node_id: c for c in line}
    room = [c for c in line if c.free_bytes > 0]
    if len(room) >= width:
        assert all(by_id[n].free_bytes > 0 for n in chosen), "a full node is used while others have room"
        domains = {c.domain for c in room if c.domain} | {str(c.node_id) for c in room if not c.domain}
        if len(domains) >= width:
            used = Counter(by_id[n].domain for n in chosen if by_id[n].domain)
            assert all(count == 1 for count in used.values())


def test_room_decides_how_much_a_node_gets() -> None:
    line = [Candidate(1, 3 * GIB), *(Candidate(n, GIB) for n in range(2, 8))]
    got = Counter(n for segment in range(3000) for n in place(segment, line, 1))
    assert 900 < got[1] < 1100
    assert all(260 < got[n] < 410 for n in range(2, 8))


def test_a_replacement_is_another_node_in_another_domain() -> None:
    line = [Candidate(1, GIB, "a"), Candidate(2, GIB, "b"), Candidate(3, GIB, "a"), Candidate(4, GIB, "c")]
    assert all(replacement(segment, line, {1, 2}, ["a", "b"]) == 4 for segment in range(50))
    with pytest.raises(TooFewNodes):
        replacement(1, line, {1, 2, 3, 4}, [])


def slow_usable(rooms: list[int], layout: Layout) -> int:
    """Fills stripe after stripe, each on the emptiest nodes."""
    rooms = list(rooms)
    stripes = 0
    while True:
        rooms.sort(reverse=True)
        if len(rooms) < layout.width or rooms[layout.width - 1] < 1:
            return stripes * layout.k
        for at in range(layout.width):
            rooms[at] -= 1
        stripes += 1


@given(st.lists(st.integers(0, 30), max_size=9), st.integers(1, 5), st.integers(0, 3))
def test_usable_bytes_agree_with_filling_the_pool(rooms: list[int], k: int, m: int) -> None:
    assert usable_plain_bytes(rooms, Layout(k, m)) == slow_usable(rooms, Layout(k, m))
