"""A pool whose coordinator keeps its journal on real storage-node journals, over simulated disks and without sockets.

Every answer of a node is there at once. The coordinator dies by being forgotten; nodes lose power, hang or refuse as
the test says. `restore` reads the nodes' journals the way the real one does, over a connection that is a function call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from redfs.coordinator import restore as restore_module
from redfs.coordinator.coordinator import ALL_TABLES
from redfs.coordinator.environment import CoordinatorConfig
from redfs.coordinator.identity import DataFolder
from redfs.coordinator.journal import Follower, Journal
from redfs.coordinator.journal_keeper import JournalKeeper
from redfs.coordinator.restore import Restored
from redfs.coordinator.store import KvStore
from redfs.core.errors import RedfsError, Unavailable
from redfs.core.journal import CheckpointEnd, JournalSet, Point
from redfs.proto.data_plane import NodeConnection
from redfs.proto.frames import Frame, Header, raise_error
from redfs.proto.journal_plane import Standing
from redfs.storage_node.journal import Journal as NodeJournal
from redfs.storage_node.journal import Writer
from redfs.storage_node.journal_requests import JournalRequests
from tests.coordinator.harness import Pool
from tests.simulation.disk import PowerLost, SimulatedDisk


class Node:
    """One storage node's journal through all its lives."""

    def __init__(self, node_id: int, pool: Callable[[], str], file_bytes: int = 4096) -> None:
        self.node_id = node_id
        self.disk = SimulatedDisk(node_id)
        self.is_up = True
        self.hangs = False
        self._pool = pool
        self._file_bytes = file_bytes
        self.journal = self._start()

    def _start(self) -> NodeJournal:
        journal = NodeJournal(self.disk, self._pool, file_bytes=self._file_bytes)
        journal.open()
        return journal

    def power_cycle(self) -> None:
        self.disk.restart()
        self.journal = self._start()

    def call(self, what: Callable[[NodeJournal], Any]) -> Any:
        if not self.is_up:
            raise Unavailable(f"node {self.node_id} is down")
        try:
            return what(self.journal)
        except PowerLost as error:
            self.is_up = False
            raise Unavailable("power is lost") from error


class DirectLink:
    """A link whose node answers inside of the call."""

    def __init__(self, node: Node, writer: Writer, standing: Standing) -> None:
        self.node_id = node.node_id
        self.standing = standing
        self.acked = standing.match
        self.failure: RedfsError | None = None
        self.behind_bytes = 0
        self._node = node
        self._writer = writer

    def _do(self, what: Callable[[], Point]) -> None:
        if self.failure is not None or self._node.hangs:
            return
        try:
            self.acked = self._node.call(lambda _: what())
        except RedfsError as error:
            self.failure = error

    def reset(self, point: Point) -> None:
        def begin() -> Point:
            self._writer.reset(point)
            return point

        self._do(begin)

    def append(self, before: Point, frame: bytes) -> None:
        self._do(lambda: self._writer.append(before, frame))

    def pump(self) -> None:
        return None

    def fileno(self) -> int:
        return -1

    @property
    def wants_write(self) -> bool:
        return False

    def close(self) -> None:
        self.failure = self.failure or Unavailable("closed")


class DirectTarget:
    """A checkpoint's way to a node."""

    def __init__(self, node: Node) -> None:
        self.node_id = node.node_id
        self._node = node

    def begin(self, term: int, point: Point) -> None:
        self._node.call(lambda journal: journal.begin_checkpoint(term, point))

    def piece(self, term: int, piece: bytes) -> None:
        self._node.call(lambda journal: journal.add_piece(term, piece))

    def end(self, term: int, end: CheckpointEnd) -> None:
        self._node.call(lambda journal: journal.end_checkpoint(term, end))

    def drop(self, term: int, before: int) -> None:
        self._node.call(lambda journal: journal.drop(term, before))

    def close(self) -> None:
        return None


