"""A diff's entries in the order of their paths, however many: sorted runs in a temporary file, merged.

The coordinator sends entries in the order in which it finds them. Up to RUN_ENTRIES are sorted in memory; more go to
an unnamed temporary file, a run at a time. Raises OSError where that has no room.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from heapq import merge
from typing import IO

from redfs.proto.gen import cluster_pb2 as pb

RUN_ENTRIES = 100_000
"""Entries in memory: some hundred bytes each."""
READ_ENTRIES = 512
"""Entries of each run in memory while runs are merged."""
LENGTH_BYTES = 4


def by_path(entries: Iterable[pb.DiffEntry]) -> Iterator[pb.DiffEntry]:
    """The entries by path, then by new path."""
    run: list[pb.DiffEntry] = []
    runs: list[tuple[int, int]] = []
    with tempfile.TemporaryFile() as file:
        for entry in entries:
            run.append(entry)
            if len(run) >= RUN_ENTRIES:
                runs.append(_spill(file, run))
                run = []
        run.sort(key=_order)
        yield from merge(*(_entries(file, *place) for place in runs), run, key=_order)


def _order(entry: pb.DiffEntry) -> tuple[bytes, bytes]:
    return entry.path, entry.new_path


def _spill(file: IO[bytes], run: list[pb.DiffEntry]) -> tuple[int, int]:
    """Writes a sorted run; (where it starts, where it ends)."""
    start = file.tell()
    for entry in sorted(run, key=_order):
        raw = entry.SerializeToString()
        file.write(len(raw).to_bytes(LENGTH_BYTES) + raw)
    return start, file.tell()


def _entries(file: IO[bytes], at: int, end: int) -> Iterator[pb.DiffEntry]:
    """A run from the file. Runs take turns, so the place is sought anew for each page."""
    while at < end:
        file.seek(at)
        page: list[pb.DiffEntry] = []
        while at < end and len(page) < READ_ENTRIES:
            length = int.from_bytes(file.read(LENGTH_BYTES))
            page.append(pb.DiffEntry.FromString(file.read(length)))
            at += LENGTH_BYTES + length
        yield from page
