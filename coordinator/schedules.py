"""Commands of snapshot schedules: set, remove, run, prune; and what is due.

A run is one command: the snapshot is made, the schedule's older ones are deleted, the next time is set; all or
nothing, so a crash repeats a run or finds it done. Of the snapshots that carry the schedule's id the newest `keep` stay
(newest by number, which no clock changes); others are never touched. One that is mounted is passed over and looked at
again at the next run. What a run could not prune at once (`MAX_PRUNED`) is left to `prune`.

A run that fails is answered by `failed`: the reason is kept for people, the next time is set, and what is too old goes
all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from redfs.coordinator import volumes
from redfs.coordinator.txn import Txn
from redfs.core.errors import Busy, InvalidArgument, NotAllowed, NotFound
from redfs.core.kv import ReadKv
from redfs.core.schedules import (
    MAX_KEPT,
    MAX_SCHEDULES,
    MAX_SCHEDULES_PER_VOLUME,
    check_schedule,
    default_label,
    is_too_far,
    next_due_ns,
    snapshot_name,
)
from redfs.core.tables import (
    NEXT_SCHEDULE_KEY,
    SCHEDULES,
    ScheduleRow,
    VolumeKind,
    VolumeRow,
    VolumeState,
    decode_schedule,
    encode_schedule,
    schedule_key,
    schedule_range,
    split_schedule_key,
)
from redfs.core.volume_tree import ReadTree, require_changeable

MAX_PRUNED = 32
"""Snapshots deleted in one command: some ten milliseconds. More are there after `keep` was lowered."""
MAX_ERROR_CHARS = 500
MAX_SHOWN_PROBLEMS = 8
"""Schedules that a status names as failing; of more it tells the number."""
NONE: Mapping[int, str] = {}


class Schedule(NamedTuple):
    """A schedule and where it belongs."""

    volume_id: int
    volume: str
    """The volume's name now."""
    label: str
    row: ScheduleRow


def all_schedules(kv: ReadKv, volume_id: int = 0, unwritten: Mapping[int, str] = NONE) -> Iterator[Schedule]:
    """The schedules of one volume, or of all (0), by volume and label; with errors that could not be written."""
    start, end = schedule_range(volume_id) if volume_id else (b"", b"\xff" * 9)
    tree = ReadTree(kv)
    for key, raw in kv.scan(SCHEDULES, start, end):
        number, label = split_schedule_key(key)
        row = decode_schedule(raw)
        row = row._replace(last_error=unwritten.get(row.schedule_id, row.last_error))
        yield Schedule(number, tree.require(number).name, label, row)


def of_volume(kv: ReadKv, name: str, unwritten: Mapping[int, str] = NONE) -> list[Schedule]:
    """The schedules of the volume of that name. NotFound, NotAllowed for what is no live volume."""
    return list(all_schedules(kv, _live(ReadTree(kv), name).volume_id, unwritten))


def due(kv: ReadKv, now_ns: int) -> list[Schedule]:
    """What `run` or `realign` is to be called for now."""
    found = []
    for key, raw in kv.scan(SCHEDULES, b"", b"\xff" * 9):
        row = decode_schedule(raw)
        if row.next_ns <= now_ns or is_too_far(row.next_ns, row.every_s, now_ns):
            number, label = split_schedule_key(key)
            found.append(Schedule(number, ReadTree(kv).require(number).name, label, row))
    return found


def _live(tree: ReadTree, name: str) -> VolumeRow:
    row = tree.named(name)
    require_changeable(row, "snapshotted")
    if row.kind != VolumeKind.LIVE:
        raise NotAllowed(f"{name!r} never changes: schedule snapshots of a volume")
    return row


# ---------------------------------------------------------------- commands of people


def set_schedule(txn: Txn, name: str, label: str, every_s: int, keep: int) -> Schedule:
    """A new schedule of a volume, or another interval and number for the one with that label. Safe to retry.

    An empty label is made from the interval. The first snapshot is due in one interval; a changed interval begins anew,
    a changed number holds from the next run on. NotFound, NotAllowed, InvalidArgument.
    """
    volume = _live(txn.tree, name)
    label = label or default_label(every_s or 1)
    check_schedule(label, every_s, keep, txn.env.config.schedule_min_s)
    there = {schedule.label: schedule.row for schedule in all_schedules(txn.kv, volume.volume_id)}
    row = there.pop(label, None)
    if keep + sum(other.keep for other in there.values()) > MAX_KEPT:
        raise InvalidArgument(f"all schedules of {name!r} together may keep {MAX_KEPT} snapshots")
    if row is None:
        if len(there) >= MAX_SCHEDULES_PER_VOLUME:
            raise NotAllowed(f"{name!r} has {len(there)} schedules already: remove one first")
        if sum(1 for _ in islice(txn.kv.scan(SCHEDULES, b"", b"\xff" * 9), MAX_SCHEDULES)) >= MAX_SCHEDULES:
            raise NotAllowed(f"the pool has {MAX_SCHEDULES} schedules already: remove some first")
        row = ScheduleRow(txn.next_number(NEXT_SCHEDULE_KEY), every_s, keep, txn.now_ns + every_s * 10**9, "")
    elif row.every_s != every_s:
        row = row._replace(every_s=every_s, next_ns=txn.now_ns + every_s * 10**9)
    return _put(txn, Schedule(volume.volume_id, volume.name, label, row._replace(keep=keep)))


