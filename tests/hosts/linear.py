"""Whether there is an order of operations that explains what each of them returned: Wing and Gong's search.

Every operation takes effect at one instant, or in a few steps each at one instant, between its beginning and its end.
`explain` looks for an order of all steps in which each finds a state that fits what the operation returned. States that
were reached before by the same operations are not searched again (Lowe's memory). A step that only observes is taken
as soon as it fits: if there is any way on from here, there is one with this step taken now.

Operations whose outcome is not known may take place at any time since they began, or never; all others must.

Source: J. Wing and C. Gong, Testing and verifying concurrent objects (1993); G. Lowe, Testing for linearizability
(2017).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

from tests.hosts.history import Op

MAX_VISITED = 1_000_000
"""Configurations looked at before the search gives up: about a minute. Histories of some hundred operations need some
thousands."""
DONE = -1
Progress = int
"""How far an operation has got: what the numbers mean is the model's; 0 at its beginning."""


class Step(NamedTuple):
    """What an operation may do next."""

    state: Hashable
    progress: Progress
    """DONE: that was its last step."""
    observes: bool
    """It changes nothing, and excludes nothing that the operation could do instead."""


Model = Callable[[Hashable, Op, Progress], Iterable[Step]]
"""The steps that an operation can take in a state; none where it cannot take place now."""


class Verdict(NamedTuple):
    """`explained`: there is such an order. `decided`: the search came to an end."""

    explained: bool
    decided: bool
    stuck: tuple[Op, ...]
    """Where none was found: the operations that could not go on at the point that came farthest."""
    state: Hashable
    visited: int


class _Point(NamedTuple):
    """Somewhere on the way: which operations are done, as bits, and which have begun."""

    known: int
    unknown: int
    begun: tuple[tuple[int, Progress], ...]
    state: Hashable


def explain(ops: Sequence[Op], model: Model, initial: Hashable, max_visited: int = MAX_VISITED) -> Verdict:
    """Searches for an order."""
    known = sorted((op for op in ops if not op.is_unknown), key=lambda op: op.start_ns)
    unknown = sorted((op for op in ops if op.is_unknown), key=lambda op: op.start_ns)
    everything = known + unknown
    all_known = (1 << len(known)) - 1
    stack = [_Point(0, 0, (), initial)]
    seen: set[_Point] = {stack[0]}
    farthest, farthest_count = stack[0], -1
    while stack:
        point = stack.pop()
        if point.known == all_known:
            return Verdict(True, True, (), point.state, len(seen))
        if len(seen) > max_visited:
            return Verdict(False, False, (), point.state, len(seen))
        if point.known.bit_count() > farthest_count:
            farthest, farthest_count = point, point.known.bit_count()
        for after in _ways_on(point, known, unknown, everything, model):
            if after not in seen:
                seen.add(after)
                stack.append(after)
    stuck = tuple(known[index] for index in _possible(farthest.known, known)[0])
    return Verdict(False, True, stuck, farthest.state, len(seen))


def _possible(done: int, known: Sequence[Op]) -> tuple[list[int], float]:
    """Operations before which no other one must come; and by when the first of them has taken place."""
    index = (~done & (done + 1)).bit_length() - 1
    bound = float("inf")
    found = []
    while index < len(known) and known[index].start_ns <= bound:
        if not done >> index & 1:
            found.append(index)
            bound = min(bound, known[index].until)
        index += 1
    return [index for index in found if known[index].start_ns <= bound], bound


def _ways_on(
    point: _Point, known: Sequence[Op], unknown: Sequence[Op], everything: Sequence[Op], model: Model
) -> list[_Point]:
    """Points one step on. The likeliest comes last, because the last one is looked at first."""
    possible, bound = _possible(point.known, known)
    progress = dict(point.begun)
    candidates = list(possible)
    for index, op in enumerate(unknown):
        if op.start_ns > bound:
            break
        if not point.unknown >> index & 1:
            candidates.append(len(known) + index)
    ways = []
    for index in sorted(candidates, key=lambda index: everything[index].until):
        for step in model(point.state, everything[index], progress.get(index, 0)):
            after = _after(point, index, step, progress, len(known))
            if step.observes:
                return [after]
            ways.append(after)
    ways.reverse()
    return ways


def _after(point: _Point, index: int, step: Step, progress: dict[int, Progress], known_count: int) -> _Point:
    begun = dict(progress)
    begun.pop(index, None)
    known, unknown = point.known, point.unknown
    if step.progress != DONE:
        begun[index] = step.progress
    elif index < known_count:
        known |= 1 << index
    else:
        unknown |= 1 << (index - known_count)
    return _Point(known, unknown, tuple(sorted(begun.items())), step.state)
