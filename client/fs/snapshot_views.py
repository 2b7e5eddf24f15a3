"""The snapshots of a mounted volume, each a file system of its own inside of the mount: which there are, which is used.

The kernel's numbers of inodes and handles say to which file system they belong: the bits from NUMBER_BITS on are 0 for
the volume itself, FOLDER_INDEX for the folder of snapshots, and another index for each snapshot that was looked at. So
a file has another number in a snapshot than in the volume, and tools do not take the two for one file.

A snapshot that is used is a *view* of this session (Attach with `view`): no mount, and readable to its end also if the
snapshot is deleted meanwhile. Views are made at the first use and given back when they are idle, or when there are too
many; what the kernel remembers of one stays good, it is made again. One that has open files or folders stays, and is
made again under another session when the mount was cut off (`suspend`, `resume`).

Fails with FsError: ENOENT for a name that is none, ESTALE for what the kernel remembers of a snapshot that is deleted,
ENFILE where too many are in use at once; and as the session's calls do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from errno import ENFILE, ENOENT, ESTALE
from typing import Any, Generic, NamedTuple, TypeVar

from redfs.client.fs.config import FsConfig, Reader, Session, Store
from redfs.client.fs.vfs import Vfs
from redfs.core.errors import FsError, LeaseLapsed, RedfsError, Unavailable
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.fs")
H = TypeVar("H")

NUMBER_BITS = 48
FIRST_NUMBER = 1 << NUMBER_BITS
"""Smaller numbers belong to the volume; the coordinator grants none from here on."""
FOLDER_INDEX = 1
FIRST_INDEX, LAST_INDEX = 2, (1 << 15) - 1
"""Of snapshots; the highest bit stays free. Eight times as many as a volume can have at once."""
KEPT_VIEWS = 16
"""Views kept when nobody has anything of them open: as many snapshots as somebody compares."""
MAX_VIEWS = 48
"""Views in use at once; the coordinator gives a session 64 volumes and views."""
IDLE_S = 60.0
"""A view that nobody asks for is given back after this: it keeps the data of a deleted snapshot."""
LIST_AGE_S = 1.0
"""Names that were told are believed for so long; for one that was not told the coordinator is asked."""
VIEW_RECORDS = 8 * 1024
"""Records kept of one view: 6 MiB, with all views in use below 300 MiB."""
VIEW_NAMES = 4 * 1024
CUT_OFF = "the mount was cut off while this was read: read it again"


class Snapshot(NamedTuple):
    """A snapshot of the volume."""

    volume_id: int
    full_name: str
    """VOLUME@SNAPSHOT."""
    created_ns: int


class Place(NamedTuple):
    """What the kernel's numbers of a snapshot are made of."""

    at: int
    """The index."""
    generation: int
    """Raised where the index belonged to another snapshot before."""

    @property
    def base(self) -> int:
        return self.at << NUMBER_BITS


class ViewSession:
    """A session as one view uses it: nothing is asked after the view was given back, which would end the session."""

    def __init__(self, session: Session) -> None:
        self.last_commit = 0
        self._session = session
        self._under_way = 0
        self._closed: asyncio.Future[None] | None = None
        self.is_suspended = False
        """The session ended, and the view with it: nothing is asked until it is made again."""

    @property
    def lease_s(self) -> float:
        return self._session.lease_s

    @property
    def is_serving(self) -> bool:
        return self._session.is_serving

    async def serving(self) -> None:
        await self._session.serving()

    async def call(self, **body: Any) -> Any:
        if self._closed is not None:
            raise Unavailable("the snapshot was given back: look it up again")
        if self.is_suspended:
            raise Unavailable(CUT_OFF)
        self._under_way += 1
        try:
            return await self._session.call(**body)
        finally:
            self._under_way -= 1
            if self._closed is not None and not self._under_way:
                self._closed.set_result(None)

    async def close(self) -> None:
        """Returns when nothing is under way any more."""
        self._closed = asyncio.get_running_loop().create_future()
        if self._under_way:
            await self._closed


