"""The records of the version store: their fields and their bytes.

Every record starts with a version byte; decoding an unknown version raises `WrongFormat`, bytes of a wrong length
raise `Corrupt`. Checksums are left to what stores and sends the records. Integers are big-endian, times are
nanoseconds since 1970 (signed). The byte tables are in docs/formats/records.md, the golden files in tests/core/golden.

Records are immutable tuples, because the client's cache, its overlays and the coordinator share them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import xxhash

from redfs.core.errors import Corrupt, WrongFormat

RECORD_VERSION = 1

SLOT_BYTES = 128 * 1024
"""A slot is this range of a file; a block never holds more plain bytes than this."""
MAX_PIECES = 16
"""Pieces that one slot may list; the flush that would pass it merges them into one block."""
MAX_NAME_BYTES = 255
MAX_SYMLINK_BYTES = 4095
MAX_XATTR_VALUE_BYTES = 64 * 1024
MAX_FILE_BYTES = 1 << 60
MAX_BUCKET_ENTRIES = 8
"""Names with one 60-bit hash that a bucket holds. The hash is keyed, so nobody can make more than chance does."""
MAX_NAME_HASH = (1 << 60) - 2
"""So that no cookie passes 2**63 - 1."""
MAX_GENERATION_RANGES = 16
"""Data generations that one inode lists (see `Inode.generations`)."""


class Kind(IntEnum):
    """Kinds of versioned objects; the object bytes of each start with the inode number."""

    ROOT = 1
    INODE = 2
    DIRENT = 3
    SLOT = 4
    XATTR = 5
    ORPHAN = 6


class Key(NamedTuple):
    """Names one versioned object of a volume."""

    kind: int
    obj: bytes


_INO = struct.Struct(">Q")
_INO_HASH = struct.Struct(">QQ")
_SLOT_KEY = struct.Struct(">QIQ")
_ORPHAN_KEY = struct.Struct(">QI")

OBJECT_BYTES = {Kind.ROOT: 8, Kind.INODE: 8, Kind.DIRENT: 16, Kind.SLOT: 20, Kind.XATTR: 16, Kind.ORPHAN: 12}

ROOT_KEY = Key(Kind.ROOT, bytes(8))


# Keys are made with plain integers and past NamedTuple's own constructor: several per operation of every client.
_new = tuple.__new__
_KIND_INODE, _KIND_DIRENT, _KIND_SLOT, _KIND_XATTR = (int(k) for k in (Kind.INODE, Kind.DIRENT, Kind.SLOT, Kind.XATTR))
_pack_ino, _pack_ino_hash, _pack_slot = _INO.pack, _INO_HASH.pack, _SLOT_KEY.pack


def inode_key(ino: int) -> Key:
    return _new(Key, (_KIND_INODE, _pack_ino(ino)))


def dirent_key(parent: int, name_hash: int) -> Key:
    return _new(Key, (_KIND_DIRENT, _pack_ino_hash(parent, name_hash)))


def slot_key(ino: int, generation: int, slot: int) -> Key:
    return _new(Key, (_KIND_SLOT, _pack_slot(ino, generation, slot)))


def xattr_key(ino: int, name_hash: int) -> Key:
    return _new(Key, (_KIND_XATTR, _pack_ino_hash(ino, name_hash)))


def orphan_key(ino: int, generation: int) -> Key:
    """Generation 0: the inode itself is unlinked and goes when it is closed. Others: slots of that dead generation."""
    return Key(Kind.ORPHAN, _ORPHAN_KEY.pack(ino, generation))


def object_ino(obj: bytes) -> int:
    """The inode that an object of any kind belongs to."""
    return int.from_bytes(obj[:8], "big")


def split_dirent_object(obj: bytes) -> tuple[int, int]:
    """(parent inode, name hash); for XATTR objects (inode, name hash)."""
    parent, name_hash = _INO_HASH.unpack(obj)
    return parent, name_hash


def split_slot_object(obj: bytes) -> tuple[int, int, int]:
    """(inode, generation, slot number)."""
    ino, generation, slot = _SLOT_KEY.unpack(obj)
    return ino, generation, slot


def split_orphan_object(obj: bytes) -> tuple[int, int]:
    """(inode, generation)."""
    ino, generation = _ORPHAN_KEY.unpack(obj)
    return ino, generation


def name_hash(seed: int, name: bytes) -> int:
    """60-bit hash of an entry's or xattr's name, keyed by the volume's secret seed (`VolumeRoot.hash_seed`)."""
    return min(xxhash.xxh3_64_intdigest(name, seed) >> 4, MAX_NAME_HASH)


def dirent_cookie(hash60: int, position: int) -> int:
    """The 63-bit readdir cookie of an entry: >= 3 (below are the start, `.` and `..`), unique, kept while it lives."""
    return (hash60 << 3 | position) + 3


