"""The Python API for people's calls to a pool: volumes, snapshots, clones, nodes, status.

    with Pool.connect("127.0.0.1:7400") as pool:
        pool.create_volume("photos", protection="ec:4+2")

Each method is one call to the coordinator with a deadline, blocking, and may be called from any thread. Messages are
those of `proto/cluster.proto`. Errors are the classes of `core/errors.py`: what the coordinator raised, or Unavailable
when it cannot be reached. Reads may be retried freely; a change whose answer got lost may have happened: look first.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own lines on stderr say nothing to a user

import grpc
from google.protobuf.message import Message

from redfs.client.config import find_pool
from redfs.core.errors import RedfsError, Unavailable
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.gen import cluster_pb2_grpc
from redfs.proto.rpc import open_blocking_channel
from redfs.proto.rpc_errors import ERROR_KEY, from_rpc

CALL_TIMEOUT_S = 30.0
"""A call is one transaction in the coordinator, milliseconds long; this covers one that queues behind a full disk."""
FLUSH_DEADLINE_S = 30.0
"""What a mount is given to flush for a snapshot, when the caller does not say; the coordinator's default is shorter."""
ROLL_BACK_S = 60.0
"""Mounts get 10 s to write what they hold and 15 s to forget it; some may come meanwhile, and are held then as well."""
COPY_TIMEOUT_S = 24 * 3600.0
"""A copy takes as long as it has files; the bound is for a coordinator that hangs."""
REMOVE_NODE_S = 600.0
"""For a look at every segment before a node is forgotten: a minute for ten millions."""
COUNT_TIMEOUT_S = 3600.0
"""For a count over all slots of some volumes: some ten minutes for a billion, and room for a busy coordinator."""
CHECK_TIMEOUT_S = 6 * 3600.0
"""A check walks all metadata; the bound is for a coordinator that hangs."""
DIFF_TIMEOUT_S = 6 * 3600.0
"""A comparison takes as long as much has changed; the bound is for a coordinator that hangs."""
SILENCE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
"""gRPC's own ways to say that nobody answered."""

Reply = TypeVar("Reply", bound=Message)


