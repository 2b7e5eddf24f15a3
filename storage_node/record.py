"""What lies in a backing file: shard records, tombstones, and the footer of a sealed file. Pure packing and parsing.

A record is a header page and the payload padded to whole pages. The header names its disk, file and offset, so bytes
of a payload that look like a record are never taken for one, wherever a scan begins. A tombstone is a header of another
kind written over a record's. A sealed file ends with its footer: the list of its records, and a last page that finds
it.

Parsing answers None for bytes that are not (or no longer) what is looked for; it raises WrongFormat only for what is
whole and ours but of a version or with features that this program does not know, which must not be mistaken for
damage. Byte tables: docs/formats/storage-node.md.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import xxhash

from redfs.core.errors import WrongFormat
from redfs.storage_node.disk import PAGE_BYTES, Buffer

RECORD_MAGIC: Final = b"RedFSrec"
FOOTER_MAGIC: Final = b"RedFSend"
VERSION: Final = 1

COMPATIBLE_FEATURES: Final = 0
READ_ONLY_FEATURES: Final = 0
INCOMPATIBLE_FEATURES: Final = 0

_HEADER: Final = struct.Struct(">8sHHIII16sIIQQHHIQ40sQ")
HEADER_BYTES: Final = _HEADER.size
_FOOTER: Final = struct.Struct(">8sHHIII16sIIQQQ48sQ")
ENTRY: Final = struct.Struct(">QQHHIQ")
"""One record in a footer: offset, segment, shard, reserved, payload bytes, payload checksum."""
_NO_ROOM_USED: Final = bytes(40)
_NO_FOOTER_ROOM_USED: Final = bytes(48)
_ZEROS: Final = bytes(PAGE_BYTES)
_HEADER_PADDING: Final = bytes(PAGE_BYTES - HEADER_BYTES)

assert HEADER_BYTES == 128
assert _FOOTER.size == 128
assert ENTRY.size == 32


class Kind(enum.IntEnum):
    """What a header page says about its record."""

    SHARD = 1
    TOMBSTONE = 2


class Place(NamedTuple):
    """Where a record lies; part of its header."""

    disk_uuid: bytes
    file_number: int
    offset: int


class RecordHeader(NamedTuple):
    """What a header says about the shard behind it."""

    kind: Kind
    segment: int
    shard: int
    payload_bytes: int
    checksum: int
    """xxh3_64 of the payload."""


class FooterEntry(NamedTuple):
    """A record as a footer lists it."""

    offset: int
    segment: int
    shard: int
    payload_bytes: int
    checksum: int


def pages(size_bytes: int) -> int:
    """The size rounded up to whole pages, in bytes."""
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES


def record_bytes(payload_bytes: int) -> int:
    """What a record with such a payload takes in its file."""
    return PAGE_BYTES + pages(payload_bytes)


def pack_header(place: Place, header: RecordHeader) -> bytes:
    """The HEADER_BYTES at the start of a header page."""
    packed = _HEADER.pack(
        RECORD_MAGIC,
        VERSION,
        header.kind,
        COMPATIBLE_FEATURES,
        READ_ONLY_FEATURES,
        INCOMPATIBLE_FEATURES,
        place.disk_uuid,
        place.file_number,
        0,
        place.offset,
        header.segment,
        header.shard,
        0,
        header.payload_bytes,
        header.checksum,
        _NO_ROOM_USED,
        0,
    )[:-8]
    return packed + xxhash.xxh3_64_digest(packed)


def record_buffers(place: Place, header: RecordHeader, payload: Buffer) -> list[Buffer]:
    """The record as buffers for one pwritev; the payload is not copied."""
    buffers: list[Buffer] = [pack_header(place, header), _HEADER_PADDING, payload]
    padding = pages(header.payload_bytes) - header.payload_bytes
    if padding:
        buffers.append(_ZEROS[:padding])
    return buffers


def tombstone_page(place: Place, header: RecordHeader) -> bytes:
    """The page that goes over the header page of a deleted record."""
    return pack_header(place, header._replace(kind=Kind.TOMBSTONE)) + _HEADER_PADDING


def _check_known(what: str, version: int, read_only: int, incompatible: int) -> None:
    if version != VERSION:
        raise WrongFormat(f"{what} has format version {version}, this program knows {VERSION}: use the newer program")
    unknown = incompatible & ~INCOMPATIBLE_FEATURES | read_only & ~READ_ONLY_FEATURES
    if unknown:
        raise WrongFormat(f"{what} uses features {unknown:#x} that this program does not know: use the newer program")


def parse_header(page: Buffer, place: Place) -> RecordHeader | None:
    """The header in the first HEADER_BYTES of a page, if it is one and belongs at this place."""
    if len(page) < HEADER_BYTES or page[:8] != RECORD_MAGIC:
        return None
    head = bytes(page[:HEADER_BYTES])
    if xxhash.xxh3_64_digest(head[:-8]) != head[-8:]:
        return None
    (
        _,
        version,
        kind,
        _,
        read_only,
        incompatible,
        disk_uuid,
        number,
        _,
        offset,
        segment,
        shard,
        _,
        size,
        checksum,
        _,
        _,
    ) = _HEADER.unpack(head)
    if Place(disk_uuid, number, offset) != place:
        return None
    _check_known(f"a record in backing file {number}", version, read_only, incompatible)
    if kind not in (Kind.SHARD, Kind.TOMBSTONE):
        return None
    return RecordHeader(Kind(kind), segment, shard, size, checksum)


def foreign_disk(page: Buffer, disk_uuid: bytes) -> bytes | None:
    """The uuid of another disk, if the page is a whole record header of that one. Only for a file's first page, which
    no payload can lie on."""
    if len(page) < HEADER_BYTES or page[:8] != RECORD_MAGIC:
        return None
    head = bytes(page[:HEADER_BYTES])
    if xxhash.xxh3_64_digest(head[:-8]) != head[-8:]:
        return None
    found: bytes = _HEADER.unpack(head)[6]
    return found if found != disk_uuid else None


# ------------------------------------------------------------------------------------------ footer


class FooterPlace(NamedTuple):
    """What a footer's last page says about its entries."""

    entries_offset: int
    entry_count: int
    entries_checksum: int