def split_cookie(cookie: int) -> tuple[int, int]:
    """(hash60, position) of a cookie made by `dirent_cookie`."""
    raw = cookie - 3
    return raw >> 3, raw & 7


class GenerationRange(NamedTuple):
    """Slots from `first_slot` on (up to the next range's) are stored under `generation`."""

    first_slot: int
    generation: int


class Inode(NamedTuple):
    """A file, folder, link or special file. `size` covers only bytes whose slots are recorded with it."""

    mode: int
    """File type and permission bits, as in st_mode."""
    uid: int
    gid: int
    nlink: int
    size: int
    """Bytes; for a folder the number of its entries."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    rdev: int = 0
    flags: int = 0
    parent: int = 0
    """The folder above (the root is its own): where `name_hash` leads to this inode's name. Of a file with several
    names to one of them; 0 where that one was removed and the others are not known from here."""
    name_hash: int = 0
    """Of the name in `parent`; the root's is 0."""
    next_generation: int = 2
    """The data generation that the next truncation uses; never goes back."""
    generations: tuple[GenerationRange, ...] = (GenerationRange(0, 1),)
    """Data generations by slot, ascending, first at slot 0. Truncation starts a new one, so old bytes never return."""
    symlink: bytes = b""


MAX_TIME_NS = 9_223_372_036 * 1_000_000_000
"""The last full second that a signed 64-bit count of nanoseconds reaches: in the year 2262."""
MIN_TIME_NS = -MAX_TIME_NS
"""In the year 1677."""

INODE_HAS_XATTRS = 1
"""Inode.flags: some extended attribute exists."""
INODE_HAS_CAPABILITY = 2
"""Inode.flags: security.capability is set (the kernel asks before every write)."""


class DirEntry(NamedTuple):
    name: bytes
    ino: int
    file_type: int
    """mode >> 12: 8 regular, 4 folder, 10 symbolic link, ..."""
    position: int
    """0 to 7, unique in the bucket and kept for the entry's life: the low bits of its cookie."""


DirBucket = tuple[DirEntry, ...]
"""The entries of one folder whose names share a hash."""


class Xattr(NamedTuple):
    name: bytes
    value: bytes


XattrBucket = tuple[Xattr, ...]


class Piece(NamedTuple):
    """`length` bytes at `offset` of the slot are those from `block_offset` on in block `block`."""

    offset: int
    length: int
    block: int
    block_offset: int


Slot = tuple[Piece, ...]
"""Pieces in ascending order, not overlapping, at most MAX_PIECES; what no piece covers reads as zeros."""


class VolumeRoot(NamedTuple):
    """What a volume's tree carries about itself."""

    hash_seed: int
    """Secret 64-bit key of its name hashes; inherited by clones."""
    family: int
    """Lineages that descend from one another share inode numbers' counter."""


class Orphan(NamedTuple):
    """An unlinked inode or a dead data generation, waiting for its reclaim."""

    since_ns: int


Record = Inode | DirBucket | XattrBucket | Slot | VolumeRoot | Orphan

_INODE_HEAD = struct.Struct(">BIIIIQqqqqQIQQIBH")
_GENERATION = struct.Struct(">QI")
_ENTRY_HEAD = struct.Struct(">QBBB")
_XATTR_HEAD = struct.Struct(">BI")
_PIECE = struct.Struct(">IIQI")
_ROOT = struct.Struct(">BQQ")
_ORPHAN = struct.Struct(">Bq")
_SINGLE_GENERATION = (GenerationRange(0, 1),)


def _versioned(what: str, data: bytes) -> None:
    if not data:
        raise _damaged(what)
    if data[0] != RECORD_VERSION:
        raise WrongFormat(f"{what} record of version {data[0]}: this RedFS knows version {RECORD_VERSION}, upgrade it")


def _damaged(what: str) -> Corrupt:
    return Corrupt(f"{what} record of a wrong length: the metadata is damaged, run `redfs check`")


def encode_inode(i: Inode) -> bytes:
    head = _INODE_HEAD.pack(
        RECORD_VERSION, i.mode, i.uid, i.gid, i.nlink, i.size, i.atime_ns, i.mtime_ns, i.ctime_ns, i.btime_ns,
        i.rdev, i.flags, i.parent, i.name_hash, i.next_generation, len(i.generations), len(i.symlink),
    )  # fmt: skip
    return head + b"".join(_GENERATION.pack(*g) for g in i.generations) + i.symlink


