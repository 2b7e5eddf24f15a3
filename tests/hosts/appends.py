"""Records that programs append to one file: none is lost, doubled, cut or mixed with another, and all see them.

A record is one line with its program and number, padded to a length of its own and closed with a checksum. The file at
the end is judged, and what every reader saw of it meanwhile: a file that is only appended to is, at any time, a
beginning of what it is at the end.

Operations: `append` (record) that returns the bytes written, and `read_log` that returns the bytes read and their
digest.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Sequence

from tests.hosts.history import OK, Op


def record(worker: int, number: int, length: int) -> bytes:
    """A record's bytes."""
    head = f"{worker}:{number}:".encode()
    body = head + b"." * max(0, length - len(head))
    return body + b":%08x\n" % zlib.crc32(body)


def identity(line: bytes) -> tuple[int, int] | None:
    """Program and number of a whole record without its line end; None where it is none."""
    body, _, checksum = line.rpartition(b":")
    try:
        if int(checksum, 16) != zlib.crc32(body):
            return None
        worker, number = body.split(b":")[:2]
        return int(worker), int(number)
    except ValueError:
        return None


def digest(content: bytes) -> str:
    """What a reader notes of what it saw."""
    return hashlib.sha256(content).hexdigest()[:20]


def check_appends(ops: Sequence[Op], final: bytes) -> list[str]:
    """What is wrong with the file and with what was read of it."""
    problems = []
    lines = final.split(b"\n")
    if lines.pop():
        problems.append("the file does not end with a whole record")
    ends: dict[tuple[int, int], int] = {}
    found = []
    at = 0
    for line in lines:
        at += len(line) + 1
        which = identity(line)
        if which is None:
            problems.append(f"no whole record ends at byte {at}: {line[:60]!r}")
            continue
        found.append(which)
        ends[which] = at
    problems += [f"record {which} is there {count} times" for which, count in Counter(found).items() if count > 1]
    appends = {(op.worker, op.number): op for op in ops if op.kind == "append"}
    problems += [f"record {which} was never written" for which in ends if which not in appends]
    problems += _check_order(found)
    for which, op in appends.items():
        if op.error != OK and not op.is_unknown:
            problems.append(f"refused: {op}")
        elif op.error == OK and op.end_ns is not None:
            whole = len(record(op.worker, op.number, op.arguments[1]))
            if op.value != whole:
                problems.append(f"{op.value} of {whole} bytes were written: {op}")
            if which not in ends:
                problems.append(f"lost: {op}")
    for op in ops:
        if op.kind == "read_log":
            problems += _check_reader(op, appends, ends, final)
    return problems


def _check_order(found: Sequence[tuple[int, int]]) -> list[str]:
    last: dict[int, int] = {}
    problems = []
    for worker, number in found:
        if number < last.get(worker, -1):
            problems.append(f"record {number} of program {worker} comes after its record {last[worker]}")
        last[worker] = number
    return problems


def _check_reader(
    op: Op, appends: dict[tuple[int, int], Op], ends: dict[tuple[int, int], int], final: bytes
) -> list[str]:
    """Everything that was there before it began, nothing from after its end, and nothing else."""
    if op.is_unknown:
        return []
    if op.error != OK:
        return [f"refused: {op}"]
    size, seen = op.value
    if size > len(final) or digest(final[:size]) != seen:
        return [f"not a beginning of the file ({len(final)} bytes at the end): {op}"]
    problems = []
    if size and size not in ends.values():
        problems.append(f"a part of a record at its end: {op}")
    assert op.end_ns is not None
    for which, end in ends.items():
        append = appends.get(which)
        if append is None:
            continue
        returned = append.error == OK and append.end_ns is not None and append.end_ns < op.start_ns
        if returned and end > size:
            problems.append(f"{op} misses {append}")
        if append.start_ns > op.end_ns and end <= size:
            problems.append(f"{op} shows what was only written later: {append}")
    return problems
