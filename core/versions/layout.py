"""The version store's tables: keys, rows and their packing.

Every number in a key is big endian, so that byte order is number order. Epochs in the versions table are stored
inverted (2**64 - 1 - epoch): the versions of one object lie newest first, and one seek finds the newest that was born
at or before a wanted epoch. The byte tables are in docs/formats/version-store.md.

Unpacking raises `WrongFormat` for a row version that this program does not know and leaves every other check to
`verify`.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from redfs.core import records
from redfs.core.errors import WrongFormat
from redfs.core.ids import Epoch, Lineage
from redfs.core.records import Kind

VERSIONS: Final = "versions"
DEADLIST: Final = "deadlist"
BIRTHS: Final = "births"
LINEAGES: Final = "lineages"
PINS: Final = "pins"
WEIGHTS: Final = "weights"
SHOWN: Final = "shown"
HOLDINGS: Final = "holdings"
TABLES: Final = (VERSIONS, DEADLIST, BIRTHS, LINEAGES, PINS, WEIGHTS, SHOWN, HOLDINGS)


OBJECT_BYTES: Final = (0, *(records.OBJECT_BYTES[kind] for kind in Kind))
"""Bytes of an object, indexed by kind. Fixed per kind, so that no object is another's prefix."""

INO_BYTES: Final = 8

TOMBSTONE: Final = b""
"""The value of a version that says: not there. A record is never empty."""

MAX_U64: Final = 2**64 - 1
AFTER_VERSIONS: Final = b"\xff" * 8
"""Appended to an object's prefix: after its oldest version (epoch 0 is never used)."""
PRESENT: Final = b"\x01"
"""The value of rows that say all in their key: stores do not hold empty values in every table."""

_U64: Final = Struct(">Q")
_U64_U8: Final = Struct(">QB")
_U64_U64: Final = Struct(">QQ")
_DEAD: Final = Struct(">QQQB")
_BIRTH: Final = Struct(">QQQ")
_HELD: Final = Struct(">QBQBQ")
_DROPPING: Final = Struct(">QBQ")
_LINEAGE: Final = Struct(">BBQQQQQQ")

_PIN_HELD: Final = 1
_PIN_DROPPING: Final = 2

_LINEAGE_VERSION: Final = 1
_FLAG_HEAD: Final = 1
_FLAG_TAIL_PENDING: Final = 2
_FLAG_INDEXED: Final = 4
_FLAGS: Final = _FLAG_HEAD | _FLAG_TAIL_PENDING | _FLAG_INDEXED


class HolderType(IntEnum):
    """What keeps a pin."""

    SNAPSHOT = 1
    FORK = 2
    VIEW = 3


class Holder(NamedTuple):
    """One reason to keep a pin: a snapshot (`id`: its node in the volume tree), a fork (`id`: the child lineage) or a
    session's view (`id`: the view's number)."""

    type: HolderType
    id: int


class Pin(NamedTuple):
    """A frozen point of a lineage."""

    lineage: Lineage
    epoch: Epoch


class LineageRecord(NamedTuple):
    """One lineage. `parent` 0 means none; the lineage sees its parent as of `fork_epoch`.

    `head_epoch` is the epoch of the writes. After the head is dropped `has_head` is false and `tail_pending` stays true
    until what only the head saw is gone. `family` is the caller's: lineages that share inode numbers.

    `indexed`: it was forked inside of its family, so the holdings table says which inodes it has anything of. A
    family's first lineage is not, and what has no clones pays nothing. `ino_max` is the greatest inode number that was
    ever written here or inherited; `inherited_ino_max` the parent's when this was forked: what is above it needs no
    look at the ancestors.
    """

    parent: Lineage
    fork_epoch: Epoch
    head_epoch: Epoch
    has_head: bool
    tail_pending: bool
    family: int
    indexed: bool
    ino_max: int
    inherited_ino_max: int


def u64(value: int) -> bytes:
    """Eight bytes, big endian."""
    return _U64.pack(value)


def inverted(epoch: int) -> bytes:
    """The end of a version's key."""
    return _U64.pack(MAX_U64 - epoch)


def birth_of(version_key: bytes) -> int:
    """The birth epoch in a version's key."""
    return MAX_U64 - int.from_bytes(version_key[-8:])


def version_prefix(lineage: int, kind: int) -> bytes:
    """The start of the version keys of one lineage and kind; the object and `inverted(birth)` follow."""
    return _U64_U8.pack(lineage, kind)


def dead_key(lineage: int, death: int, birth: int, kind: int, obj: bytes) -> bytes:
    """The deadlist row of a version that was born at `birth` and superseded at `death`."""
    return _DEAD.pack(lineage, death, birth, kind) + obj


def dead_start(lineage: int, death: int, birth: int = 0) -> bytes:
    """Where the deadlist rows of (lineage, death) with births from `birth` on begin. `death` may be 2**64."""
    if death > MAX_U64:
        return _U64.pack(lineage + 1)
    return _BIRTH.pack(lineage, death, birth)


