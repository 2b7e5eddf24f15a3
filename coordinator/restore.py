"""A coordinator whose disk is gone, made anew from the journal on its storage nodes.

The restoring process dials the nodes' data plane: they serve it whether or not they find a coordinator, at the
addresses that their operator knows, while their streams go to the old coordinator's address only.

What it does, in this order:

1. asks every node which set of nodes had the journal last, and whether half of the nodes answered (`core/journal.py`):
   only then is it sure which one was the last, and that one member of it has everything that was acknowledged;
2. raises the term on all of them, so that a coordinator that still runs somewhere is refused and stops;
3. reads the newest complete checkpoint of a member and all lists behind it, checked by their chain, into a store
   beside; where a node's files are damaged, the next one's are read;
4. raises the incarnation and all counters in one more list, so that no id is ever used again, and remembers up to where
   the old incarnation's segments are known: shards of later ones are left alone (`nodes.py`);
5. puts the store in place, last of all.

| it ends after step | what that leaves |
|---|---|
| 1 | nothing has changed |
| 2, 3, 4 | the old coordinator is refused, the folder has no metadata: restore again |
| 5 | done |

With `force` it takes the best that answers, says what that may lack, and ends all sessions, because what their clients
know may be newer. Raises Unavailable (too few nodes: name more), Corrupt (no journal can be read), AlreadyExists,
WrongFormat (several pools), InvalidArgument.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import xxhash

from redfs.coordinator.coordinator import ALL_TABLES, Coordinator, apply
from redfs.coordinator.environment import CoordinatorConfig, SystemClock, SystemRandomness
from redfs.coordinator.identity import POOL_ID_CHARS, DataFolder
from redfs.coordinator.journal import JOURNAL, POINT_KEY, SET_KEY, STARTS_KEY, frame_key
from redfs.coordinator.sessions import end_session
from redfs.coordinator.store import STORE_FILE, KvStore, LmdbStore, Writable
from redfs.core.errors import AlreadyExists, Corrupt, InvalidArgument, RedfsError, Unavailable, WrongFormat
from redfs.core.ids import INCARNATION_BITS
from redfs.core.journal import (
    END_BYTES,
    FILE_HEADER_BYTES,
    PIECE_HEADER_BYTES,
    TERM_STARTS_BITS,
    JournalSet,
    Point,
    decode_end,
    decode_file_header,
    decode_lists,
    decode_piece,
    encode_frame,
    is_last_set,
    majority,
    pack_points,
    piece_checksum,
    piece_size,
    read_lists_file,
    term_of,
)
from redfs.core.kv import Change, ReadKv
from redfs.core.tables import (
    ALL_U64,
    FAMILIES,
    INCARNATION_KEY,
    META,
    NEXT_JOB_KEY,
    NEXT_NODE_KEY,
    NEXT_SCHEDULE_KEY,
    NEXT_SEGMENT_KEY,
    NEXT_SESSION_KEY,
    NEXT_VOLUME_KEY,
    POOL_ID_KEY,
    SESSIONS,
    decode_u64,
    encode_u64,
    segments_known_key,
)
from redfs.proto import journal_plane
from redfs.proto.data_plane import NodeConnection
from redfs.proto.journal_plane import NodeJournal

ATTEMPTS = 3
"""To reach a node: a busy one may miss the time once."""
BESIDE = "restoring"
"""Folder in which the store grows until it is whole."""
TRANSACTION_BYTES = 16 << 20
"""Of rows: a durable commit for each would take longer than everything else."""
SKIPPED_IDS = 1 << 20
"""Counters go on behind this: ids may have been seen that no list here tells of."""
SKIPPED_NODES = 64
"""The same for nodes, whose numbers people type."""
SKIPPED_INODES = 1 << 24
"""Mounts get inode numbers in ranges of thousands."""

log = logging.getLogger(__name__)


class Restored(NamedTuple):
    """What became of it."""

    pool_id: str
    node_id: int
    """Whose journal was read."""
    checkpoint_position: int
    position: int
    """Number of the last list that was there."""
    incarnation: int
    is_sure: bool
    """Nothing that was acknowledged is missing."""
    warnings: list[str]


@dataclass
class _Node:
    address: str
    connection: NodeConnection
    has: NodeJournal

    @property
    def node_id(self) -> int:
        return self.connection.node_id


@dataclass
class _Run:
    """Lists of one node that follow one another."""

    base: Point
    last: Point
    term: int
    """Of the last frame."""
    names: list[tuple[str, int]] = field(default_factory=list)


class Source(NamedTuple):
    """A journal that can be read from beginning to end."""

    node: _Node
    checkpoint: tuple[str, int]
    point: Point
    """Of the checkpoint."""
    run: _Run


def restore(
    folder: DataFolder, config: CoordinatorConfig, addresses: Sequence[str], pool_id: str = "", force: bool = False
) -> Restored:
    """See the module."""
    if (folder.path / STORE_FILE).exists():
        raise AlreadyExists(f"{folder.path} has metadata: start the coordinator on it, or restore to another folder")
    pool_id = pool_id or folder.pool_id() or ""
    warnings: list[str] = []
    with ExitStack() as stack:
        nodes = _ask_all(stack, addresses, pool_id, warnings)
        doubts = doubts_about(nodes)
        if doubts and not force:
            raise _refusal(doubts, warnings)
        incarnation = (max(node.has.term for node in nodes) >> TERM_STARTS_BITS) + 1
        if incarnation >= 1 << INCARNATION_BITS:
            raise InvalidArgument(f"the pool was restored {incarnation - 1} times: there are no more incarnations")
        nodes = _raise_term(nodes, term_of(incarnation, 0), warnings)
        newest = _newest(nodes)
        doubts = doubts_about(nodes)
        if doubts and not force:
            raise _refusal(doubts, warnings)
        warnings += doubts
        source, store = _read_best(folder.path, config, nodes, newest, bool(doubts), warnings)
        try:
            position = _finish(store, source, incarnation, newest)
            if doubts:
                _end_sessions(store, config)
            found = store_pool_id(store)
        finally:
            store.close()
    _put_in_place(folder.path)
    folder.claim(found)
    return Restored(
        found, source.node.node_id, source.point.position, position, incarnation, not doubts, list(warnings)
    )


# ---------------------------------------------------------------- who has it


def _ask_all(stack: ExitStack, addresses: Sequence[str], pool_id: str, warnings: list[str]) -> list[_Node]:
    nodes: dict[int, _Node] = {}
    for address in dict.fromkeys(addresses):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                connection = stack.enter_context(NodeConnection.open(address, pool_id=pool_id))
                if not connection.node_id:
                    raise WrongFormat("it has joined no pool yet")
                nodes[connection.node_id] = _Node(address, connection, journal_plane.state(connection))
                break
            except RedfsError as error:
                if attempt == ATTEMPTS or not isinstance(error, Unavailable):
                    warnings.append(f"{address} was left out: {error}")
                    break
    if not nodes:
        raise Unavailable("no storage node answered: " + ("; ".join(warnings) or "name some with --node"))
    pools = {node.connection.pool_id for node in nodes.values()}
    if len(pools) > 1:
        raise WrongFormat(f"the nodes belong to several pools ({', '.join(sorted(pools))}): say which with --pool-id")
    return list(nodes.values())


def _refusal(doubts: Sequence[str], warnings: Sequence[str]) -> Unavailable:
    left_out = f" ({'; '.join(warnings)})" if warnings else ""
    return Unavailable(f"{doubts[0]}; or take what there is with --force{left_out}")


def _newest(nodes: Sequence[_Node]) -> JournalSet:
    return max((node.has.newest for node in nodes), key=lambda record: record.age)


def doubts_about(nodes: Sequence[_Node]) -> list[str]:
    """Why something acknowledged may be missing, one sentence each; none: nothing is."""
    newest = _newest(nodes)
    heard = {node.node_id for node in nodes}
    if not newest.known:
        return ["no node that answered knows of a journal: name all nodes with --node"]
    if not is_last_set(heard, newest):
        needed = len(newest.known) - majority(len(newest.known)) + 1
        there = len(heard & set(newest.known))
        return [
            f"{there} of the pool's {len(newest.known)} nodes answered, and {needed} must, to know who had the journal "
            "last: name more with --node"
        ]
    if not newest.members:
        return ["the last that the nodes know is that no node had the journal: changes after that are lost"]
    if not heard & set(newest.members):
        names = ", ".join(map(str, newest.members))
        return [f"none of the nodes that had the journal last answered ({names}): start one, name it with --node"]
    return []


def _raise_term(nodes: Sequence[_Node], term: int, warnings: list[str]) -> list[_Node]:
    """Those on which no older coordinator can write any more, with what they have from now on."""
    kept = []
    for node in nodes:
        try:
            journal_plane.fence(node.connection, term)
            kept.append(replace(node, has=journal_plane.state(node.connection)))
        except RedfsError as error:
            warnings.append(f"{node.address} was left out: {error}")
    if not kept:
        raise Unavailable("no storage node let the restore begin: " + "; ".join(warnings))
    return kept


# ---------------------------------------------------------------- reading


def _read_best(
    folder: Path,
    config: CoordinatorConfig,
    nodes: Sequence[_Node],
    newest: JournalSet,
    any_node: bool,
    warnings: list[str],
) -> tuple[Source, LmdbStore]:
    """The store, filled from the newest journal that can be read."""
    sources = []
    for node in nodes:
        if not any_node and node.node_id not in newest.members:
            continue
        try:
            found = find_source(node, any_run=any_node)
        except RedfsError as error:
            warnings.append(f"node {node.node_id} has no journal to read: {error}")
        else:
            sources.append(found)
    sources.sort(key=lambda source: (source.run.term, source.run.last.position), reverse=True)
    for source in sources:
        log.info("reading the journal of node %d, up to list %d", source.node.node_id, source.run.last.position)
        beside = folder / BESIDE
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        store = LmdbStore(beside, (*ALL_TABLES, JOURNAL), config.map_bytes)
        try:
            _fill(store, source)
        except (WrongFormat, Corrupt, Unavailable) as error:
            store.close()
            warnings.append(f"the journal of node {source.node.node_id} cannot be read: {error}")
        except BaseException:
            store.close()
            raise
        else:
            return source, store
    raise Corrupt("no journal can be read: " + "; ".join(warnings))


def find_source(node: _Node, any_run: bool) -> Source:
    """The newest checkpoint of a node that its lists go on from: its newest run of lists, or with `any_run` the newest
    that there is one for. Raises Corrupt."""
    runs = _runs_of(node, any_run)
    for run in reversed(runs if any_run else runs[-1:]):
        for name, size in reversed(node.has.files):
            point = _end_of(node, name, size) if name.endswith(".checkpoint") else None
            if point is not None and run.base.position <= point.position <= run.last.position:
                return Source(node, (name, size), point, run)
    raise Corrupt("it has no complete checkpoint with the lists behind it")


def _runs_of(node: _Node, any_run: bool) -> list[_Run]:
    runs: list[_Run] = []
    for name, size in node.has.files:
        if not name.endswith(".lists"):
            continue
        try:
            lists = read_lists_file(_whole_file(node, name, size))
        except WrongFormat as error:
            # One that a crash left without its first page holds nothing.
            if size > FILE_HEADER_BYTES and not any_run:
                raise Corrupt(f"{name}: {error}") from error
            continue
        if lists.damaged and not any_run:
            raise Corrupt(f"{name} is damaged in its middle")
        if not runs or runs[-1].last != lists.header.point:
            runs.append(_Run(lists.header.point, lists.header.point, 0))
        run = runs[-1]
        run.names.append((name, size))
        run.last = lists.last
        if lists.frames:
            run.term = lists.frames[-1][1].term
    return runs


def _end_of(node: _Node, name: str, size: int) -> Point | None:
    """The point of a checkpoint that is complete."""
    try:
        head = node.connection.ask({"op": "jread", "name": name, "o": 0, "n": FILE_HEADER_BYTES}).payload
        end = node.connection.ask({"op": "jread", "name": name, "o": size - END_BYTES, "n": END_BYTES}).payload
        decode_end(end)
        return decode_file_header(head).point
    except RedfsError:
        return None


def _whole_file(node: _Node, name: str, size: int) -> bytes:
    return b"".join(journal_plane.read_file(node.connection, name, size))


def _fill(store: KvStore, source: Source) -> None:
    rows: list[Change] = []
    size = 0
    for piece in _pieces(source):
        rows += piece
        size += sum(len(key) + len(value or b"") for _, key, value in piece)
        if size >= TRANSACTION_BYTES:
            _put(store, rows)
            rows, size = [], 0
    _put(store, rows)
    frames: list[bytes] = []
    size = 0
    for frame in _frames(source):
        frames.append(frame)
        size += len(frame)
        if size >= TRANSACTION_BYTES:
            _apply(store, frames)
            frames, size = [], 0
    _apply(store, frames)


def _put(store: KvStore, rows: list[Change]) -> None:
    store.write(lambda kv: kv.apply(rows))


def _apply(store: KvStore, frames: Sequence[bytes]) -> None:
    def body(kv: Writable) -> None:
        for frame in frames:
            for position, changes in decode_lists(frame):
                apply(kv, position, changes)

    store.write(body)


def _pieces(source: Source) -> Iterator[list[Change]]:
    """The rows of the checkpoint. Raises WrongFormat where it is damaged."""
    name, size = source.checkpoint
    waiting = bytearray()
    number = rows = 0
    digest = xxhash.xxh3_64()
    at = FILE_HEADER_BYTES
    blocks = journal_plane.read_file(source.node.connection, name, size)
    for block in blocks:
        waiting += block
        while len(waiting) >= at + PIECE_HEADER_BYTES and size - END_BYTES > at:
            length = piece_size(bytes(waiting[at : at + PIECE_HEADER_BYTES]), number)
            if len(waiting) < at + length:
                break
            piece = bytes(waiting[at : at + length])
            found = decode_piece(piece, number)
            digest.update(piece_checksum(piece))
            rows += len(found)
            number += 1
            yield found
            del waiting[: at + length]
            size -= at + length
            at = 0
    if tuple(decode_end(bytes(waiting[at:]))) != (number, rows, digest.intdigest()):
        raise WrongFormat("the checkpoint has other pieces than its end says")


def _frames(source: Source) -> Iterator[bytes]:
    """The frames behind the checkpoint. Raises WrongFormat where one is missing or the checkpoint is none of this
    history."""
    point = source.run.base
    joined = point == source.point
    for name, size in source.run.names:
        data = _whole_file(source.node, name, size)
        for offset, head in read_lists_file(data).frames:
            if head.before != point:
                raise WrongFormat(f"{name} does not go on from list {point.position}")
            point = head.after
            if joined:
                yield data[offset : offset + head.whole_bytes]
            joined = joined or point == source.point
    if not joined:
        raise WrongFormat("the checkpoint and the lists are of different histories")


# ---------------------------------------------------------------- the new beginning


def store_pool_id(store: KvStore) -> str:
    """The pool that the restored tables are of."""
    with store.read() as kv:
        return (kv.get(META, POOL_ID_KEY) or b"").decode()[:POOL_ID_CHARS]


def _finish(store: KvStore, source: Source, incarnation: int, newest: JournalSet) -> int:
    """One more list: a new incarnation, in which every counter goes on behind what was handed out. It waits in the
    journal's table for the nodes. Returns the number of the last list that was there."""

    def body(kv: Writable) -> int:
        last = source.run.last
        changes = new_beginning(kv, incarnation)
        apply(kv, last.position + 1, changes)
        frame, point = encode_frame(term_of(incarnation, 0), last.chain, [(last.position + 1, changes)])
        kv.put(JOURNAL, POINT_KEY, pack_points([point]))
        kv.put(JOURNAL, frame_key(point.position), frame)
        kv.put(JOURNAL, STARTS_KEY, encode_u64(0))
        kv.put(JOURNAL, SET_KEY, json.dumps(newest.to_fields()).encode())
        return last.position

    return store.write(body)


