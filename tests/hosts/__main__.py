"""Schedules by hand: `python -m tests.hosts --schedules 200 --seed 1`. Needs root, and network namespaces.

Schedule n has the seed SEED + n; what it does is drawn from that alone, so `--seed X --schedules 1` runs the one with
seed X again. Of one that fails, its seed, what is wrong, and the folder with its history and the logs are printed; the
run goes on unless `--stop` is given. Exit code 1 where any failed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.hosts.network import why_no_network
from tests.hosts.rig import NODES, Rig
from tests.hosts.run import Runner
from tests.hosts.schedule import draw

ENDS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Tally:
    """What came of all schedules so far."""

    run: int = 0
    operations: int = 0
    unknown: int = 0
    failed: list[int] = field(default_factory=list)
    undecided: list[int] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)

    def summary(self) -> str:
        """One line."""
        return (
            f"{self.run} schedules in {time.monotonic() - self.began_s:.0f} s, {self.operations} operations, "
            f"{self.unknown} of unknown outcome; failed: {self.failed or 'none'}; undecided: {self.undecided or 'none'}"
        )


def tell(seed: int, runner: Runner, tally: Tally) -> None:
    """Runs a schedule, and prints what came of it."""
    print(f"seed {seed}: {draw(seed, NODES).describe()}", flush=True)
    outcome = runner.run(seed)
    tally.run += 1
    tally.operations += outcome.operations
    tally.unknown += outcome.unknown
    what = "FAILED" if outcome.problems else "undecided" if outcome.undecided else "good"
    if what != "good":
        (tally.failed if outcome.problems else tally.undecided).append(seed)
    said = f"{outcome.operations} operations, {outcome.unknown} of unknown outcome"
    print(f"  {what}: {said}, {outcome.seconds:.1f} s", flush=True)
    for problem in (*outcome.problems, *outcome.undecided):
        print(f"  {problem}", flush=True)
    if outcome.kept:
        print(f"  kept in {outcome.kept}; again: --seed {seed} --schedules 1", flush=True)


def _end(number: int, frame: FrameType | None) -> None:
    """Once: what comes after the first signal must not keep everything from being taken away."""
    for each in ENDS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Runs what the command line says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.hosts", description=__doc__)
    parser.add_argument("--schedules", type=int, default=10, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="of the first one")
    parser.add_argument("--keep", type=Path, default=Path("hosts-failures"), help="where failures are kept")
    parser.add_argument("--stop", action="store_true", help="end at the first failure")
    parser.add_argument("--show", action="store_true", help="only say what would happen")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.schedules)
    if options.show:
        for seed in seeds:
            print(f"seed {seed}: {draw(seed, NODES).describe()}")
        return 0
    reason = why_no_network()
    if reason is not None:
        print(f"hosts: {reason}", file=sys.stderr)
        return 2
    tally = Tally()
    problems: list[str] = []
    for number in ENDS:
        signal.signal(number, _end)
    with Rig() as rig:
        runner = Runner(rig, options.keep.absolute())
        try:
            for seed in seeds:
                tell(seed, runner, tally)
                if tally.failed and options.stop:
                    break
            else:
                problems = runner.check()
        except KeyboardInterrupt:
            print("  broken off")
    for problem in problems:
        print(problem)
    print(tally.summary())
    return 1 if tally.failed or problems else 0


if __name__ == "__main__":
    sys.exit(main())
