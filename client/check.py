"""`redfs check`: proves that the coordinator's metadata and the shards on the nodes agree, and on request every byte.

Three parts, in this order. First every node lists its shards. Then the coordinator proves its own metadata from
scratch (references, live bytes, the dedupe index, the tree) and streams its findings and the shards that each node
should hold. Then both lists are merged: a committed shard that the node lacks, one of a wrong length, and one that
nobody names are findings. Since the pool is in use meanwhile, whatever looks wrong is asked of the node again, after
a second look at what the coordinator expects, before it is reported. With `verify_data` every committed shard is read
and verified by its node, all nodes at once.

Lists are spooled to temporary files and merged as streams, so memory does not grow with the pool. Nothing is changed
and nothing is repaired here. A node that cannot be asked is named in `unchecked`. Raises Unavailable where the
coordinator does not answer.
"""

from __future__ import annotations

import itertools
import struct
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any

from redfs.client.api import Pool
from redfs.core.errors import Corrupt, Unavailable, WrongFormat
from redfs.proto.data_plane import MAX_PAGE, NodeConnection, ShardKey
from redfs.proto.gen import cluster_pb2 as pb

RECORD = struct.Struct(">QHI")
"""Segment, shard, bytes: as `ExpectedShards.packed` has them."""
SPOOL_CHUNK_BYTES = RECORD.size << 16
"""Read from a spool at once: 65,536 records, 0.9 MB."""
MAX_PROBLEMS = 1000
"""Reported one by one; more are only counted, for then the list tells nothing new."""

MAX_SUSPECTS = 10_000
"""Differences of one node that are looked at again; with more of them the disk is gone, and a sample says so."""
VERIFY_SHARDS = 64
VERIFY_BYTES = 64 << 20
"""Read by a node for one request: a second on a slow disk, far below the connection's timeout."""
PARALLEL_NODES = 32
"""Nodes asked at once."""

Progress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and how much there is (0: not known)."""


@dataclass
class CheckReport:
    """What a check found. Clean: no problems and nothing left unchecked."""

    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    """What could not be looked at, one line each: nodes that are down."""
    volumes: int = 0
    records: int = 0
    blocks: int = 0
    segments: int = 0
    shards: int = 0
    """Shards found on nodes."""
    verified_shards: int = 0
    verified_bytes: int = 0
    more_problems: int = 0
    """Beyond MAX_PROBLEMS."""

    @property
    def clean(self) -> bool:
        """Everything was looked at and is right."""
        return not self.problems and not self.unchecked

    def data(self) -> dict[str, Any]:
        """For --json."""
        return {"clean": self.clean} | self.__dict__

    def add(self, problem: str) -> None:
        """One more finding."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        else:
            self.more_problems += 1


class Spool:
    """Records of shards in a temporary file, in (segment, shard) order."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="redfs-check-")  # noqa: SIM115 - closed by close()
        self._last = b""
        self._sorted = True
        self.records = 0

    def add(self, packed: bytes) -> None:
        """Appends packed records."""
        if not packed:
            return
        if len(packed) % RECORD.size:
            raise Corrupt("a list of shards came damaged over the wire: run the check again")
        self._sorted &= packed[: RECORD.size] > self._last and self._in_order(packed)
        self._last = packed[-RECORD.size :]
        self._file.write(packed)
        self.records += len(packed) // RECORD.size

    @staticmethod
    def _in_order(packed: bytes) -> bool:
        return all(a[:2] < b[:2] for a, b in itertools.pairwise(RECORD.iter_unpack(packed)))

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """The records in order, as (segment, shard, bytes)."""
        self._file.seek(0)
        if not self._sorted:  # the sender's order is not ours: rare, small lists
            yield from sorted(RECORD.iter_unpack(self._file.read()))
            return
        while chunk := self._file.read(SPOOL_CHUNK_BYTES):
            yield from RECORD.iter_unpack(chunk)

    def close(self) -> None:
        """Frees the disk space."""
        self._file.close()


@dataclass(frozen=True)
class Suspect:
    """A difference between the two lists, before it is looked at again."""

    segment: int
    shard: int
    found_bytes: int | None
    """None: the node does not list it."""
    expected_bytes: int | None
    """None: nobody names it."""


def differences(
    listed: Iterable[tuple[int, int, int]],
    committed: Iterable[tuple[int, int, int]],
    allowed: Iterable[tuple[int, int, int]],
) -> Iterator[Suspect]:
    """Merges a node's list with what it must hold and what it may hold; all in (segment, shard) order."""
    must, may = iter(committed), iter(allowed)
    wanted, ok = next(must, None), next(may, None)
    for segment, shard, found in listed:
        here = (segment, shard)
        while wanted is not None and wanted[:2] < here:
            yield Suspect(wanted[0], wanted[1], None, wanted[2])
            wanted = next(must, None)
        while ok is not None and ok[:2] < here:
            ok = next(may, None)
        if wanted is not None and wanted[:2] == here:
            if wanted[2] != found:
                yield Suspect(segment, shard, found, wanted[2])
            wanted = next(must, None)
        elif ok is None or ok[:2] != here:
            yield Suspect(segment, shard, found, None)
    while wanted is not None:
        yield Suspect(wanted[0], wanted[1], None, wanted[2])
        wanted = next(must, None)


