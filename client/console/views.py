"""Nodes of the tree held still for browsing and downloads: one session, a few views, the data path below them.

A view shows what is committed of a node at the instant it was made, whatever becomes of the node meanwhile. A
snapshot's view is used again while it is asked for; a live volume's only for `FRESH_S`, then another one takes its
place. Views are counted while they are in use, least recently used ones make room, idle ones are given back soon,
because what a view shows cannot be freed.

The session is opened when it is first needed and closed when nothing was for a while, so that a console nobody browses
with costs the coordinator nothing. Fails with Unavailable while the coordinator is away, or when too many views are in
use; after a lapsed session the next request opens another one. All calls belong to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from redfs.client.console.coordinator import Coordinator
from redfs.client.data.cache import BlockCache
from redfs.client.data.config import MIB, DataConfig
from redfs.client.data.reader import BlockReader
from redfs.client.fs.config import FsConfig
from redfs.client.fs.vfs import Vfs
from redfs.client.node_pool import NodePool
from redfs.client.session import CoordinatorSession, SessionConfig
from redfs.core.errors import InternalError, LeaseLapsed, RedfsError, Unavailable
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.console")

MAX_VIEWS = 32
"""Views at one time. The coordinator allows a session 64; those lost with a connection come on top of ours."""
FRESH_S = 1.0
"""A live volume's view is at most so old when it is used for another request."""
IDLE_S = 15.0
"""A snapshot's view that nobody uses is given back after this: a person who browses clicks more often."""
SESSION_IDLE_S = 60.0
"""The session ends when there was no view for so long."""
TICK_S = 0.5
"""Between two looks for what is idle."""
NAME_ROUNDS = 4
"""How often a name may come to mean another node while it is being looked up."""
SESSION_CONFIG = SessionConfig(open_timeout_s=4.0, give_up_s=4.0)
"""A person waits for the answer: an error that says why is better than a page that hangs."""
DATA_CONFIG = DataConfig(cache_bytes=64 * MIB, prefetch_bytes=24 * MIB, locations=32_768, segment_locations=4096)
"""For all downloads together; a mount has more for itself alone."""
FS_CONFIG = FsConfig(
    cached_records=8192,
    folder_cached_buckets=4096,
    whole_folder_entries=500,
    prefetch_max_bytes=8 * MIB,
    remembered_names=4096,
    give_up_s=SESSION_CONFIG.give_up_s,
)
"""For each view: at most some 6 MiB of records."""


class _ReadOnlyStore:
    """In the place of the block store: views are never written to."""

    async def store(self, plain: Any, *, dedupe: bool = True) -> Any:
        raise InternalError("a view was written to")

    async def abandon(self, batch: Any) -> None:
        raise InternalError("a view was written to")


class Backend:
    """A session with what reads through it."""

    def __init__(self, session: CoordinatorSession) -> None:
        self.session = session
        self.nodes = NodePool(session, DATA_CONFIG)
        self.reader = BlockReader(session, self.nodes, BlockCache(DATA_CONFIG.cache_bytes), DATA_CONFIG)
        self.lapsed = False

    async def close(self) -> None:
        await self.reader.close()
        await self.nodes.close()
        await self.session.close()


class View:
    """One node, held still."""

    def __init__(self, node: pb.Volume, backend: Backend, vfs: Vfs, made_at_s: float) -> None:
        self.node = node
        """As it was when the view was made; `node.volume_id` is the node's own."""
        self.backend = backend
        self.vfs = vfs
        self.made_at_s = made_at_s
        self.used_at_s = made_at_s
        self.users = 0
        self.retired = False

    @property
    def is_live(self) -> bool:
        return self.node.kind == "live"

    async def call(self, **body: Any) -> Any:
        """A request of the session about this view."""
        return await self.backend.session.call(**body)

    @property
    def view_id(self) -> int:
        """The number to name the view by in requests."""
        return self.vfs.volume_id


