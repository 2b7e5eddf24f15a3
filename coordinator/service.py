"""The gRPC servicers: people's calls, sessions' streams, storage nodes' streams.

Each validates, converts and delegates. Errors of the family end a call with their status and code; anything else is a
bug, logged with its trace and told as InternalError.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from itertools import islice
from typing import Any, TypeVar, cast

import grpc.aio

from redfs.coordinator import check, convert, jobs, node_control, requests, schedules, scrub, sessions, usage, volumes
from redfs.coordinator.coordinator import Command
from redfs.coordinator.copies import require_target
from redfs.coordinator.differences import Differences
from redfs.coordinator.job_starts import start_job
from redfs.coordinator.node_stream import NodeStream
from redfs.coordinator.returning import Returning
from redfs.coordinator.rolling_back import RollingBack
from redfs.coordinator.session_stream import SessionStream
from redfs.coordinator.sharing import Sharing
from redfs.coordinator.shell import Shell, as_redfs_error
from redfs.coordinator.status import pool_status
from redfs.coordinator.txn import Txn
from redfs.coordinator.watch import Topic
from redfs.core.errors import Busy, InvalidArgument, RedfsError, Unavailable
from redfs.core.tables import NodeRow, VolumeKind, VolumeRow
from redfs.core.versions.reader import VersionReader
from redfs.core.volume_tree import ReadTree
from redfs.proto import rpc_errors
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.gen import cluster_pb2_grpc

T = TypeVar("T")

MAX_FLUSH_DEADLINE_S = 600.0
"""The longest that a snapshot waits for a mount."""
CHECK_CHUNK = 64
"""Items of a check that are made at one go in a reader thread."""
CHECK_STALL_S = 60.0
"""A check whose caller takes nothing for this long is ended: it keeps a read transaction open."""
WATCH_STALL_S = 60.0
"""A watcher that takes nothing for this long is ended: it keeps its place from others."""
DIFF_STALL_S = 600.0
"""A comparison whose caller takes nothing for this long is ended: it keeps old versions from being freed."""

log = logging.getLogger(__name__)


async def _answer(context: Any, work: Awaitable[T]) -> T:
    """The work's value, or the call ended with its error."""
    try:
        return await work
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - told to the caller, logged where it is a bug
        await rpc_errors.abort(context, as_redfs_error(error))


