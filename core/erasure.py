"""Reed-Solomon codes over GF(2^8): parity of a segment's data shards, and any shard's bytes from k others.

Each byte position is coded by itself, so a byte range of a missing shard needs only the same range of k others. The
arithmetic is ISA-L's (Debian's libisal2) through ctypes, which releases the GIL while a call runs; the matrix is its
`gf_gen_cauchy1_matrix`, every square part of which can be inverted, so any k shards suffice for all 1 <= k <= 16 and
m <= 8. The stored bytes depend on that matrix: another generator would be another format.

With k = 1 the shards are copies and nothing is computed. A missing library raises `Unavailable` at the first use,
naming the package. Wrong sizes are caller's bugs and raise ValueError. Whether the bytes are right is not known
here: callers verify the checksum of what they put together.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from redfs.core.errors import InternalError, Unavailable

MAX_DATA_SHARDS = 16
MAX_PARITY_SHARDS = 8
CACHED_PLANS = 512
"""Rebuild matrices kept: one of a few hundred bytes for each (code, shards at hand, shards wanted) in use."""
_TABLE_BYTES = 32
"""ISA-L's lookup table for one coefficient."""

Bytes = bytes | bytearray | memoryview


@lru_cache(maxsize=1)
def _isal() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL("libisal.so.2")
    except OSError as error:
        raise Unavailable(
            "the erasure-coding library libisal.so.2 is missing: install ISA-L (Debian, Ubuntu: apt install libisal2)"
        ) from error
    pointer, number = ctypes.c_void_p, ctypes.c_int
    lib.gf_gen_cauchy1_matrix.argtypes = [pointer, number, number]
    lib.gf_gen_cauchy1_matrix.restype = None
    lib.gf_invert_matrix.argtypes = [pointer, pointer, number]
    lib.gf_invert_matrix.restype = number
    lib.gf_mul.argtypes = [ctypes.c_ubyte, ctypes.c_ubyte]
    lib.gf_mul.restype = ctypes.c_ubyte
    lib.ec_init_tables.argtypes = [number, number, pointer, pointer]
    lib.ec_init_tables.restype = None
    lib.ec_encode_data.argtypes = [number, number, number, pointer, pointer, pointer]
    lib.ec_encode_data.restype = None
    return lib


def _pin(buffer: Bytes) -> tuple[int, Any]:
    """The address of a contiguous buffer, and what must be kept alive while it is used. Read-only views are copied."""
    if isinstance(buffer, bytes):
        text = ctypes.c_char_p(buffer)
        return ctypes.cast(text, ctypes.c_void_p).value or 0, (buffer, text)
    if isinstance(buffer, memoryview) and buffer.readonly:
        return _pin(bytes(buffer))
    anchor = (ctypes.c_ubyte * 0).from_buffer(buffer)
    return ctypes.addressof(anchor), anchor


