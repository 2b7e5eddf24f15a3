"""Runs schedules for as long as one likes: `python -m tests.simulation --seconds N --seed S`.

Seeds follow one another from S on. Each that fails is told with what was done to its pool, and is run again alone with
`--seed X --schedules 1 --verbose`, which logs what everybody says. Ends with 1 where one failed.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence

from tests.simulation.loop import PROCESS, current_loop
from tests.simulation.schedule import ScheduleFailed, run_schedule

PROGRESS_S = 10.0


class _Times(logging.Formatter):
    """Lines with the simulation's time and the process that says so."""

    def format(self, record: logging.LogRecord) -> str:
        loop, process = current_loop(), PROCESS.get()
        now_s = loop.time() if loop is not None else 0.0
        return f"{now_s:9.3f} {process.name if process else '-':16} {record.name}: {super().format(record)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long; default 60")
    parser.add_argument("--schedules", type=int, default=0, help="end after so many; 0: only --seconds counts")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the first; default: the time")
    parser.add_argument("--verbose", action="store_true", help="show what all processes log")
    options = parser.parse_args(arguments)
    if options.verbose:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(_Times())
        logging.basicConfig(level=logging.INFO, handlers=[handler])
    began_s = told_s = time.monotonic()
    began_cpu_s = time.process_time()
    failed: list[int] = []
    run = 0
    print(f"schedules from seed {options.seed} on", flush=True)
    while not options.schedules or run < options.schedules:
        now_s = time.monotonic()
        if not options.schedules and now_s - began_s >= options.seconds:
            break
        if now_s - told_s >= PROGRESS_S:
            told_s = now_s
            print(f"{run} schedules, {run / (now_s - began_s):.1f} a second, failed: {failed or 'none'}", flush=True)
        try:
            world = run_schedule(options.seed + run, log=options.verbose)
        except ScheduleFailed as error:
            failed.append(options.seed + run)
            print(error, flush=True)
        else:
            if options.verbose:
                print("\n".join(world.log))
        run += 1
    took_s = time.monotonic() - began_s
    cpu_s = time.process_time() - began_cpu_s
    print(f"{run} schedules in {took_s:.0f} s ({run / took_s:.1f} a second, {run / cpu_s:.1f} a second of CPU)")
    print(f"failed seeds: {failed or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
