"""The names of one folder: create with O_EXCL, mkdir, link, rename, unlink, rmdir, stat and listings.

The model's state says for each name what is there: nothing, a file or an empty folder, with its inode number. What a
program saw of inode numbers tells files apart. Of what an unknown operation made, the number is learned when somebody
sees it.

Every change takes effect at one instant. What the kernel looks up by itself before it asks the mount need not be of one
instant, on any file system over a network, and is allowed to differ:

- `rename` looks up both names one after the other: it says EISDIR and ENOTDIR by what it saw of each, and returns 0
  without doing anything, also when it is to exchange them, where it saw the same file or folder under both.
- `link` looks up the old name, then makes the new one.
- a listing says of each name whether it was there at some instant; only names that were there all the time must be in
  it, and those that never were must not be.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

from tests.hosts.history import OK, Op
from tests.hosts.linear import DONE, Progress, Step, explain


class Thing(NamedTuple):
    """What a name leads to."""

    kind: str
    """`file` or `folder`."""
    ino: int
    """Negative, and unique, where nobody has seen it yet."""


State = tuple[Thing | None, ...]
"""By the position of the name in `NAMES`."""
NAMES = ("a", "b", "c", "d")
KINDS = frozenset(("create", "mkdir", "link", "rename", "noreplace", "exchange", "unlink", "rmdir", "stat", "list"))
_READS = frozenset(("stat", "list"))
EMPTY: State = (None,) * len(NAMES)
_SAW_SAME = 1 << 40
"""A rename that has found a file under its old name, and will find the same under the new one; and its number."""
_LINKS = 1 << 41
"""A link that has found the file, and will make the new name; and the file's number."""


def _at(state: State, name: str) -> Thing | None:
    return state[NAMES.index(name)]


def _with(state: State, changes: dict[str, Thing | None]) -> State:
    return tuple(changes.get(name, there) for name, there in zip(NAMES, state, strict=True))


def _unseen(op: Op, kind: str) -> Thing:
    return Thing(kind, -(op.worker * 100_000 + op.number + 1))


def _learned(state: State, thing: Thing, ino: int) -> State:
    """The state, knowing the number of a thing that nobody had seen."""
    return tuple(Thing(thing.kind, ino) if there == thing else there for there in state)


def _noted(state: State, ino: int, kinds: Sequence[str] = ("file",)) -> list[Thing]:
    """What was noted before, if it still has a name. Where its number was not known then, any of them may be it: its
    number may have been learned since."""
    return sorted({there for there in state if there and there.kind in kinds and (there.ino == ino or ino < 0)})


def _observed(state: State, holds: bool) -> Iterator[Step]:
    if holds:
        yield Step(state, DONE, True)


def _both(state: State, op: Op, progress: Progress, tests: Sequence[bool]) -> Iterator[Step]:
    """Several things that were so, each at some instant."""
    after = progress
    for bit, holds in enumerate(tests):
        after |= holds << bit
    if after == (1 << len(tests)) - 1:
        yield Step(state, DONE, True)
    elif after != progress:
        yield Step(state, after, True)


def _make(state: State, op: Op, progress: Progress) -> Iterator[Step]:
    """create and mkdir."""
    name = op.arguments[0]
    there = _at(state, name)
    if op.error == OK or op.is_unknown:
        if there is None:
            kind = "file" if op.kind == "create" else "folder"
            ino = op.value if isinstance(op.value, int) and not op.is_unknown else None
            yield Step(_with(state, {name: Thing(kind, ino) if ino else _unseen(op, kind)}), DONE, False)
    elif op.error == errno.EEXIST:
        yield from _observed(state, there is not None)


def _unlink(state: State, op: Op, progress: Progress) -> Iterator[Step]:
    """unlink and rmdir."""
    there = _at(state, op.arguments[0])
    kind, wrong = ("file", errno.EISDIR) if op.kind == "unlink" else ("folder", errno.ENOTDIR)
    if op.error == OK or op.is_unknown:
        if there is not None and there.kind == kind:
            yield Step(_with(state, {op.arguments[0]: None}), DONE, False)
    elif op.error == errno.ENOENT:
        yield from _observed(state, there is None)
    elif op.error == wrong:
        yield from _observed(state, there is not None and there.kind != kind)


