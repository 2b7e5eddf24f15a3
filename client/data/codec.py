"""From plain blocks to the stored bytes of a segment and back: fingerprints, compression, checksums, assembly.

Plain functions over buffers, run in worker threads for large batches and inline for small ones; the libraries release
the GIL. zstd level 1 gives up on what does not compress by itself at 8 GB/s (measured on random data, a full block
each), which is cheaper than trying a sample first and as good as certain; a block is stored raw where compression
saves less than 1/16.

`unpack` raises `Corrupt` where the bytes are not those that were stored; nothing else here fails.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import zstandard
from blake3 import blake3
from xxhash import xxh3_64_intdigest

from redfs.core.errors import Corrupt

RAW = 0
ZSTD = 1
LEVEL = 1
FINGERPRINT_BYTES = 32
MAX_BLOCK_BYTES = 128 * 1024

Bytes = bytes | bytearray | memoryview


class Packed(NamedTuple):
    """Where one block lies in the payload, and what is recorded about it."""

    offset: int
    stored_bytes: int
    plain_bytes: int
    codec: int
    checksum: int
    fingerprint: bytes


class _PerThread(threading.local):
    """zstd contexts, which must not be shared between threads."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False)
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _PerThread()


def fingerprint(plain: Bytes) -> bytes:
    """BLAKE3-256 of the plain bytes."""
    digest: bytes = blake3(plain).digest()
    return digest


def fingerprints(plain: Sequence[Bytes]) -> list[bytes]:
    return [blake3(block).digest() for block in plain]


def checksum(stored: Bytes) -> int:
    """xxh3_64 of the stored bytes."""
    digest: int = xxh3_64_intdigest(stored)
    return digest


def encode(plain: Bytes, compress: bool) -> tuple[int, Bytes]:
    """(codec, stored bytes); the plain buffer itself where it is stored raw."""
    if compress:
        packed = _contexts.compressor.compress(plain)
        if len(packed) <= len(plain) - len(plain) // 16 - 1:
            return ZSTD, packed
    return RAW, plain


def pack(
    plain: Sequence[Bytes], prints: Sequence[bytes], compress: bool, buffer: memoryview
) -> tuple[list[Packed], int]:
    """Stores the blocks one after another from the start of `buffer`. Returns what is where, and the bytes used."""
    found = []
    at = 0
    for block, mark in zip(plain, prints, strict=True):
        codec, stored = encode(block, compress)
        end = at + len(stored)
        place = buffer[at:end]
        place[:] = stored
        found.append(Packed(at, end - at, len(block), codec, xxh3_64_intdigest(place), mark))
        at = end
    return found, at


def pack_small(plain: Sequence[Bytes], compress: bool) -> tuple[list[Packed], list[Bytes], int]:
    """As `pack`, for a small flush: fingerprints included, the stored bytes as a list instead of in a buffer."""
    found = []
    parts: list[Bytes] = []
    at = 0
    for block in plain:
        codec, stored = encode(block, compress)
        found.append(Packed(at, len(stored), len(block), codec, xxh3_64_intdigest(stored), blake3(block).digest()))
        parts.append(stored)
        at += len(stored)
    return found, parts, at


def unpack(stored: Bytes, codec: int, plain_bytes: int, expected: int) -> bytes | memoryview:
    """The plain bytes, verified and not to be changed: of a raw block a view of `stored` itself. Raises Corrupt."""
    plain: bytes | memoryview
    if xxh3_64_intdigest(stored) != expected:
        raise Corrupt("the stored bytes of a block do not match their checksum")
    if codec == RAW:
        plain = memoryview(stored).toreadonly()
    elif codec == ZSTD:
        try:
            plain = _contexts.decompressor.decompress(stored, max_output_size=plain_bytes)
        except zstandard.ZstdError as error:
            raise Corrupt(f"a block does not decompress ({error})") from error
    else:
        raise Corrupt(f"a block has the codec {codec}, which this RedFS does not know: upgrade it")
    if len(plain) != plain_bytes:
        raise Corrupt(f"a block has {len(plain)} bytes instead of {plain_bytes}")
    return plain


__all__ = [
    "FINGERPRINT_BYTES",
    "MAX_BLOCK_BYTES",
    "RAW",
    "ZSTD",
    "Packed",
    "checksum",
    "encode",
    "fingerprint",
    "fingerprints",
    "pack",
    "pack_small",
    "unpack",
]
