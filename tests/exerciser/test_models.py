"""The exerciser's own tests: the models say what the machine's file system does, and what differs is found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.exerciser.choice import Choice
from tests.exerciser.crew import plans
from tests.exerciser.file_program import FileProgram
from tests.exerciser.operations import RENAME_EXCHANGE, Hand, Operation, Result, Shown
from tests.exerciser.tree_model import TreeModel, difference
from tests.exerciser.tree_program import Different, Side, TreeProgram

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="owners and trusted attributes are root's")


class Wrong(Hand):
    """A file system with one mistake."""

    def __init__(self, folder: Path, name: str, value: Any) -> None:
        super().__init__(folder)
        self._name = name
        self._value = value

    def do(self, operation: Operation) -> Result:
        """Right but for one operation, whose results are another value or another errno."""
        result = super().do(operation)
        if operation.name != self._name:
            return result
        return Result(self._value) if isinstance(self._value, str) else Result(result.error, self._value(result.value))


@root_only
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_tree_model_is_what_the_machines_file_system_does(tmp_path: Path, seed: int) -> None:
    program = TreeProgram(seed, Side("here", tmp_path / "tree"))
    for _ in range(4):
        program.run(500)
        program.verify()
    program.close_all()
    assert program.steps == 2000


@root_only
def test_going_back_to_what_was_saved(tmp_path: Path) -> None:
    mount, reference = Side("here", tmp_path / "tree"), Side("there", tmp_path / "reference")
    program = TreeProgram(5, mount, reference)
    program.run(300)
    program.verify()
    program.close_all()
    program.save()
    mount.save()
    for _ in range(2):
        program.run(300)
        program.close_all()
        mount.restore()
        program.restore()
        program.verify()


@root_only
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rename", "EIO"),
        ("read", lambda data: data and data[:-1]),
        ("lstat", lambda seen: seen and seen._replace(nlink=seen.nlink + 1)),
        ("lstat", lambda seen: seen and seen._replace(mtime_ns=seen.mtime_ns + 10**10)),
        ("lstat", lambda seen: seen and seen._replace(ctime_ns=seen.ctime_ns - 10**9)),
        ("fstat", lambda seen: seen and seen._replace(ino=seen.ino + seen.mtime_ns)),
        ("readdir", lambda entries: entries and entries[1:]),
        ("listxattr", lambda names: [*(names or ()), "user.other"]),
    ],
)
def test_what_is_wrong_is_found(tmp_path: Path, name: str, value: Any) -> None:
    (tmp_path / "tree").mkdir()
    program = TreeProgram(1, Side("here", tmp_path / "tree", [Wrong(tmp_path / "tree", name, value)]))
    with pytest.raises(Different, match=rf"step \d+, on here: hand 0: {name}\("):
        program.run(2000)
    program.close_all()


def test_a_seed_draws_the_same_operations_again() -> None:
    def drawn(seed: int) -> list[Operation]:
        model = TreeModel(1, 2)
        choice = Choice(seed, model, hands=3)
        operations = []
        for _ in range(300):
            operations.append(choice.next())
            model.do(operations[-1], 1, 2)
        return operations

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


def test_exchange_of_a_folder_with_a_file_moves_the_count_of_subfolders() -> None:
    model = TreeModel(1, 2)
    for operation in (
        Operation("mkdir", (b"a", 0o755)),
        Operation("mkdir", (b"a/sub", 0o755)),
        Operation("open", (0, b"file", os.O_CREAT | os.O_RDWR, 0o644)),
        Operation("rename", (b"a/sub", b"file", RENAME_EXCHANGE)),
    ):
        assert model.do(operation, 1, 2) == Result("")
    assert model.resolve(b"a").nlink == 2
    assert model.top.nlink == 4
    assert model.kind_at(b"a/sub") == "file"


def test_times_are_compared_as_ranges() -> None:
    model = TreeModel(10**18, 10**18)
    expected = model.do(Operation("stat", (b"",)), 10**18, 10**18)
    node = expected.value
    kind, mode, nlink, uid, gid, size = node.fields
    seen = Shown(kind, mode, nlink, uid, gid, size, 10**18, 10**18, 10**18, 1)
    assert not difference(expected, Result("", seen), with_ctime=True)
    late = seen._replace(ctime_ns=10**18 + 1)
    assert "ctime" in difference(expected, Result("", late), with_ctime=True)
    assert not difference(expected, Result("", late), with_ctime=False)


def test_programs_have_their_own_seeds_and_share_the_hosts() -> None:
    hosts = [Path("/host-1"), Path("/host-2")]
    planned = plans(1, hosts, None, trees=2, files=1)
    assert [plan.name for plan in planned] == ["tree-0", "tree-1", "shared", "file-0"]
    assert [len(plan.mounts) for plan in planned] == [1, 1, 2, 2]
    assert len({plan.seed for plan in planned}) == 4
    assert plans(1, hosts, None, trees=1, files=0)[0].seed == planned[0].seed


def test_a_file_of_the_machines_file_system_is_what_the_model_says(tmp_path: Path) -> None:
    program = FileProgram(1, [tmp_path / "file"])
    program.run(400)
    program.verify()
    program.save()
    kept = (tmp_path / "file").read_bytes()
    program.run(50)
    program.close_all()
    (tmp_path / "file").write_bytes(kept)
    program.restore()
    program.verify()
    program.close_all()


def test_another_byte_is_found(tmp_path: Path) -> None:
    program = FileProgram(2, [tmp_path / "file"])
    program.run(200)
    data = bytearray((tmp_path / "file").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(Different, match=f"first other byte at {len(data) // 2}:"):
        program.verify()
    program.close_all()


def test_a_removed_folder_that_is_open(tmp_path: Path) -> None:
    model, hand = TreeModel(1, 2), Hand(tmp_path)
    for name, *arguments in (
        ("mkdir", b"gone", 0o755),
        ("open", 0, b"gone", os.O_RDONLY, 0),
        ("rmdir", b"gone"),
        ("readdir_open", 0),
        ("mkdir_at", 0, b"a"),
        ("unlink_at", 0, b"a"),
        ("fsync", 0),
    ):
        operation = Operation(name, tuple(arguments))
        assert hand.do(operation) == model.do(operation, 1, 2), name
    hand.close_all()
