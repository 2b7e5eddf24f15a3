"""Processes killed with kill -9: what was promised is there, and what can still be served is served."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.pools import RunningPool, wait_for

pytestmark = pytest.mark.mount

MIB = 1 << 20

FreshPool = Callable[[int], RunningPool]


def fill(place: Path, count: int, size: int, seed: int = 1) -> dict[Path, bytes]:
    """Writes and fsyncs files; returns their digests."""
    source = random.Random(seed)
    digests = {}
    for number in range(count):
        path = place / f"file-{seed}-{number}"
        content = source.randbytes(size)
        with path.open("wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        digests[path] = hashlib.sha256(content).digest()
    return digests


def assert_all_there(digests: dict[Path, bytes]) -> None:
    for path, digest in digests.items():
        assert hashlib.sha256(path.read_bytes()).digest() == digest, path


@pytest.mark.parametrize(
    ("protection", "nodes", "lost"),
    [("ec:4+2", 6, 2), ("mirror:3", 4, 2), ("raid5", 6, 1)],
)
def test_reading_goes_on_without_some_nodes(fresh_pool: FreshPool, protection: str, nodes: int, lost: int) -> None:
    pool = fresh_pool(nodes)
    pool.redfs("volume", "create", "data", "--protect", protection)
    place = pool.mount("data")
    digests = fill(place, 4, 3 * MIB) | fill(place, 8, 5000, seed=2)
    pool.umount(place)
    place = pool.mount("data")
    digests = {place / path.name: digest for path, digest in digests.items()}

    problems: list[str] = []
    stop = threading.Event()

    def read_on() -> None:
        while not stop.is_set():
            for path, digest in digests.items():
                try:
                    if hashlib.sha256(path.read_bytes()).digest() != digest:
                        problems.append(f"other bytes in {path}")
                except OSError as error:
                    problems.append(f"{path}: {error}")

    reader = threading.Thread(target=read_on)
    reader.start()
    try:
        pool.kill(*(f"node-{number}" for number in range(lost)))
        pool.wait_for_nodes(nodes - lost)
    finally:
        stop.set()
        reader.join()
    assert problems == []
    # And from nothing but the nodes that are left.
    pool.umount(place)
    place = pool.mount("data")
    assert_all_there({place / path.name: digest for path, digest in digests.items()})
    status = pool.data("status")
    assert status["health"] == "degraded"
    assert status["nodes_up"] == nodes - lost


@pytest.mark.parametrize(
    ("protection", "nodes", "lost"),
    [("ec:4+2", 6, 2), ("mirror:3", 5, 2), ("raid5", 6, 1)],
)
def test_writing_goes_on_without_some_nodes(fresh_pool: FreshPool, protection: str, nodes: int, lost: int) -> None:
    pool = fresh_pool(nodes)
    pool.redfs("volume", "create", "data", "--protect", protection)
    place = pool.mount("data")
    names = [f"node-{number}" for number in range(lost)]
    digests = fill(place, 2, MIB)

    killer = threading.Timer(0.0, lambda: pool.kill(*names))
    killer.start()
    digests |= fill(place, 16, MIB, seed=2) | fill(place, 20, 3000, seed=3)
    killer.join()

    assert_all_there(digests)
    pool.umount(place)
    place = pool.mount("data")
    digests = {place / path.name: digest for path, digest in digests.items()}
    assert_all_there(digests)
    # With the lost ones back, nothing is missing and nothing is left over.
    for name in names:
        pool.redfs("node", "start", name.removeprefix("node-"))
    assert_all_there(digests)
    pool.umount(place)
    pool.wait_for_idle()
    pool.assert_clean()


def test_a_single_copy_is_gone_with_its_node_and_never_replaced_by_other_bytes(fresh_pool: FreshPool) -> None:
    pool = fresh_pool(2)
    pool.redfs("volume", "create", "data", "--protect", "single")
    place = pool.mount("data")
    digests = fill(place, 12, 200_000)
    pool.umount(place)
    place = pool.mount("data")
    pool.kill("node-0")
    pool.wait_for_nodes(1)
    lost = 0
    for path, digest in digests.items():
        try:
            content = (place / path.name).read_bytes()
        except OSError:
            lost += 1
        else:
            assert hashlib.sha256(content).digest() == digest
    assert 0 < lost < len(digests), "both nodes held some"
    pool.redfs("node", "start", "0")
    assert_all_there({place / path.name: digest for path, digest in digests.items()})


@pytest.mark.parametrize("round_number", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_everything_killed_at_once_keeps_what_was_synced(fresh_pool: FreshPool, round_number: int) -> None:
    pool = fresh_pool(6)
    pool.redfs("volume", "create", "data", "--protect", "ec:4+2")
    place = pool.mount("data")
    synced: dict[str, bytes] = {}
    writing = threading.Event()

    def write_on() -> None:
        source = random.Random(round_number)
        number = 0
        try:
            while True:
                content = source.randbytes(source.choice((10, 5000, 200_000)))
                name = f"file-{number}"
                with (place / name).open("wb", buffering=0) as file:
                    file.write(content)
                    os.fsync(file.fileno())
                synced[name] = content
                number += 1
                if number == 8 + 7 * round_number:
                    writing.set()
        except OSError:
            writing.set()

    writer = threading.Thread(target=write_on)
    writer.start()
    assert writing.wait(60)
    pool.kill_everything()
    writer.join(60)
    assert not writer.is_alive()
    assert len(synced) >= 8

    pool.up()
    again = pool.mount("data")
    for name, content in synced.items():
        assert (again / name).read_bytes() == content
    pool.umount(again)
    pool.wait_for_idle()
    pool.assert_clean()


def test_a_lost_disk_and_a_new_one_in_its_place(fresh_pool: FreshPool) -> None:
    pool = fresh_pool(4)
    pool.redfs("volume", "create", "data", "--protect", "ec:2+1")
    place = pool.mount("data")
    digests = fill(place, 4, MIB)
    pool.kill("node-1")
    shutil.rmtree(pool.local.node(1).folder)
    pool.up()
    states = ["up", "down", "up", "up", "up"]
    wait_for(lambda: [node["state"] for node in pool.data("node", "ls")] == states, "the lost one is down")
    assert_all_there(digests)
    digests |= fill(place, 4, MIB, seed=2)
    pool.umount(place)
    place = pool.mount("data")
    assert_all_there({place / path.name: digest for path, digest in digests.items()})
    pool.umount(place)
    assert pool.data("status")["health"] == "degraded"
    done = pool.run("check", "--data")
    assert done.returncode == 7
    assert "node 2" in done.stderr


def test_the_coordinator_comes_back_under_a_mount(fresh_pool: FreshPool) -> None:
    pool = fresh_pool(3)
    pool.redfs("volume", "create", "data", "--protect", "mirror:2")
    place = pool.mount("data")
    digests = fill(place, 5, 100_000)
    pool.kill("coordinator")
    code, text = pool.refused("status")
    assert code == 7
    assert "redfs up" in text
    code, text = pool.refused("down")
    assert code == 7, "what is in the mount could not be saved"
    assert "redfs up" in text
    pool.up()
    digests |= fill(place, 5, 100_000, seed=2)
    assert_all_there(digests)
    pool.umount(place)
    pool.wait_for_idle()
    pool.assert_clean()


def test_a_killed_mount_leaves_a_prefix_of_what_it_did(fresh_pool: FreshPool) -> None:
    pool = fresh_pool(3)
    pool.redfs("volume", "create", "data", "--protect", "mirror:2")
    place = pool.mount("data")
    for number in range(200):
        (place / f"file-{number:03}").mkdir()
        if number == 50:
            folder = os.open(place, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    for pid in pool.mount_pids():
        os.kill(pid, 9)
    pool.clear_dead_mounts()
    again = pool.mount("data")
    names = sorted(path.name for path in again.iterdir())
    assert names == [f"file-{number:03}" for number in range(len(names))]
    assert len(names) > 50
