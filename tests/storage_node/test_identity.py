"""A disk is taken for what it is, or refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from redfs.core.errors import Busy, WrongFormat
from redfs.storage_node import identity as ids
from redfs.storage_node.backing_file import file_name
from redfs.storage_node.disk import FolderLock
from redfs.storage_node.identity import Identity, NodeState
from tests.simulation.disk import SimulatedDisk

UUID = "00112233445566778899aabbccddeeff"


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(seed=0)


def test_the_identity_file_is_these_bytes(disk: SimulatedDisk) -> None:
    ids.save_identity(disk, Identity(UUID, "pool-1", 3))
    assert disk.read("node.json") == (
        b'{\n  "format": "redfs-node",\n  "version": 1,\n  "disk_uuid": "00112233445566778899aabbccddeeff",\n'
        b'  "pool_id": "pool-1",\n  "node_id": 3,\n  "checksum": "c543a8a05dab5968"\n}\n'
    )


def test_the_state_file_is_these_bytes(disk: SimulatedDisk) -> None:
    ids.save_state(disk, NodeState(5, False, 7000))
    assert disk.read("state.json") == (
        b'{\n  "format": "redfs-node-state",\n  "version": 1,\n  "generation": 5,\n  "clean": false,\n'
        b'  "port": 7000,\n  "checksum": "8dd9e098a816adb3"\n}\n'
    )
    assert ids.load_state(disk) == NodeState(5, False, 7000)


def test_a_fresh_disk_gets_an_identity_and_keeps_it(disk: SimulatedDisk) -> None:
    assert ids.load_state(disk) == NodeState(0, True, 0)
    fresh = ids.load_identity(disk, UUID)
    assert fresh == Identity(UUID)
    assert not fresh.joined
    disk.restart()
    assert ids.load_identity(disk, "ff" * 16) == fresh
    joined = ids.join(disk, fresh, "pool-1", 3)
    disk.restart()
    assert ids.load_identity(disk, "ff" * 16) == joined == Identity(UUID, "pool-1", 3)
    assert ids.join(disk, joined, "pool-1", 3) == joined


def test_a_disk_of_another_pool_or_node_is_refused(disk: SimulatedDisk) -> None:
    mine = ids.join(disk, Identity(UUID), "pool-1", 3)
    for pool_id, node_id in (("pool-2", 3), ("pool-1", 4)):
        with pytest.raises(WrongFormat, match="this disk is node 3 of pool pool-1"):
            ids.join(disk, mine, pool_id, node_id)
    with pytest.raises(WrongFormat):
        ids.join(disk, Identity(UUID), "", 0)


def test_backing_files_without_an_identity_are_refused(disk: SimulatedDisk) -> None:
    disk.create(file_name(1))
    with pytest.raises(WrongFormat, match=r"no node\.json"):
        ids.load_identity(disk, UUID)
    assert disk.read("node.json") is None
    assert not ids.load_state(disk).clean


def changed(disk: SimulatedDisk, **fields: object) -> bytes:
    """The identity file with other fields and the right checksum."""
    ids.save_identity(disk, Identity(UUID))
    packed = disk.read("node.json")
    assert packed is not None
    whole = {**json.loads(packed), **fields}
    del whole["checksum"]
    return json.dumps({**whole, "checksum": ids._checksum(whole)}).encode()


def test_unknown_versions_and_damage_are_refused_and_left_as_they_are(disk: SimulatedDisk) -> None:
    cases = {
        "has version 2": changed(disk, version=2),
        "not a file of a RedFS storage node": changed(disk, format="redfs-pool"),
        "is damaged": changed(disk, disk_uuid="short"),
        "node.json is damaged": b"{",
        "node.json is damaged:": changed(disk).replace(b"0011", b"0012"),
    }
    for reason, packed in cases.items():
        disk.publish("node.json", packed)
        with pytest.raises(WrongFormat, match=reason):
            ids.load_identity(disk, UUID)
        assert disk.read("node.json") == packed


def test_a_folder_is_served_by_one_process(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(Busy, match="another process serves"):
        FolderLock(tmp_path)
    lock.release()
    FolderLock(tmp_path).release()