# ---------------------------------------------------------------- one node


class NodeSide:
    """What is known of one node: its own list, and what the coordinator expects of it."""

    def __init__(self, node: pb.Node) -> None:
        self.node = node
        self.name = f"node {node.node_id} ({node.data_folder or node.address})"
        self.listed = Spool()
        self.committed = Spool()
        self.allowed = Spool()
        self.gap = ""
        """Why it could not be asked, if so."""
        self.suspects: list[Suspect] = []
        self.bad: dict[ShardKey, str] = {}
        """Shards that did not verify, with the error's code."""
        self.verified_shards = 0
        self.verified_bytes = 0

    def list_shards(self) -> None:
        """Asks the node for everything that it holds."""
        if self.node.state not in ("up", "suspect", "draining"):
            self.gap = f"{self.name} is {self.node.state}"
            return

        def ask(connection: NodeConnection) -> None:
            after: ShardKey | None = None
            while True:
                page = connection.list_page(after)
                self.listed.add(b"".join(RECORD.pack(*info[:3]) for info in page))
                if len(page) < MAX_PAGE:
                    return
                after = (page[-1].segment, page[-1].shard)

        self._reach(ask)

    def compare(self) -> None:
        """Finds the differences, and drops those that a second question to the node explains."""

        def ask(connection: NodeConnection) -> None:
            for suspect in differences(self.listed, self.committed, self.allowed):
                found = self._bytes_of(connection, suspect.segment, suspect.shard)
                if found != suspect.expected_bytes:
                    self.suspects.append(Suspect(suspect.segment, suspect.shard, found, suspect.expected_bytes))
                if len(self.suspects) >= MAX_SUSPECTS:
                    return

        self._reach(ask)

    @staticmethod
    def _bytes_of(connection: NodeConnection, segment: int, shard: int) -> int | None:
        """The length of a shard that the node holds now; None where it holds none."""
        if (segment, shard) == (0, 0):
            return None  # never allocated
        before = (segment, shard - 1) if shard else (segment - 1, 0xFFFF)
        for info in connection.list_page(before, 1):
            if (info.segment, info.shard) == (segment, shard):
                return info.payload_bytes
        return None

    def verify(self, advance: Callable[[int], None]) -> None:
        """Has the node read and check every committed shard that it lists."""
        missing = {(suspect.segment, suspect.shard) for suspect in self.suspects}

        def ask(connection: NodeConnection) -> None:
            batch: list[ShardKey] = []
            batch_bytes = 0
            for segment, shard, size in self.committed:
                if (segment, shard) in missing:
                    continue
                batch.append((segment, shard))
                batch_bytes += size
                if len(batch) >= VERIFY_SHARDS or batch_bytes >= VERIFY_BYTES:
                    self._verify_batch(connection, batch, batch_bytes)
                    advance(len(batch))
                    batch, batch_bytes = [], 0
            if batch:
                self._verify_batch(connection, batch, batch_bytes)
                advance(len(batch))

        self._reach(ask)

    def _verify_batch(self, connection: NodeConnection, batch: Sequence[ShardKey], size: int) -> None:
        self.bad.update(connection.verify_many(batch))
        self.verified_shards += len(batch)
        self.verified_bytes += size

    def _reach(self, work: Callable[[NodeConnection], None]) -> None:
        """Works over a connection to the node; where there is none, or it breaks, that becomes the gap."""
        if self.gap:
            return
        try:
            with NodeConnection.open(self.node.address, node_id=self.node.node_id) as connection:
                work(connection)
        except (Unavailable, WrongFormat) as error:
            self.gap = f"{self.name}: {error}"

    def in_doubt(self) -> set[ShardKey]:
        """Shards that must still be expected for a finding about them to stand."""
        return {(s.segment, s.shard) for s in self.suspects if s.expected_bytes is not None} | set(self.bad)

    def findings(self, still_expected: set[ShardKey]) -> Iterator[str]:
        """What is wrong with this node's shards, one line each."""
        for suspect in self.suspects:
            name = f"segment {suspect.segment:#x} shard {suspect.shard} on {self.name}"
            if suspect.expected_bytes is None:
                yield f"{name}: nobody names it, {suspect.found_bytes} bytes are lost space"
            elif (suspect.segment, suspect.shard) not in still_expected:
                continue
            elif suspect.found_bytes is None:
                yield f"{name}: missing"
            else:
                yield f"{name}: {suspect.found_bytes} bytes long instead of {suspect.expected_bytes}"
        for (segment, shard), code in sorted(self.bad.items()):
            if (segment, shard) in still_expected:
                what = "missing" if code == "not_found" else "damaged"
                yield f"segment {segment:#x} shard {shard} on {self.name}: {what}"

    def close(self) -> None:
        """Frees the temporary files."""
        for spool in (self.listed, self.committed, self.allowed):
            spool.close()


