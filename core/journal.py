"""The journal's formats: numbered change lists in frames, checkpoints of all tables in pieces, and who keeps them.

The coordinator's state is what its change lists, applied in order, make of nothing. Lists travel and are stored in
frames, one for each transaction. A frame names the chain value before and after it: a digest of all frames so far. So
two journals that have the same (position, chain) hold the same history up to there, whoever wrote it, and a frame can
follow only the one that it was made for. A checkpoint holds all rows at one such point.

A `JournalSet` says which nodes have every acknowledged list. Sets are numbered, and each is recorded on more than half
of all nodes before anything is acknowledged under it; so whoever hears from half of them knows the last one.

Raises WrongFormat for bytes that are not what they should be. Byte tables: docs/formats/journal.md.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, Self

import xxhash

from redfs.core.errors import WrongFormat
from redfs.core.kv import Change

Buffer = bytes | bytearray | memoryview

FILE_MAGIC = b"REDFSJNL"
VERSION = 1
INCOMPATIBLE_FEATURES = 0
"""Features that a reader must know; none yet."""
FRAME_MAGIC = b"JLST"
PIECE_MAGIC = b"JPCE"
END_MAGIC = b"JEND"
POOL_ID_BYTES = 16

MAX_FRAME_BYTES = 1 << 28
"""One transaction's lists: 256 commits of the largest size that gRPC lets in are never together, a few are."""
TERM_STARTS_BITS = 32
"""A term is the pool's incarnation and a count of starts: a restore outdoes every start of the coordinator before."""

_FILE_HEADER = struct.Struct(f">8sHHI{POOL_ID_BYTES}sQQ")
_FRAME = struct.Struct(">4sIQQQQQ")
_PIECE = struct.Struct(">4sII")
_END = struct.Struct(">4sIQQ")
_CHECKSUM = struct.Struct(">Q")
_LIST = struct.Struct(">QH")
_GROUP = struct.Struct(">BI")
_CHANGE = struct.Struct(">HI")
_POINT = struct.Struct(">QQ")

FILE_HEADER_BYTES = _FILE_HEADER.size + _CHECKSUM.size
FRAME_HEADER_BYTES = _FRAME.size + _CHECKSUM.size
PIECE_HEADER_BYTES = _PIECE.size + _CHECKSUM.size
END_BYTES = _END.size + _CHECKSUM.size


class Point(NamedTuple):
    """A place in the history."""

    position: int
    """Number of the last change list."""
    chain: int
    """Digest of all frames up to it."""


class FileKind(IntEnum):
    LISTS = 1
    CHECKPOINT = 2


NumberedList = tuple[int, Sequence[Change]]
"""(position, changes)."""


def term_of(incarnation: int, starts: int) -> int:
    """The term of that start of a coordinator, in that incarnation of the pool."""
    return incarnation << TERM_STARTS_BITS | starts


def pack_points(points: Iterable[Point]) -> bytes:
    return b"".join([_POINT.pack(*point) for point in points])


def unpack_points(packed: Buffer) -> list[Point]:
    """Raises WrongFormat where the length does not fit."""
    if len(packed) % _POINT.size:
        raise WrongFormat(f"{len(packed)} bytes are no list of points of the journal")
    return [Point(*pair) for pair in _POINT.iter_unpack(packed)]


# ---------------------------------------------------------------- files


class FileHeader(NamedTuple):
    """How a file of the journal begins."""

    kind: int
    pool_id: str
    point: Point
    """Lists: what the first frame follows. A checkpoint: what it holds."""


def encode_file_header(header: FileHeader) -> bytes:
    body = _FILE_HEADER.pack(
        FILE_MAGIC, VERSION, header.kind, INCOMPATIBLE_FEATURES, header.pool_id.encode("ascii"), *header.point
    )
    return body + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(body))


def decode_file_header(data: Buffer) -> FileHeader:
    """Raises WrongFormat."""
    if bytes(data[: len(FILE_MAGIC)]) != FILE_MAGIC or len(data) < FILE_HEADER_BYTES:
        raise WrongFormat("no file of a RedFS journal")
    magic, version, kind, features, pool_id, position, chain = _FILE_HEADER.unpack_from(data)
    del magic
    if version != VERSION or features & ~INCOMPATIBLE_FEATURES:
        raise WrongFormat(f"a journal of version {version} with features {features:#x}: use a newer RedFS")
    (checksum,) = _CHECKSUM.unpack_from(data, _FILE_HEADER.size)
    if checksum != xxhash.xxh3_64_intdigest(data[: _FILE_HEADER.size]):
        raise WrongFormat("the header of a journal's file is damaged")
    return FileHeader(kind, pool_id.decode("ascii"), Point(position, chain))


