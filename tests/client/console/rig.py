"""A console served for real, on a port of its own, and coordinators for it."""

from __future__ import annotations

import asyncio
import json
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx

from redfs.client.config import PoolPlace
from redfs.client.console.app import Console
from redfs.client.console.server import bind, make_server
from redfs.core.errors import NotAllowed, NotFound
from redfs.proto.gen import cluster_pb2 as pb
from tests.client.cli.fake_coordinator import FakeCoordinator

WAIT_S = 60.0
POLL_S = 0.05
CHANGE = {"X-RedFS-Console": "1"}


class ConsoleCoordinator(FakeCoordinator):
    """The fake coordinator with what only the console's tests ask of it."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        super().__init__(workers=8, address=address)
        self.words: queue.Queue[pb.Changed] = queue.Queue()
        """What watchers are told."""
        self.diff = [pb.DiffEntry(change="created", path=b"a/\xff%", kind="file", after_bytes=3)]
        self.schedules: list[pb.Schedule] = []
        self.jobs = {7: pb.Job(job_id=7, kind="reclaim", state="running", allowed=["pause"])}
        self.status.jobs.extend(self.jobs.values())
        self.watchers = 0
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True
        super().stop()

    def Watch(self, request: pb.WatchRequest, context: grpc.ServicerContext) -> Iterator[pb.Changed]:
        self.watchers += 1
        context.add_callback(self._watcher_left)
        yield pb.Changed(tree=True, nodes=True, jobs=True, schedules=True)
        while context.is_active() and not self.stopped:
            try:
                yield self.words.get(timeout=POLL_S)
            except queue.Empty:
                continue

    def _watcher_left(self) -> None:
        self.watchers -= 1

    def DiffVolumes(self, request: pb.DiffRequest, context: grpc.ServicerContext) -> Iterator[pb.DiffPage]:
        self.calls.append(request)
        self._find(request.before, context)
        for entry in self.diff:
            yield pb.DiffPage(entries=[entry])

    def GetFreed(self, request: pb.FreedRequest, context: grpc.ServicerContext) -> pb.FreedReply:
        self.calls.append(request)
        for name in request.names:
            self._find(name, context)
        return pb.FreedReply(logical_bytes=4, unique_bytes=3, stored_bytes=2, segment_bytes=1)

    def CopyBetween(self, request: pb.CopyFiles, context: grpc.ServicerContext) -> pb.CopyFilesReply:
        self.calls.append(request)
        self._find(request.source, context)
        return pb.CopyFilesReply(files=1, bytes=5, path=request.target_path)

    def SetSchedule(self, request: pb.Schedule, context: grpc.ServicerContext) -> pb.Schedule:
        self._find(request.volume, context)
        self.schedules.append(request)
        return request

    def RemoveSchedule(self, request: pb.ScheduleName, context: grpc.ServicerContext) -> pb.Schedule:
        wanted = (request.volume, request.label)
        found = next((schedule for schedule in self.schedules if (schedule.volume, schedule.label) == wanted), None)
        if found is None:
            self._refuse(context, NotFound(f"'{request.volume}' has no schedule '{request.label}'"))
        self.schedules.remove(found)
        return found

    def ListSchedules(self, request: pb.ScheduleName, context: grpc.ServicerContext) -> pb.ScheduleList:
        return pb.ScheduleList(schedules=[s for s in self.schedules if request.volume in ("", s.volume)])

    def ControlJob(self, request: pb.JobControl, context: grpc.ServicerContext) -> pb.Job:
        self.calls.append(request)
        if request.job_id not in self.jobs:
            self._refuse(context, NotFound(f"no job {request.job_id}"))
        if request.action not in self.jobs[request.job_id].allowed:
            self._refuse(context, NotAllowed(f"a job of this kind cannot {request.action}"))
        return self.jobs[request.job_id]


class Site:
    """A running console and a browser that knows its address."""

    def __init__(self, console: Console, browser: httpx.AsyncClient) -> None:
        self.console = console
        self.browser = browser

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.browser.get(f"/api/v1{path}", **more)

    async def change(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """A request with the header that changes need."""
        return await self.browser.request(method, f"/api/v1{path}", json=body, headers=CHANGE)

    async def data(self, path: str) -> Any:
        """The JSON of a read that must work."""
        answer = await self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @asynccontextmanager
    async def events(self) -> AsyncIterator[Listener]:
        async with self.browser.stream("GET", "/api/v1/events") as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield Listener(answer)


class Listener:
    """Reads server-sent events."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()

    async def next(self) -> tuple[str, Any]:
        """The next event: (name, data). Comments and the retry time are left out."""
        name = ""
        async with asyncio.timeout(WAIT_S):
            async for line in self._lines:
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    return name, json.loads(line.removeprefix("data: "))
        raise AssertionError("the stream ended")

    async def until(self, wanted: Callable[[str, Any], bool]) -> Any:
        """The data of the first event that is wanted."""
        while True:
            name, data = await self.next()
            if wanted(name, data):
                return data


@asynccontextmanager
async def site(address: str, page: Path, hosts: tuple[str, ...] = ()) -> AsyncIterator[Site]:
    """A console of the pool at `address`, which need not be there."""
    console = Console(PoolPlace(address, None), hosts, page)
    server = make_server(console)
    with bind("127.0.0.1", 0) as bound:
        bound.listen()
        port = bound.getsockname()[1]
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S, trust_env=False) as browser:
            try:
                await until(lambda: server.started or serving.done())
                yield Site(console, browser)
            finally:
                server.should_exit = True
                console.close_streams()
                await asyncio.wait_for(serving, WAIT_S)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition, with a bound."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.005)


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """The message of a refusal, which must look like one."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert set(error) == {"code", "message"}
    assert "\n" not in error["message"]
    message: str = error["message"]
    return message