def remove_schedule(txn: Txn, name: str, label: str = "") -> Schedule:
    """Removes the volume's schedule with that label, or its only one; the snapshots that it made stay. NotFound."""
    there = of_volume(txn.kv, name)
    found = [schedule for schedule in there if label in ("", schedule.label)]
    if not found:
        what = f"schedule {label!r}" if label else "schedule"
        raise NotFound(f"{name!r} has no {what}: `redfs snapshot schedules` lists those that there are")
    if len(found) > 1:
        raise InvalidArgument(f"{name!r} has several schedules ({', '.join(s.label for s in found)}): give the label")
    txn.kv.delete(SCHEDULES, schedule_key(found[0].volume_id, found[0].label))
    return found[0]


def _put(txn: Txn, schedule: Schedule) -> Schedule:
    txn.kv.put(SCHEDULES, schedule_key(schedule.volume_id, schedule.label), encode_schedule(schedule.row))
    return schedule


# ---------------------------------------------------------------- commands of the scheduler


class Run(NamedTuple):
    made: VolumeRow | None
    """None: somebody changed or removed the schedule meanwhile."""
    more: bool
    """Not everything that is too old is deleted yet: `prune` is to be called."""


def run(txn: Txn, planned: Schedule) -> Run:
    """Makes the snapshot that is due and deletes what is too old. Raises what `create_snapshot` does."""
    schedule = _unchanged(txn, planned)
    if schedule is None:
        return Run(None, False)
    made = volumes.create_snapshot(txn, snapshot_name(schedule.volume, schedule.label, txn.now_ns))
    made = made._replace(schedule_id=schedule.row.schedule_id)
    txn.tree.update(made)
    _go_on(txn, schedule, "")
    return Run(made, _prune(txn, schedule))


def failed(txn: Txn, planned: Schedule, error: str) -> Run:
    """The run could not be made: says why, and what is too old goes all the same."""
    schedule = _unchanged(txn, planned)
    if schedule is None:
        return Run(None, False)
    _go_on(txn, schedule, error[:MAX_ERROR_CHARS])
    return Run(None, _prune(txn, schedule))


def prune(txn: Txn, planned: Schedule) -> Run:
    """Deletes more of what is too old."""
    schedule = _there(txn, planned)
    return Run(None, schedule is not None and _prune(txn, schedule))


def realign(txn: Txn, planned: Schedule) -> None:
    """The clock was set back: the next time is at most an interval away again, on the same grid."""
    schedule = _unchanged(txn, planned)
    if schedule is not None:
        _go_on(txn, schedule, schedule.row.last_error)


def _go_on(txn: Txn, schedule: Schedule, error: str) -> None:
    row = schedule.row
    next_ns = next_due_ns(row.next_ns, row.every_s, txn.now_ns)
    _put(txn, schedule._replace(row=row._replace(next_ns=next_ns, last_error=error)))


def _there(txn: Txn, planned: Schedule) -> Schedule | None:
    """The schedule as it is now, if it is still the one that is meant."""
    raw = txn.kv.get(SCHEDULES, schedule_key(planned.volume_id, planned.label))
    row = None if raw is None else decode_schedule(raw)
    if row is None or row.schedule_id != planned.row.schedule_id:
        return None
    return planned._replace(volume=txn.tree.require(planned.volume_id).name, row=row)


def _unchanged(txn: Txn, planned: Schedule) -> Schedule | None:
    """The same, if what was planned is still due."""
    schedule = _there(txn, planned)
    return schedule if schedule is not None and schedule.row.next_ns == planned.row.next_ns else None


def _prune(txn: Txn, schedule: Schedule) -> bool:
    """Deletes the oldest of the schedule's snapshots beyond `keep`, mounted ones apart. True where more are left."""
    snapshots = txn.tree.snapshots(txn.tree.require(schedule.volume_id))
    mine = [row for row in snapshots if row.schedule_id == schedule.row.schedule_id]
    mine.sort(key=lambda row: row.volume_id)
    deleted = 0
    for row in mine[: -schedule.row.keep]:
        if deleted >= MAX_PRUNED:
            return True
        try:
            volumes.delete_volume(txn, row.name)
        except Busy:
            continue
        deleted += 1
    return False


# ---------------------------------------------------------------- for people


def problems(schedules: Iterable[Schedule]) -> list[str]:
    """A line for each schedule whose last run failed."""
    failing = [schedule for schedule in schedules if schedule.row.last_error]
    lines = [
        f"the schedule {schedule.label!r} of {schedule.volume!r} made no snapshot: {schedule.row.last_error}"
        for schedule in failing[:MAX_SHOWN_PROBLEMS]
    ]
    if len(failing) > MAX_SHOWN_PROBLEMS:
        lines.append(f"{len(failing) - MAX_SHOWN_PROBLEMS} more schedules fail: `redfs snapshot schedules` shows why")
    return lines


def verify_schedules(kv: ReadKv) -> Iterator[str]:
    """Schedules of what is no live volume, and numbers that are used twice; none when all is sound."""
    tree = ReadTree(kv)
    seen: dict[int, int] = {}
    for key, raw in kv.scan(SCHEDULES, b"", b"\xff" * 9):
        volume_id, label = split_schedule_key(key)
        volume = tree.get(volume_id)
        if volume is None or volume.kind != VolumeKind.LIVE or volume.state != VolumeState.OK:
            yield f"the schedule {label!r} belongs to volume {volume_id}, which is no live volume"
        number = decode_schedule(raw).schedule_id
        if number in seen:
            yield f"volumes {seen[number]} and {volume_id} have schedules of the same number {number}"
        seen[number] = volume_id
