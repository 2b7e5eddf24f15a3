"""What is known of the storage nodes right now: who is up, how much room there is. In memory, by the injected clock.

Node rows are in the tables; here is what heartbeats say, which a restart forgets and the next heartbeats tell again.
A node is up while its stream stands, its last report is recent and its disk has not failed. Used by the state thread
and the event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from redfs.coordinator.environment import Clock, CoordinatorConfig
from redfs.core.placement import Candidate, usable_plain_bytes
from redfs.core.policy import Layout, Policy
from redfs.core.tables import NodeRow


class Report(NamedTuple):
    """A heartbeat."""

    capacity_bytes: int = 0
    used_bytes: int = 0
    free_bytes: int = 0
    shards: int = 0
    backing_files: int = 0
    failed: bool = False
    file_system: str = ""
    """Nodes that say the same share its room, so each counts for its part; empty: all that it reports is its own."""


@dataclass
class _Live:
    row: NodeRow
    stream: int = 0
    """Number of the stream that it is attached with; 0: none."""
    seen_s: float | None = None
    """Monotonic time of the last report; None: none since the coordinator started."""
    report: Report = field(default_factory=Report)
    written_bytes: int = 0
    """Committed to it since the last report: not in `report.free_bytes` yet."""


class NodeView(NamedTuple):
    """One node, for people and for clients."""

    node_id: int
    row: NodeRow
    up: bool
    report: Report
    seen_ago_s: float
    """Since the last report, or since the coordinator started."""


class Cluster:
    """Liveness and room of all nodes."""

    def __init__(self, clock: Clock, config: CoordinatorConfig) -> None:
        self._clock = clock
        self._down_s = config.node_down_s
        self._hold_back = config.hold_back
        self._lock = threading.Lock()
        self._nodes: dict[int, _Live] = {}
        self._started_s = clock.monotonic()
        self._streams = 0
        self.on_change: Callable[[bool], None] = lambda _: None
        """Called where a node came, went or (with True) only said other numbers; not where one falls silent."""

    def load(self, rows: Iterable[tuple[int, NodeRow]]) -> None:
        """The stored nodes, at start; down until they report."""
        with self._lock:
            self._nodes = {node_id: _Live(row) for node_id, row in rows}
            self._started_s = self._clock.monotonic()

    def attached(self, node_id: int, row: NodeRow) -> int:
        """A node opened its stream; returns the stream's number. The stream before it, if any, counts no more."""
        with self._lock:
            self._streams += 1
            live = self._nodes.get(node_id)
            if live is None:
                live = self._nodes[node_id] = _Live(row)
            live.row, live.stream, live.seen_s = row, self._streams, None
            stream = self._streams
        self.on_change(False)
        return stream

    def detached(self, node_id: int, stream: int) -> None:
        """A stream ended; nothing happens where the node has a newer one."""
        with self._lock:
            live = self._nodes.get(node_id)
            if live is None or live.stream != stream:
                return
            live.stream = 0
        self.on_change(False)

    def reported(self, node_id: int, stream: int, report: Report) -> bool:
        """A heartbeat. False where the stream is not the node's newest: it must end."""
        with self._lock:
            live = self._nodes.get(node_id)
            if live is None or live.stream != stream:
                return False
            now_s = self._clock.monotonic()
            was_up, before = self._is_up(live, now_s), live.report
            live.report, live.seen_s, live.written_bytes = report, now_s, 0
            is_up = self._is_up(live, now_s)
        if was_up != is_up or before != report:
            self.on_change(was_up == is_up)
        return True

    def is_current(self, node_id: int, stream: int) -> bool:
        """Whether the stream is the node's newest."""
        with self._lock:
            live = self._nodes.get(node_id)
            return live is not None and live.stream == stream

    def set_row(self, node_id: int, row: NodeRow) -> None:
        """The node's row changed."""
        with self._lock:
            if node_id in self._nodes:
                self._nodes[node_id].row = row

    def written(self, shards: Iterable[int], shard_bytes: int) -> None:
        """Shards of that size were committed to these nodes."""
        with self._lock:
            for node_id in shards:
                if node_id in self._nodes:
                    self._nodes[node_id].written_bytes += shard_bytes

    def _is_up(self, live: _Live, now_s: float) -> bool:
        if not live.stream or live.row.failed or live.seen_s is None:
            return False
        return now_s - live.seen_s < self._down_s

    def _shares(self, now_s: float) -> dict[str, tuple[int, int]]:
        """For each file system: the nodes on it that are up, and what was committed to them since they reported."""
        shares: dict[str, tuple[int, int]] = {}
        for live in self._nodes.values():
            if live.report.file_system and self._is_up(live, now_s):
                nodes, written_bytes = shares.get(live.report.file_system, (0, 0))
                shares[live.report.file_system] = (nodes + 1, written_bytes + live.written_bytes)
        return shares

    @staticmethod
    def _own_part(report: Report, shares: dict[str, tuple[int, int]]) -> Report:
        """The report with the node's part of a file system that it shares."""
        nodes = shares.get(report.file_system, (1, 0))[0]
        if nodes == 1:
            return report
        return report._replace(
            capacity_bytes=report.capacity_bytes // nodes,
            free_bytes=report.free_bytes // nodes,
        )

    def _room_bytes(self, live: _Live, shares: dict[str, tuple[int, int]]) -> int:
        report = self._own_part(live.report, shares)
        nodes, written_bytes = shares.get(live.report.file_system, (1, live.written_bytes))
        held_back = int(report.capacity_bytes * self._hold_back)
        return max(0, report.free_bytes - written_bytes // nodes - held_back)

    def known(self) -> int:
        """Nodes that have joined and whose disk has not failed, up or down."""
        with self._lock:
            return sum(not live.row.failed for live in self._nodes.values())

    def is_settled(self) -> bool:
        """Whether who is up means anything: just after a start nodes are not back yet, and not down either.

        True when all have reported, and in any case when the time has gone by after which a node counts as down.
        """
        now_s = self._clock.monotonic()
        with self._lock:
            if now_s - self._started_s >= self._down_s:
                return True
            return all(live.row.failed or self._is_up(live, now_s) for live in self._nodes.values())

    def up(self) -> set[int]:
        now_s = self._clock.monotonic()
        with self._lock:
            return {node_id for node_id, live in self._nodes.items() if self._is_up(live, now_s)}

    def candidates(self, avoid: Collection[int] = ()) -> list[Candidate]:
        """Nodes that can take shards, with the room that they have beyond what is held back."""
        now_s = self._clock.monotonic()
        with self._lock:
            shares = self._shares(now_s)
            return [
                Candidate(node_id, self._room_bytes(live, shares), live.row.domain)
                for node_id, live in self._nodes.items()
                if node_id not in avoid and self._is_up(live, now_s)
            ]

    def domains(self, nodes: Iterable[int]) -> list[str]:
        """Failure domains of these nodes, unknown nodes left out."""
        with self._lock:
            return [self._nodes[n].row.domain for n in nodes if n in self._nodes]

    def free_plain_bytes(self, layout: Layout | Policy) -> int:
        """Plain bytes that can still be written in this layout, what is held back taken off."""
        return usable_plain_bytes([c.free_bytes for c in self.candidates()], layout)

    def total_plain_bytes(self, layout: Layout | Policy) -> int:
        """Plain bytes that the nodes that are up could hold in this layout, were they empty."""
        now_s = self._clock.monotonic()
        with self._lock:
            shares = self._shares(now_s)
            rooms = [
                int(self._own_part(live.report, shares).capacity_bytes * (1 - self._hold_back))
                for live in self._nodes.values()
                if self._is_up(live, now_s)
            ]
        return usable_plain_bytes(rooms, layout)

    def view(self) -> list[NodeView]:
        """All nodes by id."""
        now_s = self._clock.monotonic()
        with self._lock:
            shares = self._shares(now_s)
            return [
                NodeView(
                    node_id,
                    live.row,
                    self._is_up(live, now_s),
                    self._own_part(live.report, shares),
                    now_s - (self._started_s if live.seen_s is None else live.seen_s),
                )
                for node_id, live in sorted(self._nodes.items())
            ]