# ---------------------------------------------------------------- all of it


def run_check(pool: Pool, *, verify_data: bool, progress: Progress | None) -> CheckReport:
    """Checks the whole pool. Raises Unavailable where the coordinator does not answer; a retry is safe."""
    report = CheckReport()
    tell = progress or (lambda what, done, total: None)
    sides = {node.node_id: NodeSide(node) for node in pool.nodes()}
    try:
        with ThreadPoolExecutor(max_workers=min(PARALLEL_NODES, max(1, len(sides)))) as threads:
            tell("listing shards", 0, 0)
            list(threads.map(NodeSide.list_shards, sides.values()))
            tell("proving metadata", 0, 0)
            _read_expectations(pool, sides, report)
            tell("comparing", 0, 0)
            list(threads.map(NodeSide.compare, sides.values()))
            if verify_data:
                _verify(threads, sides, tell)
        _conclude(pool, sides, report)
    finally:
        for side in sides.values():
            side.close()
    return report


def _read_expectations(pool: Pool, sides: dict[int, NodeSide], report: CheckReport) -> None:
    for item in pool.check():
        kind = item.WhichOneof("item")
        if kind == "problem":
            report.add(item.problem)
        elif kind == "expected":
            side = sides.get(item.expected.node_id)
            if side is None:
                report.add(f"shards are expected on node {item.expected.node_id}, which is not in the pool")
                continue
            (side.committed if item.expected.committed else side.allowed).add(item.expected.packed)
        elif kind == "summary":
            report.volumes = item.summary.volumes
            report.records = item.summary.records
            report.blocks = item.summary.blocks
            report.segments = item.summary.segments


def _verify(threads: ThreadPoolExecutor, sides: dict[int, NodeSide], tell: Progress) -> None:
    total = sum(side.committed.records for side in sides.values() if not side.gap)
    lock = threading.Lock()
    done = 0

    def advance(shards: int) -> None:
        nonlocal done
        with lock:
            done += shards
            tell("reading shards", done, total)

    list(threads.map(lambda side: side.verify(advance), sides.values()))


def _conclude(pool: Pool, sides: dict[int, NodeSide], report: CheckReport) -> None:
    """Turns what is still in doubt into findings, if the coordinator still expects it."""
    still_expected: dict[int, set[ShardKey]] = {}
    doubts = {node_id: found for node_id, side in sides.items() if (found := side.in_doubt())}
    if doubts:
        # A file may have been deleted since: only what is expected even now is missing or damaged.
        for item in pool.check():
            if item.WhichOneof("item") != "expected" or not item.expected.committed:
                continue
            wanted = doubts.get(item.expected.node_id, set())
            kept = still_expected.setdefault(item.expected.node_id, set())
            kept.update(row[:2] for row in RECORD.iter_unpack(item.expected.packed) if row[:2] in wanted)
    for node_id, side in sorted(sides.items()):
        # A node that is out need not answer where all that it had is elsewhere.
        if side.gap and (side.node.state != "out" or side.committed.records):
            report.unchecked.append(side.gap)
        for finding in side.findings(still_expected.get(node_id, set())):
            report.add(finding)
        report.shards += side.listed.records
        report.verified_shards += side.verified_shards
        report.verified_bytes += side.verified_bytes
