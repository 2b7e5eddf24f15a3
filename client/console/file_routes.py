"""Operations on files in any node of the tree: browse, versions, download."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import JSONResponse, Response

from redfs.client.console import browse, download, paths
from redfs.client.console.models import FolderPage, PathVersion
from redfs.client.console.openapi import Responses, refusals
from redfs.client.console.parts import MAX_DOWNLOADS, In
from redfs.core.errors import Unavailable

router = APIRouter()
AnyName = Annotated[str, Path(description="VOLUME or VOLUME@SNAPSHOT", max_length=127)]


def _path(
    request: Request,
    path: Annotated[str, Query(description="percent-encoded bytes, from the top of the node")] = "/",
) -> bytes:
    # `path` describes it; the framework's value has lost what is no UTF-8.
    return paths.from_query(request.scope["query_string"])


RawPath = Annotated[bytes, Depends(_path)]


@router.get(
    "/browse/{name}",
    response_model=FolderPage,
    responses=refusals(404),
    tags=["files"],
    summary="A folder's entries",
)
async def browse_folder(
    parts: In,
    name: AnyName,
    path: RawPath,
    after: Annotated[str, Query(description="`next` of the page before", max_length=20)] = "",
    limit: Annotated[int, Query(ge=1, le=browse.MAX_LIMIT)] = browse.DEFAULT_LIMIT,
) -> Response:
    """As committed, at most a second old; what a mount still holds dirty comes within seconds. Entries come in the
    folder's own order, not by name."""
    async with parts.views.of(name) as view:
        return JSONResponse(await browse.page(view, path, after, limit))


@router.get(
    "/versions/{volume}",
    response_model=list[PathVersion],
    responses=refusals(404),
    tags=["files"],
    summary="A path over a volume's snapshots",
)
async def list_versions(
    parts: In, volume: Annotated[str, Path(description="a live volume", max_length=63)], path: RawPath
) -> Response:
    """What the path is in each snapshot of the volume (the newest 256), oldest first, and in the volume itself."""
    return JSONResponse(await parts.versions.of(volume, path))


_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_DOWNLOADS: Responses = refusals(404) | {
    200: {
        "description": "the file, or the folder as a tar",
        "content": {"application/octet-stream": _BINARY, "application/x-tar": _BINARY},
    },
    206: {"description": "the range of the file", "content": {"application/octet-stream": _BINARY}},
    416: {"description": "the range lies behind the end of the file"},
}


@router.get(
    "/download/{name}",
    response_class=Response,
    responses=_DOWNLOADS,
    tags=["files"],
    summary="A file's bytes, or a folder as a tar",
)
async def get_file(request: Request, parts: In, name: AnyName, path: RawPath) -> Any:
    """Range and If-Range work for files (one range). All of a download is of one instant, however long it takes."""
    return await _answer(request, parts, name, path, head=False)


@router.head(
    "/download/{name}",
    response_class=Response,
    responses=_DOWNLOADS,
    tags=["files"],
    summary="What a download would be, without its bytes",
)
async def head_file(request: Request, parts: In, name: AnyName, path: RawPath) -> Any:
    """Length, name, ETag."""
    return await _answer(request, parts, name, path, head=True)


async def _answer(request: Request, parts: In, name: str, path: bytes, *, head: bool) -> Response:
    names = paths.components(path)
    async with contextlib.AsyncExitStack() as held:
        if parts.downloads.locked():
            raise Unavailable(f"{MAX_DOWNLOADS} downloads are under way: wait for one to end")
        await held.enter_async_context(parts.downloads)
        view = await held.enter_async_context(parts.views.of(name))
        entry = await browse.walk(view, names)
        # The answer gives back what it holds when it has been sent.
        kept = held.pop_all()
        try:
            return await download.answer(view, entry, names, request.headers, kept, head=head)
        except BaseException:
            await kept.aclose()
            raise