class Views:
    """See the module. `tick` is to be called every TICK_S; ended by `close`."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        clock: Callable[[], float] = time.monotonic,
        session_config: SessionConfig = SESSION_CONFIG,
    ) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._session_config = session_config
        self._backend: Backend | None = None
        self._opening = asyncio.Lock()
        self._views: dict[int, View] = {}
        """The current view of a node, by the node's own id; least recently used first."""
        self._retired: set[View] = set()
        """Out of date and still in use."""
        self._making: dict[int, asyncio.Task[View]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._needed_at_s = clock()

    @property
    def count(self) -> int:
        """Views held now."""
        return len(self._views) + len(self._retired) + len(self._making)

    @property
    def has_session(self) -> bool:
        """Whether a session is open."""
        return self._backend is not None

    # ------------------------------------------------------------ use

    @contextlib.asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[View]:
        """A view of the node with that name. NotFound, Unavailable. An error from the session's end retires it."""
        view = await self._take(await self._coordinator.volume(name))
        try:
            yield view
        except LeaseLapsed as error:
            self._retire(view)
            raise Unavailable(f"the console's session with the coordinator ended: try again ({error})") from error
        finally:
            view.users -= 1
            view.used_at_s = self._needed_at_s = self._clock()
            if view.retired and not view.users:
                self._give_back(view)

    async def _take(self, node: pb.Volume) -> View:
        for _ in range(NAME_ROUNDS):
            view = self._views.get(node.volume_id)
            if view is not None and view.is_live and self._clock() - view.made_at_s > FRESH_S:
                self._retire(view)
                view = None
            if view is None:
                making = self._making.get(node.volume_id)
                if making is None:
                    self._make_room()
                    making = asyncio.create_task(self._make(node), name="make a view")
                    self._making[node.volume_id] = making
                    making.add_done_callback(partial(self._made, node.volume_id))
                view = await asyncio.shield(making)
            is_it = view.node.created_ns == node.created_ns and view.node.kind == node.kind
            if is_it and not view.retired:
                view.users += 1
                self._views[node.volume_id] = self._views.pop(node.volume_id)
                return view
            self._retire(view)
            node = await self._coordinator.volume(node.name)
        raise Unavailable(f"'{node.name}' keeps becoming another node: try again")

    def _made(self, key: int, done: asyncio.Task[View]) -> None:
        self._making.pop(key, None)
        if not done.cancelled():
            done.exception()  # whoever waited has it

    async def _make(self, node: pb.Volume) -> View:
        backend = await self._connected()
        attached = await backend.session.call(attach=pb.Attach(name=node.name, read_only=True, view=True))
        shown = pb.Volume()
        shown.CopyFrom(attached.volume)
        shown.volume_id = node.volume_id
        vfs = Vfs(backend.session, attached, _ReadOnlyStore(), backend.reader, FS_CONFIG)
        view = View(shown, backend, vfs, self._clock())
        if backend.lapsed:
            raise Unavailable("the console's session with the coordinator ended: try again")
        self._views[node.volume_id] = view
        return view

    def _make_room(self) -> None:
        if self.count < MAX_VIEWS:
            return
        idle = next((view for view in self._views.values() if not view.users), None)
        if idle is None:
            raise Unavailable(f"{MAX_VIEWS} nodes of the tree are being read at once: try again in a moment")
        self._retire(idle)

    # ------------------------------------------------------------ giving back

    def _retire(self, view: View) -> None:
        """Nobody gets the view any more; it goes when its last user has gone."""
        if view.retired:
            return
        view.retired = True
        if self._views.get(view.node.volume_id) is view:
            del self._views[view.node.volume_id]
        if view.users:
            self._retired.add(view)
        else:
            self._give_back(view)

    def _give_back(self, view: View) -> None:
        self._retired.discard(view)
        if not view.backend.lapsed:
            self._spawn(self._detach(view))

    async def _detach(self, view: View) -> None:
        try:
            await view.call(detach=pb.Detach(volume_id=view.view_id))
        except RedfsError as error:
            log.info("a view of %s goes with its session: %s", view.node.name, error)

    def tick(self) -> None:
        """Gives back what is idle."""
        now_s = self._clock()
        for view in list(self._views.values()):
            idle_s = FRESH_S if view.is_live else IDLE_S
            if not view.users and now_s - view.used_at_s > idle_s:
                self._retire(view)
        if self.count:
            self._needed_at_s = now_s
        elif self._backend is not None and now_s - self._needed_at_s > SESSION_IDLE_S:
            backend, self._backend = self._backend, None
            self._spawn(backend.close())

    async def close(self) -> None:
        """Ends the session, and with it every view."""
        making = list(self._making.values())
        for task in making:
            task.cancel()
        await asyncio.gather(*making, *self._tasks, return_exceptions=True)
        self._views.clear()
        if self._backend is not None:
            backend, self._backend = self._backend, None
            await backend.close()

    # ------------------------------------------------------------ the session

    async def _connected(self) -> Backend:
        async with self._opening:
            if self._backend is None:
                name = f"{socket.gethostname()}:{os.getpid()}:console"
                session = await CoordinatorSession.open(self._coordinator.address, name, config=self._session_config)
                backend = Backend(session)
                session.on_lapsed = lambda: self._lapsed(backend)
                self._backend = backend
                self._needed_at_s = self._clock()
            return self._backend

    def _lapsed(self, backend: Backend) -> None:
        """The session has ended at the coordinator: its views are gone."""
        log.warning("the console's session with the coordinator ended; the next request opens another one")
        backend.lapsed = True
        if self._backend is backend:
            self._backend = None
        for view in [view for view in self._views.values() if view.backend is backend]:
            self._retire(view)
        self._spawn(backend.close())

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
