"""Several programs change files at random while nodes and the coordinator are killed and come back: nothing fails,
and at the end every file is what its program wrote.

Faults come after numbers of operations, not of seconds. A failing seed is worth a longer look with more operations.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.pools import RunningPool

pytestmark = [pytest.mark.mount, pytest.mark.slow]

NODES = 6
TOLERATED = 2
PROGRAMS = 4
FAULTS = 16
OPERATIONS_BETWEEN_FAULTS = 250
SIZES = (10, 4096, 5000, 70_000, 300_000, 1_500_000)
WRITES = (1, 100, 4096, 9000, 131_072)


class Progress:
    """Counts operations; the one who makes faults waits for the next number."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._done = 0
        self.stop = False
        self.problems: list[str] = []

    def step(self) -> None:
        with self._changed:
            self._done += 1
            self._changed.notify_all()

    def fail(self, problem: str) -> None:
        with self._changed:
            self.problems.append(problem)
            self._changed.notify_all()

    def wait(self, more: int) -> None:
        with self._changed:
            target = self._done + more
            self._changed.wait_for(lambda: self._done >= target or bool(self.problems), timeout=120)
            assert self._done >= target or self.problems, "the programs stand still"


class Program(threading.Thread):
    """Works in a folder of its own and knows what must be there."""

    def __init__(self, folder: Path, seed: int, progress: Progress) -> None:
        super().__init__(name=folder.name)
        self.folder = folder
        self.content: dict[str, bytearray] = {}
        self._random = random.Random(seed)
        self._progress = progress

    def run(self) -> None:
        self.folder.mkdir()
        try:
            while not self._progress.stop and not self._progress.problems:
                self._operate()
                self._progress.step()
        except (OSError, AssertionError) as error:
            self._progress.fail(f"{self.name}: {error!r}")

    def _operate(self) -> None:
        rng, names = self._random, list(self.content)
        dice = rng.random()
        if dice < 0.25 or len(names) < 5:
            self._create(f"f{rng.randrange(10**9)}", rng.randbytes(rng.choice(SIZES)))
        elif dice < 0.55:
            self._overwrite(rng.choice(names))
        elif dice < 0.65:
            name = rng.choice(names)
            content = self.content[name]
            size = rng.randrange(len(content) + 100_000)
            os.truncate(self.folder / name, size)
            del content[size:]
            content.extend(bytes(size - len(content)))
        elif dice < 0.75:
            name, target = rng.choice(names), rng.choice([*names, f"r{rng.randrange(10**9)}"])
            os.rename(self.folder / name, self.folder / target)
            self.content[target] = self.content.pop(name)
        elif dice < 0.85 and len(names) > 40:
            name = rng.choice(names)
            (self.folder / name).unlink()
            del self.content[name]
        else:
            name = rng.choice(names)
            assert (self.folder / name).read_bytes() == self.content[name], f"{name} has other bytes"

    def _create(self, name: str, content: bytes) -> None:
        with (self.folder / name).open("wb", buffering=0) as file:
            rest = memoryview(content)
            while len(rest):
                rest = rest[file.write(rest) :]
            if self._random.random() < 0.3:
                os.fsync(file.fileno())
        self.content[name] = bytearray(content)

    def _overwrite(self, name: str) -> None:
        rng, content = self._random, self.content[name]
        with (self.folder / name).open("r+b", buffering=0) as file:
            for _ in range(rng.randint(1, 6)):
                offset, data = rng.randrange(len(content) + 50_000), rng.randbytes(rng.choice(WRITES))
                os.pwrite(file.fileno(), data, offset)
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(data)] = data
            if rng.random() < 0.3:
                os.fsync(file.fileno())


def make_faults(pool: RunningPool, rng: random.Random, progress: Progress) -> None:
    """Kills and starts again, never more nodes at a time than the volume tolerates; snapshots come and go."""
    down: list[int] = []
    for number in range(FAULTS):
        progress.wait(OPERATIONS_BETWEEN_FAULTS)
        if progress.problems:
            return
        dice = rng.random()
        if dice < 0.35 and len(down) < TOLERATED:
            down.append(rng.choice([n for n in range(NODES) if n not in down]))
            pool.kill(f"node-{down[-1]}")
        elif dice < 0.65 and down:
            pool.redfs("node", "start", str(down.pop(rng.randrange(len(down)))))
        elif dice < 0.85:
            pool.kill("coordinator")
            pool.up()
            down.clear()
        else:
            pool.redfs("snapshot", "create", f"data@at-{number}")
            if rng.random() < 0.5:
                pool.redfs("snapshot", "rm", f"data@at-{number}", "--yes")


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_fails_and_nothing_is_lost(fresh_pool: Callable[[int], RunningPool], seed: int) -> None:
    pool = fresh_pool(NODES)
    pool.redfs("volume", "create", "data", "--protect", "ec:4+2")
    place = pool.mount("data")
    progress = Progress()
    programs = [Program(place / f"program-{n}", seed * 100 + n, progress) for n in range(PROGRAMS)]
    for program in programs:
        program.start()
    try:
        make_faults(pool, random.Random(seed), progress)
    finally:
        progress.stop = True
        for program in programs:
            program.join()
    assert progress.problems == []
    pool.up()
    pool.umount(place)
    place = pool.mount("data")
    for program in programs:
        folder = place / program.name
        assert sorted(os.listdir(folder)) == sorted(program.content)
        for name, content in program.content.items():
            assert (folder / name).read_bytes() == content, f"{folder / name} has other bytes"
    pool.umount(place)
    # A shard that reached its node after the order to delete it goes at the next inventory: at the start, and hourly.
    pool.redfs("down")
    pool.up()
    pool.wait_for_nodes(NODES)
    pool.wait_for_idle()
    pool.assert_clean()
