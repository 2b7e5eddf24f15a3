"""What one command works on: the tables through its own overlay, references that it changed, effects after the commit.

A command is a function of a `Txn`. It reads and writes tables, may raise any error of the family (then its overlay is
dropped and nothing of it stays), and must have no effect outside: what memory must do goes to `after_commit`. It may
be run more than once where the store has to grow.

References are exact at every commit: each SLOT record that comes or goes changes the counts of the blocks that its
pieces name, and `settle`, which runs at the end of every command, carries the sums to blocks, segments and totals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from redfs.coordinator.cluster import Cluster
from redfs.coordinator.environment import Clock, CoordinatorConfig, Hooks, Randomness
from redfs.coordinator.figures import FiguresBook
from redfs.coordinator.hold_book import HoldBook
from redfs.coordinator.leases import Leases
from redfs.coordinator.open_book import OpenBook
from redfs.coordinator.progress import JobProgress
from redfs.coordinator.redundancy import RedundancyBook
from redfs.core.errors import InternalError
from redfs.core.kv import Change, Overlay, ReadKv
from redfs.core.records import Kind, Slot, decode_slot
from redfs.core.tables import (
    BLOCKS,
    DAMAGE,
    DEDUPE,
    DOOMED,
    META,
    OPEN_SEGMENTS,
    SEGMENTS,
    STATS_KEY,
    BlockRow,
    SegmentRow,
    SegmentState,
    StatsRow,
    decode_block,
    decode_segment,
    decode_stats,
    decode_u64,
    dedupe_key,
    doomed_key,
    encode_block,
    encode_i64,
    encode_segment,
    encode_stats,
    encode_u64,
    pair_key,
    shard_key,
    u64_key,
)
from redfs.core.versions.ancestry import Ancestry
from redfs.core.versions.store import VersionStore
from redfs.core.versions.weights import Weight
from redfs.core.volume_tree import VolumeTree


@dataclass
class Environment:
    """What commands may look at beside the tables."""

    config: CoordinatorConfig
    clock: Clock
    randomness: Randomness
    cluster: Cluster
    leases: Leases
    progress: JobProgress
    hooks: Hooks = field(default_factory=Hooks)
    figures: FiguresBook = field(default_factory=FiguresBook)
    open_book: OpenBook = field(default_factory=OpenBook)
    holds: HoldBook = field(default_factory=HoldBook)
    redundancy: RedundancyBook = field(default_factory=RedundancyBook)
    answered_operations: dict[int, int] = field(default_factory=dict)
    """session id -> all its operations in shared mode up to this number were answered: none of them is run again."""
    last_stamp_ns: int = 0
    recalled: dict[int, int] = field(default_factory=dict)
    """volume -> who gave its delegation back, until that one's kernel shows nothing old any more (`sharing.py`)."""
    unwritten_schedule_errors: dict[int, str] = field(default_factory=dict)
    """schedule id -> why its last run failed, while that cannot be written to its row."""
    ancestry: Ancestry = field(default_factory=Ancestry)
    """What reads have learned of who descends from whom: commands and other reads need not walk through it again."""

    def forget_operations(self, session_id: int) -> None:
        """A session ended."""
        self.answered_operations.pop(session_id, None)

    def stamp_ns(self) -> int:
        """The time now, later than every stamp before: no two changes of shared files have the same. State thread."""
        self.last_stamp_ns = max(self.clock.time_ns(), self.last_stamp_ns + 1)
        return self.last_stamp_ns


