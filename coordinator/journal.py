"""The journal: every transaction's change lists are durable on storage nodes before its commands are answered.

The state thread hands over the lists of a transaction before it commits (`begin`), so that LMDB's sync and the nodes'
run at the same time, and waits for both (`committed`). The nodes that are waited for are the *members*: all of them
have every acknowledged list, so each of them can restore the pool. Other nodes *follow* until they have everything:
they get each frame too, and a checkpoint, and nobody waits for them.

A member that fails, or does not answer within `wait_s`, is left out from then on. The set without it is recorded on
more than half of all nodes before the transaction is answered; so a restore that hears from half of them knows that
node's journal to be old (`core/journal.py`). A node that comes is a member before it is in the record. At every moment
the recorded set is part of the members.

The newest frames stay here too, in memory and in the table `journal`, which is never part of the journal: a node that
was away for a moment, or that a crash of the coordinator left one frame behind, goes on from where it is.

| what happens | what it leaves |
|---|---|
| the coordinator dies before LMDB's commit | nodes may have a frame more: it is cut off when the next one follows |
| it dies after the commit | nodes may have a frame less: they get it from the table |
| the commit fails (full disk) | as the first; only a restore before the next frame would have what was refused |
| a member dies or hangs | one batch waits up to twice `wait_s`; then it goes on without, and `problems` says so |
| no member is left | changes go on, in LMDB only; shards are not deleted until a node has the journal again |
| half of all nodes are away while the set changes | it goes on, and `problems` says that a restore may not know |
| a restored coordinator has taken over | `Fenced`: this one must stop, and answers nothing more |

`begin` takes the lock and `committed` or `abandoned` gives it back; the keeper (`journal_keeper.py`) takes it to pump
and to change who is in the set. Every wait has a bound.
"""

from __future__ import annotations

import json
import logging
import select
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from redfs.coordinator.journal_peers import Link, Peers
from redfs.coordinator.store import KvStore, Writable
from redfs.core.errors import Fenced, RedfsError, Unavailable
from redfs.core.journal import (
    JournalSet,
    NumberedList,
    Point,
    check_frame,
    encode_frame,
    is_recorded,
    pack_points,
    term_of,
    unpack_points,
)
from redfs.core.kv import ReadKv
from redfs.core.tables import INCARNATION_KEY, META, POSITION_KEY, decode_u64, encode_u64
from redfs.proto.journal_plane import MAX_POINTS

JOURNAL = "journal"
"""Table of this module, in the same store and the same transactions, but never in the journal itself."""
POINT_KEY = b"point"
"""Where the history stands: position and chain, of the rows in the same transaction."""
STARTS_KEY = b"starts"
"""How often a coordinator started on this store."""
SET_KEY = b"set"
"""The set that was recorded last."""
FRAME_PREFIX = b"frame"
"""With the position of its last list: one of the newest frames."""

OUTBOX_BYTES = 8 << 20
"""Newest frames that are kept: some thousand transactions, for nodes that were away for a moment."""
RECORD_PAUSE_S = 2.0
"""Between attempts to record a set where too few nodes answer."""
MAX_BEHIND_BYTES = 64 << 20
"""Frames that wait for a node that follows; one that is slower starts anew."""

log = logging.getLogger(__name__)


class Kept(NamedTuple):
    """A frame of the outbox."""

    before: Point
    after: Point
    frame: bytes


@dataclass
class _Peer:
    link: Link
    serial: int
    """Counts those that began to follow: one that did so again is another."""
    needs_checkpoint: bool
    lists_bytes: int
    """Behind the node's newest checkpoint."""
    checkpoint_bytes: int


class Follower(NamedTuple):
    """For the keeper: a node that gets the frames."""

    node_id: int
    serial: int
    is_member: bool
    needs_checkpoint: bool
    lists_bytes: int
    checkpoint_bytes: int


def point_in(kv: ReadKv) -> Point | None:
    """The point that these tables are at."""
    raw = kv.get(JOURNAL, POINT_KEY)
    return None if raw is None else unpack_points(raw)[0]


def frame_key(position: int) -> bytes:
    """The key of the frame whose last list has that number."""
    return FRAME_PREFIX + encode_u64(position)


