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

import struct
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any

from redfs.client.api import Pool
from redfs.core.errors import Corrupt, NotFound, RedfsError
from redfs.proto.gen import cluster_pb2 as pb

RECORD = struct.Struct(">QHI")
"""Segment, shard, bytes: as `ExpectedShards.packed` has them."""
SPOOL_CHUNK_BYTES = RECORD.size << 16
"""Read from a spool at once: 65,536 records, 0.9 MB."""
MAX_PROBLEMS = 1000
"""Reported one by one; more are only counted, for then the list tells nothing new."""

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
        rows = [row[:2] for row in RECORD.iter_unpack(packed)]
        return all(a < b for a, b in zip(rows, rows[1:], strict=False))

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
