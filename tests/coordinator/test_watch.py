"""Push: every kind of change is told, at once and no more often than it should, and nothing when nothing changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from redfs.coordinator import service, watch
from redfs.coordinator.shell import Shell
from redfs.coordinator.watch import EVERYTHING, FAST_S, SLOW_S, Topic, Watcher, Watchers
from redfs.core.errors import Busy, Unavailable
from redfs.core.tables import SESSIONS, VOLUMES
from redfs.proto.gen import cluster_pb2 as pb
from tests.coordinator.harness import Client, Clock, Pool
from tests.coordinator.test_service import WAIT_S, World, error_of, world

# ---------------------------------------------------------------- one watcher


def taken(watcher: Watcher) -> Topic:
    """What it is told now, without waiting; nothing where it would wait."""
    coroutine = watcher.next()
    try:
        coroutine.send(None)
    except StopIteration as done:
        told: Topic = done.value
        return told
    finally:
        coroutine.close()
    return Topic(0)


async def test_a_watcher_hears_everything_at_once_and_then_what_changes() -> None:
    clock = Clock()
    watcher = Watcher(clock.monotonic, lambda: None)
    assert taken(watcher) == EVERYTHING
    assert not taken(watcher)
    watcher.add(Topic.TREE)
    watcher.add(Topic.JOBS)
    assert not taken(watcher), "so soon after the last one"
    clock.now_s += FAST_S
    assert taken(watcher) == Topic.TREE | Topic.JOBS
    clock.now_s += 10 * SLOW_S
    assert not taken(watcher)
    watcher.add(Topic.NODES)
    assert taken(watcher) == Topic.NODES, "after a quiet time at once"


async def test_what_changes_all_the_time_is_told_once_a_second() -> None:
    clock = Clock()
    watcher = Watcher(clock.monotonic, lambda: None)
    taken(watcher)
    told = []
    for step in range(1, 41):
        clock.now_s = 1000 + 0.1 * step
        watcher.add(Topic.USAGE)
        watcher.add(Topic.FIGURES)
        if step % 10 == 5:
            watcher.add(Topic.NODES)
        if found := taken(watcher):
            told.append((step, found))
    slow = Topic.USAGE | Topic.FIGURES
    assert [step for step, found in told if found & slow] == [10, 20, 30, 40]
    assert [step for step, found in told if found == Topic.NODES] == [5, 15, 25, 35]


async def test_usage_is_told_with_the_tree() -> None:
    clock = Clock()
    watcher = Watcher(clock.monotonic, lambda: None)
    taken(watcher)
    clock.now_s += FAST_S
    watcher.add(Topic.TREE | Topic.USAGE)
    watcher.add(Topic.NODES | Topic.REPORTS)
    assert taken(watcher) == Topic.TREE | Topic.NODES
    clock.now_s += SLOW_S
    assert not taken(watcher), "who reads the tree reads its usage"


async def test_one_wait_ends_when_something_changes_or_becomes_due() -> None:
    clock = Clock()
    watcher = Watcher(clock.monotonic, lambda: None)
    assert await watcher.next() == EVERYTHING
    waiting = asyncio.create_task(watcher.next())
    await asyncio.sleep(0)
    clock.now_s += SLOW_S
    watcher.add(Topic.USAGE)
    assert await asyncio.wait_for(waiting, WAIT_S) == Topic.USAGE


async def test_the_state_thread_does_not_call_for_what_all_have_pending() -> None:
    clock = Clock()
    calls: list[Topic] = []

    def call(what: Any, topics: Topic) -> None:
        calls.append(topics)
        what(topics)

    all_watchers = Watchers(set, call, clock.monotonic)
    all_watchers.changed(Topic.TREE)
    assert calls == [], "nobody watches"
    first, second = all_watchers.join(), all_watchers.join()
    for watcher in (first, second):
        taken(watcher)
    for _ in range(1000):
        all_watchers.changed(Topic.USAGE)
    assert calls == [Topic.USAGE]
    clock.now_s += SLOW_S
    assert taken(first) == Topic.USAGE
    all_watchers.changed(Topic.USAGE)
    assert len(calls) == 2, "the first one was told and must hear of it again"
    assert taken(second) == Topic.USAGE
    clock.now_s += SLOW_S
    assert (taken(first), taken(second)) == (Topic.USAGE, Topic(0))
    all_watchers.leave(first)
    all_watchers.leave(second)


# ---------------------------------------------------------------- what commands change


def test_each_batch_says_what_it_changed() -> None:
    pool = Pool()
    told: list[Topic] = []
    pool.coordinator.env.hooks.changed = told.append
    pool.create("v")
    assert told.pop() & ~Topic.USAGE == Topic.TREE
    client = Client(pool, "v")
    assert told == [Topic.TREE], "attached; opening a session alone changes nothing that is shown"
    told.clear()
    client.write({(10, 0): "word"})
    assert set(told) == {Topic.USAGE}, "a write; opening segments for it is nothing that is shown"
    told.clear()
    pool.coordinator.execute(lambda txn: txn.tree.find("v"))
    with pytest.raises(Busy):
        pool.delete("v")
    assert told == []
    client.close()
    assert told.pop() == Topic.TREE | Topic.JOBS
    pool.run_jobs()
    assert set(told) == {Topic.JOBS}
    assert watch.topics_of([SESSIONS]) == Topic(0)
    assert watch.topics_of([VOLUMES, SESSIONS]) == Topic.TREE


# ---------------------------------------------------------------- through gRPC


class Watching:
    """A watcher's side of the stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def next(self) -> pb.Changed:
        changed = await asyncio.wait_for(self._stream.read(), WAIT_S)
        assert isinstance(changed, pb.Changed)
        return changed

    async def until(self, wanted: str) -> list[str]:
        """Reads until a message names `wanted`; everything that the messages named."""
        named: list[str] = []
        while wanted not in named:
            named += names(await self.next())
        return named

    def cancel(self) -> None:
        self._stream.cancel()


