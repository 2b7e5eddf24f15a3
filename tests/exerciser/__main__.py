"""The exerciser by hand: `python -m tests.exerciser --folder DIR --seconds 600 --seed 1`.

`--folder` names an empty folder in a mount; given twice, the second is the same folder on another host. With `--pool`
and `--volume` the folders are the volume's own mounts (several with --shared), and nodes are killed, the volume is
remounted and rolled back meanwhile. A difference ends the run with exit code 1 and says program, step and seed;
`--only PROGRAM --operations STEP` goes there again without the other programs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.exerciser.crew import Failed, plans
from tests.exerciser.faults import Faults
from tests.exerciser.run import ROUND_STEPS, run


def main() -> int:
    """Runs what the command line says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.exerciser", description=__doc__)
    parser.add_argument("--folder", type=Path, action="append", required=True, help="where to work")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="the run's seed")
    parser.add_argument("--seconds", type=float, default=1e9, help="how long")
    parser.add_argument("--operations", type=int, help="how many operations of each program")
    parser.add_argument("--round", type=int, default=ROUND_STEPS, help="operations between two looks at everything")
    parser.add_argument("--trees", type=int, default=3, help="programs with a tree of their own")
    parser.add_argument("--files", type=int, default=2, help="programs with one file")
    parser.add_argument("--only", help="the one program to run")
    parser.add_argument("--reference", type=Path, help="a folder of a local file system (default: a temporary one)")
    parser.add_argument("--pool", type=Path, help="the folder of `redfs up`, for faults")
    parser.add_argument("--volume", help="the volume that is mounted on the folder, for faults")
    options = parser.parse_args()
    if (options.pool is None) != (options.volume is None):
        parser.error("faults need --pool and --volume")
    reference = options.reference or Path(tempfile.mkdtemp(prefix="exerciser-"))
    planned = plans(options.seed, options.folder, reference, options.trees, options.files)
    if options.only:
        planned = [plan for plan in planned if plan.name == options.only] or parser.error("no such program")
    faults = Faults(options.pool, options.volume, options.folder, options.seed) if options.pool else None
    print(f"seed {options.seed}")
    try:
        outcome = run(
            planned, seconds=options.seconds, operations=options.operations, faults=faults, round_steps=options.round,
            tell=lambda line: print(line, flush=True),
        )  # fmt: skip
        if faults:
            faults.check()
    except Failed as failed:
        print(f"seed {options.seed}: {failed}", file=sys.stderr)
        print(f"faults so far: {faults.made if faults else 'none'}", file=sys.stderr)
        return 1
    finally:
        if not options.reference:
            shutil.rmtree(reference, ignore_errors=True)
    print(f"seed {options.seed}: {outcome.operations} operations in {outcome.seconds:.0f} s without a difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
