"""Registers: pieces of files that are written whole and read whole, and the sizes of files. Every value is unique.

Operations: `write` (register, value) and `read` (register) that returns a value; the model's state is the last value
written. An unknown write that nobody ever read is left out: as far as anybody can tell, it never took place.

A kernel shows what is written to the programs of its own host as soon as it has it in its pages, while the write is on
its way to the pool. So a read there that returns the value of a write that had not returned yet says nothing about what
other hosts see after it, and is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence

from tests.hosts.history import OK, Op
from tests.hosts.linear import DONE, Progress, Step, explain

INITIAL = 0
"""What a register holds before it was first written."""
WRITES = ("write", "resize")
READS = ("read", "size")


def _model(state: Hashable, op: Op, progress: Progress) -> Iterator[Step]:
    if op.kind in WRITES:
        yield Step(op.arguments[1], DONE, False)
    elif op.value == state:
        yield Step(state, DONE, True)


def check_registers(ops: Sequence[Op], hosts: Mapping[int, int]) -> list[str]:
    """What is wrong with reads and writes, register by register. `hosts`: program -> its host."""
    problems = []
    registers: dict[str, list[Op]] = defaultdict(list)
    for op in ops:
        if op.kind in (*WRITES, *READS):
            registers[op.arguments[0]].append(op)
    for name, its in sorted(registers.items()):
        problems += [f"register {name}: {problem}" for problem in _check_register(its, hosts)]
    return problems


def _check_register(ops: Sequence[Op], hosts: Mapping[int, int]) -> list[str]:
    refused = [op for op in ops if op.error != OK and not op.is_unknown]
    if refused:
        return [f"refused: {op}" for op in refused]
    reads = [op for op in ops if op.kind in READS and not op.is_unknown]
    torn = [op for op in reads if not isinstance(op.value, int)]
    if torn:
        return [f"parts of several values at once: {op}" for op in torn]
    values = {op.arguments[1] for op in ops if op.kind in WRITES} | {INITIAL}
    invented = [op for op in reads if op.value not in values]
    if invented:
        return [f"a value that nobody wrote: {op}" for op in invented]
    writes = {op.arguments[1]: op for op in ops if op.kind == "write"}
    reads = [op for op in reads if not _is_early(op, writes.get(op.value), hosts)]
    seen = {op.value for op in reads}
    kept = [op for op in ops if (op.kind in WRITES and (not op.is_unknown or op.arguments[1] in seen)) or op in reads]
    verdict = explain(kept, _model, INITIAL)
    if verdict.explained:
        return []
    if not verdict.decided:
        return [f"undecided after {verdict.visited} configurations"]
    stuck = "\n  ".join(map(str, verdict.stuck))
    return [f"no order explains these, where the value is {verdict.state} at last:\n  {stuck}"]


def _is_early(read: Op, write: Op | None, hosts: Mapping[int, int]) -> bool:
    """Whether what was read may be what only the reader's kernel had."""
    if write is None or hosts[write.worker] != hosts[read.worker]:
        return False
    assert read.end_ns is not None
    return write.until > read.end_ns
