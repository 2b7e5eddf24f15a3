"""The caller's side of copying: who does it, and how often it is tried when the target changes hands."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from redfs.client import copying
from redfs.core.errors import Busy, NotFound
from redfs.proto.gen import cluster_pb2 as pb

REQUEST = pb.CopyFiles(source="a@s", target="a")
DONE = pb.CopyFilesReply(files=1)
UNATTENDED = pb.CopyFilesReply(unattended=True)


class Caller:
    """Plays coordinator and the copying of one's own, in turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, asks: Iterable[object], here: Iterable[object]) -> None:
        self.asks, self.here = iter(asks), iter(here)
        self.pauses: list[float] = []
        monkeypatch.setattr(copying, "copy_here", self._copy_here)

    def _ask(self, request: pb.CopyFiles) -> pb.CopyFilesReply:
        assert request == REQUEST
        return _played(next(self.asks))

    async def _copy_here(self, address: str, request: pb.CopyFiles) -> pb.CopyFilesReply | None:
        assert (address, request) == ("address", REQUEST)
        return _played(next(self.here))

    async def _ask_async(self, request: pb.CopyFiles) -> pb.CopyFilesReply:
        return self._ask(request)

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def copy_async(self) -> pb.CopyFilesReply:
        return await copying.copy_async("address", self._ask_async, REQUEST, sleep=self._sleep)

    def copy(self) -> pb.CopyFilesReply:
        return copying.copy("address", self._ask, REQUEST, sleep=self.pauses.append)


def _played(step: object) -> pb.CopyFilesReply:
    if isinstance(step, Exception):
        raise step
    return step  # type: ignore[return-value]


def test_the_mount_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Caller(monkeypatch, [DONE], []).copy() == DONE


def test_where_nobody_has_the_target_this_process_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    caller = Caller(monkeypatch, [UNATTENDED], [DONE])
    assert caller.copy() == DONE
    assert not caller.pauses


def test_the_target_changes_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    caller = Caller(monkeypatch, [UNATTENDED, UNATTENDED, DONE], [None, None])
    assert caller.copy() == DONE
    assert caller.pauses == [copying.PAUSE_FIRST_S, 2 * copying.PAUSE_FIRST_S]


def test_the_target_changes_hands_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    caller = Caller(monkeypatch, [UNATTENDED] * copying.ROUNDS, [None] * copying.ROUNDS)
    with pytest.raises(Busy, match="all the time"):
        caller.copy()


@pytest.mark.parametrize(
    ("asks", "here"),
    [
        ([NotFound("x")], []),
        ([UNATTENDED], [NotFound("x")]),
        ([UNATTENDED], [Busy("another copy to that place is under way")]),
    ],
)
def test_errors_end_it(monkeypatch: pytest.MonkeyPatch, asks: list[object], here: list[object]) -> None:
    caller = Caller(monkeypatch, asks, here)
    with pytest.raises((NotFound, Busy)):
        caller.copy()
    assert not caller.pauses


async def test_the_same_from_an_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await Caller(monkeypatch, [DONE], []).copy_async() == DONE
    caller = Caller(monkeypatch, [UNATTENDED, UNATTENDED], [None, DONE])
    assert await caller.copy_async() == DONE
    assert caller.pauses == [copying.PAUSE_FIRST_S]
    with pytest.raises(Busy):
        await Caller(monkeypatch, [UNATTENDED] * copying.ROUNDS, [None] * copying.ROUNDS).copy_async()