class Journal:
    """See the module."""

    def __init__(self, peers: Peers, wait_s: float, monotonic: Callable[[], float], first_chain: int) -> None:
        """`first_chain` is random: histories that begin anew never look alike."""
        self._peers = peers
        self._wait_s = wait_s
        self._monotonic = monotonic
        self._first_chain = first_chain
        self._lock = threading.RLock()
        self._members: dict[int, _Peer] = {}
        self._followers: dict[int, _Peer] = {}
        self._outbox: deque[Kept] = deque()
        self._outbox_bytes = 0
        self._point = Point(0, 0)
        self._pending: Kept | None = None
        self._holding = False
        self._drops: list[Kept] = []
        self._known: tuple[int, ...] = ()
        self._recorded = JournalSet()
        self._stored = JournalSet()
        self._number = 0
        self._serial = 0
        self._record_after_s = 0.0
        self._is_unrecorded_told = False
        self.term = 0
        self.durable_position = 0
        """All members have all lists up to it."""
        self.fenced: Fenced | None = None
        self.on_change: Callable[[], None] = lambda: None
        """The keeper should look: somebody was lost."""
        self.on_fenced: Callable[[], None] = lambda: None

    # ---------------------------------------------------------------- start

    def start(self, store: KvStore, known: Collection[int]) -> None:
        """Raises the term, before anything is sent under it, and goes on with the nodes that had the journal last, as
        far as they answer. Raises Fenced, NoSpace."""
        store.write(self._load)
        self._known = tuple(sorted(known))
        self._reopen(self._recorded.members)
        if self._known:
            self._record(JournalSet(self.term, 0, tuple(self._members), self._known))

    def _load(self, kv: Writable) -> None:
        raw = kv.get(JOURNAL, STARTS_KEY)
        starts = 1 if raw is None else decode_u64(raw) + 1
        kv.put(JOURNAL, STARTS_KEY, encode_u64(starts))
        self.term = term_of(decode_u64(kv.get(META, INCARNATION_KEY) or encode_u64(0)), starts)
        position = decode_u64(kv.get(META, POSITION_KEY) or encode_u64(0))
        self._outbox.clear()
        point = point_in(kv)
        frames = list(kv.scan(JOURNAL, FRAME_PREFIX, FRAME_PREFIX + b"\xff" * 9))
        if point is None or point.position != position:
            # Without a journal for a while: whoever had it has to start anew.
            point = Point(position, self._first_chain)
            kv.put(JOURNAL, POINT_KEY, pack_points([point]))
            for key, _ in frames:
                kv.delete(JOURNAL, key)
            frames = []
        self._point = point
        for _, frame in frames:
            head = check_frame(frame)
            self._outbox.append(Kept(head.before, head.after, frame))
        self._outbox_bytes = sum(len(kept.frame) for kept in self._outbox)
        stored = kv.get(JOURNAL, SET_KEY)
        if stored is not None:
            self._recorded = self._stored = JournalSet.from_fields(json.loads(stored))

    def _reopen(self, nodes: Collection[int]) -> None:
        if not nodes:
            return
        with ThreadPoolExecutor(len(nodes), thread_name_prefix="journal start") as threads:
            links = [link for link in threads.map(self._try_open, nodes) if link is not None]
        if self.fenced is not None:
            for link in links:
                link.close()
            raise self.fenced
        with self._lock:
            for link in links:
                if self.follow(link) and self._followers[link.node_id].needs_checkpoint:
                    self._let_go(self._followers.pop(link.node_id))
            self._wait_for([peer.link for peer in self._followers.values()], self._point)
            self._promote()

    def _try_open(self, node_id: int) -> Link | None:
        try:
            return self.open_link(node_id)
        except Fenced:
            return None  # noted: the caller looks
        except RedfsError as error:
            log.info("node %d, which had the journal, does not go on yet: %s", node_id, error)
            return None

    # ---------------------------------------------------------------- the state thread

    def begin(self, kv: Writable, lists: Sequence[NumberedList]) -> None:
        """Inside a transaction, after its changes: keeps its lists and sends them. May be called again for the same
        transaction, where the store had to grow. Raises Fenced."""
        if not self._holding:
            self._lock.acquire()
            self._holding = True
        if self.fenced is not None:
            raise self.fenced
        before = point_in(kv) or self._point
        frame, after = encode_frame(self.term, before.chain, lists)
        self._pending = Kept(before, after, frame)
        kv.put(JOURNAL, POINT_KEY, pack_points([after]))
        if self._recorded != self._stored:
            kv.put(JOURNAL, SET_KEY, json.dumps(self._recorded.to_fields()).encode())
        self._keep(kv, self._pending)
        for peer in (*self._members.values(), *self._followers.values()):
            peer.link.append(before, frame)
            peer.lists_bytes += len(frame)

    def _keep(self, kv: Writable, new: Kept) -> None:
        """Puts a frame into the table, and takes out what is over the bound. One that is larger is not kept at all:
        who misses it needs a checkpoint."""
        size = self._outbox_bytes + len(new.frame)
        self._drops = []
        for kept in self._outbox:
            if size <= OUTBOX_BYTES:
                break
            self._drops.append(kept)
            size -= len(kept.frame)
            kv.delete(JOURNAL, frame_key(kept.after.position))
        if len(new.frame) <= OUTBOX_BYTES:
            kv.put(JOURNAL, frame_key(new.after.position), new.frame)

    def committed(self) -> None:
        """The transaction is durable here: waits until it is durable on all members, those left out that fail.
        Raises Fenced. Returns at once where nothing was begun."""
        if not self._holding:
            return
        try:
            kept, self._pending = self._pending, None
            if kept is None:
                return
            for _ in self._drops:
                self._outbox_bytes -= len(self._outbox.popleft().frame)
            if len(kept.frame) <= OUTBOX_BYTES:
                self._outbox.append(kept)
                self._outbox_bytes += len(kept.frame)
            self._stored = self._recorded
            self._point = kept.after
            self._settle()
        finally:
            self._release()

    def abandoned(self) -> None:
        """The transaction failed: nothing of it counts. Nodes that have it cut it off when the next one follows."""
        if self._holding:
            self._pending = None
            self._release()

    def _release(self) -> None:
        self._holding = False
        self._lock.release()

    def _settle(self) -> None:
        """Until all members are at the point, without those that fail."""
        self._wait_for([peer.link for peer in self._members.values()], self._point)
        lost = [peer for peer in self._members.values() if peer.link.acked != self._point or peer.link.failure]
        if lost:
            self._leave_out(lost)
        if self._members:
            self.durable_position = self._point.position

    def _wait_for(self, links: Sequence[Link], point: Point) -> None:
        until_s = self._monotonic() + self._wait_s
        while True:
            waiting = [link for link in links if link.failure is None and link.acked != point]
            for link in waiting:
                link.pump()
            waiting = [link for link in waiting if link.failure is None and link.acked != point and link.fileno() >= 0]
            left_s = until_s - self._monotonic()
            if not waiting or left_s <= 0:
                return
            poll = select.poll()
            for link in waiting:
                poll.register(link.fileno(), select.POLLIN | (select.POLLOUT if link.wants_write else 0))
            poll.poll(left_s * 1000)

    def _leave_out(self, lost: Sequence[_Peer]) -> None:
        """These are members no more. The set without them is recorded before anything is acknowledged under it."""
        for peer in lost:
            node_id = peer.link.node_id
            why = peer.link.failure or Unavailable(f"it did not answer within {self._wait_s:g} s")
            log.warning("the journal goes on without node %d: %s", node_id, why)
            del self._members[node_id]
            self._let_go(peer)
            if isinstance(why, Fenced):
                raise self.fence(why)
        self._record(self._next_record())
        self.on_change()

    def _let_go(self, peer: _Peer) -> None:
        peer.link.close()

    def fence(self, error: Fenced) -> Fenced:
        """Another coordinator has taken over: nothing is begun any more. Returns the error, to be raised."""
        self.fenced = error
        log.critical("another coordinator has taken over this pool: %s", error)
        self.on_fenced()
        return error

    # ---------------------------------------------------------------- records of sets

    def _next_record(self) -> JournalSet:
        self._number += 1
        return JournalSet(self.term, self._number, tuple(sorted(self._members)), self._known)

    def _record(self, record: JournalSet) -> bool:
        """Records a set on most nodes. False where too few answer: it is tried again by `tend`."""
        before = self._recorded.known

        def enough(answered: Collection[int]) -> bool:
            return is_recorded(answered, before, record.known)

        asked = {*before, *record.known}
        try:
            answered = self._peers.note_set(record, asked, enough)
        except Fenced as error:
            raise self.fence(error) from error
        if not enough(answered):
            self._record_after_s = self._monotonic() + RECORD_PAUSE_S
            if answered and not self._is_unrecorded_told:
                self._is_unrecorded_told = True
                log.warning(
                    "%d of %d nodes know who has the journal now: a restore may not", len(answered), len(record.known)
                )
            return False
        self._recorded = record
        self._is_unrecorded_told = False
        return True

    @property
    def is_recorded(self) -> bool:
        """Whether most nodes know the set as it is."""
        return self._recorded.members == tuple(sorted(self._members)) and self._recorded.known == self._known

    # ---------------------------------------------------------------- the keeper

    def open_link(self, node_id: int) -> Link:
        """Opens a node's journal. Blocking, without the lock. Raises Unavailable, Fenced, WrongFormat."""
        with self._lock:
            points = [self._point, *[kept.before for kept in reversed(self._outbox)]][:MAX_POINTS]
        try:
            return self._peers.open_link(node_id, self.term, points)
        except Fenced as error:
            raise self.fence(error) from error

    def follow(self, link: Link) -> bool:
        """The node gets all frames from now on, and those that it missed where they are still here."""
        with self._lock:
            if link.node_id in self._members or link.node_id in self._followers:
                link.close()
                return False
            standing = link.standing
            self._serial += 1
            missed = self._behind(standing.match)
            if missed is None:
                link.reset(self._point)
                peer = _Peer(link, self._serial, True, 0, 0)
            else:
                for kept in missed:
                    link.append(kept.before, kept.frame)
                peer = _Peer(link, self._serial, not standing.whole, standing.lists_bytes, standing.checkpoint_bytes)
            self._followers[link.node_id] = peer
            return True

    def _behind(self, match: Point | None) -> list[Kept] | None:
        """The frames behind a point; None where they are not here any more."""
        if match is None:
            return None
        if match == self._point:
            return []
        at = next((at for at, kept in enumerate(self._outbox) if kept.before == match), None)
        return None if at is None else list(self._outbox)[at:]

    def followers(self) -> list[Follower]:
        """Everybody who gets frames."""
        with self._lock:
            return [
                Follower(
                    node_id, peer.serial, is_member, peer.needs_checkpoint, peer.lists_bytes, peer.checkpoint_bytes
                )
                for is_member, peers in ((True, self._members), (False, self._followers))
                for node_id, peer in sorted(peers.items())
            ]

    def has_checkpoint(self, follower: Follower, size: int) -> None:
        """A checkpoint that was begun after the node began to follow is complete there."""
        with self._lock:
            peer = self._members.get(follower.node_id) or self._followers.get(follower.node_id)
            if peer is not None and peer.serial == follower.serial:
                peer.needs_checkpoint, peer.lists_bytes, peer.checkpoint_bytes = False, 0, size

    def tend(self, known: Collection[int]) -> None:
        """Moves what waits, leaves out who failed, takes in who has everything, and records who has the journal.
        Raises Fenced."""
        with self._lock:
            self._known = tuple(sorted(known))
            for peer in (*self._members.values(), *self._followers.values()):
                peer.link.pump()
            lost = [peer for peer in self._members.values() if peer.link.failure is not None]
            if lost:
                self._leave_out(lost)
            for node_id, peer in list(self._followers.items()):
                if peer.link.failure is None and peer.link.behind_bytes > MAX_BEHIND_BYTES:
                    peer.link.failure = Unavailable("it takes lists more slowly than they come")
                if peer.link.failure is not None:
                    log.warning("node %d does not follow the journal: %s", node_id, peer.link.failure)
                    del self._followers[node_id]
                    self._let_go(peer)
                    if isinstance(peer.link.failure, Fenced):
                        raise self.fence(peer.link.failure)
            self._promote()
            soon = not self._members and any(not peer.needs_checkpoint for peer in self._followers.values())
            if self._known and not soon and not self.is_recorded and self._monotonic() >= self._record_after_s:
                self._record(self._next_record())

    def _promote(self) -> None:
        for node_id, peer in list(self._followers.items()):
            if peer.link.failure is None and not peer.needs_checkpoint and peer.link.acked == self._point:
                log.info("node %d has the journal, up to list %d", node_id, self._point.position)
                self._members[node_id] = self._followers.pop(node_id)
                self.durable_position = self._point.position

    def dismiss(self, nodes: Collection[int]) -> None:
        """These need not keep the journal any more."""
        with self._lock:
            for node_id in nodes:
                peer = self._followers.pop(node_id, None)
                if peer is not None:
                    self._let_go(peer)
            leaving = [self._members[node_id] for node_id in nodes if node_id in self._members]
            if leaving:
                for peer in leaving:
                    peer.link.failure = Unavailable("another node has it in its place")
                self._leave_out(leaving)

    def members(self) -> tuple[int, ...]:
        """The nodes that have everything."""
        with self._lock:
            return tuple(sorted(self._members))

    def close(self) -> None:
        """Ends all links."""
        with self._lock:
            for peer in (*self._members.values(), *self._followers.values()):
                self._let_go(peer)
            self._members.clear()
            self._followers.clear()
