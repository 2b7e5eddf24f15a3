"""Whole pools under faults, one seed a schedule: what is promised holds whatever happens.

A failing seed is in the message, with how to see it again. Put it into SEEDS_THAT_FAILED with a line that says what it
found, where it stays.
What a seed means changes with the simulation: who changes that looks for seeds that find the same, with the fault put
back into the product.
"""

from __future__ import annotations

import os
import time
import weakref
from unittest import mock

import pytest

from tests.simulation import schedule
from tests.simulation.schedule import ScheduleFailed, collected_at_the_end, run_schedule
from tests.simulation.world import World

SEEDS_THAT_FAILED = {
    4000556: "what was not committed yet could not be read around a node that was cut off",
    9103124: "a mount that connected again while the coordinator's disk was full was dead for good",
    4000504: "a session that could not be closed was not waited for: the checker's fault",
}
SEEDS_THAT_FAILED_WITHOUT_PEOPLE = {
    26: "a coordinator with a full disk turned nodes away for good",
    11: "what was doomed before the clock was set back was not deleted for a day",
    500317: "a mount that hung before it was mounted changed the volume when its successor was done, as it may",
    2000665: "a repair that failed once was not tried again where no other node could take the shard",
    500294: "a scrub did not see that a node lacked a shard",
}
"""From before people cleaned, levelled and drained: with them these seeds mean something else."""
FRESH_S = float(os.environ.get("REDFS_SIMULATION_S", "60"))
"""Seconds of fresh seeds; 0 leaves them out."""
SAME_SEEDS = range(1, 41)


@pytest.mark.parametrize("seed", range(4))
def test_schedule(seed: int) -> None:
    world = run_schedule(seed)
    assert all(program.finished for program in world.programs)
    assert sum(program.done for program in world.programs) > 10


ONCE = [
    *(pytest.param(seed, True, id=why.replace(" ", "-")) for seed, why in SEEDS_THAT_FAILED.items()),
    *(pytest.param(seed, False, id=why.replace(" ", "-")) for seed, why in SEEDS_THAT_FAILED_WITHOUT_PEOPLE.items()),
]


@pytest.mark.parametrize(("seed", "people"), ONCE)
def test_a_schedule_that_failed_once(seed: int, people: bool) -> None:
    run_schedule(seed, people=people)


def test_people_do_something_in_about_half_of_them() -> None:
    logs = ["\n".join(run_schedule(seed).log) for seed in range(7000, 7010)]
    assert 2 <= sum("somebody starts" in log or "is drained" in log for log in logs) <= 8


def test_many_schedules_take_no_more_memory_than_one() -> None:
    worlds = weakref.WeakSet[World]()
    with collected_at_the_end():
        for seed in range(3):
            worlds.add(run_schedule(seed))
        assert len(worlds) <= 1, "the last one goes with the next"


def test_a_failure_says_how_to_see_it_again() -> None:
    async def finds_something(_: World) -> None:
        raise AssertionError("something is wrong")

    with (
        mock.patch.object(schedule, "check_everything", finds_something),
        pytest.raises(ScheduleFailed, match=r"(?s)seed 5: something is wrong.*--seed 5 --schedules 1 --verbose"),
    ):
        run_schedule(5)


def test_one_seed_gives_one_run() -> None:
    first, second = run_schedule(1), run_schedule(1)
    assert (first.loop.steps, first.loop.trace, first.log) == (second.loop.steps, second.loop.trace, second.log)
    store, other = first.coordinator.store.committed, second.coordinator.store.committed
    assert store._tables == other._tables


def test_other_seeds_give_other_runs() -> None:
    assert run_schedule(1).loop.trace != run_schedule(2).loop.trace


@pytest.mark.slow
def test_the_same_seeds() -> None:
    """Some that are run each time."""
    for seed in SAME_SEEDS:
        run_schedule(seed)


@pytest.mark.slow
@pytest.mark.skipif(not FRESH_S, reason="REDFS_SIMULATION_S is 0")
@pytest.mark.timeout(FRESH_S + 300)
def test_fresh_seeds() -> None:
    """Others each time. The message of one that fails says how to see it again."""
    seed = first = int(os.environ.get("REDFS_SIMULATION_SEED", time.time()))
    print(f"fresh seeds from {first} on; the first can be set with REDFS_SIMULATION_SEED")
    until_s = time.monotonic() + FRESH_S
    with collected_at_the_end():
        while seed == first or time.monotonic() < until_s:
            run_schedule(seed)
            seed += 1
    print(f"{seed - first} schedules")
