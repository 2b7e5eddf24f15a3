"""Faults by hand, for as long as one likes: `python -m tests.cluster --minutes 60 --seed 1`. Needs root and Docker.

With `--replace N`, N rounds in each of which two nodes die at a time and are replaced, instead of random faults. Prints
each round and what it did; ends with exit code 1 at the first that is not right, after telling what was. The same seed
draws the same faults; what programs do between them depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from redfs.core.errors import RedfsError
from tests.cluster.engine import ensure_image, running_engine, why_none
from tests.cluster.rig import Cluster, remove_leftovers
from tests.cluster.run import NODES, STILL, begin, random_round, replace_two, settle

ROUNDS_BETWEEN_CHECKS = 3


def say(text: str) -> None:
    """One line, now."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def random_faults(cluster: Cluster, seed: int, minutes: float) -> None:
    """Until the time is over."""
    deadline = time.monotonic() + minutes * 60
    rng = random.Random(seed)
    number = 0
    while time.monotonic() < deadline:
        load = begin(cluster, number)
        for _ in range(ROUNDS_BETWEEN_CHECKS):
            number += 1
            say(f"round {number}")
            random_round(cluster, load, rng, lambda text: say(f"  {text}"))
        settle(load)
        say(f"  good: {json.dumps(load.result(), sort_keys=True)}")


def replaced_nodes(cluster: Cluster, seed: int, rounds: int) -> None:
    """Two at a time, round after round."""
    rng = random.Random(seed)
    still = begin(cluster, 0, STILL)
    still.progress(100)
    still.stop_unharmed()
    load = begin(cluster, 0)
    for number in range(1, rounds + 1):
        dying = rng.sample(cluster.node_names(), 2)
        began_s = time.monotonic()
        new = replace_two(cluster, load, dying)
        took_s = time.monotonic() - began_s
        say(f"round {number}: {', '.join(dying)} died, {', '.join(new)} came; whole again after {took_s:.0f} s")
        still.check()
    settle(load)
    say(f"good: {json.dumps(load.result(), sort_keys=True)}")


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description="random faults in containers")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replace", type=int, default=0, metavar="N", help="N rounds of two nodes that are replaced")
    given = parser.parse_args()
    reason = why_none()
    if reason is not None:
        print(f"cannot run here: {reason}", file=sys.stderr)
        return 2
    try:
        with running_engine() as engine, tempfile.TemporaryDirectory(prefix="redfs-cluster-") as folder:
            remove_leftovers(engine)
            ensure_image()
            cluster = Cluster(engine, Path(folder), NODES, ["down_out_s=8.0"] if given.replace else [])
            try:
                cluster.up()
                if given.replace:
                    replaced_nodes(cluster, given.seed, given.replace)
                else:
                    random_faults(cluster, given.seed, given.minutes)
            finally:
                cluster.destroy()
    except (AssertionError, RedfsError) as error:
        say(f"FAILED with seed {given.seed}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
