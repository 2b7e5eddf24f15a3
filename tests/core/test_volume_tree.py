"""The volume tree: names, renaming, what stays while something descends from it."""

from __future__ import annotations

import pytest

from redfs.core.errors import AlreadyExists, InvalidArgument, NotAllowed, NotFound
from redfs.core.kv import MemoryKv
from redfs.core.policy import Policy
from redfs.core.tables import CHILDREN, NAMES, VOLUMES, VolumeKind, VolumeRow, VolumeState, pair_key, u64_key
from redfs.core.volume_tree import VolumeTree, check_volume_name, split_snapshot_name, verify_tree


def row(number: int, kind: VolumeKind, name: str, parent: int) -> VolumeRow:
    return VolumeRow(number, kind, VolumeState.OK, parent, number, 0, 0, Policy(4, 2), 1, 0, name, "", "")


@pytest.fixture
def kv() -> MemoryKv:
    kv = MemoryKv()
    tree = VolumeTree(kv)
    tree.add(row(1, VolumeKind.ZERO, "zero", 0))
    tree.add(row(2, VolumeKind.LIVE, "photos", 1))
    tree.add(row(3, VolumeKind.SNAPSHOT, "photos@a", 2))
    tree.add(row(4, VolumeKind.LIVE, "copy", 3))
    return kv


@pytest.mark.parametrize("name", ["a", "A-b.c_9", "x" * 63])
def test_names_that_are_allowed(name: str) -> None:
    check_volume_name(name)
    assert split_snapshot_name(f"{name}@{name}") == (name, name)


@pytest.mark.parametrize("name", ["", "-a", ".a", "x" * 64, "a b", "a/b", "ä", "zero", "a@b", "a\n"])
def test_names_that_are_not(name: str) -> None:
    with pytest.raises(InvalidArgument):
        check_volume_name(name)


@pytest.mark.parametrize("name", ["a", "a@", "@a", "a@b@c", "a@-b"])
def test_snapshot_names_that_are_not(name: str) -> None:
    with pytest.raises(InvalidArgument):
        split_snapshot_name(name)


def test_a_taken_name_is_refused(kv: MemoryKv) -> None:
    with pytest.raises(AlreadyExists):
        VolumeTree(kv).add(row(5, VolumeKind.LIVE, "photos", 1))


def test_renaming_leaves_the_snapshots_of_an_earlier_volume_of_that_name(kv: MemoryKv) -> None:
    tree = VolumeTree(kv)
    tree.mark_deleted(tree.named("photos"))
    tree.add(row(5, VolumeKind.LIVE, "photos", 1))
    tree.add(row(6, VolumeKind.SNAPSHOT, "photos@b", 5))
    tree.rename(tree.named("photos"), "pictures")
    assert tree.named("pictures@b").volume_id == 6
    assert tree.named("photos@a").volume_id == 3
    assert list(verify_tree(kv)) == []


def test_renaming_takes_the_snapshots_along(kv: MemoryKv) -> None:
    tree = VolumeTree(kv)
    tree.rename(tree.named("photos"), "pictures")
    assert tree.named("pictures").volume_id == 2
    assert tree.named("pictures@a").volume_id == 3
    assert tree.named("copy").volume_id == 4
    with pytest.raises(NotFound):
        tree.named("photos")
    assert list(verify_tree(kv)) == []


def test_a_snapshot_stays_with_its_volume(kv: MemoryKv) -> None:
    tree = VolumeTree(kv)
    with pytest.raises(InvalidArgument, match="stays with its volume"):
        tree.rename(tree.named("photos@a"), "copy@a")
    tree.rename(tree.named("photos@a"), "photos@b")
    assert tree.named("photos@b").volume_id == 3


def test_the_zero_volume_cannot_be_touched(kv: MemoryKv) -> None:
    tree = VolumeTree(kv)
    with pytest.raises(NotAllowed):
        tree.rename(tree.named("zero"), "one")
    with pytest.raises(NotAllowed):
        tree.mark_deleted(tree.named("zero"))


def test_a_deleted_node_stays_while_something_descends_from_it(kv: MemoryKv) -> None:
    tree = VolumeTree(kv)
    for name, number in (("photos", 2), ("photos@a", 3)):
        tree.mark_deleted(tree.named(name))
        tree.freed(number)
        assert list(verify_tree(kv)) == []
    assert [(r.volume_id, r.state) for r in tree.all()] == [
        (1, VolumeState.OK),
        (2, VolumeState.DELETED),
        (3, VolumeState.DELETED),
        (4, VolumeState.OK),
    ]
    tree.add(row(5, VolumeKind.LIVE, "photos", 1))
    tree.mark_deleted(tree.named("copy"))
    assert tree.require(4).state == VolumeState.DELETING
    tree.freed(4)
    assert [r.volume_id for r in tree.all()] == [1, 5]
    assert list(verify_tree(kv)) == []


@pytest.mark.parametrize(
    ("table", "key"),
    [(NAMES, b"photos"), (VOLUMES, u64_key(2)), (CHILDREN, pair_key(2, 3)), (VOLUMES, u64_key(4))],
)
def test_verify_finds_what_is_broken(kv: MemoryKv, table: str, key: bytes) -> None:
    assert list(verify_tree(kv)) == []
    kv.delete(table, key)
    assert list(verify_tree(kv)) != []