def decode_inode(data: bytes) -> Inode:
    _versioned("inode", data)
    if len(data) < _INODE_HEAD.size:
        raise _damaged("inode")
    f: tuple[Any, ...] = _INODE_HEAD.unpack_from(data)
    at = _INODE_HEAD.size
    count, symlink_bytes = f[15], f[16]
    if len(data) != at + 12 * count + symlink_bytes:
        raise _damaged("inode")
    generations = tuple([GenerationRange(*_GENERATION.unpack_from(data, at + 12 * n)) for n in range(count)])
    return _new(Inode, (*f[1:15], generations, data[at + 12 * count :]))


def encode_bucket(bucket: DirBucket) -> bytes:
    out = [bytes((RECORD_VERSION, len(bucket)))]
    for e in bucket:
        out.append(_ENTRY_HEAD.pack(e.ino, e.file_type, e.position, len(e.name)))
        out.append(e.name)
    return b"".join(out)


def decode_bucket(data: bytes) -> DirBucket:
    _versioned("directory", data)
    out, at = [], 2
    try:
        for _ in range(data[1]):
            ino, file_type, position, name_bytes = _ENTRY_HEAD.unpack_from(data, at)
            at += _ENTRY_HEAD.size
            out.append(_new(DirEntry, (data[at : at + name_bytes], ino, file_type, position)))
            at += name_bytes
    except (struct.error, IndexError):
        raise _damaged("directory") from None
    if at != len(data):
        raise _damaged("directory")
    return tuple(out)


def encode_xattrs(bucket: XattrBucket) -> bytes:
    out = [bytes((RECORD_VERSION, len(bucket)))]
    for x in bucket:
        out += (_XATTR_HEAD.pack(len(x.name), len(x.value)), x.name, x.value)
    return b"".join(out)


def decode_xattrs(data: bytes) -> XattrBucket:
    _versioned("xattr", data)
    out, at = [], 2
    try:
        for _ in range(data[1]):
            name_bytes, value_bytes = _XATTR_HEAD.unpack_from(data, at)
            at += _XATTR_HEAD.size
            out.append(Xattr(data[at : at + name_bytes], data[at + name_bytes : at + name_bytes + value_bytes]))
            at += name_bytes + value_bytes
    except (struct.error, IndexError):
        raise _damaged("xattr") from None
    if at != len(data):
        raise _damaged("xattr")
    return tuple(out)


def encode_slot(slot: Slot) -> bytes:
    return bytes((RECORD_VERSION,)) + b"".join([_PIECE.pack(*p) for p in slot])


def decode_slot(data: bytes) -> Slot:
    _versioned("slot", data)
    if len(data) % _PIECE.size != 1:
        raise _damaged("slot")
    return tuple([Piece(*f) for f in _PIECE.iter_unpack(data[1:])])


def encode_root(root: VolumeRoot) -> bytes:
    return _ROOT.pack(RECORD_VERSION, root.hash_seed, root.family)


def decode_root(data: bytes) -> VolumeRoot:
    _versioned("volume root", data)
    if len(data) != _ROOT.size:
        raise _damaged("volume root")
    return VolumeRoot(*_ROOT.unpack(data)[1:])


def encode_orphan(orphan: Orphan) -> bytes:
    return _ORPHAN.pack(RECORD_VERSION, orphan.since_ns)


def decode_orphan(data: bytes) -> Orphan:
    _versioned("orphan", data)
    if len(data) != _ORPHAN.size:
        raise _damaged("orphan")
    return Orphan(_ORPHAN.unpack(data)[1])


_ENCODERS: dict[int, Callable[[Any], bytes]] = {
    Kind.ROOT: encode_root,
    Kind.INODE: encode_inode,
    Kind.DIRENT: encode_bucket,
    Kind.SLOT: encode_slot,
    Kind.XATTR: encode_xattrs,
    Kind.ORPHAN: encode_orphan,
}
_DECODERS: dict[int, Callable[[bytes], Record]] = {
    Kind.ROOT: decode_root,
    Kind.INODE: decode_inode,
    Kind.DIRENT: decode_bucket,
    Kind.SLOT: decode_slot,
    Kind.XATTR: decode_xattrs,
    Kind.ORPHAN: decode_orphan,
}


def encode(kind: int, record: Record) -> bytes:
    """The bytes of a record of that kind."""
    return _ENCODERS[kind](record)


def decode(kind: int, data: bytes) -> Record:
    """The record of that kind. Raises WrongFormat for an unknown version, Corrupt for a wrong length."""
    return _DECODERS[kind](data)


def generation_of(generations: tuple[GenerationRange, ...], slot: int) -> int:
    """The data generation that holds `slot`."""
    if generations is _SINGLE_GENERATION or len(generations) == 1:
        return generations[0].generation
    found = generations[0].generation
    for first_slot, generation in generations:
        if first_slot > slot:
            break
        found = generation
    return found
