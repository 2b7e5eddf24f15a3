"""People's calls to the coordinator from the console's event loop: one channel, a deadline for each call.

Raises what the coordinator raised, or Unavailable with the one line that says what to do when it does not answer. The
channel connects again by itself. Reads may be retried freely; a change whose answer got lost may have happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from redfs.client.api import CALL_TIMEOUT_S, FLUSH_DEADLINE_S, rebuilt
from redfs.client.config import PoolPlace
from redfs.core.errors import Unavailable
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.gen import cluster_pb2_grpc
from redfs.proto.rpc import open_channel

MAX_CALLS = 64
"""Calls under way at once; later ones wait in line, a browser has half a dozen."""
DIFF_TIMEOUT_S = 120.0
"""A diff takes time in proportion to what changed, and the console shows the first thousands."""


class Coordinator:
    """See the module. Belongs to one event loop; ended by `close`."""

    def __init__(self, place: PoolPlace) -> None:
        self.address = place.address
        self.hint = f"`redfs up --data {place.folder}`" if place.folder else "`redfs up`"
        self._channel = open_channel(place.address)
        self._stub: Any = cluster_pb2_grpc.CoordinatorServiceStub(self._channel)
        self._slots = asyncio.Semaphore(MAX_CALLS)

    async def close(self) -> None:
        """Ends the connection; calls under way end with Unavailable."""
        await self._channel.close(None)

    async def call(
        self, name: str, request: Message | None = None, *, flushes: bool = False, timeout_s: float = CALL_TIMEOUT_S
    ) -> Any:
        """One call by its name in cluster.proto. `flushes`: a mount may be asked to flush for it."""
        timeout_s += FLUSH_DEADLINE_S if flushes else 0
        async with self._slots:
            try:
                return await getattr(self._stub, name)(pb.Empty() if request is None else request, timeout=timeout_s)
            except grpc.RpcError as error:
                raise rebuilt(error, self.address, self.hint) from None
            except asyncio.CancelledError:
                # The channel's end also looks like this; the caller's own end goes on as such.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise Unavailable("the console is ending") from None

    async def stream(self, name: str, request: Message, *, timeout_s: float | None) -> AsyncGenerator[Any]:
        """The messages of a call that answers with many. Close the iterator to end the call early."""
        call = getattr(self._stub, name)(request, timeout=timeout_s)
        try:
            async for message in call:
                yield message
        except grpc.RpcError as error:
            raise rebuilt(error, self.address, self.hint) from None
        finally:
            call.cancel()

    def gone(self) -> Unavailable:
        """What to say where a stream that never ends by itself has ended in good order: the coordinator was stopped."""
        return Unavailable(f"the coordinator at {self.address} has stopped. Start it again with {self.hint}")

    async def volume(self, name: str) -> pb.Volume:
        """One node of the tree. NotFound."""
        found: pb.Volume = await self.call("GetVolume", pb.VolumeName(name=name))
        return found
