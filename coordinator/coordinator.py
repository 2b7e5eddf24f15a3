"""The coordinator without its surroundings: state, commands in batches, background work. No threads, sockets or clocks.

`Coordinator` runs over any `KvStore` and what `Environment` injects. Commands are functions of a `Txn`; many share one
durable transaction, each computed over its own overlay and applied to the transaction at once, so one refused command
spoils nothing. Memory follows after the commit, then the answers. If the commit fails, all commands of the batch fail
with its error and memory stays as it was.

Every change list has a number, one more than the list before; `apply` is the only function that changes the store.
Where there is a journal (`journal.py`), a transaction's lists are durable on its nodes too before anything is answered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from redfs.coordinator import nodes, packing, reclaim, sessions, volumes
from redfs.coordinator.cluster import Cluster
from redfs.coordinator.environment import Clock, CoordinatorConfig, Hooks, Randomness
from redfs.coordinator.jobs import next_job
from redfs.coordinator.journal import Journal
from redfs.coordinator.leases import Leases
from redfs.coordinator.progress import JobProgress
from redfs.coordinator.store import KvStore, Reading, Writable
from redfs.coordinator.txn import Environment, Txn
from redfs.coordinator.watch import topics_of
from redfs.core.errors import Fenced, InternalError, NoSpace, RedfsError, WrongFormat
from redfs.core.journal import NumberedList
from redfs.core.kv import Change
from redfs.core.tables import (
    FORMAT_KEY,
    JOBS,
    META,
    POOL_ID_KEY,
    POSITION_KEY,
    ROW_VERSION,
    SESSIONS,
    TABLES,
    decode_u64,
    encode_u64,
)
from redfs.core.versions import TABLES as VERSION_TABLES

T = TypeVar("T")
Command = Callable[[Txn], T]

ALL_TABLES = (*TABLES, *VERSION_TABLES)
MAX_BATCH = 256
"""Commands in one transaction: beyond it the sync is paid many times over already, and answers wait longer."""
POOL_ID_BYTES = 8

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What became of a command: its value, or the error that refused it."""

    value: Any
    error: BaseException | None


def apply(kv: Writable, position: int, changes: Sequence[Change]) -> int:
    """Applies one numbered list of changes; returns its number. Numbers follow one another without a gap."""
    raw = kv.get(META, POSITION_KEY)
    if position != (0 if raw is None else decode_u64(raw)) + 1:
        raise InternalError(f"change list {position} does not follow the last one")
    kv.apply(changes)
    kv.put(META, POSITION_KEY, encode_u64(position))
    return position


def _begin(txn: Txn, pool_id: str) -> None:
    """The first command of a start."""
    volumes.bootstrap(txn, pool_id)
    packing.abort_left(txn)


FULL_SAID_S = 10.0
"""A full disk is said for so long after it was met: small changes take the place of older pages, and go well in
between."""


