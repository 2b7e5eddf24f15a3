"""When a schedule's next snapshot is due and what it is called: pure arithmetic on times, all UTC.

Due times lie on a grid: the first one and every interval from there. What was missed is made up for by one snapshot,
and the grid goes on. A clock that is set back never leaves a gap longer than one interval, one that is set forward
makes one snapshot, not many.
"""

from __future__ import annotations

from datetime import UTC, datetime

from redfs.core.errors import InvalidArgument
from redfs.core.volume_tree import MAX_NAME_CHARS, MAX_SNAPSHOTS_PER_VOLUME, check_part

TIME_CHARS = len("-YYYYMMDD-HHMMSS")
MAX_LABEL_CHARS = MAX_NAME_CHARS - TIME_CHARS
MAX_EVERY_S = 10 * 365 * 86400
"""Ten years: beyond, it is a mistake."""
MAX_KEPT = MAX_SNAPSHOTS_PER_VOLUME - 1
"""Of all schedules of a volume together: there must be room for the next snapshot before an old one goes."""
MAX_SCHEDULES_PER_VOLUME = 16
MAX_SCHEDULES = 4096
"""Of the pool: all of them are looked at twice a second, a few milliseconds."""

_NAMES = {3600: "hourly", 86400: "daily", 7 * 86400: "weekly"}
_UNITS = ((7 * 86400, "w"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def every_text(every_s: int) -> str:
    """An interval in its largest whole unit: 90m, 1h, 2d."""
    unit_s, letter = next((unit_s, letter) for unit_s, letter in _UNITS if every_s % unit_s == 0)
    return f"{every_s // unit_s}{letter}"


def default_label(every_s: int) -> str:
    """The label of a schedule that was not given one: hourly, daily, weekly, else every-90m and the like."""
    return _NAMES.get(every_s) or f"every-{every_text(every_s)}"


def check_schedule(label: str, every_s: int, keep: int, least_s: float) -> None:
    """Raises InvalidArgument where a schedule like this cannot be."""
    check_part(label, "schedule")
    if len(label) > MAX_LABEL_CHARS:
        raise InvalidArgument(f"a schedule's label has at most {MAX_LABEL_CHARS} characters: the time is added to it")
    if not least_s <= every_s <= MAX_EVERY_S:
        raise InvalidArgument(f"a snapshot can be made every {least_s:.0f} seconds to every ten years, not {every_s} s")
    if not 1 <= keep <= MAX_KEPT:
        raise InvalidArgument(f"a schedule keeps 1 to {MAX_KEPT} snapshots, not {keep}")


def next_due_ns(due_ns: int, every_s: int, now_ns: int) -> int:
    """The first time on the grid of `due_ns` that is later than now."""
    every_ns = every_s * 10**9
    return due_ns + ((now_ns - due_ns) // every_ns + 1) * every_ns


def is_too_far(due_ns: int, every_s: int, now_ns: int) -> bool:
    """Whether the next time is more than an interval away: the clock was set back."""
    return due_ns - now_ns > every_s * 10**9


def snapshot_name(volume: str, label: str, now_ns: int) -> str:
    """VOLUME@LABEL-YYYYMMDD-HHMMSS."""
    now = datetime.fromtimestamp(now_ns // 10**9, UTC)
    return f"{volume}@{label}-{now:%Y%m%d-%H%M%S}"
