"""The programs of a run, each a process, driven in rounds; and hands that are processes of their own.

In a round every program does a number of operations; then all stand still, and the pool can be remounted, kept in a
snapshot or rolled back. What a program does depends on its seed and its own model alone, so one program can be replayed
without the others. A process that ends or hangs is a failure of the run, never waited for without end.
"""

from __future__ import annotations

import multiprocessing
import sys
import traceback
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.exerciser.file_program import FileProgram
from tests.exerciser.operations import Hand, Operation, Result
from tests.exerciser.tree_program import Different, Side, TreeProgram

ANSWER_S = 300.0
"""For a round or a look at everything, with the coordinator killed meanwhile, on a busy machine."""
SHARED_HANDS = 3
"""Processes that work in one folder, one operation after the other."""
_ROOT = str(Path(__file__).resolve().parents[2])
if _ROOT not in sys.path:
    sys.path.append(_ROOT)  # new processes get this path, and must find `tests`; pytest by itself leaves it out
_processes = multiprocessing.get_context("spawn")


class Plan(NamedTuple):
    """One program."""

    name: str
    kind: str
    """`tree`: one process in a folder of its own. `shared`: several in one folder. `file`."""
    seed: int
    mounts: tuple[Path, ...]
    """Folders that show the same: one, or one for each host."""
    reference: Path | None


def plans(seed: int, mounts: Sequence[Path], reference: Path | None, trees: int, files: int) -> list[Plan]:
    """The programs of a run: some trees, the k-th on the k-th host; the shared folder and some files on all of them."""
    names = [*(f"tree-{n}" for n in range(trees)), "shared", *(f"file-{n}" for n in range(files))]
    made = []
    for number, name in enumerate(names):
        kind = name.split("-")[0]
        where = (mounts[number % len(mounts)],) if kind == "tree" else tuple(mounts)
        own_seed = zlib.crc32(f"{seed} {name}".encode())
        made.append(Plan(name, kind, own_seed, where, reference / name if reference and kind != "file" else None))
    return made


class Failed(Exception):
    """A program found a difference, or ended otherwise."""


class Process:
    """Another process that answers what it is sent."""

    def __init__(self, target: Any, *arguments: Any) -> None:
        self._pipe, other = _processes.Pipe()
        self._process = _processes.Process(target=target, args=(other, *arguments), daemon=False)
        self._process.start()
        other.close()

    def send(self, message: Any) -> None:
        """Sends; the answer is fetched with `answer`."""
        self._pipe.send(message)

    def answer(self) -> Any:
        """What it says. Raises Failed where it says nothing."""
        try:
            if not self._pipe.poll(ANSWER_S):
                raise Failed(f"a process says nothing for {ANSWER_S:.0f} s")
            return self._pipe.recv()
        except EOFError:
            raise Failed("a process has ended") from None

    def end(self) -> None:
        """Lets it go, and waits until it has."""
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(10)


class HandProcess:
    """A hand that is another process."""

    def __init__(self, folder: Path) -> None:
        self._process = Process(_serve_hand, folder)

    def do(self, operation: Operation) -> Result:
        """Carries one operation out there."""
        self._process.send(operation)
        answer: Result = self._process.answer()
        return answer

    def close_all(self) -> None:
        """Closes what is open there."""
        self._process.send(None)
        self._process.answer()

    def end(self) -> None:
        """Ends the process."""
        self._process.end()


def _serve_hand(pipe: Connection, folder: Path) -> None:
    hand = Hand(folder)
    while True:
        try:
            operation = pipe.recv()
        except EOFError:
            return
        if operation is None:
            hand.close_all()
            pipe.send(None)
        else:
            pipe.send(hand.do(operation))


def _serve_program(pipe: Connection, plan: Plan) -> None:
    """The process of a program: (method, arguments) come in; ("" or what went wrong, steps so far) goes out."""
    with ExitStack() as stack:
        program: TreeProgram | FileProgram | None = None
        while True:
            try:
                method, arguments = pipe.recv()
            except EOFError:
                return
            problem = ""
            try:
                program = program or _made(plan, stack)
                getattr(program, method)(*arguments)
            except Different as difference:
                problem = str(difference)
            except Exception:  # noqa: BLE001  # whatever it is, the driver tells it with the seed
                problem = traceback.format_exc()
            pipe.send((problem, program.steps if program else 0))


def _made(plan: Plan, stack: ExitStack) -> TreeProgram | FileProgram:
    folders = [mount / plan.name for mount in plan.mounts]
    if plan.kind == "file":
        return FileProgram(plan.seed, folders)
    count = SHARED_HANDS if plan.kind == "shared" else 1
    reference = None
    if plan.reference:
        reference = Side("the reference", plan.reference, [Hand(plan.reference) for _ in range(count)])
    if plan.kind == "tree":
        return TreeProgram(plan.seed, Side("the mount", folders[0]), reference)
    hands = [HandProcess(folders[n % len(folders)]) for n in range(count)]
    for hand in hands:
        stack.callback(hand.end)
    return TreeProgram(plan.seed, Side("the mount", folders[0], hands), reference, count)


class Crew:
    """All programs of a run."""

    def __init__(self, planned: Sequence[Plan]) -> None:
        self.steps = dict.fromkeys((plan.name for plan in planned), 0)
        self._programs = {plan.name: Process(_serve_program, plan) for plan in planned}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for program in self._programs.values():
            program.end()

    def begin(self, method: str, *arguments: Any) -> None:
        """Sends every program an order."""
        for program in self._programs.values():
            program.send((method, arguments))

    def finish(self) -> None:
        """Waits for every program. Raises Failed with what the first one found."""
        problems = []
        for name, program in self._programs.items():
            problem, self.steps[name] = program.answer()
            if problem:
                problems.append(f"{name}: {problem}")
        if problems:
            raise Failed("\n".join(problems))

    def all(self, method: str, *arguments: Any) -> None:
        """An order, carried out by all."""
        self.begin(method, *arguments)
        self.finish()