class Coordinator:
    """All metadata and every decision. One caller at a time for `execute*` and `background_step`; reads are free."""

    def __init__(
        self,
        store: KvStore,
        config: CoordinatorConfig,
        clock: Clock,
        randomness: Randomness,
        hooks: Hooks | None = None,
    ) -> None:
        self.store = store
        self.config = config
        self.cluster = Cluster(clock, config)
        self.leases = Leases(clock, config.lease_s)
        self.env = Environment(
            config, clock, randomness, self.cluster, self.leases, JobProgress(clock), hooks or Hooks()
        )
        self.journal: Journal | None = None
        """Set by whoever starts it, before the first command of anybody else."""
        self.journal_problems: Callable[[], list[str]] = list
        """What people should know of it, one line each."""
        self.journal_is_settled: Callable[[], bool] = lambda: True
        """False just after a start, while it is worth waiting for the nodes that keep it."""
        self._full: NoSpace | None = None
        self._full_s = 0.0
        self.started_s = clock.monotonic()
        self.commits = 0
        """Commits of sessions that were applied since the start."""
        self.requests = 0
        """Requests of sessions since the start: the round trips that mounts made."""
        self.transactions = 0
        """Durable transactions since the start."""
        self.damage_reports = 0
        self._next_job = b""
        self.has_jobs = True
        """Whether there may be a job that is not paused."""
        pool_id = randomness.token_bytes(POOL_ID_BYTES).hex()
        self.execute(lambda txn: _begin(txn, pool_id))
        with store.read() as kv:
            found = decode_u64(kv.get(META, FORMAT_KEY) or encode_u64(0))
            if found != ROW_VERSION:
                raise WrongFormat(f"the metadata has format {found}, this RedFS knows {ROW_VERSION}: use a newer one")
            self.pool_id = (kv.get(META, POOL_ID_KEY) or b"").decode()
            self.cluster.load(nodes.stored_nodes(kv))
            sessions_there = [decode_u64(key) for key, _ in kv.scan(SESSIONS, b"", b"\xff" * 9)]
            self.leases.load(sessions_there)
            self.env.figures.load(sessions_there)
            self.env.recalled.update(sessions.alone_in_shared_mode(kv))
            self.has_jobs = next_job(kv, b"") is not None

    def read(self) -> Reading:
        """A read transaction on the committed state."""
        return self.store.read()

    def execute(self, command: Command[T]) -> T:
        """Runs one command in its own durable transaction; raises what it raises."""
        outcome = self.execute_batch([command])[0]
        if outcome.error is not None:
            raise outcome.error
        value: T = outcome.value
        return value

    def execute_batch(self, commands: Sequence[Command[Any]]) -> list[Outcome]:
        """Runs commands in order in one durable transaction. An outcome for each, when all is durable.

        An error that is not of RedFS (a broken disk, a bug) fails the whole batch with it, nothing was applied. Raises
        Fenced where another coordinator has taken over: this one must stop then.
        """
        journal = self.journal

        ends: list[Callable[[], None]] = []

        def body(kv: Writable) -> tuple[list[Outcome], list[Callable[[], None]], set[str]]:
            outcomes: list[Outcome] = []
            effects: list[Callable[[], None]] = []
            touched: set[str] = set()
            lists: list[NumberedList] = []
            raw = kv.get(META, POSITION_KEY)
            position = 0 if raw is None else decode_u64(raw)
            for command in commands:
                txn = Txn(kv, self.env)
                try:
                    value = command(txn)
                    txn.settle()
                except RedfsError as error:
                    outcomes.append(Outcome(None, error))
                    continue
                finally:
                    ends.extend(txn.at_end)
                changes = txn.changes()
                if changes:
                    position = apply(kv, position + 1, changes)
                    lists.append((position, changes))
                    touched.update(txn.kv.changed_tables())
                outcomes.append(Outcome(value, None))
                effects += txn.after_commit
            if journal is not None and lists:
                journal.begin(kv, lists)
            return outcomes, effects, touched

        try:
            outcomes, effects, touched = self.store.write(body)
        except BaseException as error:
            if journal is not None:
                journal.abandoned()
            if isinstance(error, Fenced) or not isinstance(error, RedfsError):
                raise
            if isinstance(error, NoSpace):
                self._full, self._full_s = error, self.env.clock.monotonic()
            return [Outcome(None, error) for _ in commands]
        finally:
            for end in ends:
                end()
        if journal is not None:
            journal.committed()
        self.transactions += 1
        for effect in effects:
            effect()
        self.has_jobs = self.has_jobs or JOBS in touched
        topics = topics_of(touched)
        if topics:
            self.env.hooks.changed(topics)
        for outcome in outcomes:
            if isinstance(outcome.error, InternalError):
                log.error("a command was refused by a broken invariant: %s", outcome.error)
        return outcomes

    @property
    def full(self) -> NoSpace | None:
        """Why changes could not be stored lately, for want of room on the disk."""
        return self._full if self.env.clock.monotonic() - self._full_s <= FULL_SAID_S else None

    def background_step(self) -> bool:
        """One bounded step of the next job, jobs taking turns. False where there is none that is not paused."""
        if not self.has_jobs:
            return False
        with self.read() as kv:
            key = next_job(kv, self._next_job)
        if key is None:
            self.has_jobs = False
            return False
        # Also where the step fails it is the next one's turn.
        self._next_job = key + b"\0"
        self.execute(lambda txn: reclaim.run_step(txn, key))
        return True

    def forgotten_sessions(self) -> bool:
        """Whether sessions were away for too long: then `end_forgotten` should run. To be asked every second or so."""
        if not self.leases.lapsed_longer_than(0):
            return False
        with self.read() as kv:
            return bool(sessions.to_be_ended(kv, self.leases, self.config.session_keep_s))

    def end_forgotten(self, txn: Txn) -> int:
        """The command that ends them; how many."""
        return sessions.end_forgotten(txn)
