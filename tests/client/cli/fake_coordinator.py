"""A coordinator in this process that keeps its volumes in a dict: what the API and the command line are tested on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NoReturn

import grpc

from redfs.core.errors import AlreadyExists, InvalidArgument, NotAllowed, NotFound, RedfsError
from redfs.core.schedules import default_label
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.gen import cluster_pb2_grpc
from redfs.proto.rpc_errors import status_of, trailing_metadata

BORN_NS = 1_700_000_000_000_000_000


class FakeCoordinator(cluster_pb2_grpc.CoordinatorServiceServicer):
    """Answers people's calls; `calls` lists the requests."""

    def __init__(self, workers: int = 2, address: str = "127.0.0.1:0") -> None:
        zero = pb.Volume(volume_id=1, kind="zero", name="zero", state="ok")
        self.volumes = {"zero": zero}
        self.calls: list[Any] = []
        self.status = pb.PoolStatus(pool_id="fake", health="ok", nodes_up=1, nodes_total=1)
        self.nodes = [
            pb.Node(node_id=1, address="127.0.0.1:9", state="up", data_folder="/disk/node-0", capacity_bytes=1 << 40)
        ]
        self.check_items: list[pb.CheckItem] = []
        self.diff_entries: list[pb.DiffEntry] = []
        self.schedules: list[pb.Schedule] = []
        self.happenings: list[Callable[[], None]] = []
        """Happen one after the other while somebody watches."""
        # Two servers must never share a port, not even with those of another test run on this machine.
        options = [("grpc.so_reuseport", 0)]
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=workers), options=options)
        cluster_pb2_grpc.add_CoordinatorServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port(address)}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def _refuse(self, context: grpc.ServicerContext, error: RedfsError) -> NoReturn:
        context.set_trailing_metadata(trailing_metadata(error))
        context.abort(status_of(error), str(error))
        raise AssertionError("abort raises")

    def _find(self, name: str, context: grpc.ServicerContext) -> pb.Volume:
        if name not in self.volumes:
            self._refuse(context, NotFound(f"no volume '{name}'"))
        return self.volumes[name]

    def _add(self, kind: str, name: str, parent: pb.Volume, context: grpc.ServicerContext, **more: Any) -> pb.Volume:
        if not re.fullmatch(r"[a-z0-9@-]+", name):
            self._refuse(context, InvalidArgument(f"'{name}' is no name for a volume"))
        if name in self.volumes:
            self._refuse(context, AlreadyExists(f"there is a volume '{name}' already"))
        number = len(self.volumes) + 1
        made = pb.Volume(
            volume_id=number, kind=kind, name=name, parent_id=parent.volume_id, state="ok", created_ns=BORN_NS + number
        )
        for key, value in more.items():
            setattr(made, key, value)
        self.volumes[name] = made
        return made

    def CreateVolume(self, request: pb.VolumeCreate, context: grpc.ServicerContext) -> pb.Volume:
        self.calls.append(request)
        return self._add(
            "live",
            request.name,
            self.volumes["zero"],
            context,
            protection=request.protection or "ec:4+2",
            color=request.color,
            description=request.description,
            compression=request.compression or "zstd",
        )

    def CloneVolume(self, request: pb.VolumeClone, context: grpc.ServicerContext) -> pb.SnapshotCreateReply:
        self.calls.append(request)
        source = self._find(request.source, context)
        made = self._add("live", request.name, source, context, protection=source.protection or "ec:4+2")
        return pb.SnapshotCreateReply(snapshot=made, holder_flushed=True)

    def CreateSnapshot(self, request: pb.SnapshotCreate, context: grpc.ServicerContext) -> pb.SnapshotCreateReply:
        source = self._find(request.name.partition("@")[0], context)
        made = self._add("snapshot", request.name, source, context, protection=source.protection)
        return pb.SnapshotCreateReply(snapshot=made, holder_flushed=True, coordinator_ms=0.5)

    def RollBackVolume(self, request: pb.VolumeRollback, context: grpc.ServicerContext) -> pb.VolumeRollbackReply:
        self.calls.append(request)
        volume = self._find(request.snapshot.partition("@")[0], context)
        if request.discard:
            return pb.VolumeRollbackReply(volume=volume)
        kept = self._add("snapshot", f"{volume.name}@{request.keep or 'before'}", volume, context)
        return pb.VolumeRollbackReply(volume=volume, kept=kept)

    def CopyBetween(self, request: pb.CopyFiles, context: grpc.ServicerContext) -> pb.CopyFilesReply:
        self.calls.append(request)
        for name in (request.source, request.target):
            self._find(name, context)
        if request.target_path == b"/taken" and not request.replace:
            self._refuse(context, AlreadyExists("it exists already"))
        return pb.CopyFilesReply(files=1234, bytes=6_000_000_000, path=request.target_path)

    def GetVolume(self, request: pb.VolumeName, context: grpc.ServicerContext) -> pb.Volume:
        return self._find(request.name, context)

    def ListVolumes(self, request: pb.Empty, context: grpc.ServicerContext) -> pb.VolumeList:
        return pb.VolumeList(volumes=self.volumes.values())

    def RenameVolume(self, request: pb.VolumeRename, context: grpc.ServicerContext) -> pb.Volume:
        found = self._find(request.name, context)
        del self.volumes[request.name]
        found.name = request.new_name
        self.volumes[found.name] = found
        return found

    def SetVolume(self, request: pb.VolumeSet, context: grpc.ServicerContext) -> pb.Volume:
        self.calls.append(request)
        return self._find(request.name, context)

    def DeleteVolume(self, request: pb.VolumeDelete, context: grpc.ServicerContext) -> pb.Volume:
        self.calls.append(request)
        found = self._find(request.name, context)
        del self.volumes[request.name]
        found.state = "deleting"
        return found

    def GetFreed(self, request: pb.FreedRequest, context: grpc.ServicerContext) -> pb.FreedReply:
        for name in request.names:
            self._find(name, context)
        return pb.FreedReply(logical_bytes=3 << 20, unique_bytes=2 << 20, stored_bytes=1 << 20, segment_bytes=6 << 20)

    def DiffVolumes(self, request: pb.DiffRequest, context: grpc.ServicerContext) -> Iterator[pb.DiffPage]:
        self.calls.append(request)
        for name in (request.before, request.after):
            self._find(name, context)
        for entry in self.diff_entries:
            yield pb.DiffPage(entries=[entry])

    def GetNodes(self, request: pb.Empty, context: grpc.ServicerContext) -> pb.ListNodesReply:
        return pb.ListNodesReply(nodes=self.nodes)

    def GetStatus(self, request: pb.Empty, context: grpc.ServicerContext) -> pb.PoolStatus:
        return self.status

    def SetSchedule(self, request: pb.Schedule, context: grpc.ServicerContext) -> pb.Schedule:
        self.calls.append(request)
        self._find(request.volume, context)
        made = pb.Schedule()
        made.CopyFrom(request)
        made.label = request.label or default_label(request.every_s)
        made.next_ns = BORN_NS
        self.schedules.append(made)
        return made

    def RemoveSchedule(self, request: pb.ScheduleName, context: grpc.ServicerContext) -> pb.Schedule:
        found = [s for s in self.schedules if s.volume == request.volume and request.label in ("", s.label)]
        if not found:
            self._refuse(context, NotFound("no such schedule"))
        self.schedules.remove(found[0])
        return found[0]

    def ListSchedules(self, request: pb.ScheduleName, context: grpc.ServicerContext) -> pb.ScheduleList:
        return pb.ScheduleList(schedules=[s for s in self.schedules if request.volume in ("", s.volume)])

    def ControlJob(self, request: pb.JobControl, context: grpc.ServicerContext) -> pb.Job:
        self.calls.append(request)
        found = next((job for job in self.status.jobs if job.job_id == request.job_id), None)
        if found is None:
            self._refuse(context, NotFound(f"there is no job {request.job_id}"))
        if request.action not in found.allowed:
            self._refuse(context, NotAllowed("it has to be done in the end"))
        found.state = "paused" if request.action == "pause" else "waiting"
        return found

    def StartJob(self, request: pb.JobStart, context: grpc.ServicerContext) -> pb.Job:
        self.calls.append(request)
        job = pb.Job(job_id=20, kind=request.kind, state="waiting", subject="all nodes", left_s=-1)
        self.status.jobs.append(job)
        return job

    def ControlNode(self, request: pb.NodeControl, context: grpc.ServicerContext) -> pb.Node:
        self.calls.append(request)
        found = next((node for node in self.nodes if node.node_id == request.node_id), None)
        if found is None:
            self._refuse(context, NotFound(f"no node has the id {request.node_id}"))
        if request.action == "remove" and found.segments:
            self._refuse(context, NotAllowed(f"node {found.node_id} still has shards"))
        if request.action == "drain":
            job = pb.Job(job_id=21, kind="drain", state="waiting", subject=f"node {found.node_id}", left_s=-1)
            self.status.jobs.append(job)
        found.state = {"drain": "draining", "in": "up", "out": "out"}.get(request.action, found.state)
        return found

    def Watch(self, request: pb.WatchRequest, context: grpc.ServicerContext) -> Iterator[pb.Changed]:
        yield pb.Changed(tree=True, nodes=True, jobs=True, schedules=True, figures=pb.Figures())
        for happen in self.happenings:
            happen()
            yield pb.Changed(jobs=True)

    def Check(self, request: pb.CheckRequest, context: grpc.ServicerContext) -> Iterator[pb.CheckItem]:
        yield from self.check_items
