"""Counts the weights of all versions from scratch and compares them with what was kept (see `weights`).

Reads only; memory does not grow with the number of versions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Final

from redfs.core.kv import ReadKv
from redfs.core.records import Kind
from redfs.core.versions.layout import VERSIONS, birth_of, version_prefix
from redfs.core.versions.reader import VersionReader
from redfs.core.versions.weights import ALIVE, HEAD, NOTHING, Weigh, Weight, shown_by, weights_of

PAGE: Final = 4096
"""Records read between two pauses."""

Intervals = tuple[int, int]
"""(interval of birth, interval of death)."""


def audit_weights(kv: ReadKv, weigh: Weigh, pause: Callable[[], None] = lambda: None) -> Iterator[str]:
    """What is charged wrongly, one line each; nothing when all is right, also with reclaims under way."""
    reader = VersionReader(kv)
    for lineage, record in reader.lineages():
        held = [int(epoch) for epoch in reader.pins(lineage)]
        counted = _count(kv, lineage, held, weigh, pause)
        kept = {(born, died): weight for born, died, weight in weights_of(kv, lineage)}
        if not record.has_head:
            counted, kept = _without_head(counted, held), _without_head(kept, held)
        for born, died in sorted(counted.keys() | kept.keys()):
            have, found = kept.get((born, died), NOTHING), counted.get((born, died), NOTHING)
            if have != found:
                yield f"lineage {lineage}: versions of intervals {born} and {died} weigh {found}, {have} is charged"
        points = [(epoch, epoch) for epoch in held]
        if record.has_head:
            points.append((HEAD, record.head_epoch))
        for epoch, at in points:
            have, found = shown_by(kv, lineage, epoch), _shown(reader, lineage, at, weigh, pause)
            if have != found:
                name = "head" if epoch == HEAD else f"pin {epoch}"
                yield f"lineage {lineage}: its {name} shows {found}, {have} is kept"


def _count(
    kv: ReadKv, lineage: int, held: list[int], weigh: Weigh, pause: Callable[[], None]
) -> dict[Intervals, Weight]:
    counted: dict[Intervals, Weight] = {}
    newer: tuple[bytes, int] = (b"", 0)
    low, high = version_prefix(lineage, Kind.SLOT), version_prefix(lineage, Kind.SLOT + 1)
    for at, (key, value) in enumerate(kv.scan(VERSIONS, low, high)):
        if at % PAGE == 0:
            pause()
        base, birth = key[:-8], birth_of(key)
        died = _interval(held, newer[1]) if newer[0] == base else ALIVE
        newer = base, birth
        if value:
            where = _interval(held, birth), died
            counted[where] = counted.get(where, NOTHING).plus(weigh(value))
    return {where: weight for where, weight in counted.items() if weight != NOTHING}


def _interval(held: list[int], epoch: int) -> int:
    """The newest held pin before an epoch; 0 = none."""
    at = bisect_left(held, epoch)
    return held[at - 1] if at else 0


def _without_head(weights: dict[Intervals, Weight], held: list[int]) -> dict[Intervals, Weight]:
    """What is alive after the last pin of a lineage without a head is seen by the same pins as what died after it."""
    last = held[-1] if held else 0
    joined: dict[Intervals, Weight] = {}
    for (born, died), weight in weights.items():
        where = born, last if died == ALIVE else died
        joined[where] = joined.get(where, NOTHING).plus(weight)
    return joined


def _shown(reader: VersionReader, lineage: int, epoch: int, weigh: Weigh, pause: Callable[[], None]) -> Weight:
    weight, start = NOTHING, b""
    while True:
        pause()
        page = reader.scan(lineage, epoch, Kind.SLOT, start, None, PAGE)
        for _, value in page:
            weight = weight.plus(weigh(value))
        if len(page) < PAGE:
            return weight
        start = page[-1][0] + b"\0"
