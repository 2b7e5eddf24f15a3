"""What is known of the storage nodes right now: who is up, how much room there is. In memory, by the injected clock.

Node rows are in the tables; here is what heartbeats say, which a restart forgets and the next heartbeats tell again.
A node is up while its stream stands, its last report is recent and its disk has not failed. Used by the state thread
and the event loop.

How long a node is *away* is counted so that one which comes and goes gains nothing by it: the count begins when it
stops being up, and ends only when it was up for `node_down_s` without a break (it is *steady* then). After a restart of
the coordinator all counts begin anew, so nodes that are away for too long are given up later, never too early.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from redfs.coordinator.environment import Clock, CoordinatorConfig
from redfs.core.healing import NodeFacts
from redfs.core.placement import Candidate, usable_plain_bytes
from redfs.core.policy import Layout, Policy
from redfs.core.tables import NodeRow, NodeState

SUSPECT_BEATS = 2.5
"""A node without a report for so many heartbeats is suspect: two in a row are missing."""
REBUILD_HOLD_BACK_SHARE = 0.5
"""Of the room that is held back from writes, rebuilds leave this share: cleaning must always have some."""

UP, SUSPECT, DOWN, OUT, DRAINING = "up", "suspect", "down", "out", "draining"
"""How a node is shown."""


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
    up_since_s: float | None = None
    """When it came up last; None: it is not up."""
    away_since_s: float | None = None
    """When it was steady last; None: it is steady, or was and nobody has looked since."""
    compared_stream: int = 0
    """The stream on which its inventory was compared with the rows last."""
    changes: int = 0
    """How often its state was changed."""


class NodeView(NamedTuple):
    """One node, for people and for clients."""

    node_id: int
    row: NodeRow
    up: bool
    report: Report
    seen_ago_s: float
    """Since the last report, or since the coordinator started."""
    state: str = UP
    """As it is shown."""
    away_s: float = 0.0
    """How long it has been away, by the count of the module; 0: it is steady."""


class Cluster:
    """Liveness and room of all nodes."""

    def __init__(self, clock: Clock, config: CoordinatorConfig) -> None:
        self._clock = clock
        self._down_s = config.node_down_s
        self._suspect_s = min(config.node_down_s, SUSPECT_BEATS * config.heartbeat_s)
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
            self._started_s = self._clock.monotonic()
            self._nodes = {node_id: _Live(row, away_since_s=self._started_s) for node_id, row in rows}

    def attached(self, node_id: int, row: NodeRow) -> int:
        """A node opened its stream; returns the stream's number. The stream before it, if any, counts no more."""
        with self._lock:
            self._streams += 1
            now_s = self._clock.monotonic()
            live = self._nodes.get(node_id)
            if live is None:
                live = self._nodes[node_id] = _Live(row, away_since_s=now_s)
            self._look(live, now_s)
            self._left(live, now_s)
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
            now_s = self._clock.monotonic()
            self._look(live, now_s)
            self._left(live, now_s)
            live.stream = 0
        self.on_change(False)

    def reported(self, node_id: int, stream: int, report: Report) -> bool:
        """A heartbeat. False where the stream is not the node's newest: it must end."""
        with self._lock:
            live = self._nodes.get(node_id)
            if live is None or live.stream != stream:
                return False
            now_s = self._clock.monotonic()
            self._look(live, now_s)
            was_up, before = self._is_up(live, now_s), live.report
            live.report, live.seen_s, live.written_bytes = report, now_s, 0
            is_up = self._is_up(live, now_s)
            if is_up and live.up_since_s is None:
                live.up_since_s = now_s
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
            live = self._nodes.get(node_id)
            if live is not None:
                live.changes += live.row.state != row.state
                live.row = row
        self.on_change(False)

    def forget(self, node_id: int) -> None:
        """The node was removed: its stream, if it has one, ends at its next report."""
        with self._lock:
            self._nodes.pop(node_id, None)
        self.on_change(False)

    def compared(self, node_id: int, stream: int) -> None:
        """All that the node holds was compared with the rows, and what differs is settled: it can get work."""
        with self._lock:
            live = self._nodes.get(node_id)
            if live is not None and live.stream == stream:
                live.compared_stream = stream

    def wait_anew(self, node_id: int) -> None:
        """Somebody says that the node is coming: how long it was away counts from now."""
        with self._lock:
            live = self._nodes.get(node_id)
            if live is not None and live.away_since_s is not None:
                live.away_since_s = self._clock.monotonic()

    def state_changes(self, node_id: int) -> int:
        """How often the node's state was changed since the start: says whether it was in between two looks."""
        with self._lock:
            live = self._nodes.get(node_id)
            return 0 if live is None else live.changes

    def written(self, shards: Iterable[int], shard_bytes: int) -> None:
        """Shards of that size were committed to these nodes."""
        with self._lock:
            for node_id in shards:
                if node_id in self._nodes:
                    self._nodes[node_id].written_bytes += shard_bytes

    def _is_attached(self, live: _Live, now_s: float) -> bool:
        """It has a stream and reports; its disk may have failed."""
        return bool(live.stream) and live.seen_s is not None and now_s - live.seen_s < self._down_s

    def _is_up(self, live: _Live, now_s: float) -> bool:
        return self._is_attached(live, now_s) and not live.row.failed

    def _look(self, live: _Live, now_s: float) -> None:
        """Takes in what passed unannounced: it fell silent, or it was up for long enough to be steady."""
        if live.up_since_s is None:
            return
        if not self._is_up(live, now_s):
            self._left(live, now_s if live.seen_s is None else live.seen_s)
        elif now_s - live.up_since_s >= self._down_s:
            live.away_since_s = None

    def _left(self, live: _Live, at_s: float) -> None:
        """It is not up any more, since that time."""
        if live.up_since_s is None:
            return
        if live.away_since_s is None or at_s - live.up_since_s >= self._down_s:
            live.away_since_s = at_s
        live.up_since_s = None

    def _away_s(self, live: _Live, now_s: float) -> float:
        self._look(live, now_s)
        return 0.0 if live.away_since_s is None else now_s - live.away_since_s

    def _shown_state(self, live: _Live, now_s: float) -> str:
        if live.row.state in (NodeState.OUT, NodeState.LOST):
            return OUT
        silent_s = now_s - (self._started_s if live.seen_s is None else live.seen_s)
        if not self._is_up(live, now_s):
            return DOWN if silent_s >= self._down_s or live.row.failed else SUSPECT
        if silent_s > self._suspect_s:
            return SUSPECT
        return DRAINING if live.row.state == NodeState.DRAINING else UP

    def _takes_data(self, live: _Live, now_s: float) -> bool:
        return live.row.state == NodeState.IN and self._is_up(live, now_s)

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
        held_back = int(self._own_part(live.report, shares).capacity_bytes * self._hold_back)
        return max(0, self._unwritten_bytes(live, shares) - held_back)

    def _unwritten_bytes(self, live: _Live, shares: dict[str, tuple[int, int]]) -> int:
        """What was free at the last report, less what was committed since."""
        nodes, written_bytes = shares.get(live.report.file_system, (1, live.written_bytes))
        return self._own_part(live.report, shares).free_bytes - written_bytes // nodes

    def known(self) -> int:
        """Nodes that are to hold data, up or down."""
        with self._lock:
            return sum(live.row.state == NodeState.IN and not live.row.failed for live in self._nodes.values())

    def is_settled(self) -> bool:
        """Whether who is up means anything: just after a start nodes are not back yet, and not down either.

        True when all have reported, and in any case when the time has gone by after which a node counts as down.
        """
        now_s = self._clock.monotonic()
        with self._lock:
            if now_s - self._started_s >= self._down_s:
                return True
            return all(
                live.row.failed or live.row.state in (NodeState.OUT, NodeState.LOST) or self._is_up(live, now_s)
                for live in self._nodes.values()
            )

    def up(self) -> set[int]:
        """Nodes that are up and whose shards count: what lies on others is lost, or as good as lost."""
        now_s = self._clock.monotonic()
        with self._lock:
            return {
                node_id
                for node_id, live in self._nodes.items()
                if live.row.state in (NodeState.IN, NodeState.DRAINING) and self._is_up(live, now_s)
            }

    def given_up(self) -> set[int]:
        """Nodes of which what lies there is to be made anew elsewhere."""
        with self._lock:
            return {
                node_id
                for node_id, live in self._nodes.items()
                if live.row.failed or live.row.state in (NodeState.OUT, NodeState.LOST)
            }

    def writable(self) -> int:
        """How many nodes new data can be written to."""
        now_s = self._clock.monotonic()
        with self._lock:
            return sum(self._takes_data(live, now_s) for live in self._nodes.values())

    def states(self) -> dict[int, str]:
        """How each node is shown."""
        now_s = self._clock.monotonic()
        with self._lock:
            return {node_id: self._shown_state(live, now_s) for node_id, live in self._nodes.items()}

    def facts(self) -> dict[int, NodeFacts]:
        """All nodes as plans on shards need to know them."""
        now_s = self._clock.monotonic()
        with self._lock:
            shares = self._shares(now_s)
            found = {}
            for node_id, live in self._nodes.items():
                away_s = self._away_s(live, now_s)
                capacity_bytes = self._own_part(live.report, shares).capacity_bytes
                room_bytes = self._room_bytes(live, shares)
                reserve_bytes = int(capacity_bytes * self._hold_back * REBUILD_HOLD_BACK_SHARE)
                found[node_id] = NodeFacts(
                    node_id=node_id,
                    state=live.row.state,
                    attached=self._is_attached(live, now_s),
                    failed=live.row.failed,
                    steady=away_s == 0 and self._is_up(live, now_s),
                    compared=bool(live.stream) and live.compared_stream == live.stream,
                    domain=live.row.domain,
                    capacity_bytes=capacity_bytes,
                    room_bytes=room_bytes,
                    spare_bytes=max(room_bytes, self._unwritten_bytes(live, shares) - reserve_bytes),
                    away_s=away_s,
                )
            return found

    def addresses(self, nodes: Iterable[int]) -> list[tuple[int, str]]:
        """(node id, data plane) of these nodes, unknown nodes left out."""
        with self._lock:
            return [(n, self._nodes[n].row.address) for n in nodes if n in self._nodes]

    def candidates(self, avoid: Collection[int] = ()) -> list[Candidate]:
        """Nodes that can take new shards, with the room that they have beyond what is held back."""
        now_s = self._clock.monotonic()
        with self._lock:
            shares = self._shares(now_s)
            return [
                Candidate(node_id, self._room_bytes(live, shares), live.row.domain)
                for node_id, live in self._nodes.items()
                if node_id not in avoid and self._takes_data(live, now_s)
            ]

    def domains(self, nodes: Iterable[int]) -> list[str]:
        """Failure domains of these nodes, unknown nodes left out."""
        with self._lock:
            return [self._nodes[n].row.domain for n in nodes if n in self._nodes]

    def total_plain_bytes(self, layout: Layout | Policy) -> int:
        """Plain bytes that the nodes that take data could hold in this layout, were they empty."""
        now_s = self._clock.monotonic()
        with self._lock:
            shares = self._shares(now_s)
            rooms = [
                int(self._own_part(live.report, shares).capacity_bytes * (1 - self._hold_back))
                for live in self._nodes.values()
                if self._takes_data(live, now_s)
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
                    self._shown_state(live, now_s),
                    self._away_s(live, now_s),
                )
                for node_id, live in sorted(self._nodes.items())
            ]
