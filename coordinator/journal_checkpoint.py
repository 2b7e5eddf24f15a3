"""A checkpoint: all rows at one point, from one read transaction, in pieces to several nodes at once.

The journal goes on meanwhile: each node has all lists behind some point before the transaction began, so checkpoint
and lists together leave nothing out. Memory is one piece; the rate has a bound, so that writers keep their disk. A node
that fails falls out of it. Where the store has to grow, which waits for readers, the checkpoint gives way.

Fails with Unavailable (it gave way, or no node is left: try again later).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import xxhash

from redfs.coordinator.journal import point_in
from redfs.coordinator.journal_peers import CheckpointTarget
from redfs.coordinator.store import KvStore
from redfs.core.errors import Fenced, InternalError, RedfsError, Unavailable
from redfs.core.journal import CheckpointEnd, encode_piece, piece_checksum
from redfs.core.kv import Change, ReadKv

PIECE_BYTES = 1 << 20
"""Rows in one piece: large enough for the network, small enough to stop between two."""
ALL_KEYS = b"\xff" * 512
"""Greater than every key: LMDB's have at most 511 bytes."""

log = logging.getLogger(__name__)


class Written(NamedTuple):
    """A checkpoint that is complete."""

    position: int
    size: int
    nodes: list[int]


def pieces_of(kv: ReadKv, tables: Sequence[str]) -> Iterator[list[Change]]:
    """All rows, in pieces of about PIECE_BYTES."""
    rows: list[Change] = []
    size = 0
    for table in tables:
        for key, value in kv.scan(table, b"", ALL_KEYS):
            rows.append((table, key, value))
            size += len(key) + len(value)
            if size >= PIECE_BYTES:
                yield rows
                rows, size = [], 0
    if rows:
        yield rows


def write_checkpoint(
    store: KvStore,
    tables: Sequence[str],
    targets: Sequence[CheckpointTarget],
    term: int,
    rate: float,
    pause: Callable[[float], None],
) -> Written:
    """Sends a checkpoint to all targets that do not fail. `pause` is called with seconds to keep to `rate` bytes a
    second. Raises Unavailable, Fenced."""
    live = list(targets)
    digest = xxhash.xxh3_64()
    number = rows_sent = size = 0
    with store.read() as kv:
        point = point_in(kv)
        if point is None:
            raise InternalError("a checkpoint was begun before the journal")
        live = _all(live, lambda target: target.begin(term, point))
        for rows in pieces_of(kv, tables):
            if getattr(store, "wants_to_grow", False):
                raise Unavailable("the metadata store has to grow: the checkpoint is made again")
            piece = encode_piece(number, rows)
            live = _all(live, lambda target, piece=piece: target.piece(term, piece))  # type: ignore[misc]  # bound now
            digest.update(piece_checksum(piece))
            number += 1
            rows_sent += len(rows)
            size += len(piece)
            pause(len(piece) / rate)
    end = CheckpointEnd(number, rows_sent, digest.intdigest())
    live = _all(live, lambda target: target.end(term, end))
    for target in live:
        try:
            target.drop(term, point.position)
        except RedfsError as error:
            log.warning("node %d keeps older files of the journal: %s", target.node_id, error)
    return Written(point.position, size, [target.node_id for target in live])


def _all(targets: Sequence[CheckpointTarget], work: Callable[[CheckpointTarget], None]) -> list[CheckpointTarget]:
    """Those that did it. Raises Unavailable where none did."""
    done = []
    for target in targets:
        try:
            work(target)
        except Fenced:
            raise
        except RedfsError as error:
            log.warning("node %d does not get the checkpoint: %s", target.node_id, error)
        else:
            done.append(target)
    if not done:
        raise Unavailable("no storage node took the checkpoint")
    return done
