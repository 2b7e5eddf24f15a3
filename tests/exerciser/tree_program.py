"""One program in a folder: draws operations, carries each out on every side, compares all results with the model.

A side is a place where the same is done: the mount, and a folder of the machine's own file system. The sides' inode
numbers must stay with their files.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.exerciser.choice import Choice
from tests.exerciser.operations import Hand, Operation, Result, Shown
from tests.exerciser.tree_model import Expected, TreeModel, difference

REMEMBERED = 12
"""Operations shown with a difference: what led to it is mostly among them."""
VERIFY_SLOT = 99
"""None of those that are drawn."""


class Different(Exception):
    """A side answered other than the model."""


class Hands(Protocol):
    """Carries operations out, whoever does it."""

    def do(self, operation: Operation) -> Result: ...

    def close_all(self) -> None: ...


class Side:
    """A folder where everything is done, by as many hands as operations name."""

    def __init__(self, name: str, folder: Path, hands: Sequence[Hands] = ()) -> None:
        self.name = name
        self.folder = folder
        self._hands = hands or [Hand(folder)]
        self._inodes: dict[int, int] = {}
        self.with_ctime = True

    def do(self, operation: Operation) -> Result:
        """Carries one operation out."""
        return self._hands[operation.hand].do(operation)

    def compare(self, expected: Result, got: Result) -> str:
        """What differs, also in the inode's number; empty where nothing does."""
        found = difference(expected, got, with_ctime=self.with_ctime)
        if found or not isinstance(expected.value, Expected) or not isinstance(got.value, Shown):
            return found
        known = self._inodes.setdefault(expected.value.node, got.value.ino)
        return "" if known == got.value.ino else f"its inode was {known}, and is {got.value.ino} now"

    def close_all(self) -> None:
        """Closes what is open."""
        for hand in self._hands:
            hand.close_all()

    def begin(self) -> None:
        """An empty folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o755, parents=True)
        self.folder.chmod(0o755)

    def saved_as(self) -> Path:
        """Where the folder's copy lies."""
        return self.folder.with_name(self.folder.name + ".saved")

    def save(self) -> None:
        """Keeps a copy to go back to."""
        shutil.rmtree(self.saved_as(), ignore_errors=True)
        subprocess.run(["cp", "-a", "--", str(self.folder), str(self.saved_as())], check=True)

    def forget(self, above: int) -> None:
        """Forgets the inodes of nodes that are not there any more; others will have their numbers in the model."""
        self._inodes = {node: inode for node, inode in self._inodes.items() if node <= above}

    def restore(self) -> None:
        """Goes back to the copy, in which the times of change are those of copying."""
        shutil.rmtree(self.folder)
        subprocess.run(["cp", "-a", "--", str(self.saved_as()), str(self.folder)], check=True)
        self._inodes.clear()
        self.with_ctime = False


class TreeProgram:
    """Random operations in one folder. The reference side is optional."""

    def __init__(self, seed: int, mount: Side, reference: Side | None = None, hands: int = 1) -> None:
        self.steps = 0
        self._mount = mount
        self._reference = reference
        self._sides = [mount] if reference is None else [mount, reference]
        self._last: deque[str] = deque(maxlen=REMEMBERED)
        # On a coarse clock, what begins now may be stamped with a moment before: nothing is compared with that.
        begin_ns = time.time_ns()
        for side in self._sides:
            side.begin()
        self._model = TreeModel(begin_ns, time.time_ns())
        self._choice = Choice(seed, self._model, hands)
        self._saved = self._model.copied()

    def run(self, steps: int) -> None:
        """Does so many operations. Raises Different."""
        for _ in range(steps):
            self._step(self._choice.next())
            self.steps += 1

    def verify(self) -> None:
        """Looks at everything there is. Raises Different."""
        for path, node in list(self._model.walk()):
            self._step(Operation("lstat", (path,)))
            self._step(Operation("listxattr", (path, False)))
            for name in sorted(node.xattrs):
                self._step(Operation("getxattr", (path, name, False)))
            if node.kind == "folder":
                self._step(Operation("readdir", (path,)))
            elif node.kind == "link":
                self._step(Operation("readlink", (path,)))
            elif node.kind == "file":
                self._step(Operation("open", (VERIFY_SLOT, path, 0, 0)))
                self._step(Operation("read", (VERIFY_SLOT, 0, len(node.data) + 1)))
                self._step(Operation("close", (VERIFY_SLOT,)))

    def sync(self) -> None:
        """Makes everything durable, file by file as programs do it. Raises Different."""
        for path, node in list(self._model.walk()):
            if node.kind == "file":
                self._step(Operation("open", (VERIFY_SLOT, path, 0, 0)))
                self._step(Operation("fsync", (VERIFY_SLOT,)))
                self._step(Operation("close", (VERIFY_SLOT,)))
        self._step(Operation("fsync_folder", (b"",)))

    def close_all(self) -> None:
        """Closes what is open, so that the mount can go."""
        for side in self._sides:
            side.close_all()
        self._model.opened.clear()

    def save(self) -> None:
        """Remembers everything as it is: the volume is kept in a snapshot. After `verify`: copying reads everything."""
        self._saved = self._model.copied()
        if self._reference is not None:
            self._reference.save()

    def restore(self) -> None:
        """Goes back: the volume was rolled back. Nothing may be open."""
        self._model = self._saved.copied()
        self._choice.model = self._model
        self._mount.forget(self._model.numbers)
        if self._reference is not None:
            self._reference.restore()

    def _step(self, operation: Operation) -> None:
        begin_ns = time.time_ns()
        results = [side.do(operation) for side in self._sides]
        expected = self._model.do(operation, begin_ns, time.time_ns())
        self._last.append(f"{operation} -> {expected.error or 'done'}")
        for side, result in zip(self._sides, results, strict=True):
            found = side.compare(expected, result)
            if found:
                told = "\n    ".join(self._last)
                raise Different(
                    f"step {self.steps}, on {side.name}: {operation}: {found}\n  the last operations:\n    {told}"
                )
