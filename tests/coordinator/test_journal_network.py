"""The journal over real sockets: frames of any size, nodes that hang or go, and the process put together."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redfs.coordinator.cluster import Cluster
from redfs.coordinator.coordinator import ALL_TABLES
from redfs.coordinator.environment import CoordinatorConfig
from redfs.coordinator.journal import JOURNAL, Journal, point_in
from redfs.coordinator.journal_keeper import JournalKeeper
from redfs.coordinator.journal_peers import NetworkPeers
from redfs.coordinator.store import LmdbStore
from redfs.core.errors import Fenced, Unavailable
from redfs.core.journal import JournalSet, Point, term_of
from redfs.core.tables import META
from redfs.proto import frames, journal_plane
from redfs.proto.data_plane import NodeConnection
from redfs.proto.frames import Hello
from redfs.storage_node.disk import FolderDisk
from redfs.storage_node.index import MemoryIndex
from redfs.storage_node.journal import Journal as NodeJournal
from redfs.storage_node.recovery import open_store
from redfs.storage_node.server import DataServer
from redfs.storage_node.shard_store import StoreLimits
from tests.coordinator.harness import Clock

POOL = "0123456789abcdef"
WAIT_S = 20.0
SHORT_S = 0.3


class Serving:
    """A node's data plane with a journal."""

    def __init__(self, folder: Path, number: int) -> None:
        self.journal = NodeJournal(FolderDisk(folder / "journal"), lambda: POOL)
        self.journal.open()
        store = open_store(FolderDisk(folder), MemoryIndex(), bytes(16), 1, None, StoreLimits(), lambda _: None)
        hello = Hello(POOL, number, 1)
        self.server = DataServer(frames.listen("127.0.0.1:0"), store, lambda: hello, journal=self.journal)
        self.server.start()
        self.address = f"127.0.0.1:{self.server.port}"

    def stop(self) -> None:
        self.server.stop()
        self.journal.close()


class Deaf:
    """Takes connections and says nothing, as a stopped process does."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def stop(self) -> None:
        self._listener.close()


class Rig:
    """A store with a journal on such nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes = {number: Serving(folder / f"node-{number}", number) for number in (1, 2, 3)}
        self.addresses: dict[int, str] = {number: node.address for number, node in self.nodes.items()}
        self.store = LmdbStore(folder, (*ALL_TABLES, JOURNAL), 256 << 20)
        self.peers = NetworkPeers(POOL, self.addresses.get, WAIT_S)
        self.position = 0
        self.journals: list[Journal] = []

    def journal(self, wait_s: float = WAIT_S) -> Journal:
        made = Journal(self.peers, wait_s, time.monotonic, 7)
        self.journals.append(made)
        made.start(self.store, list(self.nodes))
        return made

    def keep(self, journal: Journal, *nodes: int) -> None:
        """Makes these nodes members, with a checkpoint where they need one."""
        for node_id in nodes:
            if node_id not in journal.members():
                assert journal.follow(journal.open_link(node_id))
        needing = [f for f in journal.followers() if f.needs_checkpoint]
        if needing:
            config, clock = CoordinatorConfig(), Clock()
            cluster = Cluster(clock, config)
            keeper = JournalKeeper(journal, self.peers, self.store, ALL_TABLES, cluster, config, clock)
            keeper.make_checkpoint(needing)
        until_s = time.monotonic() + WAIT_S
        while set(journal.members()) < set(nodes):
            assert time.monotonic() < until_s
            journal.tend(list(self.nodes))

    def write(self, journal: Journal, size: int = 100) -> Point:
        """One transaction."""
        self.position += 1
        changes = [(META, b"key", bytes([self.position % 256]) * size), (META, b"position", self.position.to_bytes(8))]

        def body(kv: object) -> None:
            kv.apply(changes)  # type: ignore[attr-defined]
            journal.begin(kv, [(self.position, changes)])  # type: ignore[arg-type]

        self.store.write(body)
        journal.committed()
        with self.store.read() as kv:
            point = point_in(kv)
        assert point is not None
        return point

    def ends(self, number: int) -> Point | None:
        files = [f for f in self.nodes[number].journal.state()["files"] if f[0].endswith(".lists")]
        assert files
        return self.nodes[number].journal._files[-1].last

    def stop(self) -> None:
        for journal in self.journals:
            journal.close()
        for node in self.nodes.values():
            node.stop()
        self.peers.close()
        self.store.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.stop()


def test_what_is_committed_is_on_all_members(rig: Rig) -> None:
    journal = rig.journal()
    rig.keep(journal, 1, 2, 3)
    for _ in range(20):
        point = rig.write(journal)
        assert [rig.ends(number) for number in (1, 2, 3)] == [point] * 3
    assert journal.durable_position == 20


def test_a_transaction_larger_than_a_message_goes_in_parts(rig: Rig) -> None:
    journal = rig.journal()
    rig.keep(journal, 1, 2)
    point = rig.write(journal, 40 << 20)
    assert journal.members() == (1, 2)
    assert [rig.ends(1), rig.ends(2)] == [point] * 2
    assert rig.write(journal) == rig.ends(1)


def test_a_node_that_goes_is_left_out_at_once(rig: Rig) -> None:
    journal = rig.journal()
    rig.keep(journal, 1, 2)
    rig.write(journal)
    rig.nodes[1].stop()
    began_s = time.monotonic()
    point = rig.write(journal)
    assert time.monotonic() - began_s < WAIT_S, "it did not wait for one that is gone"
    assert journal.members() == (2,)
    assert rig.ends(2) == point
    assert rig.nodes[3].journal.state()["set"]["members"] == [2], "the others know"


def test_a_node_that_hangs_holds_a_batch_up_for_a_bounded_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = rig.journal(SHORT_S)
    rig.keep(journal, 1, 2)
    release, entered = threading.Event(), threading.Event()
    real: Callable[..., Point] = rig.nodes[1].journal.append

    def hang(*arguments: object) -> Point:
        entered.set()
        release.wait(WAIT_S)
        return real(*arguments)

    monkeypatch.setattr(rig.nodes[1].journal, "append", hang)
    point = rig.write(journal)
    assert entered.is_set()
    assert journal.members() == (2,)
    assert rig.ends(2) == point
    release.set()


def test_a_node_that_says_nothing_does_not_hold_the_start_up(rig: Rig) -> None:
    journal = rig.journal()
    rig.keep(journal, 1, 2)
    rig.write(journal)
    journal.tend([1, 2, 3])
    rig.write(journal)
    journal.close()
    deaf = Deaf()
    rig.addresses[1] = deaf.address
    rig.peers = NetworkPeers(POOL, rig.addresses.get, SHORT_S)
    again = rig.journal(SHORT_S)
    assert again.members() == (2,)
    deaf.stop()


def test_a_coordinator_of_a_lower_term_is_refused(rig: Rig) -> None:
    journal = rig.journal()
    rig.keep(journal, 1, 2)
    rig.write(journal)
    with NodeConnection.open(rig.addresses[1]) as connection:
        journal_plane.fence(connection, term_of(1, 0))
    with pytest.raises(Fenced, match="out of date"):
        rig.write(journal)
    with pytest.raises(Fenced):
        journal.tend([1, 2, 3])
    with pytest.raises(Fenced):
        rig.journal()


def test_a_record_is_taken_by_most(rig: Rig) -> None:
    rig.nodes[1].stop()
    record = JournalSet(1, 1, (2,), (1, 2, 3))
    assert rig.peers.note_set(record, [1, 2, 3], lambda answered: len(answered) == 2) == {2, 3}
    with pytest.raises(Unavailable):
        rig.peers.open_target(1)
