"""The order in which the kernel is told attributes of an inode that other hosts write to.

It counts where the kernel keeps pages of such files: where they are mapped, and in kernels that could not map them else
(`fuse_init.py`). And everywhere for the size, by which `lseek` finds a file's end.

The kernel asks for the attributes before it reads from its pages, and drops those when size or modification time are
others than it knew. But it leaves an answer out when it took another one for that inode since it asked, be it that to a
write of this host: it would read old pages then. So who asks while somebody else's look is under way gets the same
answer, of a look that began after both had asked; and what else tells of the inode waits for these answers.

And a read that is under way shows the file as it was when it began: where the kernel learns of a greater size before
the answer, the reader gets zeros behind the old end. So what tells of the inode also waits for the reads that began
before.

What reaches the mount in the moment in which such an answer is given may still lose against it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from redfs.core.records import Inode

MAX_LOOKS = 8
"""Looks for one answer. Each time as many programs wait as ask at once; more than so many in turn are let go."""
LAST_ANSWER_S = 5.0
"""A write waits no longer for other programs' answers: it may be the one that is late then."""


class _Asking:
    """Programs that wait for the attributes of one inode."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: asyncio.Future[Inode] = asyncio.get_running_loop().create_future()


class AttributeAnswers:
    """See the module. Belongs to one event loop."""

    def __init__(self) -> None:
        self._asking: dict[int, _Asking] = {}
        self._reads: dict[int, set[asyncio.Future[None]]] = {}
        """Inode -> reads of it that are under way."""

    async def newest(self, ino: int, look: Callable[[int], Awaitable[Inode]]) -> Inode:
        """The attributes as they are found after everybody who waits has asked. Raises what `look` does."""
        asking = self._asking.get(ino)
        if asking is not None:
            asking.asked += 1
            return await asyncio.shield(asking.answer)
        asking = self._asking[ino] = _Asking()
        try:
            for _ in range(MAX_LOOKS):
                before = asking.asked
                found = await look(ino)
                await self._read_out(ino)
                if asking.asked == before:
                    break
        except BaseException as error:
            asking.answer.set_exception(error)
            asking.answer.exception()  # also where nobody else waits
            raise
        finally:
            del self._asking[ino]
        asking.answer.set_result(found)
        return found

    async def given(self, ino: int) -> None:
        """Returns when all who wait for the inode's attributes, or read it, have their answer.

        Those who ask later are not waited for; nobody is for longer than LAST_ANSWER_S.
        """
        asking = self._asking.get(ino)
        if asking is not None:
            await asyncio.wait([asking.answer], timeout=LAST_ANSWER_S)
        await self._read_out(ino)

    @contextmanager
    def reading(self, ino: int) -> Iterator[None]:
        """While a read is under way."""
        answered = asyncio.get_running_loop().create_future()
        reads = self._reads.setdefault(ino, set())
        reads.add(answered)
        try:
            yield
        finally:
            answered.set_result(None)
            reads.discard(answered)
            if not reads:
                self._reads.pop(ino, None)

    async def _read_out(self, ino: int) -> None:
        """Returns when the reads that are under way now are answered."""
        reads = self._reads.get(ino)
        if reads:
            await asyncio.wait(set(reads), timeout=LAST_ANSWER_S)
