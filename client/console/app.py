"""The console as an application: its parts, wired, and everything that is not one operation of the API.

    /                     the page             /static/...   its files
    /api/v1/...           the operations       /api/v1/openapi.json, /api/v1/docs   what they are

The parts live as long as the server: one channel to the coordinator, one session with a few views, one Watch stream.
None of them needs the coordinator to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mimetypes
from collections.abc import AsyncIterator, Collection
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from redfs import __version__
from redfs.client.config import PoolPlace
from redfs.client.console import errors, file_routes, openapi, pool_routes, volume_routes
from redfs.client.console.guard import API, Guard
from redfs.client.console.parts import Parts
from redfs.client.console.views import TICK_S

log = logging.getLogger("redfs.console")

PAGE = Path(__file__).parent / "static"
DOCS = Path(__file__).parent / "api_docs"
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
"""Browsers are told not to guess, so a machine's own table of types must not decide."""


class Console:
    """The application and its parts; `app` is what a server serves."""

    def __init__(self, place: PoolPlace, hosts: Collection[str] = (), page: Path = PAGE) -> None:
        self._place = place
        self.parts: Parts | None = None
        """While the server runs."""
        for suffix, kind in KINDS.items():
            mimetypes.add_type(kind, suffix)
        inner = FastAPI(
            title="RedFS console",
            version=__version__,
            openapi_url=f"{API}/openapi.json",
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            lifespan=self._lifespan,
            separate_input_output_schemas=False,
        )
        errors.install(inner)
        openapi.install(inner)
        for routes in (pool_routes, volume_routes, file_routes):
            inner.include_router(routes.router, prefix=API)
        _add_files(inner, page)
        self.inner = inner
        self.app: ASGIApp = Guard(inner, hosts)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        parts = self.parts = app.state.parts = Parts(self._place)
        ticking = asyncio.create_task(_tick(parts), name="tick")
        try:
            yield
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            await parts.close()

    def close_streams(self) -> None:
        """Ends the streams of events, which end by nothing else. For the server, before it waits for its answers."""
        if self.parts is not None:
            self.parts.events.close()


def _add_files(app: FastAPI, page: Path) -> None:
    @app.get("/", include_in_schema=False)
    @app.head("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(page / "index.html")

    @app.get(f"{API}/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(DOCS / "docs.html")

    app.mount("/static", StaticFiles(directory=page, check_dir=False), name="page")
    app.mount(f"{API}/docs", StaticFiles(directory=DOCS), name="docs")


async def _tick(parts: Parts) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        parts.views.tick()
