"""The bytes of records: golden files, round trips, and refusal of what is unknown or damaged."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redfs.core import records as r
from redfs.core.errors import Corrupt, WrongFormat
from redfs.core.records import Kind, Record

GOLDEN = Path(__file__).parent / "golden" / "records.txt"

SAMPLES: dict[str, tuple[Kind, Record]] = {
    "root": (Kind.ROOT, r.VolumeRoot(0x0123456789ABCDEF, 7)),
    "file": (Kind.INODE, r.Inode(0o100644, 1000, 1001, 2, 123456, 1, -2, 3, 4, parent=6, name_hash=0x0FEDCBA987654321)),
    "folder": (Kind.INODE, r.Inode(0o042755, 0, 5, 3, 9, 10, 20, 30, 40, parent=1)),
    "device": (Kind.INODE, r.Inode(0o060600, 0, 0, 1, 0, 1, 1, 1, 1, rdev=0x803, flags=3)),
    "symlink": (Kind.INODE, r.Inode(0o120777, 0, 0, 1, 6, 1, 1, 1, 1, symlink=b"../etc")),
    "cut_file": (
        Kind.INODE,
        r.Inode(0o100600, 1, 2, 1, 1 << 60, 0, 0, 0, 0, next_generation=5, generations=(
            r.GenerationRange(0, 1), r.GenerationRange(1000, 2), r.GenerationRange(1 << 43, 4),
        )),
    ),
    "one_entry": (Kind.DIRENT, (r.DirEntry(b"photos", 42, 4, 0),)),
    "two_entries": (Kind.DIRENT, (r.DirEntry(b"a", 2, 8, 1), r.DirEntry("höhe".encode(), (1 << 63) - 1, 10, 7))),
    "slot": (Kind.SLOT, (r.Piece(0, 4096, 1 << 60, 8192), r.Piece(131071, 1, 65537, 131071))),
    "xattrs": (Kind.XATTR, (r.Xattr(b"user.note", b"hello"), r.Xattr(b"user.none", b""))),
    "orphan": (Kind.ORPHAN, r.Orphan(1_700_000_000_000_000_000)),
}  # fmt: skip

KEYS: dict[str, r.Key] = {
    "root": r.ROOT_KEY,
    "inode": r.inode_key(0x1122334455667788),
    "dirent": r.dirent_key(1, 0x0FEDCBA987654321),
    "slot": r.slot_key(3, 4, 5),
    "xattr": r.xattr_key(6, 7),
    "orphan": r.orphan_key(8, 9),
}


def golden() -> dict[str, str]:
    lines = [line for line in GOLDEN.read_text().splitlines() if line and not line.startswith("#")]
    return dict(cast("tuple[str, str]", line.split(" ", 1)) for line in lines)


def current() -> dict[str, str]:
    lines = {f"record:{name}": r.encode(kind, record).hex() for name, (kind, record) in SAMPLES.items()}
    lines |= {f"key:{name}": f"{int(key.kind)}:{key.obj.hex()}" for name, key in KEYS.items()}
    lines |= {
        "hash:seed0": f"{r.name_hash(0, b'photos'):016x}",
        "hash:seed1": f"{r.name_hash(0x0123456789ABCDEF, b'photos'):016x}",
        "cookie:first": str(r.dirent_cookie(0, 0)),
        "cookie:last": str(r.dirent_cookie(r.MAX_NAME_HASH, 7)),
    }
    return lines


def test_the_bytes_are_those_of_the_golden_file() -> None:
    assert current() == golden()


@pytest.mark.parametrize("name", SAMPLES)
def test_golden_bytes_decode(name: str) -> None:
    kind, record = SAMPLES[name]
    decoded = r.decode(kind, bytes.fromhex(golden()[f"record:{name}"]))
    assert decoded == record
    assert type(decoded) is type(record)


@pytest.mark.parametrize("name", SAMPLES)
def test_an_unknown_version_is_refused(name: str) -> None:
    kind, record = SAMPLES[name]
    with pytest.raises(WrongFormat, match="version 2"):
        r.decode(kind, b"\x02" + r.encode(kind, record)[1:])


@pytest.mark.parametrize("name", SAMPLES)
def test_torn_bytes_are_refused(name: str) -> None:
    kind, record = SAMPLES[name]
    data = r.encode(kind, record)
    whole_pieces = {1, 1 + 20} if kind == Kind.SLOT else set()
    for length in set(range(len(data))) - whole_pieces:
        with pytest.raises(Corrupt):
            r.decode(kind, data[:length])
    with pytest.raises(Corrupt):
        r.decode(kind, data + b"\0")


def test_keys_have_their_documented_sizes_and_split_again() -> None:
    for key in KEYS.values():
        assert len(key.obj) == r.OBJECT_BYTES[Kind(key.kind)]
    assert r.object_ino(KEYS["inode"].obj) == 0x1122334455667788
    assert r.split_dirent_object(KEYS["dirent"].obj) == (1, 0x0FEDCBA987654321)
    assert r.split_slot_object(KEYS["slot"].obj) == (3, 4, 5)
    assert r.split_dirent_object(KEYS["xattr"].obj) == (6, 7)
    assert r.split_orphan_object(KEYS["orphan"].obj) == (8, 9)


def test_a_key_equals_and_hashes_alike_however_it_was_made() -> None:
    made, plain = r.inode_key(7), r.Key(Kind.INODE, struct.pack(">Q", 7))
    assert made == plain
    assert hash(made) == hash(plain)
    assert type(made) is r.Key


@given(st.integers(0, r.MAX_NAME_HASH), st.integers(0, r.MAX_BUCKET_ENTRIES - 1))
def test_cookies_split_again_and_fit(hash60: int, position: int) -> None:
    cookie = r.dirent_cookie(hash60, position)
    assert 3 <= cookie < 1 << 63
    assert r.split_cookie(cookie) == (hash60, position)


@given(st.integers(0, (1 << 64) - 1), st.binary(min_size=1, max_size=255))
def test_hashes_fit_in_a_cookie(seed: int, name: bytes) -> None:
    assert 0 <= r.name_hash(seed, name) <= r.MAX_NAME_HASH


u32, u64, i64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1), st.integers(-(1 << 63), (1 << 63) - 1)
names = st.binary(min_size=1, max_size=255)
inodes = st.builds(
    r.Inode, u32, u32, u32, u32, u64, i64, i64, i64, i64, u64, u32, u64, u64, u32,
    st.lists(st.builds(r.GenerationRange, u64, u32), min_size=1, max_size=r.MAX_GENERATION_RANGES).map(tuple),
    st.binary(max_size=r.MAX_SYMLINK_BYTES),
)  # fmt: skip
u8 = st.integers(0, 255)
buckets = st.lists(st.builds(r.DirEntry, names, u64, u8, u8), min_size=1, max_size=8).map(tuple)
xattr_buckets = st.lists(st.builds(r.Xattr, names, st.binary(max_size=300)), min_size=1, max_size=8).map(tuple)
slots = st.lists(st.builds(r.Piece, u32, u32, u64, u32), min_size=1, max_size=r.MAX_PIECES).map(tuple)


@settings(max_examples=200)
@given(
    st.one_of(
        st.tuples(st.just(Kind.INODE), inodes),
        st.tuples(st.just(Kind.DIRENT), buckets),
        st.tuples(st.just(Kind.XATTR), xattr_buckets),
        st.tuples(st.just(Kind.SLOT), slots),
    )
)
def test_every_record_survives_its_bytes(case: tuple[Kind, Record]) -> None:
    kind, record = case
    data = r.encode(kind, record)
    assert data
    assert r.decode(kind, data) == record


def test_the_generation_of_a_slot_is_that_of_the_last_range_that_starts_before_it() -> None:
    one = (r.GenerationRange(0, 3),)
    assert [r.generation_of(one, slot) for slot in (0, 5, 1 << 43)] == [3, 3, 3]
    three = (r.GenerationRange(0, 1), r.GenerationRange(10, 4), r.GenerationRange(20, 9))
    assert [r.generation_of(three, slot) for slot in (0, 9, 10, 19, 20, 21)] == [1, 1, 4, 4, 9, 9]
