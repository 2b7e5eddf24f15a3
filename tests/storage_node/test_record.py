"""The bytes on disk are fixed, and nothing else is taken for them."""

from __future__ import annotations

import struct

import pytest
import xxhash

from redfs.core.errors import WrongFormat
from redfs.storage_node import record
from redfs.storage_node.disk import PAGE_BYTES
from redfs.storage_node.record import FooterEntry, FooterPlace, Kind, Place, RecordHeader

PLACE = Place(bytes(range(16)), 7, 3 * PAGE_BYTES)
HEADER = RecordHeader(Kind.SHARD, 0x123456789A, 5, 6000, 0xFEDCBA9876543210)

GOLDEN_HEADER = bytes.fromhex(
    "526564465372656300010001000000000000000000000000000102030405060708090a0b0c0d0e0f"
    "00000007000000000000000000003000000000123456789a0005000000001770fedcba9876543210" + "00" * 40
)


def test_a_record_header_is_these_bytes() -> None:
    packed = record.pack_header(PLACE, HEADER)
    assert packed[:-8] == GOLDEN_HEADER
    assert packed[-8:].hex() == "443a106f5bed462e"
    assert len(packed) == record.HEADER_BYTES


def test_a_record_is_whole_pages_and_its_payload_is_not_copied() -> None:
    payload = b"p" * 6000
    buffers = record.record_buffers(PLACE, HEADER, payload)
    assert any(buffer is payload for buffer in buffers)
    whole = b"".join(bytes(buffer) for buffer in buffers)
    assert len(whole) == record.record_bytes(6000) == 3 * PAGE_BYTES
    assert whole[PAGE_BYTES : PAGE_BYTES + 6000] == payload
    assert not any(whole[PAGE_BYTES + 6000 :])
    assert record.record_bytes(1) == record.record_bytes(4096) == 2 * PAGE_BYTES


def test_headers_and_tombstones_are_read_back() -> None:
    assert record.parse_header(record.pack_header(PLACE, HEADER), PLACE) == HEADER
    page = record.tombstone_page(PLACE, HEADER)
    assert len(page) == PAGE_BYTES
    assert record.parse_header(page, PLACE) == HEADER._replace(kind=Kind.TOMBSTONE)


@pytest.mark.parametrize(
    "place",
    [PLACE._replace(disk_uuid=bytes(16)), PLACE._replace(file_number=8), PLACE._replace(offset=PAGE_BYTES)],
)
def test_a_header_of_another_place_is_none(place: Place) -> None:
    assert record.parse_header(record.pack_header(PLACE, HEADER), place) is None


def test_any_flipped_bit_makes_it_no_header() -> None:
    packed = record.pack_header(PLACE, HEADER)
    for position in range(len(packed)):
        damaged = bytearray(packed)
        damaged[position] ^= 4
        assert record.parse_header(damaged, PLACE) is None
    assert record.parse_header(packed[:100], PLACE) is None
    assert record.parse_header(bytes(PAGE_BYTES), PLACE) is None


def sealed(packed: bytes, at: int, value: bytes) -> bytes:
    """The header with other bytes in it, and the right checksum for them."""
    changed = packed[:at] + value + packed[at + len(value) : -8]
    return changed + xxhash.xxh3_64_digest(changed)


@pytest.mark.parametrize(
    ("at", "value"), [(8, struct.pack(">H", 2)), (16, struct.pack(">I", 1)), (20, struct.pack(">I", 1))]
)
def test_an_unknown_version_or_feature_is_refused_and_not_taken_for_damage(at: int, value: bytes) -> None:
    with pytest.raises(WrongFormat):
        record.parse_header(sealed(record.pack_header(PLACE, HEADER), at, value), PLACE)
    last = b"".join(map(bytes, record.footer_buffers(PLACE.disk_uuid, 7, 2 * PAGE_BYTES, [])))[:128]
    with pytest.raises(WrongFormat):
        record.parse_footer(sealed(last, at, value), PLACE._replace(offset=2 * PAGE_BYTES))


def test_an_unknown_compatible_feature_is_no_reason_to_refuse() -> None:
    changed = sealed(record.pack_header(PLACE, HEADER), 12, struct.pack(">I", 1))
    assert record.parse_header(changed, PLACE) == HEADER


def test_a_footer_is_these_bytes_and_is_read_back() -> None:
    entries = [FooterEntry(0, 1, 2, 3, 4), FooterEntry(8192, 2**60, 65535, 2**24, 2**64 - 1)]
    whole = b"".join(map(bytes, record.footer_buffers(PLACE.disk_uuid, 7, 2 * PAGE_BYTES, entries)))
    assert len(whole) == record.footer_bytes(2) == 2 * PAGE_BYTES
    assert whole[:64].hex() == (
        "0000000000000000000000000000000100020000000000030000000000000004"
        "00000000000020001000000000000000ffff000001000000ffffffffffffffff"
    )
    last = whole[PAGE_BYTES:]
    assert last[:8] == b"RedFSend"
    assert last[8:120].hex() == (
        "00010000000000000000000000000000000102030405060708090a0b0c0d0e0f"
        "000000070000000200000000000030000000000000002000f472b9a32a599f1b" + "00" * 48
    )
    place = PLACE._replace(offset=3 * PAGE_BYTES)
    found = record.parse_footer(last, place)
    assert found == FooterPlace(2 * PAGE_BYTES, 2, xxhash.xxh3_64_intdigest(whole[:64]))
    assert list(record.unpack_entries(whole[:64])) == entries
    assert record.parse_footer(last, PLACE._replace(offset=PAGE_BYTES)) is None
    assert record.parse_footer(whole[:PAGE_BYTES], place) is None


def test_the_first_page_tells_whose_disk_it_is() -> None:
    packed = record.pack_header(PLACE, HEADER)
    assert record.foreign_disk(packed, PLACE.disk_uuid) is None
    assert record.foreign_disk(packed, bytes(16)) == PLACE.disk_uuid
    assert record.foreign_disk(bytes(PAGE_BYTES), bytes(16)) is None