# ---------------------------------------------------------------- changes


def _encode_changes(changes: Iterable[Change], parts: list[bytes]) -> int:
    """Appends groups of changes of one table each; how many groups."""
    groups = 0
    table: str | None = None
    group: list[bytes] = []
    count = 0

    def close() -> None:
        nonlocal groups
        if table is not None:
            name = table.encode()
            parts.append(_GROUP.pack(len(name), count) + name)
            parts.extend(group)
            groups += 1

    for name, key, value in changes:
        if name != table:
            close()
            table, group, count = name, [], 0
        if value is None:
            group.append(_CHANGE.pack(len(key), 0) + key)
        else:
            group.append(_CHANGE.pack(len(key), len(value) + 1) + key + value)
        count += 1
    close()
    return groups


def _decode_group(body: memoryview, at: int) -> tuple[list[Change], int]:
    name_bytes, count = _GROUP.unpack_from(body, at)
    at += _GROUP.size
    table = str(body[at : at + name_bytes], "utf-8")
    at += name_bytes
    changes: list[Change] = []
    for _ in range(count):
        key_bytes, value_bytes = _CHANGE.unpack_from(body, at)
        at += _CHANGE.size
        key = bytes(body[at : at + key_bytes])
        at += key_bytes
        value: bytes | None = None
        if value_bytes:
            value = bytes(body[at : at + value_bytes - 1])
            at += value_bytes - 1
        changes.append((table, key, value))
    if at > len(body):
        raise WrongFormat("a change in the journal is longer than its frame")
    return changes, at


# ---------------------------------------------------------------- frames of lists


class FrameHead(NamedTuple):
    """What a frame says of itself."""

    body_bytes: int
    term: int
    first: int
    last: int
    chain_before: int
    chain: int

    @property
    def before(self) -> Point:
        return Point(self.first - 1, self.chain_before)

    @property
    def after(self) -> Point:
        return Point(self.last, self.chain)

    @property
    def whole_bytes(self) -> int:
        return FRAME_HEADER_BYTES + self.body_bytes


def encode_frame(term: int, chain_before: int, lists: Sequence[NumberedList]) -> tuple[bytes, Point]:
    """A frame of lists that follow one another, and the point that it leads to. WrongFormat where it is too large."""
    parts: list[bytes] = []
    for position, changes in lists:
        at = len(parts)
        groups = _encode_changes(changes, parts)
        parts.insert(at, _LIST.pack(position, groups))
    body = b"".join(parts)
    if len(body) > MAX_FRAME_BYTES:
        raise WrongFormat(f"the changes of one transaction have {len(body)} bytes, more than {MAX_FRAME_BYTES}")
    chain = xxhash.xxh3_64_intdigest(body, seed=chain_before)
    point = Point(lists[-1][0], chain)
    head = _FRAME.pack(FRAME_MAGIC, len(body), term, lists[0][0], point.position, chain_before, chain)
    return head + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(head)) + body, point


def decode_frame_head(data: Buffer, at: int = 0) -> FrameHead:
    """Raises WrongFormat where no whole, undamaged frame header is there."""
    if len(data) - at < FRAME_HEADER_BYTES:
        raise WrongFormat("the journal ends in the middle of a frame")
    magic, body_bytes, term, first, last, before, chain = _FRAME.unpack_from(data, at)
    (checksum,) = _CHECKSUM.unpack_from(data, at + _FRAME.size)
    if magic != FRAME_MAGIC or checksum != xxhash.xxh3_64_intdigest(data[at : at + _FRAME.size]):
        raise WrongFormat("a frame of the journal is damaged")
    if body_bytes > MAX_FRAME_BYTES or last < first:
        raise WrongFormat("a frame of the journal makes no sense")
    return FrameHead(body_bytes, term, first, last, before, chain)


