"""The cut of a payload into shards, against a payload that is really cut."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redfs.core import segments
from redfs.core.segments import MAX_PAYLOAD_BYTES, Layout


def cut(payload: bytes, layout: Layout) -> list[bytes]:
    padded = payload.ljust(layout.capacity_bytes, b"\0")
    if layout.k == 1:
        return [padded] * layout.shards
    return [padded[i * layout.shard_bytes : (i + 1) * layout.shard_bytes] for i in range(layout.k)]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, MAX_PAYLOAD_BYTES), st.integers(1, 16), st.integers(0, 8))
def test_a_layout_holds_the_payload_without_a_wasted_line(payload_bytes: int, k: int, m: int) -> None:
    layout = segments.plan_layout(payload_bytes, k, m)
    assert layout.shards == k + m
    assert layout.shard_bytes % segments.SHARD_ALIGN_BYTES == 0
    assert payload_bytes <= layout.capacity_bytes < payload_bytes + k * segments.SHARD_ALIGN_BYTES


@pytest.mark.parametrize("payload_bytes", [0, -1, MAX_PAYLOAD_BYTES + 1])
def test_payloads_out_of_bounds_are_refused(payload_bytes: int) -> None:
    with pytest.raises(ValueError):
        segments.plan_layout(payload_bytes, 4, 2)


def test_impossible_codes_are_refused() -> None:
    with pytest.raises(ValueError):
        segments.plan_layout(1, 0, 2)
    with pytest.raises(ValueError):
        segments.plan_layout(1, 1, -1)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_extents_find_the_bytes_of_any_range(data: st.DataObject) -> None:
    payload = random.Random(data.draw(st.integers(0, 10))).randbytes(data.draw(st.integers(1, 3000)))
    k = data.draw(st.integers(1, 6))
    layout = segments.plan_layout(len(payload), k, 2)
    start = data.draw(st.integers(0, len(payload)))
    length = data.draw(st.integers(0, len(payload) - start))
    copy = data.draw(st.integers(0, layout.shards - 1)) if k == 1 else 0
    shards = cut(payload, layout)
    out = bytearray(length)
    for extent in segments.extents(layout, start, length, copy):
        assert extent.length > 0
        assert k > 1 or extent.shard == copy
        piece = shards[extent.shard][extent.offset : extent.offset + extent.length]
        assert len(piece) == extent.length
        out[extent.position : extent.position + extent.length] = piece
    assert out == payload[start : start + length]


def test_ranges_outside_of_the_payload_are_refused() -> None:
    layout = Layout(4, 2, 64)
    for offset, length in ((-1, 2), (0, 257), (256, 1), (5, -1)):
        with pytest.raises(ValueError):
            segments.extents(layout, offset, length)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=8), st.integers(0, 4))
def test_merged_ranges_cover_the_same_bytes_in_fewer_pieces(ranges: list[tuple[int, int]], gap: int) -> None:
    merged = segments.merge_ranges(ranges, gap)
    wanted = {at for offset, length in ranges for at in range(offset, offset + length)}
    got = {at for offset, length in merged for at in range(offset, offset + length)}
    assert wanted <= got
    assert gap or wanted == got
    ends = [offset + length for offset, length in merged]
    assert all(start > end + gap for (start, _), end in zip(merged[1:], ends, strict=False))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 8), st.integers(0, 4), st.data())
def test_sources_avoid_the_missing_and_use_what_is_at_hand(k: int, m: int, data: st.DataObject) -> None:
    layout = Layout(k, m, 64)
    missing = data.draw(st.sets(st.integers(0, k + m - 1)))
    prefer = data.draw(st.sets(st.integers(0, k + m - 1)))
    found = segments.sources(layout, missing, prefer)
    if k + m - len(missing) < k:
        assert found is None
        return
    assert found is not None
    assert len(set(found)) == k
    assert not set(found) & missing
    assert len(set(found) & prefer) == min(k, len(prefer - missing))


def test_combinations_are_bounded() -> None:
    assert list(segments.source_combinations(Layout(2, 1, 64), {0, 1, 2})) == [(0, 1), (0, 2), (1, 2)]
    assert len(list(segments.source_combinations(Layout(8, 8, 64), range(16)))) == segments.MAX_COMBINATIONS


def test_k_shrinks_and_m_stays() -> None:
    assert segments.narrowed(4, 2, 6) == (4, 2)
    assert segments.narrowed(4, 2, 5) == (3, 2)
    assert segments.narrowed(4, 2, 4) == (2, 2)
    assert segments.narrowed(4, 2, 3) == (1, 2)
    assert segments.narrowed(4, 2, 2) is None
    assert segments.narrowed(1, 2, 3) == (1, 2)
    assert segments.narrowed(1, 0, 0) is None
