"""The console's REST API over a `FakePool`, and the real page: for tests of the page and for looking at it.

By hand: `python -m tests.client.console.page.fake_rest [--port 7499] [--nodes N]`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import redfs.client.console
from redfs.core.errors import InvalidArgument, NotFound, RedfsError
from tests.client.console.page.fake_pool import Data, FakePool, decode, large_pool, small_pool

STATIC = Path(redfs.client.console.__file__).parent / "static"
HTTP_STATUS = {"invalid": 400, "not_found": 404, "exists": 409, "busy": 409, "not_allowed": 403, "unavailable": 503}
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'"
KEEP_ALIVE_S = 15.0
START_WAIT_S = 20.0

Handler = Callable[[Request], Awaitable[Any]]


class FakeRest:
    """Serves one pool. `requests` holds every change that the page asked for: (method, path, body)."""

    def __init__(self, pool: FakePool) -> None:
        self.pool = pool
        self.requests: list[tuple[str, str, Data]] = []
        self.queues: set[asyncio.Queue[tuple[str, Data] | None]] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.fetches: dict[str, int] = {}
        pool.notify = self.notify

    # ---------------------------------------------------------------- push

    def notify(self, **changed: bool) -> None:
        words = {word: changed.get(word, False) for word in ("tree", "nodes", "jobs", "schedules")}
        self.push("changed", words)

    def push(self, event: str, data: Data) -> None:
        """Sends an event to every page; from any thread."""
        if self.loop is not None:
            for queue in list(self.queues):
                self.loop.call_soon_threadsafe(queue.put_nowait, (event, data))

    def drop_streams(self) -> None:
        """Ends every event stream, as a console that restarts does."""
        if self.loop is not None:
            for queue in list(self.queues):
                self.loop.call_soon_threadsafe(queue.put_nowait, None)

    async def events(self, _request: Request) -> Response:
        queue: asyncio.Queue[tuple[str, Data] | None] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        queue.put_nowait(("coordinator", {"reachable": True, "error": None}))
        queue.put_nowait(("changed", dict.fromkeys(("tree", "nodes", "jobs", "schedules"), True)))
        self.queues.add(queue)

        async def stream() -> AsyncIterator[str]:
            try:
                while True:
                    try:
                        item = await asyncio.wait_for(queue.get(), KEEP_ALIVE_S)
                    except TimeoutError:
                        yield ": still here\n\n"
                        continue
                    if item is None:
                        return
                    yield f"event: {item[0]}\ndata: {json.dumps(item[1])}\n\n"
            finally:
                self.queues.discard(queue)

        return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    # ---------------------------------------------------------------- the API

    def app(self) -> Starlette:
        api = [
            Route("/status", self.read(lambda _: self.pool.status())),
            Route("/volumes", self.read(lambda _: self.pool.listing())),
            Route("/nodes", self.read(lambda _: self.pool.nodes)),
            Route("/jobs", self.read(lambda _: self.pool.jobs)),
            Route("/schedules", self.read(lambda _: self.pool.schedules)),
            Route("/diff", self.read(self.diff)),
            Route("/browse/{name}", self.read(self.browse)),
            Route("/versions/{name}", self.read(lambda r: self.pool.versions(r.path_params["name"], path_of(r)))),
            Route("/download/{name}", self.download),
            Route("/events", self.events),
            Route("/volumes", self.change(lambda r, b: self.pool.shown(self.pool.create(**b))), methods=["POST"]),
            Route("/volumes/{name}", self.change(self.set_volume), methods=["PATCH"]),
            Route("/volumes/{name}", self.change(self.delete_volume), methods=["DELETE"]),
            Route("/volumes/{name}/rename", self.change(self.rename), methods=["POST"]),
            Route("/volumes/{name}/snapshots", self.change(self.snapshot), methods=["POST"]),
            Route("/volumes/{name}/clones", self.change(self.clone), methods=["POST"]),
            Route("/volumes/{name}/rollback", self.change(self.roll_back), methods=["POST"]),
            Route("/volumes/{name}/schedules/{label}", self.change(self.set_schedule), methods=["PUT"]),
            Route("/volumes/{name}/schedules/{label}", self.change(self.remove_schedule), methods=["DELETE"]),
            Route("/jobs", self.change(lambda r, b: self.pool.start_job(b["kind"])), methods=["POST"]),
            Route("/jobs/{job:int}/{action}", self.change(self.control_job), methods=["POST"]),
            Route("/freed", self.change(lambda r, b: self.pool.freed(b["names"])), methods=["POST"]),
            Route("/copies", self.change(self.copy), methods=["POST"]),
        ]
        static = Mount("/static", StaticFiles(directory=STATIC))
        return Starlette(routes=[Route("/", self.page), static, Mount("/api/v1", routes=api)])

    async def page(self, _request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"Content-Security-Policy": POLICY})

    def read(self, answer: Callable[[Request], Any]) -> Handler:
        async def handler(request: Request) -> Response:
            self.fetches[request.url.path] = self.fetches.get(request.url.path, 0) + 1
            try:
                return JSONResponse(answer(request))
            except RedfsError as error:
                return refusal(error)

        return handler

    def change(self, answer: Callable[[Request, Data], Any]) -> Handler:
        async def handler(request: Request) -> Response:
            if request.headers.get("x-redfs-console") != "1":
                return refusal(InvalidArgument("changes need the header X-RedFS-Console: 1"))
            raw = await request.body()
            body: Data = json.loads(raw) if raw else {}
            path = request.url.path.removeprefix("/api/v1")
            if path != "/freed":
                self.requests.append((request.method, path, body or dict(request.query_params)))
            try:
                return JSONResponse(answer(request, body))
            except RedfsError as error:
                return refusal(error)

        return handler

    def set_volume(self, request: Request, body: Data) -> Data:
        return self.pool.shown(self.pool.set(request.path_params["name"], body))

    def delete_volume(self, request: Request, _body: Data) -> Data:
        deleted = self.pool.delete(request.path_params["name"], request.query_params.get("confirm", ""))
        return self.pool.shown(deleted)

    def rename(self, request: Request, body: Data) -> Data:
        return self.pool.shown(self.pool.rename(request.path_params["name"], body["new_name"]))

    def snapshot(self, request: Request, body: Data) -> Data:
        snapshot = self.pool.snapshot(request.path_params["name"], body["snapshot"])
        return {"snapshot": self.pool.shown(snapshot), "holder_flushed": True, "coordinator_ms": 0.3}

    def clone(self, request: Request, body: Data) -> Data:
        clone = self.pool.clone(request.path_params["name"], **body)
        return {"snapshot": self.pool.shown(clone), "holder_flushed": True, "coordinator_ms": 0.3}

    def roll_back(self, request: Request, body: Data) -> Data:
        return self.pool.roll_back(request.path_params["name"], **body)

    def set_schedule(self, request: Request, body: Data) -> Data:
        return self.pool.set_schedule(request.path_params["name"], request.path_params["label"], **body)

    def remove_schedule(self, request: Request, _body: Data) -> Data:
        return self.pool.remove_schedule(request.path_params["name"], request.path_params["label"])

    def control_job(self, request: Request, _body: Data) -> Data:
        return self.pool.control_job(request.path_params["job"], request.path_params["action"])

    def copy(self, _request: Request, body: Data) -> Data:
        paths = {name: decode(body[name]) for name in ("source_path", "target_path")}
        return self.pool.copy(**{**body, **paths})

    def diff(self, request: Request) -> Data:
        entries = self.pool.diff(request.query_params["before"], request.query_params["after"])
        limit = int(request.query_params["limit"])
        return {"entries": entries[:limit], "complete": len(entries) <= limit}

    def browse(self, request: Request) -> Data:
        name, path = request.path_params["name"], path_of(request)
        entries = self.pool.browse(name, path)
        start, limit = int(request.query_params.get("after", "0")), int(request.query_params["limit"])
        following = start + limit if start + limit < len(entries) else None
        page = entries[start : start + limit]
        return {"node": name, "path": path, "entries": page, "next": None if following is None else str(following)}

    async def download(self, request: Request) -> Response:
        volume = self.pool.named(request.path_params["name"])
        path = path_of(request)
        content = self.pool.files[volume["volume_id"]].get(path)
        if content is None:
            return refusal(NotFound(f"{volume['name']} has no {path}"))
        return Response(content, headers={"Content-Disposition": "attachment"})


def path_of(request: Request) -> str:
    """The path, decoded once, as every address is."""
    for field in request.scope["query_string"].decode("ascii").split("&"):
        name, _, value = field.partition("=")
        if name == "path":
            return decode(value.replace("+", " "))
    return "/"


def refusal(error: RedfsError) -> Response:
    body = {"error": {"code": error.code, "message": str(error)}}
    return JSONResponse(body, status_code=HTTP_STATUS.get(error.code, 500))


# ---------------------------------------------------------------- running it


@contextlib.contextmanager
def serving(rest: FakeRest) -> Any:
    """Serves in a thread, on a free port; yields the page's address."""
    server = uvicorn.Server(server_config(rest, 0))
    thread = threading.Thread(target=server.run, name="fake console", daemon=True)
    thread.start()
    ready = threading.Event()
    for _ in range(int(START_WAIT_S / 0.02)):
        if server.started:
            break
        ready.wait(0.02)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        rest.drop_streams()
        server.should_exit = True
        server.force_exit = True
        thread.join(START_WAIT_S)


def server_config(rest: FakeRest, port: int) -> uvicorn.Config:
    return uvicorn.Config(rest.app(), host="127.0.0.1", port=port, log_level="warning", ws="none", lifespan="off")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=7499)
    parser.add_argument("--nodes", type=int, default=0)
    arguments = parser.parse_args()
    pool = large_pool(arguments.nodes) if arguments.nodes else small_pool()
    uvicorn.Server(server_config(FakeRest(pool), arguments.port)).run()


if __name__ == "__main__":
    main()