def check_frame(data: Buffer, at: int = 0) -> FrameHead:
    """The head of a frame whose body is there and is what it was. Raises WrongFormat."""
    head = decode_frame_head(data, at)
    body = memoryview(data)[at + FRAME_HEADER_BYTES : at + head.whole_bytes]
    if len(body) != head.body_bytes:
        raise WrongFormat("the journal ends in the middle of a frame")
    if xxhash.xxh3_64_intdigest(body, seed=head.chain_before) != head.chain:
        raise WrongFormat("a frame of the journal is damaged")
    return head


def decode_lists(frame: Buffer) -> Iterator[tuple[int, list[Change]]]:
    """(position, changes) of each list of a checked frame. Raises WrongFormat where they do not follow one another."""
    head = decode_frame_head(frame)
    body = memoryview(frame)[FRAME_HEADER_BYTES : head.whole_bytes]
    at = 0
    expected = head.first
    try:
        while at < len(body):
            position, groups = _LIST.unpack_from(body, at)
            at += _LIST.size
            if position != expected:
                raise WrongFormat(f"list {position} of the journal stands where {expected} should")
            changes: list[Change] = []
            for _ in range(groups):
                some, at = _decode_group(body, at)
                changes += some
            yield position, changes
            expected += 1
    except struct.error as error:
        raise WrongFormat("a list of the journal is longer than its frame") from error
    if expected != head.last + 1:
        raise WrongFormat(f"a frame of the journal ends with list {expected - 1} instead of {head.last}")


class ListsFile(NamedTuple):
    """What a file of lists holds."""

    header: FileHeader
    frames: list[tuple[int, FrameHead]]
    """(offset, head), in order; each follows the one before."""
    end: int
    """Where the last whole frame ends."""
    damaged: bool
    """A frame follows behind bytes that are none: not a write that a crash cut short, but something lost."""

    @property
    def last(self) -> Point:
        return self.frames[-1][1].after if self.frames else self.header.point


def read_lists_file(data: Buffer) -> ListsFile:
    """Checks a file of lists from its beginning. WrongFormat where its header is damaged; all else is in the result."""
    header = decode_file_header(data)
    frames: list[tuple[int, FrameHead]] = []
    at = FILE_HEADER_BYTES
    point = header.point
    while at < len(data):
        try:
            head = check_frame(data, at)
        except WrongFormat:
            break
        if head.before != point:
            break
        frames.append((at, head))
        point = head.after
        at += head.whole_bytes
    return ListsFile(header, frames, at, _has_frame(data, at, point.position))


def _has_frame(data: Buffer, start: int, position: int) -> bool:
    """Whether a whole frame that is newer than the position lies somewhere behind `start`."""
    raw = bytes(data[start:])
    at = raw.find(FRAME_MAGIC)
    while at >= 0:
        try:
            if check_frame(raw, at).last > position:
                return True
        except WrongFormat:
            pass
        at = raw.find(FRAME_MAGIC, at + 1)
    return False


# ---------------------------------------------------------------- checkpoints


class CheckpointEnd(NamedTuple):
    """How a complete checkpoint ends."""

    pieces: int
    rows: int
    digest: int
    """xxh3_64 over the checksums of all pieces, in order."""


def encode_piece(number: int, rows: Sequence[Change]) -> bytes:
    """Rows of a checkpoint, in the order of tables and keys."""
    parts: list[bytes] = []
    _encode_changes(rows, parts)
    body = b"".join(parts)
    head = _PIECE.pack(PIECE_MAGIC, number, len(body))
    return head + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(body, seed=number)) + body


def piece_checksum(piece: Buffer) -> bytes:
    """What the end's digest is made of."""
    return bytes(piece[_PIECE.size : PIECE_HEADER_BYTES])


def piece_size(data: Buffer, number: int) -> int:
    """Bytes of the piece that begins with this header. Raises WrongFormat where it is not that piece's."""
    if len(data) < PIECE_HEADER_BYTES:
        raise WrongFormat("a checkpoint ends in the middle of a piece")
    magic, found, body_bytes = _PIECE.unpack_from(data)
    if magic != PIECE_MAGIC or found != number or body_bytes > MAX_FRAME_BYTES:
        raise WrongFormat(f"piece {number} of a checkpoint is damaged")
    return PIECE_HEADER_BYTES + int(body_bytes)