def parse_dead(key: bytes) -> tuple[int, int, int, int, bytes]:
    """(lineage, death, birth, kind, object) of a deadlist key."""
    lineage, death, birth, kind = _DEAD.unpack_from(key)
    return lineage, death, birth, kind, key[_DEAD.size :]


def birth_key(lineage: int, epoch: int, ino: bytes) -> bytes:
    """The birth row of an inode (as 8 bytes) at an epoch."""
    return _U64_U64.pack(lineage, epoch) + ino


def birth_start(lineage: int, epoch: int) -> bytes:
    """Where the birth rows of (lineage, epoch) begin. `epoch` may be 2**64."""
    if epoch > MAX_U64:
        return _U64.pack(lineage + 1)
    return _U64_U64.pack(lineage, epoch)


def parse_birth(key: bytes) -> tuple[int, int, int]:
    """(lineage, epoch, inode) of a birth key."""
    lineage, epoch, ino = _BIRTH.unpack(key)
    return lineage, epoch, ino


def pack_birth(count: int, resume: bytes = b"") -> bytes:
    """A birth row: how many versions of the inode born at that epoch exist, and where the search for them goes on."""
    return _U64.pack(count) + resume


def unpack_birth(row: bytes) -> tuple[int, bytes]:
    """(count, resume) of a birth row."""
    return int.from_bytes(row[:8]), row[8:]


def holding_key(family: int, ino: bytes, lineage: int) -> bytes:
    """The row that counts a lineage's birth rows of an inode (as 8 bytes)."""
    return _U64.pack(family) + ino + _U64.pack(lineage)


def holding_lineage(key: bytes) -> int:
    """The lineage of a holdings key."""
    return int.from_bytes(key[16:])


def held_key(lineage: int, epoch: int, holder: Holder) -> bytes:
    """The row of one holder of a pin."""
    return _HELD.pack(lineage, _PIN_HELD, epoch, holder.type, holder.id)


def held_start(lineage: int, epoch: int = 0) -> bytes:
    """Where the rows of the held pins of a lineage from `epoch` on begin."""
    return _DROPPING.pack(lineage, _PIN_HELD, epoch)


def held_end(lineage: int) -> bytes:
    """After the rows of the held pins of a lineage."""
    return _U64_U8.pack(lineage, _PIN_HELD + 1)


def parse_held(key: bytes) -> tuple[Pin, Holder]:
    """The pin and the holder of a held row. ValueError where the holder's type is not known."""
    lineage, _state, epoch, holder_type, holder_id = _HELD.unpack(key)
    return Pin(Lineage(lineage), Epoch(epoch)), Holder(HolderType(holder_type), holder_id)


def held_epoch(key: bytes) -> int:
    """The epoch of a held row."""
    return int.from_bytes(key[9:17])


def dropping_key(lineage: int, epoch: int) -> bytes:
    """The row of a pin without holders; its value is the death epoch at which its reclaim goes on (8 bytes)."""
    return _DROPPING.pack(lineage, _PIN_DROPPING, epoch)


def dropping_start(lineage: int) -> bytes:
    """Where the rows of the pins without holders of a lineage begin."""
    return _U64_U8.pack(lineage, _PIN_DROPPING)


def dropping_end(lineage: int) -> bytes:
    """After the rows of the pins without holders of a lineage."""
    return _U64_U8.pack(lineage, _PIN_DROPPING + 1)


def is_held(pin_key: bytes) -> bool:
    """Whether a row of the pins table is a holder's (else: of a pin without holders)."""
    return pin_key[8] == _PIN_HELD


def pack_lineage(record: LineageRecord) -> bytes:
    """A lineage's row."""
    flags = (
        (_FLAG_HEAD if record.has_head else 0)
        | (_FLAG_TAIL_PENDING if record.tail_pending else 0)
        | (_FLAG_INDEXED if record.indexed else 0)
    )
    return _LINEAGE.pack(
        _LINEAGE_VERSION, flags, record.parent, record.fork_epoch, record.head_epoch, record.family, record.ino_max,
        record.inherited_ino_max,
    )  # fmt: skip


def unpack_lineage(row: bytes) -> LineageRecord:
    """Reads a lineage's row. WrongFormat where it is of a version or has flags that this program does not know."""
    if row[0] != _LINEAGE_VERSION or len(row) != _LINEAGE.size:
        raise WrongFormat(
            f"lineage record of version {row[0]}, {len(row)} bytes: written by a newer RedFS; update this one"
        )
    _version, flags, parent, fork_epoch, head_epoch, family, ino_max, inherited_ino_max = _LINEAGE.unpack(row)
    if flags & ~_FLAGS:
        raise WrongFormat(f"lineage record with unknown flags {flags:#x}: written by a newer RedFS; update this one")
    return LineageRecord(
        Lineage(parent),
        Epoch(fork_epoch),
        Epoch(head_epoch),
        bool(flags & _FLAG_HEAD),
        bool(flags & _FLAG_TAIL_PENDING),
        family,
        bool(flags & _FLAG_INDEXED),
        ino_max,
        inherited_ino_max,
    )
