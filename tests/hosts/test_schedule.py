"""What is drawn follows from the seed alone, keeps to the rules, and leaves nothing out."""

from __future__ import annotations

import subprocess
import sys

from tests.hosts.names import KINDS
from tests.hosts.rig import NODES, ROOT
from tests.hosts.schedule import LEASE_S, Schedule, draw

SEEDS = range(300)


def faults_of(schedule: Schedule) -> list[str]:
    return [fault.kind for faults in (*schedule.of_hosts, schedule.of_pool) for fault in faults]


def test_another_process_draws_the_same() -> None:
    program = f"from tests.hosts.schedule import draw; print(draw(7, {NODES}))"
    # With another secret for Python's own hashes.
    other = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONHASHSEED": "5", "PYTHONPATH": str(ROOT)},
    )
    assert other.stdout.strip() == str(draw(7, NODES))
    assert draw(7, NODES) != draw(8, NODES)


def test_everything_is_drawn_now_and_then() -> None:
    schedules = [draw(seed, NODES) for seed in SEEDS]
    kinds = {kind for schedule in schedules for kind in faults_of(schedule)}
    assert kinds == {"cut", "slow", "freeze", "kill", "away", "mute", "node", "coordinator"}
    lengths = [f.for_s for s in schedules for faults in s.of_hosts for f in faults if f.kind in ("cut", "freeze")]
    assert min(lengths) < LEASE_S / 3
    assert max(lengths) > LEASE_S
    actions = {action.kind for s in schedules for program in s.programs for action in program.actions}
    assert actions == KINDS | {"write", "read", "resize", "size", "append", "read_log"}


def test_a_host_that_may_have_the_volume_alone_without_syncing_never_loses_it() -> None:
    for seed in SEEDS:
        schedule = draw(seed, NODES)
        if schedule.careful:
            # With one program on each host, nobody sees there what is not synced yet.
            assert len({program.host for program in schedule.programs}) == len(schedule.programs)
            continue
        assert {fault.kind for fault in schedule.of_hosts[0]} <= {"cut", "freeze", "slow", "mute"}
        assert all(fault.for_s < LEASE_S / 3 for fault in schedule.of_hosts[0])


def test_values_are_written_once() -> None:
    for seed in SEEDS:
        values = [
            action.arguments
            for program in draw(seed, NODES).programs
            for action in program.actions
            if action.kind in ("write", "resize")
        ]
        assert len(values) == len(set(values))


def test_most_faults_are_short_so_that_many_schedules_fit_into_little_time() -> None:
    long = [any(fault.for_s > LEASE_S for faults in draw(seed, NODES).of_hosts for fault in faults) for seed in SEEDS]
    assert 0 < sum(long) < len(long) / 5
