"""One schedule: a pool is set up, programs work on it while faults strike, faults stop, everything is checked."""

from __future__ import annotations

import gc
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from redfs.client.data import store
from redfs.coordinator import cleaner, node_stream
from redfs.coordinator.healing import worker
from tests.simulation.checks import check_everything
from tests.simulation.faults import Chaos
from tests.simulation.loop import SimulatedLoop
from tests.simulation.people import People
from tests.simulation.world import World

VOLUMES = 2
OPERATIONS = 14
FAULTS = 7
STRIPED_BYTES = 8 * 1024
"""Flushes from here on are striped, instead of from 64 KiB on: so most schedules write both kinds."""

SEGMENT_BYTES = 512 * 1024
"""The largest segment, instead of 8 MiB."""

NODE_LOOK_S = 1.5
HEALING_TICK_S = 0.75
CLEANER_LOOK_S = 1.0


class ScheduleFailed(AssertionError):
    """With the seed, what was found, what was done, and how to see it again."""


@contextmanager
def small_and_patient() -> Iterator[None]:
    """Stripes small flushes too, keeps no buffers of 12 MiB, and looks less often whether there is something to do."""
    with (
        mock.patch.object(store, "SMALL_FLUSH_BYTES", STRIPED_BYTES),
        mock.patch.object(store, "MAX_PAYLOAD_BYTES", SEGMENT_BYTES),
        mock.patch.object(node_stream, "LOOK_INTERVAL_S", NODE_LOOK_S),
        mock.patch.object(worker, "TICK_S", HEALING_TICK_S),
        mock.patch.object(cleaner, "LOOK_S", CLEANER_LOOK_S),
    ):
        yield


@contextmanager
def collected_at_the_end() -> Iterator[None]:
    """Collects the garbage of what is done inside once, and looks at nothing else: a fifth of a run's time.

    What a caller still holds of a schedule is nobody's garbage then. Who runs many puts this around all of them: each
    collects what the one before it has left.
    """
    was_enabled, outermost = gc.isenabled(), not gc.get_freeze_count()
    gc.disable()
    if outermost:
        gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        if outermost:
            gc.unfreeze()
        if was_enabled:
            gc.enable()


def run_schedule(
    seed: int,
    *,
    volumes: int = VOLUMES,
    operations: int = OPERATIONS,
    faults: int = FAULTS,
    people: bool = True,
    log: bool = False,
) -> World:
    """Runs one; without `people` nobody cleans, levels or drains. Raises ScheduleFailed."""
    loop = SimulatedLoop(seed)
    worlds: list[World] = []

    async def main() -> None:
        world = World(seed, loop)
        worlds.append(world)
        rng = random.Random(f"{seed} schedule")
        chaos = Chaos(world)
        managing = People(world, may_act=people)
        await world.set_up(volumes, operations)
        managing.begin()
        for _ in range(faults):
            await world.sleep(rng.uniform(0.02, 0.9))
            chaos.strike()
        await world.sleep(rng.uniform(0.0, 1.0))
        world.note("faults stop")
        world.stop_faults()
        await managing.end()
        await check_everything(world)

    disabled = logging.root.manager.disable
    if not log:
        logging.disable(logging.CRITICAL)
    try:
        with small_and_patient(), collected_at_the_end():
            loop.run(main())
    except Exception as error:
        told = "\n".join(worlds[0].log) if worlds else ""
        again = f"again, with what everybody says: python -m tests.simulation --seed {seed} --schedules 1 --verbose"
        raise ScheduleFailed(f"seed {seed}: {error}\n{told}\n{again}") from error
    finally:
        logging.disable(disabled)
    return worlds[0]
