"""What programs did and saw: one record for each operation, written as it happens.

A line of JSON when an operation begins, one when it has returned. A program that hangs or is killed leaves a beginning
without an end, and perhaps half a line. Times are of CLOCK_MONOTONIC, one clock for all processes and namespaces.
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

UNKNOWN = frozenset((
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNABORTED, errno.EINTR, errno.EAGAIN, errno.EBADF,
))  # fmt: skip
"""The operation may have happened, at any time since it began, or never: a host that was cut off cannot know."""
NEVER = frozenset((errno.ENOTCONN,))
"""It never reached the mount, whose process was dead."""
OK = 0


class Op(NamedTuple):
    """One operation of one program."""

    worker: int
    number: int
    kind: str
    arguments: tuple[Any, ...]
    start_ns: int
    end_ns: int | None
    """None: it never returned."""
    error: int
    """Its errno; 0 where it worked."""
    value: Any
    """What it returned."""

    @property
    def is_unknown(self) -> bool:
        """Whether it is open if it took place."""
        return self.end_ns is None or self.error in UNKNOWN

    @property
    def until(self) -> float:
        """When it has taken place at the latest, if it did."""
        return math.inf if self.end_ns is None or self.is_unknown else self.end_ns

    def __str__(self) -> str:
        said = "never returned" if self.end_ns is None else errno.errorcode.get(self.error, "") or repr(self.value)
        begun, ended = self.start_ns / 1e6, "-" if self.end_ns is None else f"{self.end_ns / 1e6:.3f}"
        words = " ".join(map(str, self.arguments))
        return f"[{begun:.3f} {ended}] program {self.worker} step {self.number}: {self.kind} {words} -> {said}"


def begin_line(number: int, kind: str, arguments: Iterable[Any], start_ns: int) -> str:
    """What is written when an operation begins."""
    return json.dumps([number, kind, list(arguments), start_ns]) + "\n"


def end_line(number: int, end_ns: int, error: int, value: Any) -> str:
    """What is written when it has returned."""
    return json.dumps([number, end_ns, error, value]) + "\n"


def read_history(worker: int, path: Path) -> list[Op]:
    """The operations of one program, in its order; those that never reached the mount are left out."""
    ops: dict[int, Op] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the program was killed here
        number, second, third, fourth = record
        if isinstance(second, str):
            ops[number] = Op(worker, number, second, _frozen(third), fourth, None, OK, None)
        else:
            ops[number] = ops[number]._replace(end_ns=second, error=third, value=_frozen(fourth))
    return [op for op in ops.values() if op.error not in NEVER]


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
