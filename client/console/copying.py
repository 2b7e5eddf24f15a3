"""Copies between nodes of the tree for the console."""

from __future__ import annotations

from redfs.client.console.coordinator import Coordinator
from redfs.core.errors import Unavailable
from redfs.proto.gen import cluster_pb2 as pb


async def copy_files(coordinator: Coordinator, request: pb.CopyFiles) -> pb.CopyFilesReply:
    """Copies a file or folder; what holds the target does it."""
    reply: pb.CopyFilesReply = await coordinator.call("CopyBetween", request, flushes=True)
    if reply.unattended:
        raise Unavailable("nobody has the target mounted")
    return reply