def new_beginning(kv: ReadKv, incarnation: int) -> list[Change]:
    """The changes that keep every id from being used again."""
    before = decode_u64(kv.get(META, INCARNATION_KEY) or encode_u64(0))
    next_segment = decode_u64(kv.get(META, NEXT_SEGMENT_KEY) or encode_u64(1))
    changes: list[Change] = [
        (META, INCARNATION_KEY, encode_u64(incarnation)),
        (META, segments_known_key(before), encode_u64(next_segment)),
        (META, NEXT_SEGMENT_KEY, encode_u64(1)),
    ]
    # An incarnation in between may have given out ids that no list here tells of.
    changes += [(META, segments_known_key(n), encode_u64(1)) for n in range(before + 1, incarnation)]
    for counter in (NEXT_VOLUME_KEY, NEXT_SESSION_KEY, NEXT_JOB_KEY, NEXT_SCHEDULE_KEY):
        number = decode_u64(kv.get(META, counter) or encode_u64(1))
        changes.append((META, counter, encode_u64(number + SKIPPED_IDS)))
    number = decode_u64(kv.get(META, NEXT_NODE_KEY) or encode_u64(1))
    changes.append((META, NEXT_NODE_KEY, encode_u64(number + SKIPPED_NODES)))
    for key, raw in kv.scan(FAMILIES, b"", ALL_U64):
        changes.append((FAMILIES, key, encode_u64(decode_u64(raw) + SKIPPED_INODES)))
    return changes


def _end_sessions(store: KvStore, config: CoordinatorConfig) -> None:
    """Clients may know more than these tables do: each has to begin a new session."""
    coordinator = Coordinator(store, config, SystemClock(), SystemRandomness())
    with store.read() as kv:
        there = [decode_u64(key) for key, _ in kv.scan(SESSIONS, b"", ALL_U64)]
    for session_id in there:
        coordinator.execute(lambda txn, session_id=session_id: end_session(txn, session_id))  # type: ignore[misc]


def _put_in_place(folder: Path) -> None:
    beside = folder / BESIDE
    (beside / STORE_FILE).rename(folder / STORE_FILE)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    shutil.rmtree(beside, ignore_errors=True)
