"""The journal on the data plane: requests that a coordinator makes of storage nodes, and how they are answered.

They go over data-plane connections rather than over the nodes' gRPC streams, because every fsync in the pool waits for
an append: a blocking socket and a thread of its own on the node take 0.1 ms where a stream through two event loops
takes 1 ms, and an append never waits behind an order to delete thousands of shards.

| op | header | payload | answer |
|---|---|---|---|
| `jset` | a `JournalSet` in `set` | | the newest set that the node knows, in `set` |
| `jfence` | `term` | | lower terms are refused from now on |
| `jopen` | `term`, `points` | | `match`, `end` (packed points or empty), `whole`, `lists`, `checkpoint` (bytes) |
| `jreset` | `to`: a packed point | | |
| `jappend` | `to`, `more` (1: the frame goes on in the next request, which is answered for all) | a frame | `at` |
| `jbegin`, `jpiece`, `jend` | `term`; `to`; `end` | a piece | |
| `jdrop` | `term`, `before` | | |
| `jstate` | | | `state` |
| `jread` | `name`, `o`, `n` | | bytes of a file |

`jopen` makes the connection the writer's, and the only one. Any error of the family is answered as on the data plane.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from redfs.core.errors import WrongFormat
from redfs.core.journal import CheckpointEnd, JournalSet, Point, pack_points, unpack_points
from redfs.proto.data_plane import NodeConnection
from redfs.proto.frames import Header

MAX_POINTS: Final = 1024
"""Points in one `jopen`: 16 KiB, which stays below the header limit."""
PART_BYTES: Final = 8 << 20
"""A frame that is longer goes in parts."""
READ_BYTES: Final = 4 << 20


class Standing(NamedTuple):
    """How a node's journal stands when a writer comes."""

    match: Point | None
    """The newest of the writer's points that the node has."""
    end: Point | None
    """Where its lists end."""
    whole: bool
    """With the lists up to `match` it has everything."""
    lists_bytes: int
    checkpoint_bytes: int


class NodeJournal(NamedTuple):
    """What a node has, for a restore."""

    term: int
    newest: JournalSet
    files: list[tuple[str, int]]
    """(name, bytes), oldest first."""


def one_point(packed: object) -> Point | None:
    """A packed point, or None for nothing. Raises WrongFormat."""
    if not isinstance(packed, bytes):
        raise WrongFormat("a point of the journal is no bytes")
    points = unpack_points(packed)
    return points[0] if points else None


def append_parts(before: Point, frame: bytes) -> Iterator[tuple[Header, memoryview]]:
    """The requests that append a frame; only the last one is answered."""
    view = memoryview(frame)
    packed = pack_points([before])
    for start in range(0, len(view), PART_BYTES):
        more = int(start + PART_BYTES < len(view))
        yield {"op": "jappend", "to": packed, "more": more}, view[start : start + PART_BYTES]


def note_set(node: NodeConnection, given: JournalSet) -> JournalSet:
    """Has a node remember which nodes keep the journal; the newest record that it knows. Raises Fenced."""
    return JournalSet.from_fields(node.ask({"op": "jset", "set": given.to_fields()}).header.get("set"))


def fence(node: NodeConnection, term: int) -> None:
    """Has a node refuse coordinators of lower terms. Raises Fenced where it knows a higher one."""
    node.ask({"op": "jfence", "term": term})


def open_writer(node: NodeConnection, term: int, points: Iterable[Point]) -> Standing:
    """Makes this connection the journal's only writer there. Raises Fenced."""
    header = node.ask({"op": "jopen", "term": term, "points": pack_points(points)}).header
    try:
        return Standing(
            one_point(header["match"]),
            one_point(header["end"]),
            bool(header["whole"]),
            int(header["lists"]),
            int(header["checkpoint"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WrongFormat("the node's answer about its journal is not understood") from error


def reset(node: NodeConnection, point: Point) -> None:
    """Begins anew behind a point; a checkpoint must follow."""
    node.ask({"op": "jreset", "to": pack_points([point])})


def begin_checkpoint(node: NodeConnection, term: int, point: Point) -> None:
    node.ask({"op": "jbegin", "term": term, "to": pack_points([point])})


def send_piece(node: NodeConnection, term: int, piece: bytes) -> None:
    node.ask({"op": "jpiece", "term": term}, (piece,))


def end_checkpoint(node: NodeConnection, term: int, end: CheckpointEnd) -> None:
    """The checkpoint is complete and durable when it returns."""
    node.ask({"op": "jend", "term": term, "end": list(end)})


def drop(node: NodeConnection, term: int, before: int) -> None:
    """What a complete checkpoint at or behind that position makes needless may go."""
    node.ask({"op": "jdrop", "term": term, "before": before})


def state(node: NodeConnection) -> NodeJournal:
    """What the node has."""
    found: Any = node.ask({"op": "jstate"}).header.get("state")
    try:
        files = [(str(name), int(size)) for name, size in found["files"]]
        return NodeJournal(int(found["term"]), JournalSet.from_fields(found["set"]), files)
    except (KeyError, TypeError, ValueError) as error:
        raise WrongFormat("the node's answer about its journal is not understood") from error


def read_file(node: NodeConnection, name: str, size: int) -> Iterator[memoryview]:
    """A file's bytes, piece by piece."""
    for offset in range(0, size, READ_BYTES):
        yield node.ask({"op": "jread", "name": name, "o": offset, "n": min(READ_BYTES, size - offset)}).payload
