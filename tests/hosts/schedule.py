"""What happens in one schedule, drawn from its seed and nothing else: programs, their operations, and faults.

Two kinds of schedules, because of what is promised. In *careful* ones every program syncs after each change, there is
one program on each host, and anything may happen to any host. In the others nothing is synced, and host 0 is never
killed, never away, and cut off or frozen only for much less than a lease: so no host but it ever has the volume alone,
and what the others do is durable when it returns. An operation that is lost there was promised.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from tests.hosts.names import NAMES

HOSTS = 3
WORKERS_PER_HOST = 2
REGISTERS = {"tiny": (0, 8), "tiny too": (8, 8), "page": (4096, 4096), "far page": (135_168, 4096)}
"""Where they lie in their file, and how long they are: within a page, which is what reads are whole in."""
OPERATIONS = (60, 110)
"""Of one program."""
SPAN_S = 4.0
"""Programs are at work for about so long without faults."""
DENSE_ONE_IN = 4
"""In so many schedules programs never rest, and do more."""
DENSE_OPERATIONS = (120, 200)
LONG_ONE_IN = 6
"""So many schedules have faults longer than a lease, which take their time."""
LEASE_S = 6.0
SHORT_S = (0.2, 1.5)
LONG_S = (7.0, 9.0)
_OF_NAMES = {
    "create": 12, "mkdir": 4, "link": 5, "rename": 12, "noreplace": 4, "exchange": 3, "unlink": 9, "rmdir": 4,
    "stat": 12, "list": 5,
}  # fmt: skip
_OF_FILES = {"write": 16, "read": 20, "resize": 5, "size": 7, "append": 18, "read_log": 6}
_OF_HOSTS = {"cut": 4, "slow": 3, "freeze": 3, "kill": 3, "away": 3, "mute": 4}
_OF_WITNESS = {"cut": 2, "slow": 3, "freeze": 2, "mute": 3}


class Action(NamedTuple):
    """One operation of a program, and how long it waits before it."""

    pause_s: float
    kind: str
    arguments: tuple[Any, ...]
    fresh: bool
    """With a file opened for it; else with the one that the program has open, if it has."""


class Program(NamedTuple):
    """What one program does. Its number is its place in the schedule."""

    host: int
    slot: int
    actions: tuple[Action, ...]


class Fault(NamedTuple):
    """`kind` begins `at_s` after the start (or when the one before it on the same host is over) and lasts `for_s`.

    `mute`: again and again, the pool's answers to the host are lost, and its connections end. What was done must not
    be done again.
    """

    at_s: float
    kind: str
    for_s: float
    delay_s: float = 0.0
    loss: float = 0.0
    node: int = 0
    mute_s: float = 0.0
    """Before the coordinator is killed, it is mute for so long."""


class Schedule(NamedTuple):
    """All of it."""

    seed: int
    careful: bool
    programs: tuple[Program, ...]
    of_hosts: tuple[tuple[Fault, ...], ...]
    """For each host, in order."""
    of_pool: tuple[Fault, ...]

    def describe(self) -> str:
        """One line for people."""
        kinds = [f"host {host}: {_said(fault)}" for host, faults in enumerate(self.of_hosts) for fault in faults]
        kinds += [_said(fault) for fault in self.of_pool]
        what = "careful" if self.careful else "with a witness"
        return f"{what}, {len(self.programs)} programs; " + ("; ".join(kinds) or "no faults")


def _said(fault: Fault) -> str:
    what = f"{fault.kind} {fault.node}" if fault.kind == "node" else fault.kind
    if fault.mute_s:
        what += f" (mute for {fault.mute_s:.1f} s)"
    return f"{what} at {fault.at_s:.1f} for {fault.for_s:.1f} s"


def draw(seed: int, nodes: int) -> Schedule:
    """The schedule of a seed, for a pool with so many nodes."""
    rng = random.Random(f"schedule {seed}")
    careful = rng.random() < 0.4
    places = [(host, 0) for host in range(HOSTS)]
    if not careful:
        places += [(host, 1) for host in range(HOSTS) if rng.random() < 0.5]
    long = rng.randrange(LONG_ONE_IN) == 0
    late = set() if rng.random() < 0.6 else {host for host in range(HOSTS) if rng.random() < 0.6}
    if len(late) == HOSTS or not careful:
        late.discard(0)
    dense = random.Random(f"dense {seed}").randrange(DENSE_ONE_IN) == 0
    programs = [Program(host, slot, _actions(rng, number, dense)) for number, (host, slot) in enumerate(places)]
    of_hosts = [
        _faults_of_host(rng, witness=host == 0 and not careful, late=host in late, long=long) for host in range(HOSTS)
    ]
    return Schedule(seed, careful, tuple(programs), tuple(of_hosts), _faults_of_pool(rng, nodes))


def _actions(rng: random.Random, worker: int, dense: bool) -> tuple[Action, ...]:
    count = rng.randint(*(DENSE_OPERATIONS if dense else OPERATIONS))
    kinds = _OF_NAMES | _OF_FILES
    actions = []
    for number in range(count):
        # Mostly at once, so that operations meet; now and then a rest, so that faults do.
        pause_s = rng.random() * 2 * SPAN_S / count * 6 if rng.random() < 1 / 6 else 0.0
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        arguments = _arguments(rng, kind, worker * 1000 + number + 1)
        actions.append(Action(0.0 if dense else round(pause_s, 3), kind, arguments, rng.random() < 0.3))
    return tuple(actions)


def _arguments(rng: random.Random, kind: str, unique: int) -> tuple[Any, ...]:
    if kind == "list":
        return ()
    if kind in ("rename", "noreplace", "exchange", "link"):
        return tuple(rng.sample(NAMES, 2))
    if kind in _OF_NAMES:
        return (rng.choice(NAMES),)
    if kind in ("write", "read"):
        register = rng.choice(list(REGISTERS))
        return (register, unique) if kind == "write" else (register,)
    if kind in ("resize", "size"):
        return ("sized", unique * 41) if kind == "resize" else ("sized",)
    if kind == "append":
        length = rng.choices((rng.randint(10, 300), rng.randint(3000, 9000), rng.randint(50_000, 60_000)), (40, 4, 1))
        return ("log", length[0])
    return ("log",)


def _faults_of_host(rng: random.Random, *, witness: bool, late: bool, long: bool) -> tuple[Fault, ...]:
    faults = [Fault(0.0, "away", round(rng.uniform(0.3, 2.0), 2))] if late else []
    at_s = rng.uniform(0.3, 1.5)
    for _ in range(rng.choice((0, 1, 1, 2))):
        weights = _OF_WITNESS if witness else _OF_HOSTS
        kind = rng.choices(list(weights), list(weights.values()))[0]
        is_long = long and not witness and kind in ("cut", "freeze")
        for_s = rng.uniform(*(LONG_S if is_long else SHORT_S))
        delay_s, loss = rng.uniform(0.002, 0.05), rng.choice((0.0, 0.01, 0.05, 0.2))
        faults.append(Fault(round(at_s, 2), kind, round(for_s, 2), round(delay_s, 3), loss))
        at_s += for_s + rng.uniform(0.1, 1.5)
    return tuple(faults)


def _faults_of_pool(rng: random.Random, nodes: int) -> tuple[Fault, ...]:
    if rng.random() < 0.5:
        return ()
    kind = rng.choices(("node", "coordinator"), (2, 1))[0]
    at_s, for_s = round(rng.uniform(0.3, 3.0), 2), round(rng.uniform(*SHORT_S), 2)
    node, mute_s = rng.randrange(nodes), rng.choice((0.0, 0.2, 0.6))
    return (Fault(at_s, kind, for_s, node=node, mute_s=mute_s if kind == "coordinator" else 0.0),)
