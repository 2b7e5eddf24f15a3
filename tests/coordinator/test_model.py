"""The coordinator against an obvious model: what every node of the tree shows, and `check` clean all the way.

Random commits, overwrites, holes, duplicate data, snapshots, clones, deletions, aborted segments, lost sessions,
restarts and background steps in any order. In the end everything is deleted, and nothing may be left of it.
"""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from redfs.coordinator import segments
from redfs.coordinator.commits import Record
from redfs.coordinator.packing import Pack
from redfs.coordinator.txn import scan_pairs
from redfs.core.errors import NotFound
from redfs.core.records import Orphan, encode_orphan, orphan_key
from redfs.core.tables import DOOMED, JOBS, OPEN_SEGMENTS, StatsRow
from redfs.core.versions import TABLES
from tests.coordinator.harness import Client, Pool, fingerprint

Content = dict[tuple[int, int], str]
"""(inode, slot) -> word."""

words = st.sampled_from(["a", "b", "c", "d", "e", "f"])
places = st.tuples(st.integers(10, 12), st.integers(0, 3))
changes = st.dictionaries(places, st.one_of(st.none(), words), min_size=1, max_size=4)
index = st.integers(0, 7)
MAX_NODES_OF_TREE = 8


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(6, reclaim_budget_rows=3)
        self.names = 0
        self.live: dict[str, Content] = {}
        self.snapshots: dict[str, Content] = {}
        self.clients: dict[str, Client] = {}
        self.generation: dict[str, int] = {}
        """Of inode 10, by node of the tree; a truncation starts the next one."""
        self.packs: list[Pack] = []
        """Packings that nodes work on."""
        self.add_volume()

    def _name(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    def _pick(self, at: int, names: dict[str, Content]) -> str:
        return sorted(names)[at % len(names)]

    def _client(self, volume: str) -> Client:
        if volume not in self.clients:
            self.clients[volume] = Client(self.pool, volume)
        return self.clients[volume]

    @precondition(lambda self: len(self.live) < 3)
    @rule()
    def add_volume(self) -> None:
        name = self._name("v")
        self.pool.create(name, "ec:4+2")
        self.live[name] = {}
        self.generation[name] = 1

    @precondition(lambda self: self.live)
    @rule(at=index, slots=changes)
    def write(self, at: int, slots: dict[tuple[int, int], str | None]) -> None:
        volume = self._pick(at, self.live)
        self._client(volume).write(slots, {10: self.generation[volume]})
        for place, word in slots.items():
            if word is None:
                self.live[volume].pop(place, None)
            else:
                self.live[volume][place] = word

    @precondition(lambda self: self.clients)
    @rule(at=index)
    def send_again(self, at: int) -> None:
        client = self.clients[sorted(self.clients)[at % len(self.clients)]]
        if client.last_request is not None:
            before = self.pool.totals()
            first = client.send(client.last_request)
            assert client.send(client.last_request) == first
            assert self.pool.totals() == before

    @precondition(lambda self: self.live and len(self.live) + len(self.snapshots) < MAX_NODES_OF_TREE)
    @rule(at=index)
    def snapshot(self, at: int) -> None:
        volume = self._pick(at, self.live)
        name = f"{volume}@{self._name('s')}"
        self.pool.snapshot(name)
        self.snapshots[name] = dict(self.live[volume])
        self.generation[name] = self.generation[volume]

    @precondition(lambda self: len(self.live) + len(self.snapshots) < MAX_NODES_OF_TREE)
    @rule(at=index)
    def clone(self, at: int) -> None:
        nodes = {**self.live, **self.snapshots}
        if not nodes:
            return
        source = self._pick(at, nodes)
        name = self._name("c")
        self.pool.clone(source, name)
        self.live[name] = dict(nodes[source])
        self.generation[name] = self.generation[source]

    @precondition(lambda self: self.live and len(self.live) + len(self.snapshots) + 1 < MAX_NODES_OF_TREE)
    @rule(at=index)
    def clone_backed(self, at: int) -> None:
        source = self._pick(at, self.live)
        name = self._name("b")
        self.pool.clone_backed(source, name)
        for made, of in ((self.live, name), (self.snapshots, f"{source}@{name}")):
            made[of] = dict(self.live[source])
            self.generation[of] = self.generation[source]

    @precondition(lambda self: self.snapshots)
    @rule(at=index, keep=st.booleans())
    def roll_back(self, at: int, keep: bool) -> None:
        snapshot = self._pick(at, self.snapshots)
        volume = snapshot.partition("@")[0]
        if volume not in self.live:
            return
        if (client := self.clients.pop(volume, None)) is not None:
            client.close()
        kept = self.pool.roll_back(snapshot, discard=not keep).kept
        if kept is not None:
            self.snapshots[kept.name] = self.live[volume]
            self.generation[kept.name] = self.generation[volume]
        self.live[volume] = dict(self.snapshots[snapshot])
        self.generation[volume] = self.generation[snapshot]

    @rule(at=index)
    def delete(self, at: int) -> None:
        nodes = {**self.live, **self.snapshots}
        if not nodes:
            return
        name = self._pick(at, nodes)
        self.pool.delete(name, force=True)
        self.live.pop(name, None)
        self.snapshots.pop(name, None)
        self.clients.pop(name, None)

    @precondition(lambda self: self.live)
    @rule(at=index, abort=st.booleans())
    def open_a_segment(self, at: int, abort: bool) -> None:
        client = self._client(self._pick(at, self.live))
        if len(client_open(self.pool, client)) > 3:
            return
        (segment_id, _), *_ = client.open_segments()
        if abort:
            self.pool.coordinator.execute(lambda txn: segments.abort_segments(txn, client.session_id, [segment_id]))

    @precondition(lambda self: self.live)
    @rule(at=index)
    def kill_a_generation(self, at: int) -> None:
        """A truncation that leaves the slots of inode 10's generation to the background."""
        volume = self._pick(at, self.live)
        client = self._client(volume)
        dead = self.generation[volume]
        request, _ = client.request(records=[Record(*orphan_key(10, dead), encode_orphan(Orphan(1)))])
        client.send(request)
        self.generation[volume] += 1
        self.live[volume] = {place: word for place, word in self.live[volume].items() if place[0] != 10}

    @precondition(lambda self: self.clients)
    @rule(at=index, clean=st.booleans())
    def lose_a_session(self, at: int, clean: bool) -> None:
        volume = sorted(self.clients)[at % len(self.clients)]
        client = self.clients.pop(volume)
        if clean:
            client.close()
        else:
            self.pool.pass_time(self.pool.config.session_keep_s + self.pool.config.lease_s + 1)
            self.pool.coordinator.execute(self.pool.coordinator.end_forgotten)
            self.clients.clear()

    @rule(steps=st.integers(1, 5))
    def background(self, steps: int) -> None:
        for _ in range(steps):
            self.pool.coordinator.background_step()

    @precondition(lambda self: len(self.packs) < 3)
    @rule(skip=st.integers(0, 2))
    def begin_packing(self, skip: int) -> None:
        """Also of sources that another packing has: a cleaner that was restarted does not know of that one."""
        cleaner = self.pool.cleaner()
        chosen = self.pool.choose(cleaner)
        if chosen is not None:
            moves = chosen.prepared.moves
            left = moves[min(skip, len(moves) - 1) :]
            self.packs.append(self.pool.open_pack(chosen._replace(prepared=chosen.prepared._replace(moves=left))))

    @precondition(lambda self: self.packs)
    @rule(at=index, works=st.booleans())
    def end_packing(self, at: int, works: bool) -> None:
        pack = self.packs.pop(at % len(self.packs))
        if works:
            self.pool.commit_pack(pack)
        else:
            self.pool.abort_pack(pack)

    @rule()
    def clean(self) -> None:
        self.pool.clean()
        assert self.pool.choose(self.pool.cleaner()) is None

    @rule()
    def restart(self) -> None:
        self.pool.restart()
        for pack in self.packs:
            with pytest.raises(NotFound):
                self.pool.commit_pack(pack)
        self.packs.clear()

    @invariant()
    def sound(self) -> None:
        assert self.pool.problems() == []

    @invariant()
    def every_node_shows_what_it_should(self) -> None:
        for name, content in {**self.live, **self.snapshots}.items():
            row = self.pool.volume(name)
            for ino in range(10, 13):
                for slot in range(4):
                    word = content.get((ino, slot))
                    generation = self.generation[name] if ino == 10 else 1
                    found = self.pool.read_slot(row, ino, slot, generation)
                    assert found == (None if word is None else [fingerprint(word).hex()]), (name, ino, slot)

    def teardown(self) -> None:
        for client in self.clients.values():
            client.close()
        for pack in self.packs:
            self.pool.abort_pack(pack)
        for name in [*self.live, *self.snapshots]:
            self.pool.delete(name, force=True)
        self.pool.run_jobs()
        assert self.pool.problems() == []
        assert self.pool.totals() == StatsRow()
        with self.pool.coordinator.read() as kv:
            assert kv.first(JOBS, b"", b"\xff") is None
            for table in TABLES:
                left = [key for key, _ in kv.scan(table, b"", b"\xff" * 64) if key[:8] != (1).to_bytes(8, "big")]
                assert left == [], table
            doomed = [key[4:] for key, _ in kv.scan(DOOMED, b"", b"\xff" * 20)]
            assert len(set(doomed)) == len(doomed)


def client_open(pool: Pool, client: Client) -> list[int]:
    with pool.coordinator.read() as kv:
        return [number for number, _ in scan_pairs(kv, OPEN_SEGMENTS, client.session_id)]


TestModel = Machine.TestCase
TestModel.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
