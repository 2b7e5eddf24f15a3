"""One schedule: a pool is set up, programs work on it while faults strike, faults stop, everything is checked."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from redfs.client.data import store
from tests.simulation.checks import check_everything
from tests.simulation.faults import Chaos
from tests.simulation.loop import SimulatedLoop
from tests.simulation.world import World

VOLUMES = 2
OPERATIONS = 14
FAULTS = 7
STRIPED_BYTES = 8 * 1024
"""Flushes from here on are striped, instead of from 64 KiB on: so most schedules write both kinds."""

SEGMENT_BYTES = 512 * 1024
"""The largest segment, instead of 8 MiB."""


class ScheduleFailed(AssertionError):
    """With the seed, what was done, and what was found."""


@contextmanager
def small_segments() -> Iterator[None]:
    """Stripes small flushes too, and keeps no buffers of 12 MiB, so that schedules are short."""
    with (
        mock.patch.object(store, "SMALL_FLUSH_BYTES", STRIPED_BYTES),
        mock.patch.object(store, "MAX_PAYLOAD_BYTES", SEGMENT_BYTES),
    ):
        yield


def run_schedule(
    seed: int, *, volumes: int = VOLUMES, operations: int = OPERATIONS, faults: int = FAULTS, log: bool = False
) -> World:
    """Runs one. Raises ScheduleFailed."""
    loop = SimulatedLoop(seed)
    worlds: list[World] = []

    async def main() -> None:
        world = World(seed, loop)
        worlds.append(world)
        rng = random.Random(f"{seed} schedule")
        chaos = Chaos(world)
        await world.set_up(volumes, operations)
        for _ in range(faults):
            await world.sleep(rng.uniform(0.02, 0.9))
            chaos.strike()
        await world.sleep(rng.uniform(0.0, 1.0))
        world.note("faults stop")
        world.stop_faults()
        await check_everything(world)

    disabled = logging.root.manager.disable
    if not log:
        logging.disable(logging.CRITICAL)
    try:
        with small_segments():
            loop.run(main())
    except Exception as error:
        told = "\n".join(worlds[0].log) if worlds else ""
        raise ScheduleFailed(f"seed {seed}: {error}\n{told}") from error
    finally:
        logging.disable(disabled)
    return worlds[0]
