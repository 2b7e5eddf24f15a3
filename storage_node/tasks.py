"""The queue of tasks that a coordinator gives to this node, and the threads that do them.

`MAX_AT_ONCE` tasks are worked on at a time, `MAX_QUEUED` wait; more are refused with Unavailable. Each is answered with
TaskDone on the stream that it came on. A task ends with its stream, or when it is cancelled: it is not answered then,
what it waits for on the network is closed at once, and what it made is left (an inventory finds it as surplus). What
the tasks do is in `rebuilding.py` and `packing.py`, scrubs in `scrubbing.py`.

| what goes wrong | what the answer says |
|---|---|
| an error of the family | that error, and the bad shards found so far |
| anything else: a bug | InternalError; the log has the trace |
| the node stops | none: the stream ends |

Memory: `TASK_MEMORY_BYTES` for the buffers of all tasks together; one that needs more waits for the others.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from redfs.core.errors import InternalError, RedfsError, Unavailable
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.rpc_errors import failure_of
from redfs.storage_node.budget import Budget
from redfs.storage_node.cancel import Cancel, Cancelled
from redfs.storage_node.gathering import Findings
from redfs.storage_node.pacing import Courtesy
from redfs.storage_node.packing import pack_blocks
from redfs.storage_node.peers import Peers
from redfs.storage_node.rebuilding import rebuild_shard
from redfs.storage_node.scrubbing import Scrubbing
from redfs.storage_node.shard_store import ShardStore

log = logging.getLogger(__name__)

MAX_AT_ONCE: Final = 4
"""Tasks worked on: while one waits for a disk, others use the network."""
MAX_QUEUED: Final = 64
"""Tasks that wait: some seconds of work, so that a coordinator need not wait for each answer before it gives more."""
TASK_MEMORY_BYTES: Final = 96 << 20
"""A rebuild takes up to 12 MiB, packing 8 MiB as ec:4+2 from such segments 32 MiB."""
STOP_WAIT_S: Final = 10.0
"""For tasks under way when the node stops; they give up at once but for the disk's own time."""

Report = Callable[[pb.NodeReport], None]
"""Sends on the stream; waits for room, and does nothing once the stream has ended."""


class _Task:
    def __init__(self, stream: TaskStream, order: pb.RebuildShard | pb.PackBlocks) -> None:
        self.stream = stream
        self.order = order
        self.cancel = Cancel()


class Tasks:
    """See the module. Thread safe."""

    def __init__(self, own_node: Callable[[], int], store: ShardStore, peers: Peers, courtesy: Courtesy) -> None:
        self.scrubbing = Scrubbing(store, courtesy)
        self._own_node = own_node
        self._store = store
        self._peers = peers
        self._courtesy = courtesy
        self._memory = Budget(TASK_MEMORY_BYTES)
        self._changed = threading.Condition()
        self._waiting: deque[_Task] = deque()
        self._under_way: set[_Task] = set()
        self._stopping = False
        self._threads = [threading.Thread(target=self._work, name=f"task-{i}", daemon=True) for i in range(MAX_AT_ONCE)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Gives up everything."""
        with self._changed:
            self._stopping = True
            self._waiting.clear()
            under_way = list(self._under_way)
            self._changed.notify_all()
        for task in under_way:
            task.cancel.cancel()
        self.scrubbing.stop()
        self._peers.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(STOP_WAIT_S)

    def open_stream(self, report: Report) -> TaskStream:
        """For the orders of a new stream."""
        return TaskStream(self, report)

    # -------------------------------------------------------------------- for the streams

    def add(self, stream: TaskStream, order: pb.RebuildShard | pb.PackBlocks) -> bool:
        """False where too many wait already."""
        with self._changed:
            if len(self._waiting) >= MAX_QUEUED:
                return False
            self._waiting.append(_Task(stream, order))
            self._changed.notify()
            return True

    def give_up(self, stream: TaskStream, task_id: int | None = None) -> None:
        """One task of a stream, or all."""

        def meant(task: _Task) -> bool:
            return task.stream is stream and task_id in (None, task.order.task_id)

        with self._changed:
            self._waiting = deque(task for task in self._waiting if not meant(task))
            found = [task for task in self._under_way if meant(task)]
        for task in found:
            task.cancel.cancel()

    # -------------------------------------------------------------------- doing them

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._stopping:
                    self._changed.wait()
                if self._stopping:
                    return
                task = self._waiting.popleft()
                self._under_way.add(task)
            try:
                done = self._do(task)
            finally:
                with self._changed:
                    self._under_way.discard(task)
            if done is not None and not task.cancel.is_set:
                task.stream.report(pb.NodeReport(task_done=done))

    def _do(self, task: _Task) -> pb.TaskDone | None:
        """The answer; None for a task that was given up."""
        order = task.order
        findings = Findings()
        failure: RedfsError | None = None
        try:
            if isinstance(order, pb.RebuildShard):
                rebuild_shard(
                    order, self._own_node(), self._store, self._peers, self._memory, self._courtesy, findings,
                    task.cancel,
                )  # fmt: skip
            else:
                pack_blocks(
                    order, self._own_node(), self._store, self._peers, self._memory, self._courtesy, findings,
                    task.cancel,
                )  # fmt: skip
        except Cancelled:
            return None
        except RedfsError as error:
            log.warning("task %d failed: %s", order.task_id, error)
            failure = error
        except Exception as error:
            log.exception("task %d failed for a reason that nobody thought of", order.task_id)
            failure = InternalError(f"the task failed ({error!r}): the node's log says where")
        return pb.TaskDone(
            task_id=order.task_id,
            failure=None if failure is None else failure_of(failure),
            bad=findings.bad(),
            read_bytes=findings.read_bytes,
            written_bytes=findings.written_bytes,
        )


class TaskStream:
    """The tasks and scrubs of one stream to the coordinator."""

    def __init__(self, tasks: Tasks, report: Report) -> None:
        self._tasks = tasks
        self.report = report

    def take(self, order: pb.NodeOrder) -> bool:
        """Takes an order; False for one that is no task's."""
        body = order.WhichOneof("body")
        if body == "rebuild_shard":
            self._add(order.rebuild_shard)
        elif body == "pack_blocks":
            self._add(order.pack_blocks)
        elif body == "scrub_shards":
            self._tasks.scrubbing.begin(order.scrub_shards, self.report, self)
        elif body == "cancel_task":
            self._tasks.give_up(self, order.cancel_task.task_id)
            self._tasks.scrubbing.give_up(self, order.cancel_task.task_id)
        else:
            return False
        return True

    def _add(self, order: pb.RebuildShard | pb.PackBlocks) -> None:
        if not self._tasks.add(self, order):
            refused = Unavailable(f"{MAX_QUEUED} tasks wait on this node already: give it again later")
            self.report(pb.NodeReport(task_done=pb.TaskDone(task_id=order.task_id, failure=failure_of(refused))))

    def end(self) -> None:
        """The stream has ended, and its tasks with it."""
        self._tasks.give_up(self)
        self._tasks.scrubbing.give_up(self)
