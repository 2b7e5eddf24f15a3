"""A mount's own look at its files, as a program would: by a process of its own.

A mount's process must not use its own mount. Killed while one of its threads waits there for an answer, it would never
end: the thread waits for the process, and what would end the wait is the end of the process. So another process does
it, which ends with its input. One request at a time, in lines of JSON; each is answered by a line.

Fails with OSError where no process can be started; what the mount answers is nobody's concern.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LOOK_S = 0.25
"""For looking at a moved folder while programs rename others: between two of these there is a moment for it."""
LOOK_PAUSE_S = 0.0003
END_S = 1.0


class OwnMount:
    """The other process. Started when it is needed first. Belongs to one event loop."""

    def __init__(self, mountpoint: Path) -> None:
        self._mountpoint = mountpoint
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int:
        """Of the process; 0 where there is none."""
        return 0 if self._process is None else self._process.pid

    async def stat(self) -> None:
        """Asks for the attributes of the top: answered once the mount answers anything."""
        await self._ask({"do": "stat"})

    async def sync(self) -> None:
        """Has the kernel write what programs changed through shared mappings."""
        await self._ask({"do": "sync"})

    async def look_at(self, paths: Sequence[Sequence[bytes]]) -> list[int]:
        """Looks at folders, by the names that lead to them from the top: their inodes, 0 where nothing can be seen."""
        seen: list[int] = await self._ask({"do": "look", "paths": [[_text(name) for name in path] for path in paths]})
        return seen

    async def close(self) -> None:
        """Ends the process, whatever it is about. Another request starts it again."""
        self._kill()
        async with self._turn:
            await asyncio.to_thread(self._put_away)

    async def _ask(self, request: dict[str, Any]) -> Any:
        async with self._turn:
            asking = asyncio.ensure_future(asyncio.to_thread(self._ask_now, json.dumps(request).encode() + b"\n"))
            try:
                return await asyncio.shield(asking)
            except asyncio.CancelledError:
                asking.add_done_callback(_look_at)
                self._kill()  # its next answer would be this one's
                await asyncio.wait([asking], timeout=END_S)  # it may wait for this mount, and end with it
                raise

    def _ask_now(self, request: bytes) -> Any:
        """In a thread: waiting for a pipe ends with the process that it waits in."""
        if self._process is None or self._is_killed or self._process.poll() is not None:
            self._put_away()
            # Not asyncio's, which forks: libraries that are loaded here do not survive that.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "redfs.client.fs.own_mount", str(self._mountpoint)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request)
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise OSError(errno.EPIPE, "the process that looks at the mount has ended")
        return json.loads(answer)

    def _put_away(self) -> None:
        process, self._process = self._process, None
        self._is_killed = False
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it may wait for this mount, and end with it
            process.wait(END_S)

    def _kill(self) -> None:
        if self._process is not None:
            self._is_killed = True
            self._process.kill()


def _look_at(asking: asyncio.Future[Any]) -> None:
    """Its failure is no news."""
    if not asking.cancelled():
        asking.exception()


def _text(name: bytes) -> str:
    return base64.b64encode(name).decode()


def serve(mountpoint: str) -> None:
    """Answers requests until the end of the input."""
    for line in sys.stdin:
        request = json.loads(line)
        seen: list[int] = []
        with contextlib.suppress(OSError):
            if request["do"] == "stat":
                os.stat(mountpoint)
            elif request["do"] == "sync":
                _sync(mountpoint)
            else:
                seen = [_look(mountpoint, [base64.b64decode(name) for name in path]) for path in request["paths"]]
        print(json.dumps(seen), flush=True)


def _sync(mountpoint: str) -> None:
    folder = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        ctypes.CDLL(None, use_errno=True).syncfs(folder)
    finally:
        os.close(folder)


def _look(mountpoint: str, path: Sequence[bytes]) -> int:
    """The inode at the end of the path; 0 where there is none, or where programs rename things all the time."""
    until_s = time.monotonic() + LOOK_S
    while True:
        try:
            return _walk(mountpoint, path)
        except OSError as error:
            if error.errno != errno.ESTALE or time.monotonic() > until_s:
                return 0
        time.sleep(LOOK_PAUSE_S)


def _walk(mountpoint: str, path: Sequence[bytes]) -> int:
    """Step by step, as a path may be too long for one call."""
    folder = os.open(mountpoint, os.O_PATH | os.O_DIRECTORY)
    try:
        for name in path:
            below = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.fstat(folder).st_ino
    finally:
        os.close(folder)


if __name__ == "__main__":
    serve(sys.argv[1])
