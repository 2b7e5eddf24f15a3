"""`redfs cp` from the caller's side: asks the coordinator, and copies itself into a volume that nobody has mounted.

Where the target is mounted its mount does the work (`client/fs/copier.py`). Else this process opens a session, takes
the volume like a mount does, copies with the very same code, and gives it back when all is durable. Copies that others
order meanwhile reach this session, as they would reach a mount: they are carried out too, and waited for.

Where somebody mounts or unmounts the volume in between, the coordinator is asked again, a bounded number of times.
Fails with what the coordinator, the mount or the copying raise, and with Busy where the target keeps changing hands. A
copy of which no answer came may have been made: look first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from redfs.client.fs.config import Buffer, FsConfig, Stored
from redfs.client.fs.copier import Copier
from redfs.client.fs.vfs import Vfs
from redfs.client.session import CoordinatorSession, SessionConfig
from redfs.core.errors import Busy, InternalError, RedfsError, Unavailable
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.copy")
T = TypeVar("T")

ROUNDS = 10
"""Times that the coordinator is asked: somebody who mounts and unmounts all the time must not keep us here."""
PAUSE_FIRST_S = 0.1
PAUSE_MAX_S = 2.0
"""Between two rounds, doubling: an unmount takes a moment, ten rounds some 14 seconds."""
GIVE_UP_S = 60.0
"""How long a copy made here waits for a coordinator that is away."""
BREAK_OFF_S = 45.0
"""For taking away what was copied when the user breaks off, and for giving the volume back."""


Ask = Callable[[pb.CopyFiles], pb.CopyFilesReply]
CopyHere = Callable[[str, pb.CopyFiles], Awaitable[pb.CopyFilesReply | None]]
AskAsync = Callable[[pb.CopyFiles], Awaitable[pb.CopyFilesReply]]


def copy(
    address: str, ask: Ask, request: pb.CopyFiles, *, sleep: Callable[[float], None] = time.sleep
) -> pb.CopyFilesReply:
    """Carries out a request. `ask` is the CopyBetween call of the coordinator at `address`. Blocks."""
    for pause_s in _pauses():
        reply = ask(request)
        made = _run(copy_here(address, request)) if reply.unattended else reply
        if made is not None:
            return made
        sleep(pause_s)
    raise _changes_hands(request)


async def copy_async(
    address: str,
    ask: AskAsync,
    request: pb.CopyFiles,
    *,
    here: CopyHere | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> pb.CopyFilesReply:
    """The same for a program with an event loop; that loop copies. `here`: what `copy_here` does."""
    copy_it_here = here or copy_here
    for pause_s in _pauses():
        reply = await ask(request)
        made = await copy_it_here(address, request) if reply.unattended else reply
        if made is not None:
            return made
        await sleep(pause_s)
    raise _changes_hands(request)


def _pauses() -> Iterator[float]:
    pause_s = PAUSE_FIRST_S
    for _ in range(ROUNDS):
        yield pause_s
        pause_s = min(2 * pause_s, PAUSE_MAX_S)


def _changes_hands(request: pb.CopyFiles) -> Busy:
    return Busy(f"'{request.target}' is being mounted and unmounted all the time: copy when that is over")


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Runs to the end on the event loop of all copies. Where the wait is broken off (Ctrl-C), so is the work."""
    ended = threading.Event()

    async def run() -> T:
        try:
            return await work
        finally:
            ended.set()

    future = asyncio.run_coroutine_threadsafe(run(), _copy_loop())
    try:
        return future.result()
    except BaseException:
        if not future.done():
            future.cancel()
            ended.wait(BREAK_OFF_S)
        raise


def _copy_loop() -> asyncio.AbstractEventLoop:
    """One for the whole process, in a thread of its own, and never closed: gRPC may still have events for a loop when
    its last call is over."""
    with _loop_lock:
        if not _loops:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="redfs-copies", daemon=True).start()
            _loops.append(loop)
        return _loops[0]


_loop_lock = threading.Lock()
_loops: list[asyncio.AbstractEventLoop] = []


async def copy_here(address: str, request: pb.CopyFiles) -> pb.CopyFilesReply | None:
    """Copies into a volume that nobody has mounted. None where somebody has it after all."""
    name = f"{socket.gethostname()}:{os.getpid()}:redfs cp"
    session = await CoordinatorSession.open(address, name, config=SessionConfig(give_up_s=GIVE_UP_S))
    try:
        try:
            attached = await session.call(attach=pb.Attach(name=request.target, alone=True))
        except Busy:
            return None
        vfs = Vfs(session, attached, _NoData(), _NoData(), FsConfig(give_up_s=GIVE_UP_S))
        copier = Copier(session, vfs)
        session.on_flush = vfs.on_flush
        session.on_lapsed = vfs.on_lapsed
        session.on_gone = vfs.on_gone
        session.on_copy = copier.on_copy
        rolled_back = Unavailable(f"'{request.target}' was rolled back while it was copied to: copy again")
        vfs.on_rolled_back = lambda: vfs.fail(rolled_back)
        try:
            reply = await copier.copy(request)
            await copier.finish()
            return reply
        finally:
            await copier.stop()
            with suppress(RedfsError):  # the copy was durable, or has its own error
                await vfs.close()
    finally:
        await session.close()


class _NoData:
    """The data path of a session that moves no data: nothing may ask it for any."""

    async def store(self, plain: Sequence[Buffer], *, dedupe: bool = True) -> Stored:
        raise InternalError("copying wanted to store data: please report this")

    async def abandon(self, batch: Any) -> None:
        """Nothing was stored."""

    def learn(self, blocks: Iterable[Any], segments: Iterable[Any]) -> None:
        """Nothing will be read."""

    def learn_stored(self, blocks: Iterable[Any], segments: Iterable[Any]) -> None:
        """Nothing will be stored."""

    def cached(self, block: int) -> Buffer | None:
        return None

    async def read_many(self, blocks: Sequence[int]) -> Sequence[Buffer]:
        raise InternalError("copying wanted to read data: please report this")

    def prefetch(self, blocks: Sequence[int], *, whole_segments: bool) -> None:
        """Nothing will be read."""
