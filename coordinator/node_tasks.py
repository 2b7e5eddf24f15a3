"""Work on shards that storage nodes do: given to a node, and waited for.

A task ends with the node's stream, with its deadline, or with whoever waits for it: the node is told to drop it then,
and what it made meanwhile is surplus, which an inventory finds. All tasks may be given again, also to another node. A
scrub ends likewise, and is given again from where it was. Belongs to the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple

from redfs.core.errors import RedfsError, Unavailable
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.rpc_errors import error_of

MAX_SCRUB_REPORTS = 16
"""Reports of one scrub that wait: nodes send one every few seconds. With more the scrub is broken off: whoever takes
them cannot keep up, and it goes on from what was taken."""

Send = Callable[[pb.NodeOrder], Awaitable[None]]


class _Task(NamedTuple):
    node_id: int
    answered: asyncio.Future[pb.TaskDone]


class _Scrub(NamedTuple):
    node_id: int
    reports: asyncio.Queue[pb.ShardsScrubbed | Unavailable]

    def tell(self, report: pb.ShardsScrubbed | Unavailable) -> None:
        try:
            self.reports.put_nowait(report)
        except asyncio.QueueFull:
            while not self.reports.empty():
                self.reports.get_nowait()
            self.reports.put_nowait(Unavailable(f"the reports of node {self.node_id}'s scrub were not taken in time"))


class NodeTasks:
    """See the module."""

    def __init__(self) -> None:
        self._streams: dict[int, Send] = {}
        self._tasks: dict[int, _Task] = {}
        self._scrubs: dict[int, _Scrub] = {}
        self._next = 1

    def stream_opened(self, node_id: int, send: Send) -> None:
        """A node's newest stream. Tasks that were given on the one before are lost."""
        self._lose(node_id)
        self._streams[node_id] = send

    def stream_closed(self, node_id: int, send: Send) -> None:
        """A stream ended; nothing happens where the node has a newer one."""
        if self._streams.get(node_id) == send:
            del self._streams[node_id]
            self._lose(node_id)

    def under_way(self, node_id: int) -> int:
        """Tasks that the node works on."""
        return sum(task.node_id == node_id for task in self._tasks.values())

    async def run(self, node_id: int, task: pb.RebuildShard | pb.PackBlocks, deadline_s: float) -> pb.TaskDone:
        """Has a node do a task, whose number is set here; its answer, also where that tells a failure.

        Unavailable where the node has no stream, or loses it, or does not answer in time.
        """
        send = self._streams.get(node_id)
        if send is None:
            raise Unavailable(f"node {node_id} is not attached")
        task.task_id = self._next
        self._next += 1
        if isinstance(task, pb.RebuildShard):
            order = pb.NodeOrder(rebuild_shard=task)
        else:
            order = pb.NodeOrder(pack_blocks=task)
        answered: asyncio.Future[pb.TaskDone] = asyncio.get_running_loop().create_future()
        self._tasks[task.task_id] = _Task(node_id, answered)
        try:
            async with asyncio.timeout(deadline_s):
                await send(order)
                return await answered
        except TimeoutError:
            raise Unavailable(f"node {node_id} did not do a task in {deadline_s:.0f} s") from None
        finally:
            del self._tasks[task.task_id]
            # Whoever waits and is cancelled takes the future with it.
            given_up = answered.cancelled() or not answered.done()
            if given_up and self._streams.get(node_id) == send:
                await send(pb.NodeOrder(cancel_task=pb.CancelTask(task_id=task.task_id)))

    async def scrub(
        self, node_id: int, after_segment: int, bytes_per_s: int, silence_s: float
    ) -> AsyncGenerator[pb.ShardsScrubbed, None]:
        """Has a node check its shards, from a segment on; its reports, to the last one. The node drops the scrub where
        this is closed before.

        Unavailable where the node has no stream, or loses it, or says nothing for `silence_s`.
        """
        send = self._streams.get(node_id)
        if send is None:
            raise Unavailable(f"node {node_id} is not attached")
        scrub_id = self._next
        self._next += 1
        scrub = self._scrubs[scrub_id] = _Scrub(node_id, asyncio.Queue(MAX_SCRUB_REPORTS))
        order = pb.ScrubShards(scrub_id=scrub_id, after_segment=after_segment, bytes_per_s=bytes_per_s)
        done = False
        try:
            await send(pb.NodeOrder(scrub_shards=order))
            while not done:
                async with asyncio.timeout(silence_s):
                    report = await scrub.reports.get()
                if isinstance(report, Unavailable):
                    raise report
                done = report.done
                yield report
        except TimeoutError:
            raise Unavailable(f"node {node_id} said nothing of its scrub for {silence_s:.0f} s") from None
        finally:
            del self._scrubs[scrub_id]
            if not done and self._streams.get(node_id) == send:
                await send(pb.NodeOrder(cancel_task=pb.CancelTask(task_id=scrub_id)))

    def scrubbed(self, node_id: int, report: pb.ShardsScrubbed) -> None:
        """How far a node is; of a scrub that nobody waits for any more it changes nothing."""
        scrub = self._scrubs.get(report.scrub_id)
        if scrub is not None and scrub.node_id == node_id:
            scrub.tell(report)

    def done(self, node_id: int, answer: pb.TaskDone) -> None:
        """A node's answer; one that nobody waits for any more changes nothing."""
        task = self._tasks.get(answer.task_id)
        if task is not None and task.node_id == node_id and not task.answered.done():
            task.answered.set_result(answer)

    def _lose(self, node_id: int) -> None:
        for task in self._tasks.values():
            if task.node_id == node_id and not task.answered.done():
                task.answered.set_exception(Unavailable(f"node {node_id} lost its stream"))
        for scrub in self._scrubs.values():
            if scrub.node_id == node_id:
                scrub.tell(Unavailable(f"node {node_id} lost its stream"))


def failure_in(answer: pb.TaskDone) -> RedfsError | None:
    """Why the node could not do it."""
    return error_of(answer.failure) if answer.HasField("failure") else None
