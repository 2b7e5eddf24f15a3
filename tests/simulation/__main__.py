"""Runs schedules for as long as one likes: `python -m tests.simulation --seconds N --seed S`.

Seeds follow one another from S on. Each that fails is told with what was done to its pool, and is run again alone with
`--seed X --schedules 1 --verbose`, which logs what everybody says. Ends with 1 where one failed.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import logging
import resource
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor

from tests.simulation.loop import PROCESS, current_loop
from tests.simulation.schedule import ScheduleFailed, collected_at_the_end, run_schedule

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
    parser.add_argument("--jobs", type=int, default=1, help="processes that run them; default 1")
    parser.add_argument("--verbose", action="store_true", help="show what all processes log")
    options = parser.parse_args(arguments)
    if options.verbose and options.jobs > 1:
        parser.error("--verbose shows one schedule after the other: leave --jobs out")
    if options.verbose:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(_Times())
        logging.basicConfig(level=logging.INFO, handlers=[handler])
    began_s = told_s = time.monotonic()
    failed: list[int] = []
    run = 0
    print(f"schedules from seed {options.seed} on", flush=True)
    for seed, problem in _outcomes(options, began_s + options.seconds):
        run += 1
        if problem:
            failed.append(seed)
            print(problem, flush=True)
        now_s = time.monotonic()
        if now_s - told_s >= PROGRESS_S:
            told_s = now_s
            print(f"{run} schedules, {run / (now_s - began_s):.1f} a second, failed: {failed or 'none'}", flush=True)
    took_s = time.monotonic() - began_s
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu_s = sum(usage.ru_utime + usage.ru_stime for usage in used)
    print(f"{run} schedules in {took_s:.0f} s ({run / took_s:.1f} a second, {run / cpu_s:.1f} a second of CPU)")
    print(f"failed seeds: {failed or 'none'}")
    return 1 if failed else 0


Outcome = tuple[int, str]
"""A seed, and what failed."""


def _outcomes(options: argparse.Namespace, until_s: float) -> Iterator[Outcome]:
    """Runs schedules until there are enough of them, or the time is over."""
    seeds: Iterator[int] = itertools.count(options.seed)
    if options.schedules:
        seeds = itertools.islice(seeds, options.schedules)
    else:
        seeds = itertools.takewhile(lambda _: time.monotonic() < until_s, seeds)
    if options.jobs == 1:
        with collected_at_the_end():
            yield from (_run(seed, verbose=options.verbose) for seed in seeds)
        return
    # As in `collected_at_the_end`: each schedule collects what the one before it has left, and nothing older.
    with ProcessPoolExecutor(options.jobs, initializer=gc.freeze) as processes:
        under_way: deque[Future[Outcome]] = deque()
        for seed in seeds:
            under_way.append(processes.submit(_run, seed))
            if len(under_way) >= 2 * options.jobs:
                yield under_way.popleft().result()
        yield from (one.result() for one in under_way)


def _run(seed: int, *, verbose: bool = False) -> Outcome:
    try:
        world = run_schedule(seed, log=verbose)
    except ScheduleFailed as error:
        return seed, str(error)
    if verbose:
        print("\n".join(world.log))
    return seed, ""


if __name__ == "__main__":
    sys.exit(main())
