"""Packing and unpacking of blocks: what goes in comes out, or Corrupt."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redfs.client.data import codec
from redfs.core.errors import Corrupt

RANDOM = random.Random(1).randbytes(4096)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=5000), min_size=1, max_size=6), st.booleans())
def test_what_is_packed_is_unpacked(blocks: list[bytes], compress: bool) -> None:
    buffer = bytearray(sum(map(len, blocks)))
    packed, used = codec.pack(blocks, codec.fingerprints(blocks), compress, memoryview(buffer))
    small, parts, small_used = codec.pack_small(blocks, compress)
    assert small == packed
    assert b"".join(parts) == buffer[:used]
    assert small_used == used
    at = 0
    for block, p in zip(blocks, packed, strict=True):
        assert p.offset == at
        at += p.stored_bytes
        assert p.fingerprint == codec.fingerprint(block)
        stored = memoryview(buffer)[p.offset : p.offset + p.stored_bytes]
        assert codec.unpack(stored, p.codec, p.plain_bytes, p.checksum) == block
    assert at == used


def test_only_what_compresses_is_compressed() -> None:
    assert codec.encode(RANDOM, compress=True) == (codec.RAW, RANDOM)
    kind, stored = codec.encode(bytes(100_000), compress=True)
    assert kind == codec.ZSTD
    assert len(stored) < 1000
    assert codec.encode(bytes(100_000), compress=False)[0] == codec.RAW
    barely = RANDOM[:3950] + bytes(146)  # saves less than a sixteenth
    assert codec.encode(barely, compress=True)[0] == codec.RAW


def test_damage_is_found() -> None:
    kind, stored = codec.encode(bytes(5000), compress=True)
    good = codec.checksum(stored)
    assert codec.unpack(stored, kind, 5000, good) == bytes(5000)
    broken = bytearray(stored)
    broken[-1] ^= 1
    with pytest.raises(Corrupt, match="checksum"):
        codec.unpack(broken, kind, 5000, good)
    with pytest.raises(Corrupt, match="does not decompress"):
        codec.unpack(broken[:-2], kind, 5000, codec.checksum(broken[:-2]))
    with pytest.raises(Corrupt, match="instead of"):
        codec.unpack(b"abc", codec.RAW, 4, codec.checksum(b"abc"))
    with pytest.raises(Corrupt, match="codec 9"):
        codec.unpack(b"abc", 9, 3, codec.checksum(b"abc"))
