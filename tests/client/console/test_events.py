"""Push: one stream from the coordinator, many browsers, nothing piled up, and back after an absence."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from redfs.client.console import events, server
from redfs.client.console.events import FLAGS, Events, Listener
from redfs.proto.gen import cluster_pb2 as pb
from tests.client.console.rig import ConsoleCoordinator, Site, refused, site, until

ALL = dict.fromkeys(FLAGS, True)
GRACE_S = 60
"""Longer than any machine takes to end streams that it ends by itself."""


async def test_a_browser_hears_everything_at_first_and_then_what_changes(
    console: Site, coordinator: ConsoleCoordinator
) -> None:
    async with console.events() as browser:
        assert await browser.next() == ("coordinator", {"reachable": True, "error": None})
        assert await browser.next() == ("changed", ALL)
        coordinator.words.put(pb.Changed(jobs=True))
        assert await browser.next() == ("changed", dict.fromkeys(FLAGS, False) | {"jobs": True})
        coordinator.words.put(pb.Changed(figures=pb.Figures(read_bytes=5, operations=2)))
        name, figures = await browser.next()
        assert name == "figures"
        assert figures.pop("at_ms") > 1_700_000_000_000
        assert figures == {"read_bytes": 5, "written_bytes": 0, "operations": 2, "busy_us": 0}


async def test_all_browsers_share_one_stream_and_it_ends_with_the_last(
    console: Site, coordinator: ConsoleCoordinator
) -> None:
    async with console.events() as first:
        await first.until(lambda name, data: name == "changed")
        async with console.events() as second:
            assert await second.until(lambda name, data: name == "changed") == ALL, "a late one hears everything, too"
            assert coordinator.watchers == 1
            coordinator.words.put(pb.Changed(nodes=True))
            for browser in (first, second):
                assert (await browser.until(lambda name, data: name == "changed"))["nodes"]
    parts = console.console.parts
    assert parts is not None
    await until(lambda: parts.events.listeners == 0 and coordinator.watchers == 0)


async def test_what_waits_for_a_slow_browser_is_one_word_of_each_kind(coordinator: ConsoleCoordinator) -> None:
    listener = Listener()
    hub = Events(None)  # type: ignore[arg-type]
    hub._listeners.add(listener)
    hub._take(pb.Changed(tree=True))
    listener.take()
    for number in range(1000):
        hub._take(pb.Changed(nodes=number == 3, tree=number == 7, figures=pb.Figures(operations=number)))
    (changed, flags), (figures, newest) = listener.take()
    assert (changed, flags) == ("changed", {"tree": True, "nodes": True, "jobs": False, "schedules": False})
    assert (figures, newest["operations"]) == ("figures", 999)
    assert listener.take() == []
    assert not listener.news.is_set()


async def test_a_coordinator_that_comes_back_makes_everything_new(page: Path) -> None:
    first = ConsoleCoordinator()
    port = first.address
    async with site(first.address, page) as console, console.events() as browser:
        await browser.until(lambda name, data: name == "changed")
        await asyncio.to_thread(first.stop)
        away = await browser.until(lambda name, data: name == "coordinator")
        assert not away["reachable"]
        assert away["error"]["code"] == "unavailable"
        assert "redfs up" in away["error"]["message"]
        refused(await console.get("/status"), 503, "unavailable")
        second = await asyncio.to_thread(ConsoleCoordinator, port)
        try:
            assert await browser.until(lambda name, data: name == "coordinator") == {"reachable": True, "error": None}
            assert await browser.until(lambda name, data: name == "changed") == ALL
            assert (await console.get("/status")).status_code == 200
        finally:
            await asyncio.to_thread(second.stop)


async def test_too_many_browsers_are_refused(console: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_LISTENERS", 1)
    async with console.events() as browser:
        await browser.next()
        refused(await console.get("/events"), 503, "unavailable")


async def test_silence_is_broken_by_a_comment(console: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEPALIVE_S", 0.05)
    async with console.browser.stream("GET", "/api/v1/events") as answer, asyncio.timeout(10):
        async for line in answer.aiter_lines():
            if line.startswith(":"):
                return
    raise AssertionError("the stream ended without a comment")


async def test_the_end_of_the_console_ends_the_streams(
    coordinator: ConsoleCoordinator, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STOP_GRACE_S", GRACE_S)
    loop = asyncio.get_running_loop()
    async with site(coordinator.address, page) as console:
        listening = console.events()
        browser = await listening.__aenter__()
        await browser.until(lambda name, data: name == "changed")
        began_s = loop.time()
    assert loop.time() - began_s < GRACE_S, "it did not wait for a stream that never ends"
    await listening.__aexit__(None, None, None)
