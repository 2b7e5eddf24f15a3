"""The format of a sent volume: frames with a bound, a checksum each, and a digest over all of them at the end.

    prologue, HEADER, groups of BLOCKS... RECORDS, END

A full stream has every record of one frozen point of a volume, an incremental one those that differ from another point,
deletions as records without a value. A SLOT record names blocks by the sender's ids; their data comes in the BLOCKS
frames of its own group or of one before. Only the last BLOCK_WINDOW blocks count: what an older one held is sent again
before it is named again, so that neither side remembers more. The byte table is in docs/formats/send-stream.md.

`StreamReader` raises `WrongFormat` for what is no stream or one of a version or with features that it does not know,
and `Corrupt` where bytes are damaged, missing, or not what the format allows. Nothing that it handed out may become
visible before END has come: only then was the stream right.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from typing import NamedTuple

from blake3 import blake3
from xxhash import xxh3_64

from redfs.core.errors import Corrupt, WrongFormat
from redfs.core.records import OBJECT_BYTES, SLOT_BYTES, Kind

MAGIC = b"REDFSSND"
VERSION = 1
COMPATIBLE_FEATURES = 0
INCOMPATIBLE_FEATURES = 0

MAX_FRAME_BYTES = 16 << 20
"""Payload of one frame: a reader holds a few of them."""
MAX_GROUP_PLAIN_BYTES = 8 << 20
"""Plain bytes of the blocks of one group: what a segment takes."""
MAX_GROUP_ROWS = 8192
"""Records of one group: it becomes one commit."""
MAX_GROUP_RECORD_BYTES = 8 << 20
"""Bytes of the records of one group, but for a single record that is larger."""
BLOCK_WINDOW = 1 << 18
"""Blocks that a SLOT record may name, the latest first sent: 32 GiB of full blocks, some 30 MB of memory."""
MAX_CODEC = 1
FINGERPRINT_BYTES = 32
DIGEST_BYTES = 32

_PROLOGUE = Struct(">8sHQQ")
_FRAME = Struct(">BI")
_SUM = Struct(">Q")
_HEADER = Struct(">Qq")
_TEXT = Struct(">H")
_COUNT = Struct(">I")
_ROW = Struct(">BBI")
_BLOCK = Struct(f">QIBI{FINGERPRINT_BYTES}s")
_END = Struct(f">QQQ{DIGEST_BYTES}s")

HEADER, BLOCKS, RECORDS, END = 1, 2, 3, 4
STREAM_KINDS = frozenset({Kind.INODE, Kind.DIRENT, Kind.SLOT, Kind.XATTR})

Buffer = bytes | bytearray | memoryview


class Header(NamedTuple):
    """What is sent."""

    hash_seed: int
    """Of the volume's name hashes: the keys of its records depend on it."""
    created_ns: int
    pool_id: str
    stream_id: str
    """Of the frozen point that is sent."""
    base_id: str
    """Of the one that an incremental stream goes on from; empty: everything is sent."""
    node: str
    """Name of the node of the tree."""
    snapshot: str
    """Name, without the volume's, of the snapshot that is made of it."""
    protection: str
    compression: str
    description: str


class Row(NamedTuple):
    """A record; without a value: it is gone."""

    kind: int
    obj: bytes
    value: bytes


class SentBlock(NamedTuple):
    block: int
    plain_bytes: int
    codec: int
    fingerprint: bytes
    stored: Buffer


class Totals(NamedTuple):
    """How much a stream held."""

    rows: int
    blocks: int
    plain_bytes: int


class StreamWriter:
    """Makes a stream; `write` takes its bytes in order."""

    def __init__(self, write: Callable[[Buffer], object], header: Header) -> None:
        self._write = write
        self._digest = blake3()
        self._rows = self._blocks = self._plain_bytes = 0
        self._emit(_PROLOGUE.pack(MAGIC, VERSION, COMPATIBLE_FEATURES, INCOMPATIBLE_FEATURES))
        texts = b"".join([_packed_text(text) for text in header[2:]])
        self._frame(HEADER, [_HEADER.pack(header.hash_seed, header.created_ns) + texts])

    def blocks(self, blocks: Sequence[SentBlock]) -> None:
        """Data of blocks that records after it name."""
        parts: list[Buffer] = [_COUNT.pack(len(blocks))]
        for block, plain_bytes, codec, fingerprint, stored in blocks:
            parts.append(_BLOCK.pack(block, plain_bytes, codec, len(stored), fingerprint))
            parts.append(stored)
            self._plain_bytes += plain_bytes
        self._blocks += len(blocks)
        self._frame(BLOCKS, parts)

    def records(self, rows: Sequence[Row]) -> None:
        """Ends a group."""
        parts = [_COUNT.pack(len(rows))]
        for kind, obj, value in rows:
            parts.append(_ROW.pack(kind, len(obj), len(value)) + obj + value)
        self._rows += len(rows)
        self._frame(RECORDS, parts)

    def end(self) -> Totals:
        """The last frame."""
        totals = Totals(self._rows, self._blocks, self._plain_bytes)
        self._frame(END, [_END.pack(*totals, self._digest.digest())])
        return totals

    def _frame(self, kind: int, parts: Iterable[Buffer]) -> None:
        parts = list(parts)
        length = sum(map(len, parts))
        if length > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {length} bytes")
        head = _FRAME.pack(kind, length)
        checksum = xxh3_64(head)
        self._emit(head)
        for part in parts:
            checksum.update(part)
            self._emit(part)
        self._emit(_SUM.pack(checksum.intdigest()))

    def _emit(self, data: Buffer) -> None:
        self._digest.update(data)
        self._write(data)


