"""A mount's own look at its files, as a program would: by a process of its own.

A mount's process must not use its own mount. Killed while one of its threads waits there for an answer, it would never
end: the thread waits for the process, and what would end the wait is the end of the process. So another process does
it, which ends with its input. One request at a time, in lines of JSON; each is answered by a line
(`own_mount_process.py`).

Fails with OSError where no process can be started; what the mount answers is nobody's concern.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
                [sys.executable, "-m", "redfs.client.fs.own_mount_process", str(self._mountpoint)],
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