def check_piece(piece: Buffer, number: int) -> memoryview:
    """The piece's body. Raises WrongFormat where it is not whole and undamaged."""
    body = memoryview(piece)[PIECE_HEADER_BYTES:]
    (checksum,) = _CHECKSUM.unpack_from(piece, _PIECE.size) if len(piece) >= PIECE_HEADER_BYTES else (0,)
    if piece_size(piece, number) != len(piece) or xxhash.xxh3_64_intdigest(body, seed=number) != checksum:
        raise WrongFormat(f"piece {number} of a checkpoint is damaged")
    return body


def decode_piece(piece: Buffer, number: int) -> list[Change]:
    """The rows of a piece. Raises WrongFormat."""
    body = check_piece(piece, number)
    rows: list[Change] = []
    at = 0
    try:
        while at < len(body):
            some, at = _decode_group(body, at)
            rows += some
    except struct.error as error:
        raise WrongFormat(f"piece {number} of a checkpoint is damaged") from error
    return rows


def encode_end(end: CheckpointEnd) -> bytes:
    body = _END.pack(END_MAGIC, *end)
    return body + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(body))


def decode_end(data: Buffer) -> CheckpointEnd:
    """Raises WrongFormat."""
    if len(data) != END_BYTES or bytes(data[: len(END_MAGIC)]) != END_MAGIC:
        raise WrongFormat("a checkpoint has no end")
    (checksum,) = _CHECKSUM.unpack_from(data, _END.size)
    if checksum != xxhash.xxh3_64_intdigest(data[: _END.size]):
        raise WrongFormat("the end of a checkpoint is damaged")
    return CheckpointEnd._make(_END.unpack_from(data)[1:])


# ---------------------------------------------------------------- who keeps it


class JournalSet(NamedTuple):
    """Which nodes have every acknowledged list, from this record on until the next."""

    term: int = 0
    number: int = 0
    """Of sets in this term."""
    members: tuple[int, ...] = ()
    known: tuple[int, ...] = ()
    """All nodes that records of sets go to."""

    @property
    def age(self) -> tuple[int, int]:
        """Greater is newer."""
        return self.term, self.number

    def to_fields(self) -> dict[str, Any]:
        return {"term": self.term, "number": self.number, "members": list(self.members), "known": list(self.known)}

    @classmethod
    def from_fields(cls, fields: Any) -> Self:
        """Raises WrongFormat."""
        try:
            return cls(
                int(fields["term"]),
                int(fields["number"]),
                tuple(int(node) for node in fields["members"]),
                tuple(int(node) for node in fields["known"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise WrongFormat("a record of the journal's nodes is damaged") from error


def majority(count: int) -> int:
    """More than half of so many."""
    return count // 2 + 1


def is_recorded(answered: Collection[int], *known: Collection[int]) -> bool:
    """Whether a record that these nodes have will be heard of by whoever hears from half of the nodes, as they were
    known before and as they are known now."""
    return all(len(set(answered) & set(some)) >= majority(len(some)) for some in known if some)


def is_last_set(heard: Collection[int], newest: JournalSet) -> bool:
    """Whether the newest record that was heard of is the last one there is: no majority is without these nodes."""
    count = len(newest.known)
    return len(set(heard) & set(newest.known)) >= count - majority(count) + 1


class Candidate(NamedTuple):
    """A node that can keep the journal."""

    node_id: int
    domain: str
    """Failure domain; empty: one of its own."""
    disk: str
    """Nodes that say the same share a disk; empty: one of its own."""


def choose_keepers(
    candidates: Iterable[Candidate], copies: int, keep: Collection[int] = (), share_disks: bool = False
) -> list[int]:
    """Up to `copies` nodes for the journal: of different domains where there are enough, and never two on one disk,
    where a second copy costs time and protects from nothing, unless `share_disks`. Those in `keep` come first."""
    ordered = sorted(candidates, key=lambda c: (c.node_id not in keep, c.node_id))
    chosen: list[Candidate] = []
    for apart_domains, apart_disks in ((True, True), (False, True), (False, False)):
        if not apart_disks and not share_disks:
            break
        for candidate in ordered:
            if len(chosen) >= copies or candidate in chosen:
                continue
            if apart_domains and candidate.domain and any(c.domain == candidate.domain for c in chosen):
                continue
            if apart_disks and candidate.disk and any(c.disk == candidate.disk for c in chosen):
                continue
            chosen.append(candidate)
    return sorted(c.node_id for c in chosen)
