"""Operations on the volume tree: the same ones as of the command line."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import JSONResponse, Response

from redfs.client.console import paths
from redfs.client.console.coordinator import DIFF_TIMEOUT_S
from redfs.client.console.models import (
    CloneNew,
    CopyNew,
    Diff,
    Rollback,
    ScheduleNew,
    Settings,
    SnapshotNew,
    VolumeNew,
    VolumeNewName,
    data_of,
    diff_item,
    list_data,
    model_of,
)
from redfs.client.console.openapi import refusals
from redfs.client.console.parts import In
from redfs.core.errors import InvalidArgument
from redfs.proto.gen import cluster_pb2 as pb

DIFF_LIMIT = 1000
MAX_DIFF_LIMIT = 10_000
"""Differences in one answer, a few MB; who wants more has `redfs diff`."""

router = APIRouter()
AnyName = Annotated[str, Path(description="VOLUME, VOLUME@SNAPSHOT or zero", max_length=127)]
VolumeName = Annotated[str, Path(description="a live volume", max_length=63)]
SnapshotName = Annotated[str, Path(description="VOLUME@SNAPSHOT", max_length=127)]
Label = Annotated[str, Path(description="the schedule's label", max_length=63)]


@router.get(
    "/volumes",
    response_model=list[model_of(pb.Volume)],  # type: ignore[misc]
    responses=refusals(),
    tags=["volumes"],
    summary="The whole volume tree",
)
async def list_volumes(parts: In) -> Response:
    """Zero volume, live volumes, snapshots, deleted ones that something descends from. `parent_id` makes the tree."""
    reply = await parts.coordinator.call("ListVolumes")
    return JSONResponse(await list_data(reply.volumes))


@router.post(
    "/volumes",
    response_model=model_of(pb.Volume),
    responses=refusals(409, 507),
    tags=["volumes"],
    summary="Create a volume",
)
async def create_volume(parts: In, body: VolumeNew) -> Response:
    """A new empty live volume."""
    request = pb.VolumeCreate(name=body.name, **body.given())
    return JSONResponse(data_of(await parts.coordinator.call("CreateVolume", request)))


@router.get(
    "/volumes/{name}",
    response_model=model_of(pb.Volume),
    responses=refusals(404),
    tags=["volumes"],
    summary="One node of the tree",
)
async def get_volume(parts: In, name: AnyName) -> Response:
    """By name; `allowed` says which operations may be asked for on it now."""
    return JSONResponse(data_of(await parts.coordinator.volume(name)))


@router.patch(
    "/volumes/{name}",
    response_model=model_of(pb.Volume),
    responses=refusals(404),
    tags=["volumes"],
    summary="Change settings",
)
async def set_volume(parts: In, name: AnyName, body: Settings) -> Response:
    """Only what is given changes. Data written before keeps its protection."""
    request = pb.VolumeSet(name=name, **body.given())
    return JSONResponse(data_of(await parts.coordinator.call("SetVolume", request)))


@router.delete(
    "/volumes/{name}",
    response_model=model_of(pb.Volume),
    responses=refusals(404, 409),
    tags=["volumes"],
    summary="Delete a volume or snapshot",
)
async def delete_volume(
    parts: In, name: AnyName, confirm: Annotated[str, Query(description="the same name once more")] = ""
) -> Response:
    """Also one that is mounted, or that others descend from; those keep their data. The space comes back in the
    background."""
    _confirmed(confirm, name, "deleting it")
    return JSONResponse(data_of(await parts.coordinator.call("DeleteVolume", pb.VolumeDelete(name=name, force=True))))


@router.post(
    "/volumes/{name}/rename",
    response_model=model_of(pb.Volume),
    responses=refusals(404, 409),
    tags=["volumes"],
    summary="Rename a volume or snapshot",
)
async def rename_volume(parts: In, name: AnyName, body: VolumeNewName) -> Response:
    """A volume's snapshots go along."""
    request = pb.VolumeRename(name=name, new_name=body.new_name)
    return JSONResponse(data_of(await parts.coordinator.call("RenameVolume", request)))


@router.post(
    "/volumes/{name}/snapshots",
    response_model=model_of(pb.SnapshotCreateReply),
    responses=refusals(404, 409),
    tags=["volumes"],
    summary="Snapshot a volume",
)
async def create_snapshot(parts: In, name: VolumeName, body: SnapshotNew) -> Response:
    """At once. A mount is asked to flush first; `holder_flushed` says whether it did in time."""
    request = pb.SnapshotCreate(name=f"{name}@{body.snapshot}")
    return JSONResponse(data_of(await parts.coordinator.call("CreateSnapshot", request, flushes=True)))


