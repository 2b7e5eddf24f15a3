"""The bytes of a sent volume: the golden stream, round trips, and refusal of everything that is not whole."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest

from redfs.core.errors import Corrupt, RedfsError, WrongFormat
from redfs.core.records import Kind, inode_key, slot_key
from redfs.core.send_stream import (
    MAGIC,
    MAX_FRAME_BYTES,
    Header,
    Row,
    SentBlock,
    StreamReader,
    StreamWriter,
    Totals,
)

GOLDEN = Path(__file__).parent / "golden" / "send-stream.txt"
HEADER = Header(0x0123456789ABCDEF, -5, "pool", "pool:7:3", "pool:7:1", "photos@two", "two", "ec:4+2", "zstd", "höhe")
BLOCKS = [SentBlock(65537, 5, 0, bytes(range(32)), b"plain"), SentBlock(65538, 131072, 1, b"f" * 32, b"packed")]
ROWS = [Row(Kind.INODE, inode_key(9).obj, b"inode"), Row(Kind.SLOT, slot_key(9, 1, 2).obj, b"")]


def sample() -> bytes:
    out = io.BytesIO()
    writer = StreamWriter(out.write, HEADER)
    writer.blocks(BLOCKS)
    writer.records(ROWS)
    writer.records(ROWS[:1])
    assert writer.end() == Totals(3, 2, 131077)
    return out.getvalue()


def read_all(data: bytes) -> tuple[Header, list[object]]:
    reader = StreamReader(io.BytesIO(data).read)
    found: list[object] = []
    while not found or not isinstance(found[-1], Totals):
        found.append(reader.next())
    return reader.header, found


def test_the_bytes_are_those_of_the_golden_file() -> None:
    assert sample().hex() == GOLDEN.read_text().splitlines()[-1]


def test_a_stream_survives_its_bytes() -> None:
    header, found = read_all(sample())
    assert header == HEADER
    assert found == [BLOCKS, ROWS, ROWS[:1], Totals(3, 2, 131077)]


def test_every_cut_and_every_changed_byte_is_refused() -> None:
    data = sample()
    for end in range(len(data)):
        with pytest.raises((Corrupt, WrongFormat)):
            read_all(data[:end])
    rng = random.Random(1)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        with pytest.raises((Corrupt, WrongFormat)):
            read_all(bytes(damaged))
    with pytest.raises(Corrupt, match="behind its end"):
        read_all(data + b"x")


def test_frames_that_are_right_one_by_one_and_wrong_together_are_refused() -> None:
    other = io.BytesIO()
    writer = StreamWriter(other.write, HEADER._replace(node="other"))
    head = other.tell()
    writer.records(ROWS)
    writer.end()
    data = sample()
    mixed = other.getvalue()[:head] + data[-(len(data) - len(_head())) :]
    with pytest.raises(RedfsError):
        read_all(mixed)
    first = io.BytesIO()
    StreamWriter(first.write, HEADER).end()
    with pytest.raises(Corrupt, match="missing or were put together"):
        read_all(_head() + first.getvalue()[len(_head()) :].join([_records(), b""]))


def _head() -> bytes:
    out = io.BytesIO()
    StreamWriter(out.write, HEADER)
    return out.getvalue()


def _records() -> bytes:
    out = io.BytesIO()
    writer = StreamWriter(out.write, HEADER)
    start = out.tell()
    writer.records(ROWS)
    return out.getvalue()[start:]


def test_what_is_newer_or_something_else_is_told_apart() -> None:
    data = sample()
    with pytest.raises(WrongFormat, match="no stream"):
        read_all(b"PK" + data)
    with pytest.raises(WrongFormat, match="version 2"):
        read_all(MAGIC + b"\x00\x02" + data[10:])
    with pytest.raises(WrongFormat, match="features 0x1"):
        read_all(data[:25] + b"\x01" + data[26:])


def test_a_frame_that_claims_too_much_is_refused_before_it_is_read() -> None:
    asked: list[int] = []
    data = io.BytesIO(_head() + b"\x03" + (MAX_FRAME_BYTES + 1).to_bytes(4))

    def read(count: int) -> bytes:
        asked.append(count)
        return data.read(count)

    reader = StreamReader(read)
    with pytest.raises(Corrupt, match="longer than any"):
        reader.next()
    assert max(asked) < 1000