class DirectPeers:
    """All nodes of a rig."""

    def __init__(self, nodes: dict[int, Node]) -> None:
        self._nodes = nodes

    def _node(self, node_id: int) -> Node:
        if node_id not in self._nodes:
            raise Unavailable(f"node {node_id} is none of this rig's")
        return self._nodes[node_id]

    def open_link(self, node_id: int, term: int, points: Sequence[Point]) -> DirectLink:
        node = self._node(node_id)
        writer, opened = node.call(lambda journal: journal.open_writer(term, list(points)))
        return DirectLink(node, writer, Standing(*opened))

    def note_set(
        self, record: JournalSet, nodes: Collection[int], enough: Callable[[Collection[int]], bool]
    ) -> set[int]:
        answered = set()
        for node_id in nodes:
            try:
                self._node(node_id).call(lambda journal: journal.note_set(record))
            except Unavailable:
                continue
            answered.add(node_id)
        return answered

    def open_target(self, node_id: int) -> DirectTarget:
        return DirectTarget(self._node(node_id))


class DirectConnection:
    """What a restore asks through, in place of a data-plane connection."""

    def __init__(self, node: Node, pool_id: str) -> None:
        self.node_id = node.node_id
        self.pool_id = pool_id
        self._node = node
        self._answer = Frame({}, memoryview(b""))

    def __enter__(self) -> DirectConnection:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def _send(self, header: Header, payload: bytes = b"") -> None:
        self._answer = Frame(header, memoryview(payload))

    def ask(self, header: Header, payload: Sequence[bytes] = ()) -> Frame:
        if not self._node.is_up:
            raise Unavailable("down")
        requests = JournalRequests(self._node.journal, self._send, lambda: None)
        requests.by_name[header["op"]](Frame(header, memoryview(b"".join(payload))))
        raise_error(self._answer.header)
        return self._answer


class JournaledPool(Pool):
    """A pool with a journal; `step` is one look of its keeper, and the checkpoints that are due."""

    def __init__(self, node_count: int = 6, store: KvStore | None = None, **settings: object) -> None:
        self.nodes: dict[int, Node] = {}
        self.journal: Journal
        self.keeper: JournalKeeper
        self.lives = 0
        super().__init__(0, store, **({"journal_copies": 3} | settings))
        self.start_journal()
        for number in range(node_count):
            node_id = self.add_node(number)
            self.nodes[node_id] = Node(node_id, lambda: self.coordinator.pool_id)
        self.step()
        self.step()

    def start_journal(self) -> None:
        """As a process does at its start."""
        self.lives += 1
        peers = DirectPeers(self.nodes)
        self.journal = Journal(peers, self.config.journal_wait_s, self.clock.monotonic, 1000 + self.lives)
        self.keeper = JournalKeeper(
            self.journal, peers, self.store, ALL_TABLES, self.coordinator.cluster, self.config, self.clock
        )
        self.journal.start(self.store, list(self.nodes))
        self.coordinator.journal = self.journal
        self.coordinator.journal_problems = self.keeper.problems

    def step(self) -> None:
        self.keeper.step()
        due: list[Follower] = self.keeper.due()
        if due:
            self.keeper.make_checkpoint(due)
            self.keeper.step()

    def restart_with_journal(self) -> None:
        """The process died, and comes back."""
        self.coordinator = self._make()
        self.start_journal()
        for node_id in self.streams:
            self.report_again(node_id)

    def lose_node(self, node_id: int) -> None:
        """The node's machine is gone."""
        self.nodes[node_id].is_up = False
        self.lose(node_id)

    def restore(self, folder: Path, monkeypatch: Any, nodes: Sequence[int] = (), force: bool = False) -> Restored:
        """The coordinator's disk is lost: a store from the journals of these nodes (none: all that are up)."""
        pool_id = self.coordinator.pool_id

        def open_connection(address: str, **_: object) -> DirectConnection:
            node = self.nodes[int(address)]
            if not node.is_up:
                raise Unavailable("it does not answer")
            return DirectConnection(node, pool_id)

        monkeypatch.setattr(NodeConnection, "open", open_connection)
        asked = nodes or [n for n, node in self.nodes.items() if node.is_up]
        config = CoordinatorConfig.from_mapping({"map_bytes": 64 << 20})
        with DataFolder(folder) as data:
            return restore_module.restore(data, config, [str(node_id) for node_id in asked], force=force)
