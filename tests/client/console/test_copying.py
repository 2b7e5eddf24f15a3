"""Copies through the console: who carries them out, and how they are bounded and ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redfs.client import copying as client_copying
from redfs.client.console import copying
from redfs.client.console.copying import Copies
from redfs.client.copying import ROUNDS
from redfs.core.errors import Busy, Unavailable
from redfs.proto.gen import cluster_pb2 as pb
from tests.client.console.rig import until

REQUEST = pb.CopyFiles(source="photos@mon", source_path=b"/a", target="photos", target_path=b"/b")
DONE = pb.CopyFilesReply(files=1, path=b"/b")


class Coordinator:
    """Says who attends the target, one answer after another."""

    address = "here:1"

    def __init__(self, *attended: bool) -> None:
        self.answers = list(attended)

    async def call(self, name: str, request: Any, **_: Any) -> pb.CopyFilesReply:
        assert (name, request) == ("CopyBetween", REQUEST)
        return DONE if self.answers.pop(0) else pb.CopyFilesReply(unattended=True)


def copies(coordinator: Coordinator, here: Any) -> Copies:
    found: Any = coordinator
    return Copies(found, here)


async def test_the_mount_does_it_where_there_is_one() -> None:
    async def here(address: str, request: pb.CopyFiles) -> None:
        raise AssertionError("a mount has it")

    assert await copies(Coordinator(True), here).copy(REQUEST) == DONE


async def test_else_the_console_does_it_and_asks_again_where_a_mount_came_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_copying, "PAUSE_FIRST_S", 0.0)
    asked = []

    async def here(address: str, request: pb.CopyFiles) -> pb.CopyFilesReply | None:
        asked.append(address)
        return DONE if len(asked) == 2 else None

    assert await copies(Coordinator(False, False), here).copy(REQUEST) == DONE
    assert asked == ["here:1", "here:1"]
    asked.clear()
    assert await copies(Coordinator(False, True), here).copy(REQUEST) == DONE

    async def never(address: str, request: pb.CopyFiles) -> None:
        return None

    with pytest.raises(Busy):
        await copies(Coordinator(*[False] * ROUNDS), never).copy(REQUEST)


async def test_a_copy_goes_on_when_its_browser_leaves_and_ends_with_the_console() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    ends: list[str] = []

    async def here(address: str, request: pb.CopyFiles) -> pb.CopyFilesReply:
        begun.set()
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            ends.append("broken off")
            raise
        ends.append("done")
        return DONE

    found = copies(Coordinator(*[False] * 3), here)
    browser = asyncio.create_task(found.copy(REQUEST))
    await begun.wait()
    browser.cancel()
    await asyncio.gather(browser, return_exceptions=True)
    assert ends == []
    go_on.set()
    await until(lambda: ends == ["done"])
    go_on.clear()
    begun.clear()
    second = asyncio.create_task(found.copy(REQUEST))
    await begun.wait()
    await found.close()
    assert ends == ["done", "broken off"]
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_copies_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "MAX_COPIES", 1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def here(address: str, request: pb.CopyFiles) -> pb.CopyFilesReply:
        begun.set()
        await go_on.wait()
        return DONE

    found = copies(Coordinator(False, False), here)
    first = asyncio.create_task(found.copy(REQUEST))
    await begun.wait()
    with pytest.raises(Unavailable):
        await found.copy(REQUEST)
    go_on.set()
    assert await first == DONE
    assert await found.copy(REQUEST) == DONE
