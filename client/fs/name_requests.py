"""Before a folder is shown that another host has moved: the kernel is made to forget where it was.

The kernel lets a folder have one name. When it meets one under another name than it knows it moves it too, but not
while a request of this host that changes names has the locks of the folders concerned, which may be the very request
that asks: the program gets ESTALE then, after a second try. So first the requests about names end that are under way,
and then the kernel drops the old name.

Both wait for locks that somebody may hold who waits for this answer. So neither takes longer than its bound; the answer
is given then, and the program may get ESTALE after all, as it may where it has the folder itself open or works in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

ForgetName = Callable[[Sequence[tuple[int, bytes]]], Awaitable[None]]
"""With folders' inodes and names in them."""

QUIET_S = 0.5
"""Longest wait for requests that are under way."""
FORGET_S = 0.3
"""Longest wait for the kernel, which drops a name in microseconds when nobody has the folder's lock."""
MAX_FORGETTING = 2
"""Waits for the kernel at one time: each keeps a thread until then."""


async def nobody_remembers(names: Sequence[tuple[int, bytes]]) -> None:
    """There is no kernel."""


class NameRequests:
    """See the module. Belongs to one event loop."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Future[None]] = set()
        self._forgetting: set[asyncio.Future[None]] = set()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """For the time of one request."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.add(ended)
        try:
            yield
        finally:
            self._under_way.discard(ended)
            ended.set_result(None)

    async def moved(self, forget: ForgetName, folder: int, name: bytes) -> None:
        """Has the kernel forget where a folder was, within reason. Not to be called from inside of a request."""
        if self._under_way:
            await asyncio.wait(list(self._under_way), timeout=QUIET_S)
        if len(self._forgetting) < MAX_FORGETTING:
            work = asyncio.ensure_future(forget([(folder, name)]))
            self._forgetting.add(work)
            work.add_done_callback(self._forgetting.discard)
            await asyncio.wait([work], timeout=FORGET_S)
