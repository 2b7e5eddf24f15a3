"""Schedules by hand: `python -m tests.hosts --schedules 200 --seed 1`. Needs root, and network namespaces.

Schedule n has the seed SEED + n; what it does is drawn from that alone, so `--seed X --schedules 1` runs the one with
seed X again. Of one that fails, its seed, what is wrong, and the folder with its history and the logs are printed; the
run goes on unless `--stop` is given. Exit code 1 where any failed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.hosts.network import why_no_network
from tests.hosts.rig import NODES, Rig
from tests.hosts.run import Runner
from tests.hosts.schedule import draw


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
    failed: list[int] = []
    undecided: list[int] = []
    operations = unknown = 0
    began_s = time.monotonic()
    with Rig() as rig:
        runner = Runner(rig, options.keep.absolute())
        for seed in seeds:
            print(f"seed {seed}: {draw(seed, NODES).describe()}", flush=True)
            outcome = runner.run(seed)
            operations += outcome.operations
            unknown += outcome.unknown
            what = "FAILED" if outcome.problems else "undecided" if outcome.undecided else "good"
            said = f"{outcome.operations} operations, {outcome.unknown} of unknown outcome"
            print(f"  {what}: {said}, {outcome.seconds:.1f} s", flush=True)
            for problem in (*outcome.problems, *outcome.undecided):
                print(f"  {problem}", flush=True)
            if outcome.kept:
                print(f"  kept in {outcome.kept}; again: --seed {seed} --schedules 1", flush=True)
            if what != "good":
                (failed if outcome.problems else undecided).append(seed)
            if failed and options.stop:
                break
        problems = [] if failed and options.stop else runner.check()
        for problem in problems:
            print(problem)
    print(
        f"{len(seeds)} schedules in {time.monotonic() - began_s:.0f} s, {operations} operations, {unknown} of unknown "
        f"outcome; failed: {failed or 'none'}; undecided: {undecided or 'none'}"
    )
    return 1 if failed or problems else 0


if __name__ == "__main__":
    sys.exit(main())