def names(changed: pb.Changed) -> list[str]:
    return [field.name for field, _ in changed.ListFields()]


@asynccontextmanager
async def watched(folder: Path, **settings: Any) -> AsyncIterator[tuple[World, Watching]]:
    async with world(folder, **settings) as w:
        watching = Watching(w.stub.Watch(pb.WatchRequest()))
        first = await watching.next()
        assert names(first) == ["tree", "nodes", "jobs", "schedules", "figures"]
        yield w, watching
        watching.cancel()


async def test_every_kind_of_change_is_told(tmp_path: Path) -> None:
    async with watched(tmp_path) as (w, watching):
        await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
        assert await watching.until("tree") == ["tree"]
        stream = await w.session()
        await stream.call(attach=pb.Attach(name="v"))
        assert await watching.until("tree") == ["tree"]
        await stream.call(report_figures=pb.ReportFigures(figures=pb.Figures(operations=7, read_bytes=100)))
        told = await watching.next()
        assert names(told) == ["figures"]
        assert (told.figures.operations, told.figures.read_bytes) == (7, 100)
        status = await w.stub.GetStatus(pb.Empty())
        assert status.figures == told.figures
        await w.nodes[0].beat(shards=5)
        assert await watching.until("nodes") == ["nodes"]
        await stream.call(close=pb.Close())
        await stream.ended()
        assert {"tree", "jobs"} == set(await watching.until("tree"))
        await w.stub.SetVolume(pb.VolumeSet(name="v", color="red"))
        assert "tree" in await watching.until("tree")
        w.nodes.pop().close()
        assert "nodes" in await watching.until("nodes")


async def test_nothing_is_told_when_nothing_changes(tmp_path: Path) -> None:
    async with watched(tmp_path) as (w, watching):
        await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
        await watching.until("tree")
        stream = await w.session()
        reports = pb.ReportFigures(figures=pb.Figures())
        for _ in range(20):
            await w.stub.ListVolumes(pb.Empty())
            await w.stub.GetStatus(pb.Empty())
            await stream.call(renew=pb.Renew())
            await stream.call(report_figures=reports)
            await w.nodes[0].beat()
            assert isinstance(await error_of(w.stub.DeleteVolume(pb.VolumeDelete(name="w"))), Exception)
        for shards in range(1, 3):
            await w.nodes[0].beat(shards=shards)
            assert names(await watching.next()) == ["nodes"], "the next message, so there was none before it"
        await stream.close()


async def test_a_node_that_falls_silent_is_told(tmp_path: Path) -> None:
    async with watched(tmp_path, nodes=2, heartbeat_s=0.05, node_down_s=0.3) as (w, watching):
        while w.coordinator.cluster.up():
            await asyncio.sleep(0.01)
        while True:
            await watching.until("nodes")
            if all(n.state == "down" for n in (await w.stub.GetNodes(pb.Empty())).nodes):
                return


async def test_a_slow_watcher_holds_nothing_back_and_misses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FAST_S", 0.0)
    async with watched(tmp_path, nodes=1) as (w, quick):
        slow = Watching(w.stub.Watch(pb.WatchRequest()))
        await slow.next()
        for number in range(200):
            await w.stub.CreateVolume(pb.VolumeCreate(name=f"v{number}", protection="single"))
            assert "tree" in await quick.until("tree"), "one that reads nothing does not delay another"
        await w.nodes[0].beat(shards=3)
        assert "nodes" in await slow.until("nodes"), "what it did not read yet waits for it"
        slow.cancel()


async def test_the_end_of_the_coordinator_ends_all_watchers(tmp_path: Path) -> None:
    async with watched(tmp_path, nodes=0) as (w, watching):
        w.shell.watchers.close()
        ended = await error_of(watching.next())
        assert isinstance(ended, Unavailable)
        assert "stopping" in str(ended)
        refused = await error_of(w.stub.Watch(pb.WatchRequest()).read())
        assert isinstance(refused, Unavailable)


async def test_watchers_are_bounded_and_leave_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_WATCHERS", 1)
    async with watched(tmp_path, nodes=0) as (w, watching):
        refused = await error_of(w.stub.Watch(pb.WatchRequest()).read())
        assert isinstance(refused, Busy)
        assert "close" in str(refused)
        watching.cancel()

        async def again() -> bool:
            try:
                return bool((await w.stub.Watch(pb.WatchRequest()).read()).tree)
            except Exception:  # noqa: BLE001 - the place may not be free yet
                return False

        async with asyncio.timeout(WAIT_S):
            while not await again():
                await asyncio.sleep(0.01)


async def test_a_watcher_that_takes_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        """A stream whose other side reads nothing."""

        def __init__(self) -> None:
            self.aborted: list[str] = []

        async def write(self, _: Any) -> None:
            await asyncio.Event().wait()

        async def abort(self, _: Any, text: str, __: Any) -> None:
            self.aborted.append(text)
            raise asyncio.CancelledError

    monkeypatch.setattr(service, "WATCH_STALL_S", 0.01)
    stuck = Stuck()
    shell = Shell(Pool().coordinator)
    with pytest.raises(asyncio.CancelledError):
        await service.CoordinatorServicer(shell).Watch(pb.WatchRequest(), stuck)
    assert "watch again" in stuck.aborted[0]
    shell.coordinator.env.hooks.changed(Topic.TREE)  # nobody is left to be told