@router.post(
    "/volumes/{name}/clones",
    response_model=model_of(pb.SnapshotCreateReply),
    responses=refusals(404, 409),
    tags=["volumes"],
    summary="Clone any node of the tree",
)
async def clone_volume(parts: In, name: AnyName, body: CloneNew) -> Response:
    """A writable copy, at once and without copying. The clone is in `snapshot` of the reply."""
    request = pb.VolumeClone(
        source=name,
        name=body.name,
        backed=body.backed,
        snapshot=body.snapshot,
        settings=pb.VolumeSet(**body.given()),
    )
    return JSONResponse(data_of(await parts.coordinator.call("CloneVolume", request, flushes=True)))


@router.post(
    "/volumes/{name}/rollback",
    response_model=model_of(pb.VolumeRollbackReply),
    responses=refusals(404, 409),
    tags=["volumes"],
    summary="Roll a volume back to this snapshot",
)
async def roll_back(parts: In, name: SnapshotName, body: Rollback) -> Response:
    """At once, also while it is mounted. What the volume held is kept as a snapshot unless `discard`."""
    volume, at, _ = name.partition("@")
    if not at:
        raise InvalidArgument(f"'{name}' is no snapshot: roll back to VOLUME@SNAPSHOT")
    _confirmed(body.confirm, volume, "rolling it back")
    request = pb.VolumeRollback(snapshot=name, keep=body.keep, discard=body.discard)
    return JSONResponse(data_of(await parts.coordinator.call("RollBackVolume", request, flushes=True)))


@router.get(
    "/volumes/{name}/schedules",
    response_model=list[model_of(pb.Schedule)],  # type: ignore[misc]
    responses=refusals(404),
    tags=["schedules"],
    summary="Snapshot schedules of a volume",
)
async def list_volume_schedules(parts: In, name: VolumeName) -> Response:
    """When snapshots of it are made by themselves, and how many stay."""
    reply = await parts.coordinator.call("ListSchedules", pb.ScheduleName(volume=name))
    return JSONResponse(await list_data(reply.schedules))


@router.put(
    "/volumes/{name}/schedules/{label}",
    response_model=model_of(pb.Schedule),
    responses=refusals(404, 409),
    tags=["schedules"],
    summary="Set a snapshot schedule",
)
async def set_schedule(parts: In, name: VolumeName, label: Label, body: ScheduleNew) -> Response:
    """A new one, or another interval and number for the one with that label."""
    request = pb.Schedule(volume=name, label=label, every_s=body.every_s, keep=body.keep)
    return JSONResponse(data_of(await parts.coordinator.call("SetSchedule", request)))


@router.delete(
    "/volumes/{name}/schedules/{label}",
    response_model=model_of(pb.Schedule),
    responses=refusals(404),
    tags=["schedules"],
    summary="Remove a snapshot schedule",
)
async def remove_schedule(parts: In, name: VolumeName, label: Label) -> Response:
    """Its snapshots stay."""
    request = pb.ScheduleName(volume=name, label=label)
    return JSONResponse(data_of(await parts.coordinator.call("RemoveSchedule", request)))


@router.get(
    "/diff",
    response_model=Diff,
    responses=refusals(404),
    tags=["files"],
    summary="What differs between two nodes",
)
async def diff(
    parts: In,
    before: Annotated[str, Query(description="VOLUME or VOLUME@SNAPSHOT", max_length=127)],
    after: Annotated[str, Query(description="another node with a common ancestor", max_length=127)],
    limit: Annotated[int, Query(ge=1, le=MAX_DIFF_LIMIT)] = DIFF_LIMIT,
) -> Response:
    """Created, deleted, modified and renamed paths, in time proportional to what changed."""
    entries: list[pb.DiffEntry] = []
    request = pb.DiffRequest(before=before, after=after)
    async with aclosing(parts.coordinator.stream("DiffVolumes", request, timeout_s=DIFF_TIMEOUT_S)) as pages:
        async for page in pages:
            entries += page.entries
            if len(entries) > limit:
                break
    shown = [diff_item(entry) for entry in entries[:limit]]
    return JSONResponse({"entries": shown, "complete": len(entries) <= limit})


@router.post(
    "/copies",
    response_model=model_of(pb.CopyFilesReply),
    responses=refusals(404, 409, 507),
    tags=["files"],
    summary="Copy a file or folder between nodes, without moving data",
)
async def copy(parts: In, body: CopyNew) -> Response:
    """From a snapshot to a live volume is how one restores. Works on mounted and unmounted volumes."""
    request = pb.CopyFiles(
        source=body.source,
        source_path=paths.decode(body.source_path),
        target=body.target,
        target_path=paths.decode(body.target_path),
        replace=body.replace,
    )
    return JSONResponse(data_of(await parts.copies.copy(request)))


def _confirmed(confirm: str, name: str, what: str) -> None:
    if confirm != name:
        raise InvalidArgument(f"{what} cannot be undone: confirm it with the name '{name}'")