class Pool:
    """A connection to a pool's coordinator."""

    def __init__(self, address: str, channel: grpc.Channel, hint: str = "`redfs up`") -> None:
        self.address = address
        self._hint = hint
        self._channel = channel
        self._stub: Any = cluster_pb2_grpc.CoordinatorServiceStub(channel)

    @classmethod
    def connect(cls, named: str) -> Self:
        """A pool by HOST:PORT or by a folder of `redfs up`. Connects at the first call."""
        place = find_pool(named)
        hint = f"`redfs up --data {place.folder}`" if place.folder else "`redfs up`"
        return cls(place.address, open_blocking_channel(place.address), hint)

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------ volumes

    def create_volume(
        self,
        name: str,
        protection: str = "",
        *,
        description: str = "",
        color: str = "",
        compression: str = "",
        minimum_nodes: int = 0,
        quota_bytes: int = 0,
        hash_seed: int = 0,
        shared: bool = False,
    ) -> pb.Volume:
        """A new empty live volume. Empty arguments mean the pool's defaults. `hash_seed`: of a volume to be received.

        `shared`: several may mount it and write, without asking for that at each mount.

        InvalidArgument (name or policy), AlreadyExists, TooFewNodes (a policy wider than the pool).
        """
        request = pb.VolumeCreate(
            name=name,
            protection=protection,
            description=description,
            color=color,
            compression=compression,
            minimum_nodes=minimum_nodes,
            quota_bytes=quota_bytes,
            hash_seed=hash_seed,
            shared=shared,
        )
        return self._call("CreateVolume", pb.Volume, request)

    def clone(
        self,
        source: str,
        name: str,
        *,
        backed: bool = False,
        snapshot: str = "",
        protection: str | None = None,
        description: str | None = None,
        color: str | None = None,
        compression: str | None = None,
        minimum_nodes: int | None = None,
        quota_bytes: int | None = None,
        shared: bool | None = None,
    ) -> pb.SnapshotCreateReply:
        """A writable copy of any node of the tree, at once and without copying, with its settings but for those given.

        `backed`: first a snapshot of the live source, named `snapshot` (empty: like the clone), then a clone of that.
        NotFound, AlreadyExists; NotAllowed for a backed clone of what never changes.
        """
        settings = pb.VolumeSet(
            protection=protection,
            description=description,
            color=color,
            compression=compression,
            minimum_nodes=minimum_nodes,
            quota_bytes=quota_bytes,
            shared=shared,
        )
        request = pb.VolumeClone(source=source, name=name, backed=backed, snapshot=snapshot, settings=settings)
        return self._call("CloneVolume", pb.SnapshotCreateReply, request, extra_s=FLUSH_DEADLINE_S)

    def create_snapshot(self, name: str, *, flush_deadline_s: float = 0.0, origin: str = "") -> pb.SnapshotCreateReply:
        """Freezes VOLUME@SNAPSHOT. A mount of the volume is asked to flush first and given `flush_deadline_s` for it
        (0: the coordinator's default); the reply says whether it did. `origin`: the stream id of what was received."""
        request = pb.SnapshotCreate(name=name, flush_deadline_s=flush_deadline_s, origin=origin)
        return self._call(
            "CreateSnapshot", pb.SnapshotCreateReply, request, extra_s=flush_deadline_s or FLUSH_DEADLINE_S
        )

    def roll_back(self, snapshot: str, *, keep: str = "", discard: bool = False) -> pb.VolumeRollbackReply:
        """Makes a volume what its snapshot VOLUME@SNAPSHOT is, at once. What it held is kept as the snapshot
        VOLUME@`keep` (empty: named by the time) unless `discard`. Mounts of the volume go on with what the snapshot
        holds. NotFound, AlreadyExists; Unavailable where a mount does not write what it holds in time: nothing
        changed then."""
        request = pb.VolumeRollback(snapshot=snapshot, keep=keep, discard=discard)
        return self._call("RollBackVolume", pb.VolumeRollbackReply, request, extra_s=ROLL_BACK_S)

    def set_schedule(self, volume: str, *, every_s: int, keep: int, label: str = "") -> pb.Schedule:
        """Snapshots of a volume by themselves: one every `every_s` seconds, of which the newest `keep` stay. The label
        is part of their names; empty: made from the interval. Changes the schedule that has the label, if there is one.

        NotFound, InvalidArgument; NotAllowed for what is no volume, or beyond the number of schedules.
        """
        request = pb.Schedule(volume=volume, label=label, every_s=every_s, keep=keep)
        return self._call("SetSchedule", pb.Schedule, request)

    def remove_schedule(self, volume: str, label: str = "") -> pb.Schedule:
        """Ends a volume's schedule with that label, or its only one; the snapshots that it made stay. NotFound."""
        return self._call("RemoveSchedule", pb.Schedule, pb.ScheduleName(volume=volume, label=label))

    def schedules(self, volume: str = "") -> list[pb.Schedule]:
        """The schedules of one volume, or of all."""
        return list(self._call("ListSchedules", pb.ScheduleList, pb.ScheduleName(volume=volume)).schedules)

    def volume(self, name: str) -> pb.Volume:
        """One node of the volume tree. NotFound."""
        return self._call("GetVolume", pb.Volume, pb.VolumeName(name=name))

    def volumes(self) -> list[pb.Volume]:
        """The whole volume tree: zero volume, live volumes, snapshots."""
        reply = self._call("ListVolumes", pb.VolumeList, pb.Empty())
        return list(reply.volumes)

    def rename_volume(self, name: str, new_name: str) -> pb.Volume:
        """Another name for a volume or snapshot. NotFound, AlreadyExists, NotAllowed."""
        return self._call("RenameVolume", pb.Volume, pb.VolumeRename(name=name, new_name=new_name))

    def set_volume(
        self,
        name: str,
        *,
        protection: str | None = None,
        description: str | None = None,
        color: str | None = None,
        compression: str | None = None,
        minimum_nodes: int | None = None,
        quota_bytes: int | None = None,
        shared: bool | None = None,
    ) -> pb.Volume:
        """Changes the settings that are not None; what is written keeps its protection, a mount whether it shares."""
        request = pb.VolumeSet(
            name=name,
            protection=protection,
            description=description,
            color=color,
            compression=compression,
            minimum_nodes=minimum_nodes,
            quota_bytes=quota_bytes,
            shared=shared,
        )
        return self._call("SetVolume", pb.Volume, request)

    def delete_volume(self, name: str, *, force: bool = False) -> pb.Volume:
        """Deletes a volume or snapshot; its space comes back in the background. Busy while it is mounted."""
        return self._call("DeleteVolume", pb.Volume, pb.VolumeDelete(name=name, force=force))

    def copy(
        self, source: str, source_path: str | bytes, target: str, target_path: str | bytes, *, replace: bool = False
    ) -> pb.CopyFilesReply:
        """Copies a file or folder of any node of the tree into a live volume, without moving data; durable at return.

        `target_path`: where it is to be; an existing folder: into it, under its own name. `replace`: an existing file
        gives way. Where the target is mounted its mount does it, else this process. No deadline but a day. NotFound,
        AlreadyExists, InvalidArgument, NotAllowed (a snapshot as target), NoSpace (quota), Busy.
        """
        from redfs.client import copying  # brings the file system along, which other calls do without

        request = pb.CopyFiles(
            source=source,
            source_path=os.fsencode(source_path),
            target=target,
            target_path=os.fsencode(target_path),
            replace=replace,
        )
        return copying.copy(self.address, self._copy_between, request)

    def _copy_between(self, request: pb.CopyFiles) -> pb.CopyFilesReply:
        return self._call("CopyBetween", pb.CopyFilesReply, request, extra_s=COPY_TIMEOUT_S)

    def freed(self, names: Iterable[str]) -> pb.FreedReply:
        """Exactly what deleting these nodes of the tree, and no others, would free. Looks at all their slots; changes
        nothing. NotFound, NotAllowed (the zero volume)."""
        return self._call("GetFreed", pb.FreedReply, pb.FreedRequest(names=names), extra_s=COUNT_TIMEOUT_S)

    def diff(self, before: str, after: str) -> Iterator[pb.DiffEntry]:
        """What changed from one node of the tree to another, as it is found (`sorted_entries.by_path` sorts it).

        Mounts are asked to flush first. NotFound; InvalidArgument for nodes without a common ancestor.
        """
        request = pb.DiffRequest(before=before, after=after)
        try:
            for page in self._stub.DiffVolumes(request, timeout=DIFF_TIMEOUT_S):
                yield from page.entries
        except grpc.RpcError as error:
            raise self._rebuilt(error) from None

    # ------------------------------------------------------------ the pool

    def nodes(self) -> list[pb.Node]:
        """Every storage node that ever joined, by id."""
        reply = self._call("GetNodes", pb.ListNodesReply, pb.Empty())
        return list(reply.nodes)

    def status(self) -> pb.PoolStatus:
        """Health, capacity, what is stored, jobs."""
        return self._call("GetStatus", pb.PoolStatus, pb.Empty())

    def jobs(self) -> list[pb.Job]:
        """Background jobs; the first of them where there are very many."""
        return list(self.status().jobs)

    def control_job(self, job_id: int, action: str) -> pb.Job:
        """`pause`, `resume` or `cancel`: what the job's `allowed` names. Pausing holds over restarts.

        NotFound where it is done; NotAllowed for one that has to be done in the end.
        """
        return self._call("ControlJob", pb.Job, pb.JobControl(job_id=job_id, action=action))

    def start_job(self, kind: str) -> pb.Job:
        """Starts all that there is to do of a kind, `rebalance` say; the job that is there already, if one is.

        InvalidArgument for another kind; Busy where one is there and paused.
        """
        return self._call("StartJob", pb.Job, pb.JobStart(kind=kind))

    def follow_job(self, job_id: int) -> Iterator[pb.Job]:
        """A job each time that it went on; ends when it is done, or was cancelled."""
        for changed in self.watch():
            if not changed.jobs:
                continue
            found = [job for job in self.jobs() if job.job_id == job_id]
            yield from found
            if not found:
                return

    def control_node(self, node_id: int, action: str) -> pb.Node:
        """`drain`: moves what it holds to other nodes. `out`: makes it anew elsewhere, the node is not coming back.
        `in`: uses it again. `remove`: forgets it. The node as it is then, or was.

        NotFound; NotAllowed for what its state does not allow, and for removing one that still holds something.
        """
        request = pb.NodeControl(node_id=node_id, action=action)
        return self._call("ControlNode", pb.Node, request, extra_s=REMOVE_NODE_S)

    def drain(self, node_id: int) -> pb.Job | None:
        """Drains a node: the job that does it. None: it is done already."""
        self.control_node(node_id, "drain")
        subject = f"node {node_id}"
        return next((job for job in self.jobs() if job.kind == "drain" and job.subject == subject), None)

    def follow_deletion(self, volume_id: int) -> Iterator[pb.Job]:
        """The job that frees what a deleted node held, each time that it went on; ends when it is done."""
        for changed in self.watch():
            if not changed.jobs and not changed.tree:
                continue
            found = [job for job in self.jobs() if job.volume_id == volume_id and job.kind == "reclaim"]
            yield from found
            # A status names the first jobs only: the tree has the last word.
            if not found and not any(v.volume_id == volume_id and v.state == "deleting" for v in self.volumes()):
                return

    def watch(self) -> Iterator[pb.Changed]:
        """What changes in the pool, within a second, for as long as it is iterated. The first item comes at once and
        names everything, each later one what changed since the one before; read again what it names.

        Busy where too many watch already; Unavailable when the coordinator goes: read everything again with a new one.
        """
        call = self._stub.Watch(pb.WatchRequest())
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._rebuilt(error) from None
        finally:
            call.cancel()
        raise Unavailable(f"the coordinator at {self.address} told the last of what changes: is it stopping?")

    def check(self) -> Iterator[pb.CheckItem]:
        """The coordinator proves its metadata from scratch: findings, then the shards that each node should hold."""
        try:
            yield from self._stub.Check(pb.CheckRequest(), timeout=CHECK_TIMEOUT_S)
        except grpc.RpcError as error:
            raise self._rebuilt(error) from None

    # ------------------------------------------------------------ one call

    def _call(self, name: str, kind: type[Reply], request: Message, *, extra_s: float = 0.0) -> Reply:
        try:
            reply = getattr(self._stub, name)(request, timeout=CALL_TIMEOUT_S + extra_s)
        except grpc.RpcError as error:
            raise self._rebuilt(error) from None
        assert isinstance(reply, kind)
        return reply

    def _rebuilt(self, error: grpc.RpcError) -> RedfsError:
        return rebuilt(error, self.address, self._hint)


def rebuilt(error: grpc.RpcError, address: str, hint: str) -> RedfsError:
    """The error that the coordinator raised; or, where it did not answer at all, Unavailable with what to do."""
    call: Any = error
    answered = ERROR_KEY in dict(call.trailing_metadata() or ())
    if not answered and call.code() in SILENCE:
        return Unavailable(f"cannot reach the coordinator at {address}: is it running? Try {hint}")
    return from_rpc(error, f"the coordinator at {address}")