def _packed_text(text: str) -> bytes:
    raw = text.encode()
    return _TEXT.pack(len(raw)) + raw


class StreamReader:
    """Reads a stream; `read(n)` returns n bytes, fewer only at the end of the file."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._digest = blake3()
        self._rows = self._blocks = self._plain_bytes = 0
        prologue = read(_PROLOGUE.size)
        if len(prologue) < _PROLOGUE.size or not prologue.startswith(MAGIC):
            raise WrongFormat("this is no stream of `redfs send`")
        _, version, _, incompatible = _PROLOGUE.unpack(prologue)
        if version != VERSION or incompatible & ~INCOMPATIBLE_FEATURES:
            raise WrongFormat(f"the stream is of version {version}, features {incompatible:#x}: upgrade this RedFS")
        self._digest.update(prologue)
        kind, payload = self._frame()
        if kind != HEADER:
            raise Corrupt("the stream does not begin with its header: send it again")
        self.header = _header(payload)

    def next(self) -> list[SentBlock] | list[Row] | Totals:
        """BLOCKS, RECORDS, or with END the totals, when the whole stream was right."""
        digest = self._digest.digest()
        kind, payload = self._frame()
        try:
            if kind == BLOCKS:
                return self._take_blocks(payload)
            if kind == RECORDS:
                return self._take_rows(payload)
            if kind == END:
                return self._take_end(payload, digest)
        except struct.error:
            raise Corrupt("a frame of the stream is shorter than what it holds: send it again") from None
        raise Corrupt(f"the stream has a frame of type {kind} where none may be: send it again")

    def _frame(self) -> tuple[int, memoryview]:
        head = self._exactly(_FRAME.size)
        kind, length = _FRAME.unpack(head)
        if length > MAX_FRAME_BYTES:
            raise Corrupt("a frame of the stream is longer than any may be: send it again")
        payload = self._exactly(length)
        tail = self._exactly(_SUM.size)
        checksum = xxh3_64(head)
        checksum.update(payload)
        if _SUM.pack(checksum.intdigest()) != tail:
            raise Corrupt("the stream was damaged on its way: send it again")
        for part in (head, payload, tail):
            self._digest.update(part)
        return kind, memoryview(payload)

    def _exactly(self, count: int) -> bytes:
        data = self._read(count)
        if len(data) < count:
            raise Corrupt("the stream ends before its end: it was cut, send it again")
        return data

    def _take_blocks(self, payload: memoryview) -> list[SentBlock]:
        at = _COUNT.size
        found = []
        for _ in range(*_COUNT.unpack_from(payload)):
            block, plain_bytes, codec, stored_bytes, fingerprint = _BLOCK.unpack_from(payload, at)
            at += _BLOCK.size
            stored = payload[at : at + stored_bytes]
            at += stored_bytes
            if not block or not 0 < plain_bytes <= SLOT_BYTES or codec > MAX_CODEC or len(stored) < stored_bytes:
                raise Corrupt("the stream has a block of a size or codec that cannot be: send it again")
            self._plain_bytes += plain_bytes
            found.append(SentBlock(block, plain_bytes, codec, fingerprint, stored))
        self._blocks += len(found)
        _require_end(payload, at)
        return found

    def _take_rows(self, payload: memoryview) -> list[Row]:
        at = _COUNT.size
        found = []
        for _ in range(*_COUNT.unpack_from(payload)):
            kind, obj_bytes, value_bytes = _ROW.unpack_from(payload, at)
            at += _ROW.size
            if kind not in STREAM_KINDS or obj_bytes != OBJECT_BYTES[Kind(kind)]:
                raise Corrupt("the stream has a record of a kind that it may not have: send it again")
            obj = bytes(payload[at : at + obj_bytes])
            at += obj_bytes
            found.append(Row(kind, obj, bytes(payload[at : at + value_bytes])))
            at += value_bytes
        self._rows += len(found)
        if len(found) > MAX_GROUP_ROWS:
            raise Corrupt("the stream has more records in a group than it may: send it again")
        _require_end(payload, at)
        return found

    def _take_end(self, payload: memoryview, digest: bytes) -> Totals:
        rows, blocks, plain_bytes, told = _END.unpack(payload)
        totals = Totals(rows, blocks, plain_bytes)
        if told != digest or totals != (self._rows, self._blocks, self._plain_bytes):
            raise Corrupt("parts of the stream are missing or were put together from several: send it again")
        if self._read(1):
            raise Corrupt("the stream goes on behind its end: send it again")
        return totals


def _require_end(payload: memoryview, at: int) -> None:
    if at != len(payload):
        raise Corrupt("a frame of the stream is not as long as what it holds: send it again")


def _header(payload: memoryview) -> Header:
    try:
        hash_seed, created_ns = _HEADER.unpack_from(payload)
        at = _HEADER.size
        texts = []
        for _ in Header._fields[2:]:
            (length,) = _TEXT.unpack_from(payload, at)
            at += _TEXT.size
            texts.append(bytes(payload[at : at + length]).decode())
            at += length
    except (struct.error, UnicodeDecodeError):
        raise Corrupt("the stream's header cannot be read: send it again") from None
    _require_end(payload, at)
    return Header(hash_seed, created_ns, *texts)
