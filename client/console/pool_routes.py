"""Operations on the pool as a whole: status, nodes, jobs, schedules of all, events."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from starlette.responses import JSONResponse, Response

from redfs.client.console.models import JobNew, Names, data_of, list_data, model_of
from redfs.client.console.openapi import refusals
from redfs.client.console.parts import In
from redfs.core.errors import InvalidArgument
from redfs.proto.gen import cluster_pb2 as pb

router = APIRouter()
NodeId = Annotated[int, Path(alias="id", ge=0, lt=1 << 32, description="`node_id` of the node")]
JobId = Annotated[int, Path(alias="id", ge=0, lt=1 << 63, description="`job_id` of the job")]


@router.get(
    "/status",
    response_model=model_of(pb.PoolStatus),
    responses=refusals(),
    tags=["pool"],
    summary="Health, capacity, savings, jobs",
)
async def get_status(parts: In) -> Response:
    """What `redfs status` shows of the pool as a whole."""
    return JSONResponse(data_of(await parts.coordinator.call("GetStatus")))


@router.get(
    "/nodes",
    response_model=list[model_of(pb.Node)],  # type: ignore[misc]
    responses=refusals(),
    tags=["pool"],
    summary="Storage nodes",
)
async def list_nodes(parts: In) -> Response:
    """Every storage node that ever joined, by id."""
    reply = await parts.coordinator.call("GetNodes")
    return JSONResponse(await list_data(reply.nodes))


@router.get(
    "/jobs",
    response_model=list[model_of(pb.Job)],  # type: ignore[misc]
    responses=refusals(),
    tags=["jobs"],
    summary="Background jobs",
)
async def list_jobs(parts: In) -> Response:
    """What goes on in the background, with progress; `allowed` says what may be done to each."""
    status = await parts.coordinator.call("GetStatus")
    return JSONResponse(await list_data(status.jobs))


@router.post(
    "/jobs/{id}/{action}",
    response_model=model_of(pb.Job),
    responses=refusals(404, 409),
    tags=["jobs"],
    summary="Pause, resume or cancel a job",
)
async def control_job(parts: In, job_id: JobId, action: Literal["pause", "resume", "cancel"]) -> Response:
    """The job as it is then."""
    request = pb.JobControl(job_id=job_id, action=action)
    return JSONResponse(data_of(await parts.coordinator.call("ControlJob", request)))


@router.post(
    "/jobs",
    response_model=model_of(pb.Job),
    responses=refusals(409),
    tags=["jobs"],
    summary="Start a job",
)
async def start_job(parts: In, body: JobNew) -> Response:
    """All that there is to do of a kind. The job that is there already, if one is; it ends by itself."""
    return JSONResponse(data_of(await parts.coordinator.call("StartJob", pb.JobStart(kind=body.kind))))


@router.post(
    "/nodes/{id}/{action}",
    response_model=model_of(pb.Node),
    responses=refusals(404, 409),
    tags=["pool"],
    summary="Drain, take out, let in or remove a node",
)
async def control_node(
    parts: In,
    node_id: NodeId,
    action: Literal["drain", "in", "out", "remove"],
    confirm: Annotated[int, Query(description="`remove`: the node's id once more")] = 0,
) -> Response:
    """The node as it is then, or was. `remove` is refused while anything lies there."""
    if action == "remove" and confirm != node_id:
        raise InvalidArgument(f"removing node {node_id} must be confirmed with its number")
    request = pb.NodeControl(node_id=node_id, action=action)
    return JSONResponse(data_of(await parts.coordinator.call("ControlNode", request)))


@router.get(
    "/schedules",
    response_model=list[model_of(pb.Schedule)],  # type: ignore[misc]
    responses=refusals(),
    tags=["schedules"],
    summary="Snapshot schedules of all volumes",
)
async def list_schedules(parts: In) -> Response:
    """When snapshots are made by themselves, and how many stay."""
    reply = await parts.coordinator.call("ListSchedules", pb.ScheduleName())
    return JSONResponse(await list_data(reply.schedules))


@router.post(
    "/freed",
    response_model=model_of(pb.FreedReply),
    responses=refusals(404),
    tags=["volumes"],
    summary="What deleting nodes would free",
)
async def get_freed(parts: In, body: Names) -> Response:
    """The exact bytes that deleting just these nodes of the tree would free. Deletes nothing."""
    return JSONResponse(data_of(await parts.coordinator.call("GetFreed", pb.FreedRequest(names=body.names))))


@router.get(
    "/events",
    response_class=Response,
    responses=refusals()
    | {
        200: {
            "description": "`coordinator` {reachable, error}, `changed` {tree, nodes, jobs, schedules}, `figures` "
            "{read_bytes, written_bytes, operations, busy_us, at_ms}; a comment line every 15 s",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
    tags=["pool"],
    summary="What changes, as it happens (server-sent events)",
)
async def listen(parts: In) -> Any:
    """A stream that does not end. The first `changed` says true of everything; `figures` come each second while they
    change. When `coordinator` says that it is reachable again, everything counts as changed."""
    return parts.events.answer()