class Code:
    """The code of k data and m parity shards. Immutable, usable from several threads; get it from `code(k, m)`."""

    def __init__(self, k: int, m: int) -> None:
        if not 1 <= k <= MAX_DATA_SHARDS or not 0 <= m <= MAX_PARITY_SHARDS:
            raise ValueError(f"no code {k}+{m}: 1 to {MAX_DATA_SHARDS} data shards, 0 to {MAX_PARITY_SHARDS} of parity")
        self.k = k
        self.m = m
        if k == 1:
            self._rows = bytes([1] * (1 + m))
            return
        matrix = (ctypes.c_ubyte * ((k + m) * k))()
        _isal().gf_gen_cauchy1_matrix(matrix, k + m, k)
        self._rows = bytes(matrix)
        self._parity_tables = self._tables(self._rows[k * k :], m)

    def _tables(self, rows: bytes, count: int) -> ctypes.Array[ctypes.c_char]:
        tables = ctypes.create_string_buffer(max(1, _TABLE_BYTES * self.k * count))
        if count:
            coefficients = (ctypes.c_ubyte * len(rows)).from_buffer_copy(rows)
            _isal().ec_init_tables(self.k, count, coefficients, tables)
        return tables

    def _apply(
        self, tables: ctypes.Array[ctypes.c_char], sources: Sequence[int], targets: Sequence[int], length: int
    ) -> None:
        inputs = (ctypes.c_void_p * len(sources))(*sources)
        outputs = (ctypes.c_void_p * len(targets))(*targets)
        _isal().ec_encode_data(length, self.k, len(targets), tables, inputs, outputs)

    def encode(self, data: Bytes, parity: bytearray | memoryview, shard_bytes: int) -> None:
        """Writes the m parity shards of `data` (k runs of `shard_bytes` each, one after another) into `parity`
        (at least m * shard_bytes, written in shard order). With k = 1 the copies need no code: refuses."""
        if self.k == 1:
            raise ValueError("copies are not encoded: send the payload itself")
        if len(data) < self.k * shard_bytes or len(parity) < self.m * shard_bytes:
            raise ValueError(f"buffers too short for {self.k}+{self.m} shards of {shard_bytes} bytes")
        if not self.m or not shard_bytes:
            return
        source, keep_source = _pin(data)
        target, keep_target = _pin(parity)
        self._apply(
            self._parity_tables,
            [source + i * shard_bytes for i in range(self.k)],
            [target + i * shard_bytes for i in range(self.m)],
            shard_bytes,
        )
        del keep_source, keep_target

    def rebuild(self, wanted: Sequence[int], have: Mapping[int, Bytes]) -> list[bytearray]:
        """The bytes of shards `wanted` (any of 0..k+m-1) in one byte range, from the same range of others.

        `have` maps shard index to that range's bytes, all equally long; the first k of them in index order are used.
        """
        if len(have) < self.k:
            raise ValueError(f"{len(have)} shards at hand, {self.k} needed")
        used = tuple(sorted(have)[: self.k])
        length = len(have[used[0]])
        if any(len(have[i]) != length for i in used):
            raise ValueError("the ranges differ in length")
        if not all(0 <= i < self.k + self.m for i in (*used, *wanted)):
            raise ValueError(f"no such shard in a {self.k}+{self.m} code")
        if self.k == 1:
            return [bytearray(have[used[0]]) for _ in wanted]
        out = [bytearray(length) for _ in wanted]
        if not length or not out:
            return out
        tables = _rebuild_tables(self, used, tuple(wanted))
        sources = [_pin(have[i]) for i in used]
        targets = [_pin(buffer) for buffer in out]
        self._apply(tables, [address for address, _ in sources], [address for address, _ in targets], length)
        del sources, targets
        return out

    def rebuild_rows(self, used: tuple[int, ...], wanted: tuple[int, ...]) -> bytes:
        """Coefficients (len(wanted) x k) that make shards `wanted` out of shards `used`."""
        k = self.k
        lib = _isal()
        chosen = (ctypes.c_ubyte * (k * k)).from_buffer_copy(b"".join(self._rows[i * k : i * k + k] for i in used))
        inverse = (ctypes.c_ubyte * (k * k))()
        if lib.gf_invert_matrix(chosen, inverse, k) != 0:
            raise InternalError(f"shards {used} of a {k}+{self.m} code do not suffice: please report this")
        back = bytes(inverse)
        rows = bytearray()
        for shard in wanted:
            if shard < k:
                rows += back[shard * k : shard * k + k]
                continue
            for column in range(k):
                total = 0
                for i in range(k):
                    total ^= lib.gf_mul(self._rows[shard * k + i], back[i * k + column])
                rows.append(total)
        return bytes(rows)


@lru_cache(maxsize=CACHED_PLANS)
def _rebuild_tables(code: Code, used: tuple[int, ...], wanted: tuple[int, ...]) -> ctypes.Array[ctypes.c_char]:
    return code._tables(code.rebuild_rows(used, wanted), len(wanted))


@lru_cache(maxsize=(MAX_DATA_SHARDS + 1) * (MAX_PARITY_SHARDS + 1))
def code(k: int, m: int) -> Code:
    """The one `Code` object of k+m. Raises ValueError outside the limits, Unavailable without the library."""
    return Code(k, m)
