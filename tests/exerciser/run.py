"""One run: rounds of all programs, with faults in and between them, until the time or the operations are over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.exerciser.crew import Crew, Plan
from tests.exerciser.faults import Faults

ROUND_STEPS = 500
"""Operations of each program between two looks at everything."""


class Outcome(NamedTuple):
    """How far a run came without a difference."""

    operations: int
    seconds: float
    faults: Sequence[str]


def run(
    planned: Sequence[Plan],
    *,
    seconds: float,
    operations: int | None = None,
    faults: Faults | None = None,
    round_steps: int = ROUND_STEPS,
    tell: Callable[[str], None] = print,
) -> Outcome:
    """Runs until `seconds` have gone by, or each program has done `operations`. Raises Failed."""
    begin = time.monotonic()
    done = 0
    with Crew(planned) as crew:
        while time.monotonic() - begin < seconds and (operations is None or done < operations):
            steps = round_steps if operations is None else min(round_steps, operations - done)
            crew.begin("run", steps)
            try:
                if faults:
                    faults.during()
            finally:
                crew.finish()
            done += steps
            crew.all("verify")
            if faults:
                crew.all("close_all")
                faults.between(crew)
                crew.all("verify")
            met = f", {faults.made[-1]}" if faults and faults.made else ""
            tell(f"{sum(crew.steps.values())} operations in {time.monotonic() - begin:.0f} s{met}")
        crew.all("close_all")
        if faults:
            faults.end()
        crew.all("verify")
        crew.all("close_all")
        return Outcome(sum(crew.steps.values()), time.monotonic() - begin, faults.made if faults else ())
