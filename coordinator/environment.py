"""What the coordinator gets from outside, injected: clock, randomness, settings, and whom to tell after a commit.

Nothing here decides anything. `Hooks` are called on the state thread after a commit and must return at once; they
never fail and never call back into the state.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Protocol, Self

from redfs.coordinator.watch import Topic
from redfs.core.errors import InvalidArgument
from redfs.core.policy import DEFAULT_POLICY, parse_policy

MAX_HEAL_TASKS_PER_NODE = 16
"""A node works on few tasks at once; more would only wait there, and hold up those of other kinds."""


class Clock(Protocol):
    """Time, from outside."""

    def monotonic(self) -> float:
        """Seconds that never go back; leases and liveness count in them."""
        ...

    def time_ns(self) -> int:
        """Nanoseconds since 1970, for people and for times that outlive the process."""
        ...


class Randomness(Protocol):
    """Secret random bytes, from outside."""

    def token_bytes(self, count: int) -> bytes: ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time_ns(self) -> int:
        return time.time_ns()


class SystemRandomness:
    """The machine's secure source."""

    def token_bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)


def _nothing(*_: int) -> None:
    return None


@dataclass
class Hooks:
    """Called after a commit; replaced by the streams."""

    session_ended: Callable[[int], None] = field(default=_nothing)
    """With a session id: its stream must be closed."""
    volume_gone: Callable[[int, int], None] = field(default=_nothing)
    """With the ids of a session and of the volume that it had mounted, which was deleted: it must be told."""
    sharing_changed: Callable[[int], None] = field(default=_nothing)
    """With the id of a volume that a session shares no more, or gave back: another may be alone with it."""
    shards_doomed: Callable[[int], None] = field(default=_nothing)
    """With a node id: it has shards to delete."""
    changed: Callable[[Topic], None] = field(default=_nothing)
    """With what is different now, where anybody could want to know. Called from other threads too."""


@dataclass(frozen=True)
class CoordinatorConfig:
    """The coordinator's settings; every one has a default that serves."""

    default_policy: str = DEFAULT_POLICY
    """For volumes created without one; shrunk to the nodes that there are."""
    lease_s: float = 15.0
    """A session must renew within it."""
    session_keep_s: float = 300.0
    """A lapsed session that nobody stands in line for is ended after this."""
    heartbeat_s: float = 1.0
    """How often nodes report."""
    node_down_s: float = 5.0
    """A node without a report for this long is down: a few missed heartbeats, not one."""
    down_out_s: float = 600.0
    """A node that is away for this long is given up: what it holds is made anew on others. It may still come back."""
    heal_tasks_per_node: int = 2
    """Shards that are made on one node at a time: programs' reads and writes must keep at least half of the disks."""
    delete_grace_s: float = 5.0
    """Doomed shards wait this long before nodes delete them, for readers that looked them up just before."""
    inventory_interval_s: float = 3600.0
    """How often an attached node is asked for all its shards, besides once when it attaches."""
    flush_deadline_s: float = 10.0
    """A snapshot waits this long for the mount to write what it holds."""
    recall_deadline_s: float = 60.0
    """A mount that wants to share a volume waits this long for the one that has it: it may have 96 MiB to write."""
    hold_back: float = 0.03
    """Fraction of each node that writes never get: room for rebuilds and cleaning, so that deletes always work."""
    schedule_min_s: float = 60.0
    """The shortest interval of snapshot schedules: snapshots cost metadata, and are for people to choose from."""
    scrub_interval_s: float = 14 * 86400.0
    """From the beginning of one scrub to the next; 0: only when somebody asks for one."""
    scrub_bytes_per_s: int = 32 << 20
    """At most so much is read for a scrub on each node; 0: no limit but the clients that come first."""
    reclaim_budget_rows: int = 256
    """Rows that one background step looks at: about 5 ms, the longest that commands wait for it."""
    map_bytes: int = 256 << 30
    """Address space for the metadata; the file takes only what is used, and this grows by itself."""

    def __post_init__(self) -> None:
        parse_policy(self.default_policy)
        for name in (
            "lease_s",
            "session_keep_s",
            "heartbeat_s",
            "node_down_s",
            "inventory_interval_s",
            "schedule_min_s",
            "recall_deadline_s",
        ):
            if getattr(self, name) <= 0:
                raise InvalidArgument(f"setting {name} must be more than 0")
        if self.node_down_s <= self.heartbeat_s:
            raise InvalidArgument("setting node_down_s must be more than heartbeat_s, or every node seems down")
        if self.down_out_s <= self.node_down_s:
            raise InvalidArgument("setting down_out_s must be more than node_down_s: a node is down before it is out")
        if not 1 <= self.heal_tasks_per_node <= MAX_HEAL_TASKS_PER_NODE:
            raise InvalidArgument(f"setting heal_tasks_per_node is 1 to {MAX_HEAL_TASKS_PER_NODE}")
        if not 0 <= self.hold_back < 1 or self.delete_grace_s < 0 or self.flush_deadline_s < 0:
            raise InvalidArgument("settings hold_back (0 to 1), delete_grace_s and flush_deadline_s cannot be negative")
        if self.scrub_interval_s < 0 or not (self.scrub_bytes_per_s == 0 or self.scrub_bytes_per_s >= 1 << 16):
            raise InvalidArgument(
                "setting scrub_interval_s cannot be negative, scrub_bytes_per_s is 0 or at least 65536"
            )
        if self.reclaim_budget_rows < 1 or self.map_bytes < 1 << 20:
            raise InvalidArgument(
                "settings reclaim_budget_rows (at least 1) and map_bytes (at least 1 MiB) are too low"
            )

    @classmethod
    def from_mapping(cls, settings: dict[str, Any]) -> Self:
        """Settings read from a file. Raises InvalidArgument for unknown keys, naming the nearest, and wrong types."""
        known = {f.name: type(f.default) for f in fields(cls)}
        checked: dict[str, Any] = {}
        for key, value in settings.items():
            if key not in known:
                near = get_close_matches(key, known, n=1, cutoff=0)
                raise InvalidArgument(f"unknown setting {key!r}: did you mean {near[0]!r}?")
            wanted = known[key]
            if wanted is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if type(value) is not wanted:
                raise InvalidArgument(f"setting {key} must be of type {wanted.__name__}, not {type(value).__name__}")
            checked[key] = value
        return cls(**checked)