class CoordinatorServicer(cluster_pb2_grpc.CoordinatorServiceServicer):
    """Calls of people and tools, and sessions."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._coordinator = shell.coordinator
        self._requests = requests.Requests(shell.coordinator, shell.order_done, shell.copies.done)
        self._rolling_back = RollingBack(shell)
        self._sharing = Sharing(shell)
        self._returning = Returning(shell)
        self._checking = False
        self._differences = Differences(shell)

    async def Session(self, _: Any, context: Any) -> None:  # noqa: N802 - named by the protocol
        await SessionStream(context, self._shell, self._requests, self._sharing, self._returning).run()

    # -- volumes

    def _shown(self, row: VolumeRow) -> pb.Volume:
        with self._coordinator.read() as kv:
            return requests.show_volume(kv, row, VersionReader(kv, self._coordinator.env.ancestry))

    async def _volume(self, context: Any, command: Command[VolumeRow]) -> pb.Volume:
        return self._shown(await _answer(context, self._shell.run(command)))

    async def CreateVolume(self, request: pb.VolumeCreate, context: Any) -> pb.Volume:  # noqa: N802
        return await self._volume(
            context,
            lambda txn: volumes.create_volume(
                txn,
                request.name,
                request.protection,
                request.description,
                request.color,
                request.compression,
                request.minimum_nodes,
                request.quota_bytes,
                request.hash_seed,
                request.shared,
            ),
        )

    async def RenameVolume(self, request: pb.VolumeRename, context: Any) -> pb.Volume:  # noqa: N802
        return await self._volume(context, lambda txn: volumes.rename_volume(txn, request.name, request.new_name))

    async def SetVolume(self, request: pb.VolumeSet, context: Any) -> pb.Volume:  # noqa: N802
        changes = _settings(request)
        return await self._volume(context, lambda txn: volumes.set_volume(txn, request.name, **changes))

    async def DeleteVolume(self, request: pb.VolumeDelete, context: Any) -> pb.Volume:  # noqa: N802
        return await self._volume(context, lambda txn: volumes.delete_volume(txn, request.name, request.force))

    async def GetVolume(self, request: pb.VolumeName, context: Any) -> pb.Volume:  # noqa: N802
        async def find() -> VolumeRow:
            with self._coordinator.read() as kv:
                return ReadTree(kv).named(request.name)

        return self._shown(await _answer(context, find()))

    async def ListVolumes(self, _: pb.Empty, context: Any) -> pb.VolumeList:  # noqa: N802
        return await _answer(context, self._shell.read(lambda: requests.list_volumes(self._coordinator)))

    async def GetFreed(self, request: pb.FreedRequest, context: Any) -> pb.FreedReply:  # noqa: N802
        def count() -> usage.Freed:
            with self._coordinator.read() as kv:
                return usage.freed_by(kv, request.names, self._give_way)

        return pb.FreedReply(**(await _answer(context, self._shell.read(count)))._asdict())

    def _give_way(self) -> None:
        """Ends a read that takes longer than a moment where the writer waits for it."""
        if getattr(self._coordinator.store, "wants_to_grow", False):
            raise Unavailable("the metadata store has to grow: try again")

    async def CreateSnapshot(self, request: pb.SnapshotCreate, context: Any) -> pb.SnapshotCreateReply:  # noqa: N802
        source = request.name.partition("@")[0]

        def command(txn: Txn) -> VolumeRow:
            return volumes.create_snapshot(txn, request.name, request.origin)

        return await _answer(context, self._frozen(source, request.flush_deadline_s, command))

    async def RollBackVolume(self, request: pb.VolumeRollback, context: Any) -> pb.VolumeRollbackReply:  # noqa: N802
        work = self._rolling_back.run(request.snapshot, request.keep, request.discard)
        done, took_ms = await _answer(context, work)
        kept = None if done.kept is None else self._shown(done.kept)
        return pb.VolumeRollbackReply(volume=self._shown(done.volume), kept=kept, coordinator_ms=took_ms)

    async def CloneVolume(self, request: pb.VolumeClone, context: Any) -> pb.SnapshotCreateReply:  # noqa: N802
        changes = _settings(request.settings)

        def command(txn: Txn) -> VolumeRow:
            if request.backed:
                return volumes.clone_backed(txn, request.source, request.name, request.snapshot, **changes)
            if request.snapshot:
                raise InvalidArgument("only a backed clone makes a snapshot: ask for one, or leave its name out")
            return volumes.clone_volume(txn, request.source, request.name, **changes)

        return await _answer(context, self._frozen(request.source, 0.0, command))

    async def _frozen(self, source: str, deadline_s: float, command: Command[VolumeRow]) -> pb.SnapshotCreateReply:
        """Flushes the mounts of a live source, then runs a command that freezes it."""
        if not 0 <= deadline_s <= MAX_FLUSH_DEADLINE_S:
            raise InvalidArgument(f"the flush deadline is 0 to {MAX_FLUSH_DEADLINE_S:.0f} seconds")
        flushed = await self._flush_holder(source, deadline_s or self._coordinator.config.flush_deadline_s)
        started_s = 0.0

        def timed(txn: Any) -> VolumeRow:
            nonlocal started_s
            started_s = time.perf_counter()
            return command(txn)

        row = await self._shell.run(timed)
        took_ms = (time.perf_counter() - started_s) * 1000
        return pb.SnapshotCreateReply(snapshot=self._shown(row), holder_flushed=flushed, coordinator_ms=took_ms)

    async def _flush_holder(self, name: str, deadline_s: float) -> bool:
        """Whether all that mounts of the volume hold is committed; True where nobody has it mounted."""
        with self._coordinator.read() as kv:
            row = ReadTree(kv).find(name)
        if row is None or row.kind != VolumeKind.LIVE:
            return True
        return await self._shell.flush_writers(row.volume_id, deadline_s)

    async def CopyBetween(self, request: pb.CopyFiles, context: Any) -> pb.CopyFilesReply:  # noqa: N802
        return await _answer(context, self._copy_between(request))

    async def _copy_between(self, request: pb.CopyFiles) -> pb.CopyFilesReply:
        """Has a mount that can write the target copy into it, once all that mounts of the source hold is committed."""
        with self._coordinator.read() as kv:
            source = ReadTree(kv).named(request.source)
            target = ReadTree(kv).named(request.target)
            require_target(target, request.target)
        leases = self._coordinator.leases
        if not await self._flush_holder(request.source, self._coordinator.config.flush_deadline_s):
            with self._coordinator.read() as kv:
                writers = sessions.writers_of(kv, source.volume_id)
            if any(leases.valid(writer) for writer in writers):
                raise Unavailable(
                    f"the mount of {request.source!r} does not write what it holds: copy from a snapshot instead, or "
                    "look at that mount"
                )
        with self._coordinator.read() as kv:
            writers = sessions.writers_of(kv, target.volume_id)
        writer = next((session for session in writers if leases.valid(session)), None)
        if writer is None:
            return pb.CopyFilesReply(unattended=True)
        return await self._shell.copies.carry_out(writer, target.volume_id, request)

    async def DiffVolumes(self, request: pb.DiffRequest, context: Any) -> None:  # noqa: N802
        try:
            for name in (request.before, request.after):
                await self._flush_holder(name, self._coordinator.config.flush_deadline_s)
            async with contextlib.aclosing(self._differences.pages(request.before, request.after)) as pages:
                async for page in pages:
                    async with asyncio.timeout(DIFF_STALL_S):
                        await context.write(convert.to_diff_page(page))
        except TimeoutError:
            await rpc_errors.abort(context, Unavailable("nobody took the differences: compare again"))
        except RedfsError as error:
            await rpc_errors.abort(context, error)

    # -- the pool

    async def GetNodes(self, _: pb.Empty, context: Any) -> pb.ListNodesReply:  # noqa: N802
        return await _answer(context, self._shell.read(lambda: requests.node_list_for_people(self._coordinator)))

    async def GetStatus(self, _: pb.Empty, context: Any) -> pb.PoolStatus:  # noqa: N802
        status = await _answer(context, self._shell.read(lambda: pool_status(self._coordinator)))
        c = self._coordinator
        shown = convert.to_status(status, c.requests, c.commits, c.transactions, c.damage_reports)
        shown.figures.CopyFrom(convert.to_figures(c.env.figures.total()))
        with c.read() as kv:
            shown.scrub.CopyFrom(scrub.to_message(scrub.last_scrub(kv)))
        return shown

    async def Watch(self, _: pb.WatchRequest, context: Any) -> None:  # noqa: N802
        try:
            watcher = self._shell.watchers.join()
        except RedfsError as error:
            await rpc_errors.abort(context, error)
        try:
            while True:
                topics = await watcher.next()
                figures = self._coordinator.env.figures.total() if topics & Topic.FIGURES else None
                async with asyncio.timeout(WATCH_STALL_S):
                    await context.write(convert.to_changed(topics, figures))
        except TimeoutError:
            await rpc_errors.abort(context, Unavailable("nobody took what was to be told: watch again"))
        except RedfsError as error:
            await rpc_errors.abort(context, error)
        finally:
            self._shell.watchers.leave(watcher)

    async def SetSchedule(self, request: pb.Schedule, context: Any) -> pb.Schedule:  # noqa: N802
        wanted = request.volume, request.label, request.every_s, request.keep
        work = self._shell.run(lambda txn: schedules.set_schedule(txn, *wanted))
        return convert.to_schedule(await _answer(context, work))

    async def RemoveSchedule(self, request: pb.ScheduleName, context: Any) -> pb.Schedule:  # noqa: N802
        work = self._shell.run(lambda txn: schedules.remove_schedule(txn, request.volume, request.label))
        return convert.to_schedule(await _answer(context, work))

    async def ListSchedules(self, request: pb.ScheduleName, context: Any) -> pb.ScheduleList:  # noqa: N802
        def find() -> list[schedules.Schedule]:
            unwritten = self._coordinator.env.unwritten_schedule_errors
            with self._coordinator.read() as kv:
                if request.volume:
                    return schedules.of_volume(kv, request.volume, unwritten)
                return list(schedules.all_schedules(kv, 0, unwritten))

        found = await _answer(context, self._shell.read(find))
        shown = [convert.to_schedule(schedule) for schedule in found if request.label in ("", schedule.label)]
        return pb.ScheduleList(schedules=shown)

    async def ControlJob(self, request: pb.JobControl, context: Any) -> pb.Job:  # noqa: N802
        work = self._shell.run(lambda txn: jobs.control_job(txn, request.job_id, request.action))
        key, row = await _answer(context, work)
        return convert.to_job(jobs.show_job(key, row, self._coordinator.env.progress))

    async def StartJob(self, request: pb.JobStart, context: Any) -> pb.Job:  # noqa: N802
        key, row = await _answer(context, self._shell.run(lambda txn: start_job(txn, request.kind)))
        return convert.to_job(jobs.show_job(key, row, self._coordinator.env.progress))

    async def ControlNode(self, request: pb.NodeControl, context: Any) -> pb.Node:  # noqa: N802
        if request.action == node_control.REMOVE:
            row = await _answer(context, self._remove_node(request.node_id))
        else:
            wanted = request.node_id, request.action
            row = await _answer(context, self._shell.run(lambda txn: node_control.control(txn, *wanted)))
        return await self._shell.read(lambda: requests.show_node(self._coordinator, request.node_id, row))

    async def _remove_node(self, node_id: int) -> NodeRow:
        """Forgets a node once it was seen that nothing lies there; which stays so, as it is not in."""
        changes = self._coordinator.cluster.state_changes(node_id)
        with self._coordinator.read() as kv:
            row = node_control.require_not_in(kv, node_id)
        count = await self._shell.read(lambda: node_control.count_segments(self._coordinator.read, node_id))
        if count:
            raise node_control.refuse_to_remove(node_id, row, count)
        while await self._shell.run(lambda txn: node_control.forget_doomed(txn, node_id)):
            continue
        return await self._shell.run(lambda txn: node_control.remove(txn, node_id, changes))

    async def Check(self, _: pb.CheckRequest, context: Any) -> None:  # noqa: N802
        if self._checking:
            await rpc_errors.abort(context, Busy("a check is running already: wait for its end"))
        self._checking = True
        try:
            async for items in self._check_chunks():
                async with asyncio.timeout(CHECK_STALL_S):
                    for item in items:
                        await context.write(convert.to_check_item(item))
        except TimeoutError:
            await rpc_errors.abort(context, Unavailable("nobody took the findings of this check: run it again"))
        except RedfsError as error:
            await rpc_errors.abort(context, error)
        finally:
            self._checking = False

    async def _check_chunks(self) -> AsyncIterator[list[check.Item]]:
        reading = self._coordinator.read()
        kv = reading.__enter__()
        items = check.check(kv, self._give_way)
        try:
            while chunk := await self._shell.read(lambda: list(islice(items, CHECK_CHUNK))):
                yield chunk
        finally:
            # The generator must be at rest before its transaction goes: a cancelled call leaves it in a reader thread.
            await asyncio.shield(self._shell.read(items.close))
            reading.__exit__(None, None, None)


def _settings(request: pb.VolumeSet) -> volumes.Settings:
    changes: Any = {name: getattr(request, name) for name in volumes.Settings.__annotations__ if request.HasField(name)}
    return cast("volumes.Settings", changes)


class NodeServicer(cluster_pb2_grpc.NodeServiceServicer):
    """Storage nodes."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def Attach(self, _: Any, context: Any) -> None:  # noqa: N802 - named by the protocol
        await NodeStream(context, self._shell).run()


async def serve(shell: Shell, server: grpc.aio.Server) -> None:
    """Registers the servicers and starts to answer."""
    cluster_pb2_grpc.add_CoordinatorServiceServicer_to_server(CoordinatorServicer(shell), server)
    cluster_pb2_grpc.add_NodeServiceServicer_to_server(NodeServicer(shell), server)
    shell.start()
    await server.start()
