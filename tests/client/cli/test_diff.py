"""`redfs diff` against a fake coordinator: its lines, its order, its JSON."""

from __future__ import annotations

import random

import pytest

from redfs.client import sorted_entries
from redfs.client.cli.diff_commands import line_of, shown
from redfs.proto.gen import cluster_pb2 as pb
from tests.client.cli.conftest import CommandLine
from tests.client.cli.fake_coordinator import FakeCoordinator

ENTRIES = [
    pb.DiffEntry(change="renamed", path=b"b", new_path=b"z/b", kind="file", content=True),
    pb.DiffEntry(change="created", path=b"z", kind="folder"),
    pb.DiffEntry(change="modified", path=b"a\xff\n", kind="file", attributes=True, before_bytes=1, after_bytes=2),
    pb.DiffEntry(change="deleted", path=b"c d", kind="symlink"),
    pb.DiffEntry(change="modified", path=b"", kind="folder", attributes=True),
]


@pytest.fixture
def pool(coordinator: FakeCoordinator, redfs: CommandLine) -> FakeCoordinator:
    redfs("volume", "create", "v")
    redfs("snapshot", "create", "v@s")
    coordinator.diff_entries = list(ENTRIES)
    return coordinator


def test_a_line_for_each_path_in_order(redfs: CommandLine, pool: FakeCoordinator) -> None:
    done = redfs("diff", "v@s", "v")
    assert pool.calls[-1] == pb.DiffRequest(before="v@s", after="v")
    assert done.out.splitlines() == [
        "M . (attributes)",
        "M a\\xff\\x0a (attributes)",
        "R b -> z/b (content)",
        "- c d",
        "+ z",
    ]
    assert done.err == "1 created, 1 deleted, 2 modified, 1 renamed\n"
    pool.diff_entries = []
    same = redfs("diff", "v", "v")
    assert (same.out, same.err) == ("", "no difference\n")
    assert redfs("diff", "v", "none").code == 3


def test_json_is_an_array_that_keeps_every_byte_of_a_name(redfs: CommandLine, pool: FakeCoordinator) -> None:
    data = redfs("diff", "v@s", "v", "--json").json()
    assert [entry["change"] for entry in data] == ["modified", "modified", "renamed", "deleted", "created"]
    assert data[1] == {
        "change": "modified", "path": "a\udcff\n", "new_path": "", "kind": "file", "content": False,
        "attributes": True, "before_bytes": 1, "after_bytes": 2,
    }  # fmt: skip
    assert data[1]["path"].encode("utf-8", "surrogateescape") == b"a\xff\n"
    pool.diff_entries = []
    assert redfs("diff", "v", "v", "--json").json() == []


def test_no_two_paths_look_alike() -> None:
    pieces = [b"a", b" ", b"->", b"\\", b"x20", b"\xff", "é".encode(), b"\n", b"(content)", b".", b")", b"\xe2\x80\x8b"]
    rng = random.Random(1)
    paths = sorted({b"".join(rng.choices(pieces, k=rng.randrange(5))) for _ in range(5000)})
    assert len({shown(path) for path in paths}) == len(paths)
    lines: dict[str, tuple[str, bytes, bytes, bool]] = {}
    for _ in range(20000):
        old, new = rng.sample(paths, 2)
        entry = pb.DiffEntry(change="renamed", path=old, new_path=new, content=rng.random() < 0.5)
        what = (entry.change, old, new, entry.content)
        assert lines.setdefault(line_of(entry), what) == what
        assert "\n" not in line_of(entry)


def test_more_entries_than_fit_in_memory_are_sorted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_entries, "RUN_ENTRIES", 7)
    monkeypatch.setattr(sorted_entries, "READ_ENTRIES", 2)
    rng = random.Random(2)
    paths = [b"%d" % rng.randrange(1000) for _ in range(100)]
    found = list(sorted_entries.by_path(pb.DiffEntry(path=path) for path in paths))
    assert [entry.path for entry in found] == sorted(paths)
