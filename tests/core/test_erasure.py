"""Reed-Solomon codes: every loss pattern, any byte range, shrunk codes, copies, and a slow model of the field."""

from __future__ import annotations

import ctypes
import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redfs.core import erasure
from redfs.core.errors import Unavailable


def shards_of(k: int, m: int, shard_bytes: int, seed: int = 1) -> list[bytearray]:
    data = bytearray(random.Random(seed).randbytes(k * shard_bytes))
    parity = bytearray(m * shard_bytes)
    erasure.code(k, m).encode(data, parity, shard_bytes)
    whole = data + parity
    return [whole[i * shard_bytes : (i + 1) * shard_bytes] for i in range(k + m)]


@pytest.mark.parametrize(("k", "m"), [(4, 2), (4, 1), (3, 2), (2, 2), (5, 3)])
def test_every_loss_of_up_to_m_shards_is_rebuilt(k: int, m: int) -> None:
    shards = shards_of(k, m, 192)
    for losses in range(1, m + 1):
        for lost in combinations(range(k + m), losses):
            have = {i: shards[i] for i in range(k + m) if i not in lost}
            assert erasure.code(k, m).rebuild(lost, have) == [shards[i] for i in lost]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_range_needs_only_the_same_range_of_k_others(data: st.DataObject) -> None:
    k = data.draw(st.integers(2, 16))
    m = data.draw(st.integers(1, 8))
    shards = shards_of(k, m, 256, seed=k * 100 + m)
    start = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(start + 1, 256))
    order = data.draw(st.permutations(range(k + m)))
    have = {i: memoryview(shards[i])[start:end] for i in order[:k]}
    wanted = order[k:]
    assert erasure.code(k, m).rebuild(wanted, have) == [shards[i][start:end] for i in wanted]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 16), st.integers(1, 8), st.randoms(use_true_random=False))
def test_any_k_shards_suffice(k: int, m: int, rng: random.Random) -> None:
    used = tuple(sorted(rng.sample(range(k + m), k)))
    rows = erasure.code(k, m).rebuild_rows(used, tuple(range(k + m)))
    for position, shard in enumerate(used):
        unit = bytes(int(position == column) for column in range(k))
        assert rows[shard * k : shard * k + k] == unit


def slow_multiply(a: int, b: int) -> int:
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


def slow_inverse(a: int) -> int:
    return next(b for b in range(1, 256) if slow_multiply(a, b) == 1)


def test_parity_is_the_cauchy_matrix_over_the_field_of_11d() -> None:
    """The stored format: parity row r (counted after the k data rows) has coefficient 1 / ((k + r) xor column)."""
    k, m, length = 4, 2, 64
    shards = shards_of(k, m, length)
    for r in range(m):
        for at in range(length):
            expected = 0
            for column in range(k):
                expected ^= slow_multiply(slow_inverse((k + r) ^ column), shards[column][at])
            assert shards[k + r][at] == expected


def test_golden_parity() -> None:
    data = bytes(range(256))
    parity = bytearray(128)
    erasure.code(4, 2).encode(data, parity, 64)
    assert parity[:8].hex() == GOLDEN[0]
    assert parity[64:72].hex() == GOLDEN[1]


GOLDEN = ("87a7c7e707274767", "6f4f2f0fefcfaf8f")


def test_copies_need_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> ctypes.CDLL:
        raise AssertionError("the library was asked for")

    monkeypatch.setattr(erasure, "_isal", missing)
    mirror = erasure.Code(1, 2)
    assert mirror.rebuild([0, 2], {1: b"copy"}) == [bytearray(b"copy"), bytearray(b"copy")]
    with pytest.raises(ValueError):
        mirror.encode(b"x" * 64, bytearray(128), 64)


def test_read_only_and_sliced_buffers_are_fine() -> None:
    k, m = 4, 2
    shards = shards_of(k, m, 128)
    have: dict[int, erasure.Bytes] = {
        0: memoryview(bytes(shards[0])),
        1: bytes(shards[1]),
        3: memoryview(shards[3]),
        5: shards[5],
    }
    assert erasure.code(k, m).rebuild([2, 4], have) == [shards[2], shards[4]]
    buffer = bytearray(1000)
    view = memoryview(buffer)
    view[8 : 8 + 4 * 64] = bytes(range(256))
    erasure.code(4, 2).encode(view[8:264], view[300:428], 64)
    assert bytes(view[300:308]).hex() == GOLDEN[0]
    assert not any(view[428:]), "nothing is written past the parity"


def test_wrong_arguments_are_refused() -> None:
    code = erasure.code(4, 2)
    with pytest.raises(ValueError, match="needed"):
        code.rebuild([0], {1: b"a", 2: b"a", 3: b"a"})
    with pytest.raises(ValueError, match="length"):
        code.rebuild([0], {1: b"a", 2: b"a", 3: b"a", 4: b"ab"})
    with pytest.raises(ValueError, match="no such shard"):
        code.rebuild([6], {1: b"a", 2: b"a", 3: b"a", 4: b"a"})
    with pytest.raises(ValueError, match="too short"):
        code.encode(bytes(255), bytearray(128), 64)
    with pytest.raises(ValueError):
        erasure.code(17, 2)
    with pytest.raises(ValueError):
        erasure.code(4, 9)


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> ctypes.CDLL:
        raise OSError(name)

    erasure._isal.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", fail)
    try:
        with pytest.raises(Unavailable, match="apt install libisal2"):
            erasure.Code(4, 2)
    finally:
        monkeypatch.undo()
        erasure._isal.cache_clear()
