"""Copies between nodes of the tree for the console."""

from __future__ import annotations

from redfs.client.api import COPY_TIMEOUT_S
from redfs.client.console.coordinator import Coordinator
from redfs.client.copying import copy_async
from redfs.proto.gen import cluster_pb2 as pb


async def copy_files(coordinator: Coordinator, request: pb.CopyFiles) -> pb.CopyFilesReply:
    """Copies a file or folder: the mount of the target does it, or this process where nobody has it mounted."""

    async def ask(request: pb.CopyFiles) -> pb.CopyFilesReply:
        reply: pb.CopyFilesReply = await coordinator.call("CopyBetween", request, timeout_s=COPY_TIMEOUT_S)
        return reply

    return await copy_async(coordinator.address, ask, request)