class Txn:
    """One command's transaction."""

    def __init__(self, base: ReadKv, env: Environment) -> None:
        self.env = env
        self.kv = Overlay(base)
        self.versions = VersionStore(self.kv, self._freed, lambda slot: self._known_slot(slot)[1], env.ancestry)
        self.tree = VolumeTree(self.kv)
        self.after_commit: list[Callable[[], None]] = []
        self.fresh_blocks: Mapping[int, BlockRow] = {}
        """Blocks that get their rows at the end of the command, if something refers to them then."""
        self._references: dict[int, int] = {}
        self._slots: dict[bytes, tuple[Slot, Weight]] = {}
        self._totals = StatsRow()

    @property
    def now_ns(self) -> int:
        return self.env.clock.time_ns()

    def changes(self) -> list[Change]:
        return self.kv.changes()

    def next_number(self, counter: bytes, count: int = 1) -> int:
        """Takes `count` numbers from a counter that starts at 1 and never goes back; returns the first."""
        raw = self.kv.get(META, counter)
        first = 1 if raw is None else decode_u64(raw)
        self.kv.put(META, counter, encode_u64(first + count))
        return first

    # -- versioned records

    def put_record(self, lineage: int, kind: int, obj: bytes, value: bytes) -> None:
        """Stores a record at the head of a lineage, references counted."""
        self.versions.put(lineage, kind, obj, value)
        if kind == Kind.SLOT:
            self._refer(value, 1)

    def _freed(self, kind: int, obj: bytes, value: bytes) -> None:
        if kind == Kind.SLOT:
            self._refer(value, -1)

    def _refer(self, slot: bytes, sign: int) -> None:
        references = self._references
        pieces, weight = self._known_slot(slot)
        for piece in pieces:
            references[piece.block] = references.get(piece.block, 0) + sign
        self.count(StatsRow(logical_bytes=sign * weight.logical_bytes, charged_bytes=sign * weight.stored_bytes))

    def _known_slot(self, slot: bytes) -> tuple[Slot, Weight]:
        """A slot's pieces and weight. Raises InternalError where it names a block that has no row."""
        known = self._slots.get(slot)
        if known is None:
            pieces = decode_slot(slot)
            known = self._slots[slot] = pieces, weigh_pieces(pieces, self._stored_block)
        return known

    def _stored_block(self, block_id: int) -> BlockRow:
        row = self.fresh_blocks.get(block_id) or self.block(block_id)
        if row is None:
            raise InternalError(f"a slot names block {block_id:#x}, which has no row: run `redfs check`")
        return row

    # -- blocks and segments

    @property
    def counted(self) -> StatsRow:
        """What this command changed in the totals so far, `settle` apart."""
        return self._totals

    def count(self, change: StatsRow) -> None:
        """Adds to the totals."""
        self._totals = self._totals.plus(change)

    def block(self, block_id: int) -> BlockRow | None:
        raw = self.kv.get(BLOCKS, u64_key(block_id))
        return None if raw is None else decode_block(raw)

    def segment(self, segment_id: int) -> SegmentRow | None:
        raw = self.kv.get(SEGMENTS, u64_key(segment_id))
        return None if raw is None else decode_segment(raw)

    def settle(
        self, new_blocks: Mapping[int, BlockRow] | None = None, new_segments: Mapping[int, SegmentRow] | None = None
    ) -> None:
        """Carries the changed references to blocks, segments, dedupe index and totals.

        `new_blocks` (with refs 0) get a row if something refers to them now; `new_segments` (committed, live 0, not
        stored yet) are stored, or doomed where nothing in them is live. Raises InternalError where a count would
        become negative.
        """
        self.versions.flush()
        fresh = new_blocks or {}
        references, self._references = self._references, {}
        live: dict[int, int] = {}
        domains: dict[int, SegmentRow] = dict(new_segments or {})
        dead: list[tuple[int, BlockRow]] = []
        for block_id, delta in references.items():
            new = fresh.get(block_id)
            if delta == 0:
                continue
            row = new or self.block(block_id)
            if row is None or row.refs + delta < 0:
                raise InternalError(f"block {block_id:#x} has fewer references than go: run `redfs check`")
            row = row._replace(refs=row.refs + delta)
            if row.refs == 0:
                dead.append((block_id, row))
                live[row.segment_id] = live.get(row.segment_id, 0) - row.stored_bytes
                self.count(_block_totals(row, -1))
                continue
            self.kv.put(BLOCKS, u64_key(block_id), encode_block(row))
            if new is not None:
                live[row.segment_id] = live.get(row.segment_id, 0) + row.stored_bytes
                domain = domains[row.segment_id].domain
                self.kv.put(DEDUPE, dedupe_key(domain, row.fingerprint), encode_u64(block_id))
                self.count(_block_totals(row, 1))
        for block_id, row in dead:
            segment = domains.get(row.segment_id) or self.segment(row.segment_id)
            if segment is None:
                raise InternalError(f"block {block_id:#x} lies in segment {row.segment_id:#x}, which has no row")
            domains[row.segment_id] = segment
            self.kv.delete(BLOCKS, u64_key(block_id))
            index = dedupe_key(segment.domain, row.fingerprint)
            if self.kv.get(DEDUPE, index) == encode_u64(block_id):
                self.kv.delete(DEDUPE, index)
        for segment_id in {*live, *(new_segments or {})}:
            self._settle_segment(segment_id, domains.get(segment_id), live.get(segment_id, 0), new_segments or {})
        if any(self._totals):
            raw = self.kv.get(META, STATS_KEY)
            totals = self._totals.plus(StatsRow() if raw is None else decode_stats(raw))
            if min(totals) < 0:
                raise InternalError("the pool's totals would become negative: run `redfs check`")
            self.kv.put(META, STATS_KEY, encode_stats(totals))
            self._totals = StatsRow()

    def _settle_segment(
        self, segment_id: int, row: SegmentRow | None, delta: int, new_segments: Mapping[int, SegmentRow]
    ) -> None:
        if row is None or row.live_bytes + delta < 0:
            raise InternalError(f"segment {segment_id:#x} has fewer live bytes than go: run `redfs check`")
        row = row._replace(live_bytes=row.live_bytes + delta)
        new = segment_id in new_segments
        if row.live_bytes == 0:
            if not new:
                self.count(_segment_totals(row, -1))
            self.doom(segment_id, row)
            return
        self.kv.put(SEGMENTS, u64_key(segment_id), encode_segment(row))
        if new:
            self.count(_segment_totals(row, 1))

    def doom(self, segment_id: int, row: SegmentRow) -> None:
        """Takes a segment's row out and queues all its shards for deletion. The caller settles totals."""
        for shard, node in enumerate(row.nodes):
            self.doom_shard(node, segment_id, shard)
        for node, shard in row.dropped:
            self.doom_shard(node, segment_id, shard)
        if row.state == SegmentState.OPEN:
            self.kv.delete(OPEN_SEGMENTS, pair_key(row.session_id, segment_id))
        for key, _ in list(self.kv.scan(DAMAGE, shard_key(segment_id, 0), shard_key(segment_id + 1, 0))):
            self.kv.delete(DAMAGE, key)
        self.kv.delete(SEGMENTS, u64_key(segment_id))

    def doom_shard(self, node: int, segment_id: int, shard: int) -> None:
        """Queues one shard for deletion on its node."""
        self.kv.put(DOOMED, doomed_key(node, segment_id, shard), encode_i64(self.now_ns))
        self.after_commit.append(lambda: self.env.hooks.shards_doomed(node))


def weigh_pieces(pieces: Slot, block_of: Callable[[int], BlockRow]) -> Weight:
    """What a slot weighs: its plain bytes, and the share of each block's stored bytes that it refers to.

    A block never changes, so a slot weighs the same as long as it is there.
    """
    logical = stored = 0
    for piece in pieces:
        block = block_of(piece.block)
        logical += piece.length
        stored += piece.length * block.stored_bytes // block.plain_bytes
    return Weight(logical, stored)


def _block_totals(row: BlockRow, sign: int) -> StatsRow:
    return StatsRow(unique_bytes=sign * row.plain_bytes, stored_bytes=sign * row.stored_bytes, blocks=sign)


def _segment_totals(row: SegmentRow, sign: int) -> StatsRow:
    return StatsRow(segment_bytes=sign * row.shard_bytes * row.layout.width, segments=sign)


def scan_pairs(kv: ReadKv, table: str, first: int) -> Iterator[tuple[int, bytes]]:
    """(second number, value) of the rows of a table by pairs that start with `first`."""
    for key, value in kv.scan(table, u64_key(first), u64_key(first + 1)):
        yield decode_u64(key[8:]), value