def footer_bytes(entry_count: int) -> int:
    """What a footer takes in its file."""
    return pages(entry_count * ENTRY.size) + PAGE_BYTES


def pack_entries(entries: Iterable[FooterEntry]) -> bytes:
    """Entries one after another."""
    return b"".join(ENTRY.pack(e.offset, e.segment, e.shard, 0, e.payload_bytes, e.checksum) for e in entries)


def unpack_entries(packed: Buffer) -> Iterator[FooterEntry]:
    """The opposite of `pack_entries`."""
    for offset, segment, shard, _, payload_bytes, checksum in ENTRY.iter_unpack(packed):
        yield FooterEntry(offset, segment, shard, payload_bytes, checksum)


def footer_buffers(disk_uuid: bytes, file_number: int, offset: int, entries: Sequence[FooterEntry]) -> list[Buffer]:
    """The footer that starts at `offset`: entries, padding, last page."""
    packed = pack_entries(entries)
    padding = pages(len(packed)) - len(packed)
    last = _FOOTER.pack(
        FOOTER_MAGIC,
        VERSION,
        0,
        COMPATIBLE_FEATURES,
        READ_ONLY_FEATURES,
        INCOMPATIBLE_FEATURES,
        disk_uuid,
        file_number,
        len(entries),
        offset + len(packed) + padding,
        offset,
        xxhash.xxh3_64_intdigest(packed),
        _NO_FOOTER_ROOM_USED,
        0,
    )[:-8]
    page = last + xxhash.xxh3_64_digest(last)
    return [packed, _ZEROS[:padding], page + _ZEROS[: PAGE_BYTES - len(page)]]


def parse_footer(page: Buffer, place: Place) -> FooterPlace | None:
    """What the last page of a file says, if it is a footer's and belongs at this place."""
    if len(page) < _FOOTER.size or page[:8] != FOOTER_MAGIC:
        return None
    head = bytes(page[: _FOOTER.size])
    if xxhash.xxh3_64_digest(head[:-8]) != head[-8:]:
        return None
    (_, version, _, _, read_only, incompatible, disk_uuid, number, count, offset, entries_offset, checksum, _, _) = (
        _FOOTER.unpack(head)
    )
    if Place(disk_uuid, number, offset) != place:
        return None
    _check_known(f"the footer of backing file {number}", version, read_only, incompatible)
    return FooterPlace(entries_offset, count, checksum)
