"""Copies between nodes of the tree for the console: by the mount that has the target, else in this process.

What `client/copying.py` does for a program with threads, on the console's own event loop. A copy goes on when the
browser leaves: it was asked for. It ends with the console; what was not durable by then is taken away again.
"""

from __future__ import annotations

import asyncio

from redfs.client.api import COPY_TIMEOUT_S
from redfs.client.console.coordinator import Coordinator
from redfs.client.copying import CopyHere, copy_async, copy_here
from redfs.core.errors import Unavailable
from redfs.proto.gen import cluster_pb2 as pb

MAX_COPIES = 4
"""At once: each has a session of its own while it works here."""


class Copies:
    """The copies of one console. Belongs to one event loop; ended by `close`."""

    def __init__(self, coordinator: Coordinator, copy_in_process: CopyHere = copy_here) -> None:
        self._coordinator = coordinator
        self._copy_here = copy_in_process
        self._tasks: set[asyncio.Task[pb.CopyFilesReply]] = set()

    async def copy(self, request: pb.CopyFiles) -> pb.CopyFilesReply:
        """Carries out a request. What the coordinator, the mount and the copying raise; Unavailable where too many are
        under way; Busy where the target keeps changing hands."""
        if len(self._tasks) >= MAX_COPIES:
            raise Unavailable(f"{MAX_COPIES} copies are under way in this console: wait for one to end")
        task = asyncio.create_task(self._copy(request), name="copy")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[pb.CopyFilesReply]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked has it, or has left

    async def _copy(self, request: pb.CopyFiles) -> pb.CopyFilesReply:
        return await copy_async(self._coordinator.address, self._ask, request, here=self._copy_here)

    async def _ask(self, request: pb.CopyFiles) -> pb.CopyFilesReply:
        reply: pb.CopyFilesReply = await self._coordinator.call("CopyBetween", request, timeout_s=COPY_TIMEOUT_S)
        return reply

    async def close(self) -> None:
        """Breaks off what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