class View(Generic[H]):
    """A snapshot in use."""

    def __init__(self, snapshot: Snapshot, session: ViewSession, vfs: Vfs, handler: H) -> None:
        self.snapshot = snapshot
        self.session = session
        self.vfs = vfs
        self.handler = handler
        """What answers requests for it."""
        self.inside = 0
        """Requests under way."""
        self.used_s = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether it can be given back: nobody waits for it or has something of it open."""
        return not self.inside and not self.vfs.has_open


class SnapshotViews(Generic[H]):
    """See the module. Belongs to the event loop of the mount's requests."""

    def __init__(
        self,
        session: Session,
        volume_id: int,
        store: Store,
        reader: Reader,
        config: FsConfig,
        make_handler: Callable[[Vfs, Place], H],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._volume_id = volume_id
        self._store = store
        self._reader = reader
        self._config = replace(config, cached_records=VIEW_RECORDS, remembered_names=VIEW_NAMES)
        self._make_handler = make_handler
        self._clock = clock
        self._list: dict[bytes, Snapshot] = {}
        self._listed_s = float("-inf")
        self._places: dict[int, Place] = {}
        """Snapshot -> its numbers, the one that got them first comes first."""
        self._snapshot_at: dict[int, int] = {}
        """Index -> snapshot."""
        self._views: OrderedDict[int, View[H]] = OrderedDict()
        """By index, the one used last comes last."""
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._suspended = False

    # ------------------------------------------------------------ which there are

    async def listed(self, *, fresh: bool = False) -> dict[bytes, Snapshot]:
        """Name -> snapshot; at most LIST_AGE_S old, or `fresh`."""
        now_s = self._clock()
        if fresh or now_s - self._listed_s >= LIST_AGE_S:
            self._require_session()
            reply = await self._session.call(list_snapshots=pb.ListSnapshots(volume_id=self._volume_id))
            self._list = {
                row.name.partition("@")[2].encode(): Snapshot(row.volume_id, row.name, row.created_ns)
                for row in reply.snapshots
            }
            self._listed_s = now_s
            self._give_back_deleted()
        return self._list

    async def find(self, name: bytes) -> Snapshot:
        """The snapshot of that name. ENOENT; one that was made a moment ago is found."""
        snapshot = (await self.listed()).get(name) or (await self.listed(fresh=True)).get(name)
        if snapshot is None:
            raise FsError(ENOENT)
        return snapshot

    def place(self, snapshot: Snapshot) -> Place:
        """What its numbers are made of, the same as long as the mount lives and the snapshot is there."""
        place = self._places.get(snapshot.volume_id)
        if place is None:
            place = self._free_place()
            self._places[snapshot.volume_id] = place
            self._snapshot_at[place.at] = snapshot.volume_id
        return place

    def _free_place(self) -> Place:
        index = FIRST_INDEX + len(self._places)
        if index <= LAST_INDEX:
            return Place(index, 0)
        there = {snapshot.volume_id for snapshot in self._list.values()}
        for volume_id, place in self._places.items():
            if volume_id not in there and place.at not in self._views and place.at not in self._opening:
                del self._places[volume_id]
                return place._replace(generation=place.generation + 1)
        raise FsError(ENFILE)

    # ------------------------------------------------------------ which are used

    @asynccontextmanager
    async def using(self, index: int) -> AsyncIterator[View[H]]:
        """The view at an index, which stays while inside."""
        while (view := self._views.get(index)) is None:
            opening = self._opening.get(index)
            if opening is None:
                opening = self._opening[index] = asyncio.create_task(self._open(index))
                opening.add_done_callback(lambda _: self._opening.pop(index, None))
            await asyncio.shield(opening)
        self._views.move_to_end(index)
        view.inside += 1
        try:
            yield view
        finally:
            view.inside -= 1
            view.used_s = self._clock()

    async def _open(self, index: int) -> None:
        snapshot = await self._snapshot_of(index)
        self._make_room()
        self._require_session()
        reply = await self._session.call(attach=pb.Attach(name=snapshot.full_name, view=True))
        session = ViewSession(self._session)
        vfs = Vfs(session, reply, self._store, self._reader, self._config, clock=self._clock)
        view = View(snapshot, session, vfs, self._make_handler(vfs, self._places[snapshot.volume_id]))
        if reply.volume.created_ns != snapshot.created_ns:
            self._give_back(view)  # another one has the name by now
            raise FsError(ESTALE)
        view.used_s = self._clock()
        self._views[index] = view

    async def _snapshot_of(self, index: int) -> Snapshot:
        volume_id = self._snapshot_at.get(index)
        for fresh in (False, True):
            for snapshot in (await self.listed(fresh=fresh)).values():
                if snapshot.volume_id == volume_id:
                    return snapshot
        raise FsError(ESTALE)

    def _make_room(self) -> None:
        for index, view in list(self._views.items()):
            if len(self._views) + len(self._opening) <= KEPT_VIEWS:
                return
            if view.is_idle:
                self._give_back(self._views.pop(index))
        if len(self._views) + len(self._opening) > MAX_VIEWS:
            raise FsError(ENFILE)

    def tick(self) -> None:
        """From time to time: gives back what nobody uses."""
        if self._suspended:
            return
        now_s = self._clock()
        for index, view in list(self._views.items()):
            if view.is_idle and now_s - view.used_s >= IDLE_S:
                self._give_back(self._views.pop(index))

    def _give_back_deleted(self) -> None:
        there = {snapshot.volume_id for snapshot in self._list.values()}
        for index, view in list(self._views.items()):
            if view.snapshot.volume_id not in there and view.is_idle:
                self._give_back(self._views.pop(index))

    def _give_back(self, view: View[H]) -> None:
        closing = asyncio.create_task(self._detach(view))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _detach(self, view: View[H]) -> None:
        try:
            await view.session.close()
            await self._session.call(detach=pb.Detach(volume_id=view.vfs.volume_id))
        except RedfsError as error:
            log.warning("the view of %s stays until the mount ends: %s", view.snapshot.full_name, error)

    # ------------------------------------------------------------ under another session

    def _require_session(self) -> None:
        """Raises Unavailable where the volume is not known in the session that there is."""
        if self._suspended:
            raise Unavailable(CUT_OFF)

    async def suspend(self) -> None:
        """The session has ended, and the views with it. Returns when nothing asks any more, until `resume`."""
        self._suspended = True
        await self.close()
        for index, view in list(self._views.items()):
            if view.is_idle:
                del self._views[index]
            else:
                view.session.is_suspended = True
                view.vfs.gate.shut()
                await view.vfs.gate.empty()

    async def resume(self) -> None:
        """Another session has the volume: makes again what somebody has open."""
        self._suspended = False
        for index, view in list(self._views.items()):
            try:
                await self._make_again(view)
            except LeaseLapsed:
                view.session.is_suspended = self._suspended = True
                return  # the session ended again: this is repeated under the next one
            except RedfsError as error:
                log.warning("%s cannot be read any more: %s", view.snapshot.full_name, error)
                self._views.pop(index, None)
            view.vfs.gate.open(by_force=True)

    async def _make_again(self, view: View[H]) -> None:
        snapshot = view.snapshot
        again = pb.Attach(name=snapshot.full_name, volume_id=snapshot.volume_id, view=True)
        reply = await self._session.call(attach=again)
        view.session.is_suspended = False
        view.vfs.volume_id = reply.volume.volume_id
        await view.vfs.go_on(reply)

    @property
    def views(self) -> int:
        """How many are there."""
        return len(self._views)

    async def close(self) -> None:
        """Ends what is under way; the views go with the session."""
        tasks = [*self._opening.values(), *self._closing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
