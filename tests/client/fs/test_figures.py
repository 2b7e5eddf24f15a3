"""A mount's figures: what is counted, and when it is told."""

from __future__ import annotations

import asyncio
from typing import Any

from redfs.client.fs.figures import REPORT_S, FiguresReporter, MountFigures
from redfs.core.errors import Unavailable
from redfs.proto.gen import cluster_pb2 as pb


class Session:
    """Takes reports, or refuses them."""

    last_commit = 0
    is_serving = True
    lease_s = 15.0

    def __init__(self) -> None:
        self.reports: list[pb.Figures] = []
        self.refuses = False
        self.hangs = False

    async def call(self, **body: Any) -> Any:
        if self.hangs:
            await asyncio.Event().wait()
        if self.refuses:
            raise Unavailable("away")
        self.reports.append(body["report_figures"].figures)

    async def serving(self) -> None:
        return None


class Rig:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.session = Session()
        self.figures = MountFigures()
        self.reporter = FiguresReporter(self.session, self.figures, clock=lambda: self.now_s)

    async def tick(self, later_s: float = REPORT_S) -> int:
        """Time goes by; how many reports there are."""
        self.now_s += later_s
        self.reporter.tick()
        for _ in range(5):
            await asyncio.sleep(0)
        return len(self.session.reports)


async def test_figures_are_told_once_a_second_while_they_change() -> None:
    rig = Rig()
    assert await rig.tick() == 0, "nothing happened"
    rig.figures.operations += 3
    rig.figures.read_bytes += 4096
    rig.figures.busy_ns += 2_500_000
    assert await rig.tick() == 1
    assert rig.session.reports[0] == pb.Figures(read_bytes=4096, operations=3, busy_us=2500)
    assert await rig.tick() == 1, "they did not change"
    rig.figures.operations += 1
    assert await rig.tick() == 2
    rig.figures.operations += 1
    assert await rig.tick(REPORT_S / 2) == 2, "too soon"
    assert await rig.tick(REPORT_S / 2) == 3
    assert rig.session.reports[-1].operations == 5


async def test_a_report_that_fails_is_made_up_for_by_the_next() -> None:
    rig = Rig()
    rig.session.refuses = True
    rig.figures.operations += 1
    assert await rig.tick() == 0
    rig.session.refuses = False
    assert await rig.tick() == 1, "also where nothing happened since"


async def test_one_report_at_a_time_and_a_last_one_at_the_end() -> None:
    rig = Rig()
    rig.figures.operations += 1
    rig.session.hangs = True
    await rig.tick()
    rig.session.hangs = False
    rig.figures.operations += 1
    assert await rig.tick() == 0, "the first one is still under way"
    await rig.reporter.finish()
    assert [report.operations for report in rig.session.reports] == [2]
    await rig.reporter.finish()
    assert len(rig.session.reports) == 1