def _link(state: State, op: Op, progress: Progress) -> Iterator[Step]:
    old, new = op.arguments
    there, target = _at(state, old), _at(state, new)
    if op.error == OK or op.is_unknown:
        if progress == 0 and there is not None and there.kind == "file":
            if target is None:
                yield Step(_with(state, {new: there}), DONE, False)
            yield Step(state, _LINKS + there.ino, False)
        elif progress and target is None:
            for found in _noted(state, progress - _LINKS):
                yield Step(_with(state, {new: found}), DONE, False)
    elif op.error == errno.ENOENT:
        yield from _observed(state, there is None)
        # Found, and gone before the new name was made.
        if progress == 0 and there is not None and there.kind == "file":
            yield Step(state, _LINKS + there.ino, False)
        elif progress and not _noted(state, progress - _LINKS):
            yield Step(state, DONE, False)
    elif op.error == errno.EEXIST:
        yield from _observed(state, target is not None)
    elif op.error == errno.EPERM:
        yield from _observed(state, there is not None and there.kind == "folder")


def _rename(state: State, op: Op, progress: Progress) -> Iterator[Step]:
    old, new = op.arguments
    there, target = _at(state, old), _at(state, new)
    if op.error == OK or op.is_unknown:
        if progress == 0 and there is not None:
            if there == target and op.kind == "rename":
                yield Step(state, DONE, False)
            elif target is None or (op.kind == "rename" and target.kind == there.kind):
                yield Step(_with(state, {old: None, new: there}), DONE, False)
            if op.kind == "rename":
                yield Step(state, _SAW_SAME + there.ino, False)
        elif progress and target in _noted(state, progress - _SAW_SAME, ("file", "folder")):
            yield Step(state, DONE, False)
    elif op.error == errno.ENOENT:
        yield from _observed(state, there is None)
    elif op.error == errno.EEXIST and op.kind == "noreplace":
        yield from _observed(state, target is not None)
    elif op.error in (errno.EISDIR, errno.ENOTDIR) and op.kind == "rename":
        kinds = ("file", "folder") if op.error == errno.EISDIR else ("folder", "file")
        tests = [thing is not None and thing.kind == kind for thing, kind in zip((there, target), kinds, strict=True)]
        yield from _both(state, op, progress, tests)


def _exchange(state: State, op: Op, progress: Progress) -> Iterator[Step]:
    old, new = op.arguments
    there, target = _at(state, old), _at(state, new)
    if op.error == OK or op.is_unknown:
        if progress == 0 and there is not None:
            if target is not None:
                yield Step(_with(state, {old: target, new: there}), DONE, False)
            yield Step(state, _SAW_SAME + there.ino, False)
        elif progress and target in _noted(state, progress - _SAW_SAME, ("file", "folder")):
            yield Step(state, DONE, False)
    elif op.error == errno.ENOENT:
        yield from _observed(state, there is None or target is None)


def _stat(state: State, op: Op, progress: Progress) -> Iterator[Step]:
    there = _at(state, op.arguments[0])
    if op.error == errno.ENOENT:
        yield from _observed(state, there is None)
    elif op.error == OK and there is not None:
        kind, ino = op.value
        if there == Thing(kind, ino):
            yield Step(state, DONE, True)
        elif there.kind == kind and there.ino < 0 and Thing(kind, ino) not in state:
            yield Step(_learned(state, there, ino), DONE, False)


def _list(state: State, op: Op, progress: Progress) -> Iterator[Step]:
    if op.error == OK:
        yield from _both(state, op, progress, [(_at(state, name) is not None) == (name in op.value) for name in NAMES])


_STEPS: dict[str, Callable[[State, Op, Progress], Iterator[Step]]] = {
    "create": _make, "mkdir": _make, "unlink": _unlink, "rmdir": _unlink, "link": _link, "rename": _rename,
    "noreplace": _rename, "exchange": _exchange, "stat": _stat, "list": _list,
}  # fmt: skip


def _model(state: Hashable, op: Op, progress: Progress) -> Iterator[Step]:
    assert isinstance(state, tuple)
    return _STEPS[op.kind](state, op, progress)


def check_names(ops: Sequence[Op]) -> list[str]:
    """What is wrong with the names, if anything."""
    its = [op for op in ops if op.kind in KINDS and not (op.kind in _READS and op.is_unknown)]
    verdict = explain(its, _model, EMPTY)
    if verdict.explained:
        return []
    if not verdict.decided:
        return [f"names: undecided after {verdict.visited} configurations"]
    stuck = "\n  ".join(map(str, verdict.stuck))
    return [f"names: no order explains these, where the names are {verdict.state} at last:\n  {stuck}"]
