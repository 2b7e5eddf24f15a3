"""Keeps the journal on as many nodes as it should be on: chooses them, brings them up to date, makes checkpoints.

One thread looks twice a second, and when a member was lost; another one makes one checkpoint at a time, so that a lost
member is replaced meanwhile. Neither is waited for by anybody who changes something.

Which nodes: those that are up and in, of different failure domains, never two on one disk (`core/journal.py`). Members
stay while they can; a better place is taken when it is there, and only then is the worse one left. A node that fails is
left alone for a while before it is asked again.

`problems` says in plain words what is missing. All fails softly: what did not work is tried again at the next look;
only `Fenced` ends the keeper, and its journal tells the process.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from redfs.coordinator.cluster import Cluster, NodeView
from redfs.coordinator.environment import Clock, CoordinatorConfig
from redfs.coordinator.journal import Follower, Journal
from redfs.coordinator.journal_checkpoint import write_checkpoint
from redfs.coordinator.journal_peers import CheckpointTarget, Peers
from redfs.coordinator.store import KvStore
from redfs.core.errors import Fenced, RedfsError
from redfs.core.journal import Candidate, choose_keepers
from redfs.core.tables import NodeState

LOOK_INTERVAL_S = 0.5
"""How soon a node that came is asked to keep the journal."""
AVOID_S = 10.0
"""A node that failed is not asked again before this."""
LATE_S = 5.0
"""Copies that are missing for less are not told: a node that restarts is back by then."""
AWAY_STATES = (NodeState.OUT, NodeState.LOST)

log = logging.getLogger(__name__)


class JournalKeeper:
    """See the module. `step` and `make_checkpoint` are what its threads call; tests call them too."""

    def __init__(
        self,
        journal: Journal,
        peers: Peers,
        store: KvStore,
        tables: Sequence[str],
        cluster: Cluster,
        config: CoordinatorConfig,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._peers = peers
        self._store = store
        self._tables = tables
        self._cluster = cluster
        self._config = config
        self._clock = clock
        self._avoid_until_s: dict[int, float] = {}
        self._lacking_since_s: float | None = clock.monotonic()
        self._wanted = 0
        self._has_looked = False
        self._wake = threading.Event()
        self._work = threading.Event()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(self.step, self._wake), name="journal", daemon=True),
            threading.Thread(
                target=self._run, args=(self._checkpoint_if_due, self._work), name="checkpoint", daemon=True
            ),
        ]
        journal.on_change = self._wake.set

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the threads; what they do takes a few seconds at most."""
        self._stopping.set()
        self._wake.set()
        self._work.set()
        for thread in self._threads:
            thread.join()

    def _run(self, work: Callable[[], object], wake: threading.Event) -> None:
        while not self._stopping.is_set():
            try:
                work()
            except Fenced:
                return
            except RedfsError as error:
                log.warning("the journal: %s", error)
            except Exception:
                log.exception("the journal's keeper failed, it goes on")
            wake.wait(LOOK_INTERVAL_S)
            wake.clear()

    # ---------------------------------------------------------------- who keeps it

    def step(self) -> None:
        """One look. Raises Fenced."""
        nodes = self._cluster.view()
        known = [node.node_id for node in nodes if node.row.state not in AWAY_STATES]
        self._journal.tend(known)
        chosen, self._wanted = self._choose(nodes)
        there = {follower.node_id for follower in self._journal.followers()}
        for node_id in chosen:
            if node_id not in there:
                self._invite(node_id)
        self._journal.tend(known)
        members = set(self._journal.members())
        if members and members >= set(chosen):
            self._journal.dismiss(members - set(chosen))
        self._note_lack()
        self._has_looked = True
        self._work.set()

    def _choose(self, nodes: Sequence[NodeView]) -> tuple[list[int], int]:
        """The nodes that should keep the journal now, and how many would, were all of them up."""
        now_s = self._clock.monotonic()
        keep = [follower.node_id for follower in self._journal.followers()]
        usable: list[Candidate] = []
        all_of_them: list[Candidate] = []
        for node in nodes:
            candidate = Candidate(node.node_id, node.row.domain, node.report.file_system)
            if node.row.state == NodeState.IN and not node.row.failed:
                all_of_them.append(candidate)
                if node.up and (node.node_id in keep or now_s >= self._avoid_until_s.get(node.node_id, 0.0)):
                    usable.append(candidate)
        copies, share = self._config.journal_copies, self._config.journal_share_disks
        wanted = len(choose_keepers(all_of_them, copies, keep, share))
        return choose_keepers(usable, copies, keep, share), wanted

    def _invite(self, node_id: int) -> None:
        try:
            self._journal.follow(self._journal.open_link(node_id))
        except Fenced:
            raise
        except RedfsError as error:
            log.warning("node %d cannot keep the journal: %s", node_id, error)
            self._avoid_until_s[node_id] = self._clock.monotonic() + AVOID_S

    def _note_lack(self) -> None:
        lacks = len(self._journal.members()) < self._wanted or (self._wanted and not self._journal.is_recorded)
        if not lacks:
            self._lacking_since_s = None
        elif self._lacking_since_s is None:
            self._lacking_since_s = self._clock.monotonic()

    def problems(self) -> list[str]:
        """What people should know, one line each."""
        since_s = self._lacking_since_s
        if since_s is None or self._clock.monotonic() - since_s < LATE_S:
            return []
        members = len(self._journal.members())
        if not self._wanted:
            return []
        if not members:
            return [
                "no storage node has the metadata's journal: changes are safe only as long as the coordinator's disk "
                "is, and no deleted data is freed; look at the nodes and their disks"
            ]
        if members < self._wanted:
            return [
                f"the metadata's journal is on {members} of {self._wanted} storage nodes: it goes on, start the others"
            ]
        return ["fewer than half of the nodes know who has the metadata's journal: start the others"]

    @property
    def is_settled(self) -> bool:
        """Whether the journal is on a node, or that is not to be waited for any more just after a start."""
        if self._journal.members() or self.problems():
            return True
        return self._has_looked and not self._wanted

    # ---------------------------------------------------------------- checkpoints

    def _checkpoint_if_due(self) -> None:
        nodes = self.due()
        if nodes:
            try:
                self.make_checkpoint(nodes)
            except Fenced as error:
                raise self._journal.fence(error) from error

    def due(self) -> list[Follower]:
        """The nodes that need a checkpoint now."""
        followers = self._journal.followers()
        without = [f for f in followers if f.needs_checkpoint]
        if without:
            return without
        least = self._config.journal_checkpoint_bytes
        if any(f.lists_bytes > max(least, f.checkpoint_bytes) for f in followers):
            return followers
        return []

    def make_checkpoint(self, nodes: Sequence[Follower]) -> None:
        """Makes one, for nodes that follow. Raises Unavailable, Fenced."""
        targets: list[CheckpointTarget] = []
        try:
            for follower in nodes:
                with suppress(RedfsError):
                    targets.append(self._peers.open_target(follower.node_id))
            if not targets:
                return
            rate = self._config.journal_checkpoint_rate
            term = self._journal.term
            written = write_checkpoint(self._store, self._tables, targets, term, rate, self._pause)
            for follower in nodes:
                if follower.node_id in written.nodes:
                    self._journal.has_checkpoint(follower, written.size)
            log.info(
                "a checkpoint of %d bytes, up to list %d, is on nodes %s", written.size, written.position, written.nodes
            )
        finally:
            for target in targets:
                target.close()
        self._wake.set()

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise RedfsError("the coordinator stops: the checkpoint is made after its start")
