"""Between exclusive and shared mode: the conversation with a volume's holder when another mount wants to share it.

1. **Recall**: an Attach that finds a holder which shares (`sessions.RecallNeeded`) waits here. The holder writes
   everything, gives its delegation back (`sessions.give_back`, one command) and goes on in shared mode; it answers the
   order when its kernel shows nothing that it remembers from before. Then the Attach is run again. One Recall at a time
   for a volume: all that come meanwhile wait for its outcome.
2. **Alone**: whenever one sharing attachment is left and nobody holds the delegation, that one is told; it asks
   (`sessions.become_exclusive`), and the command decides by what is true then. The order needs no answer and may be
   lost or come twice: it is sent again when the session's stream opens anew.

Two rules keep a cache from being served while others write: a delegation is given only to the one sharing attachment
that there is, in the command that looks; and nobody joins a session that gave its delegation back before it said that
its kernel has forgotten (`Environment.recalled`). What a failure leaves:

| at | it leaves |
|---|---|
| the holder does not answer in time | it keeps the delegation, or is alone in shared mode and is told; `Unavailable` |
| its lease lapses | the Attach goes on: it ends the holder, as any other that takes its place |
| its stream breaks | the order is sent again on the next one; a repeated GiveBack is told how things stand |
| it gave back and asks to be exclusive again meanwhile (a new stream) | it is; the Attach recalls once more |
| it gave back and does not answer any more | the next one that wants to join recalls it again, and waits |
| the newcomer goes away | it is attached without it; its session ends with its lease; who is left is told Alone |
| the newcomer's session ends | its Attach is refused; the holder is told Alone |
| the volume is deleted meanwhile | the Attach is refused with NotFound |
| the volume is being rolled back, or is to be | one waits for the other (`turns.py`): each finds what the other left |
| the coordinator dies before the GiveBack is durable | the holder resumes and holds; the newcomer asks again |
| it dies after that | the holder is alone in shared mode: it repeats its GiveBack, is told Alone, or is recalled |
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from redfs.coordinator import sessions
from redfs.coordinator.coordinator import Command
from redfs.coordinator.sessions import RecallNeeded
from redfs.coordinator.shell import Shell, cancel_and_wait
from redfs.coordinator.txn import scan_pairs
from redfs.core.errors import Unavailable
from redfs.core.tables import ATTACHMENTS, SESSIONS, SHARING, decode_session, u64_key
from redfs.core.volume_tree import ReadTree
from redfs.proto.gen import cluster_pb2 as pb

T = TypeVar("T")

RECALL_ROUNDS = 3
"""A holder that gave back and became exclusive again before the Attach is recalled anew; then the mount must ask."""
LOOK_S = 0.25
"""How often the lease of a holder that is recalled is looked at."""
ROLL_BACK_PATIENCE_S = 120.0
"""For a roll-back that is under way: three holds of its mounts and the time to tell them, which is less."""


class Sharing:
    """See the module. Belongs to the shell's event loop."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._coordinator = shell.coordinator
        self._recalls: dict[int, asyncio.Task[None]] = {}
        self._joining: dict[int, int] = {}
        """volume -> Attach requests that wait for a Recall or run after it."""
        self._tasks: set[asyncio.Task[Any]] = set()
        shell.turns.ended = self.look
        shell.coordinator.env.hooks.sharing_changed = lambda volume_id: shell.call_on_loop(self.look, volume_id)

    # -- Recall

    def attach(self, volume_id: int, command: Command[T]) -> asyncio.Task[T]:
        """Runs an Attach command that was refused with RecallNeeded, once the holder gave the volume back.

        The task goes on without whoever waits for it. Fails with Unavailable where the holder does not answer, and with
        what the command raises.
        """
        work = asyncio.create_task(self._attach(volume_id, command), name="joining")
        self._keep(work)
        return work

    def _keep(self, work: asyncio.Task[Any]) -> None:
        self._tasks.add(work)
        work.add_done_callback(self._ended)

    def _ended(self, work: asyncio.Task[Any]) -> None:
        self._tasks.discard(work)
        if not work.cancelled():
            work.exception()

    async def _attach(self, volume_id: int, command: Command[T]) -> T:
        self._joining[volume_id] = self._joining.get(volume_id, 0) + 1
        try:
            for _ in range(RECALL_ROUNDS):
                await asyncio.shield(self._recalled(volume_id))
                try:
                    return await self._shell.run(command)
                except RecallNeeded:
                    continue
            raise Unavailable("the volume changes hands again and again just now: mount it again")
        finally:
            self._joining[volume_id] -= 1
            if not self._joining[volume_id]:
                del self._joining[volume_id]
                self.look(volume_id)

    def _recalled(self, volume_id: int) -> asyncio.Task[None]:
        """The Recall of a volume that is under way, or a new one."""
        work = self._recalls.get(volume_id)
        if work is None:
            work = self._recalls[volume_id] = asyncio.create_task(self._recall(volume_id), name="recall")
            self._keep(work)
        return work

    async def _recall(self, volume_id: int) -> None:
        try:
            async with self._shell.turns.turn(volume_id, ROLL_BACK_PATIENCE_S):
                holder = self._to_recall(volume_id)
                if holder is None:
                    return
                if await self._asked(holder, volume_id):
                    recalled = self._coordinator.env.recalled
                    if recalled.get(volume_id) == holder:
                        recalled.pop(volume_id, None)
                elif self._to_recall(volume_id) == holder:
                    raise Unavailable(self._text_of_silence(holder, volume_id))
        finally:
            del self._recalls[volume_id]

    def _to_recall(self, volume_id: int) -> int | None:
        """Who has to give the volume back, or to forget what it was before; None where nobody is alive who has to."""
        with self._coordinator.read() as kv:
            holder = sessions.holder_of(kv, volume_id)
            if holder is None:
                holder = self._coordinator.env.recalled.get(volume_id)
            if holder is None or sessions.access_of(kv, holder, volume_id) not in SHARING:
                return None
        return holder if self._coordinator.leases.valid(holder) else None

    async def _asked(self, holder: int, volume_id: int) -> bool:
        """Whether the holder answered a Recall, before its lease lapsed or the deadline was over."""
        deadline_s = self._coordinator.config.recall_deadline_s
        order = asyncio.create_task(self._shell.recall(holder, volume_id, deadline_s), name="recall order")
        try:
            while not order.done():
                await asyncio.wait([order], timeout=LOOK_S)
                if not order.done() and self._to_recall(volume_id) != holder:
                    return False
            return order.result()
        finally:
            await cancel_and_wait([order])

    def _text_of_silence(self, holder: int, volume_id: int) -> str:
        with self._coordinator.read() as kv:
            row, session = ReadTree(kv).get(volume_id), kv.get(SESSIONS, u64_key(holder))
        name = "the volume" if row is None else repr(row.name)
        who = "another mount" if session is None else f"the mount {decode_session(session).client_name}"
        return f"{name} cannot be shared now: {who} did not write what it holds in time. Its log says why; try again"

    # -- Alone

    def look(self, volume_id: int) -> None:
        """Tells the session that is left alone with a shared volume, if one is. Nothing while others are to join."""
        if volume_id in self._joining or self._shell.turns.taken(volume_id):
            return  # the end of that looks
        with self._coordinator.read() as kv:
            if not sessions.in_shared_mode(kv, volume_id):
                return
            left = sessions.sharing_sessions(kv, volume_id)
        if len(left) == 1:
            self._shell.tell(left[0], pb.SessionReply(alone=pb.Alone(volume_id=volume_id)))

    def stream_opened(self, session_id: int) -> None:
        """A session has a new stream: what it was told on the one before may not have come."""
        with self._coordinator.read() as kv:
            shared = [volume_id for volume_id, raw in scan_pairs(kv, ATTACHMENTS, session_id) if raw[0] in SHARING]
        for volume_id in shared:
            self.look(volume_id)
