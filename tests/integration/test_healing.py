"""A pool of real processes heals: a node is lost for good, one is emptied and removed, a shard goes bad on a disk."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.pools import RunningPool, wait_for
from tests.integration.test_failures import assert_all_there, fill

pytestmark = [pytest.mark.mount, pytest.mark.timeout(900)]

MIB = 1 << 20
SETTINGS = """
node_down_s = 4.0
down_out_s = 8.0
"""
HEAL_S = 240.0
"""For what takes seconds on an idle machine."""

FreshPool = Callable[..., RunningPool]


def numbered(pool: RunningPool, name: str) -> int:
    """The number in the pool of the node with that folder."""
    folder = str(pool.member(name).folder)
    with pool.api() as api:
        return next(node.node_id for node in api.nodes() if node.data_folder == folder)


def until_well(pool: RunningPool) -> None:
    with pool.api() as api:

        def is_well() -> bool:
            status = api.status()
            return status.health == "ok" and not status.jobs and not status.shards_to_delete

        wait_for(is_well, "the pool is well", HEAL_S)


def read_without(pool: RunningPool, digests: dict[Path, bytes], *names: str) -> None:
    """All data is right with those nodes dead too, from a mount that has nothing in its memory."""
    pool.kill(*names)
    place = pool.mount("data")
    assert_all_there({place / path.name: digest for path, digest in digests.items()})
    pool.umount(place)
    for name in names:
        pool.redfs("node", "start", name.removeprefix("node-"))


def test_a_node_that_is_lost_for_good_is_made_up_for(fresh_pool: FreshPool) -> None:
    pool = fresh_pool(7, SETTINGS)
    pool.redfs("volume", "create", "data", "--protect", "ec:4+2")
    place = pool.mount("data")
    digests = fill(place, 6, 3 * MIB) | fill(place, 8, 5000, seed=2)
    pool.umount(place)
    lost = numbered(pool, "node-1")
    pool.kill("node-1")
    shutil.rmtree(pool.local.node(1).folder)
    with pool.api() as api:

        def healed() -> bool:
            node = next(node for node in api.nodes() if node.node_id == lost)
            return node.state == "out" and "remove" in node.allowed and api.status().endangered_segments == 0

        wait_for(healed, "everything is made anew elsewhere", HEAL_S)
    until_well(pool)
    read_without(pool, digests, "node-2", "node-3")
    assert "removed" in pool.redfs("node", "remove", str(lost), "--yes")
    pool.wait_for_nodes(6)
    until_well(pool)
    pool.assert_clean()


def test_a_node_is_emptied_and_removed(fresh_pool: FreshPool) -> None:
    pool = fresh_pool(7, SETTINGS)
    pool.redfs("volume", "create", "data", "--protect", "ec:4+2")
    place = pool.mount("data")
    digests = fill(place, 6, 3 * MIB) | fill(place, 8, 5000, seed=2)
    pool.umount(place)
    drained = numbered(pool, "node-2")
    assert "use" in pool.refused("node", "remove", str(drained), "--yes")[1]
    assert "is empty" in pool.redfs("node", "drain", str(drained), "--wait", timeout_s=HEAL_S)
    folder = pool.local.node(2).folder
    assert "removed-node-2, can be deleted" in pool.redfs("node", "remove", str(drained), "--yes")
    assert not folder.exists()
    assert "6 nodes" in pool.redfs("up", "--no-console")
    assert pool.local.node_numbers() == [0, 1, 3, 4, 5, 6], "what was removed is not started again"
    pool.assert_clean()
    read_without(pool, digests, "node-0", "node-4")


def test_a_node_that_cannot_be_emptied_yet_says_what_it_waits_for(fresh_pool: FreshPool) -> None:
    pool = fresh_pool(3, SETTINGS)
    pool.redfs("volume", "create", "data", "--protect", "ec:2+1")
    place = pool.mount("data")
    fill(place, 2, 3 * MIB)
    pool.umount(place)
    drained = numbered(pool, "node-1")
    words = [sys.executable, "-m", "redfs.client.cli.main", "--pool", str(pool.local.folder)]
    command = [*words, "node", "drain", str(drained), "--wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/") as draining:
        assert draining.stdout is not None
        assert draining.stderr is not None
        try:
            said = draining.stderr.readline()
            assert said.startswith(f"Emptying node {drained} waits: "), said
            assert said.endswith(": add a node\n"), said
            pool.redfs("up", "--no-console", "--nodes", "4")
            assert "is empty" in draining.stdout.read()
            assert draining.stderr.read() == "", "it says so once"
        finally:
            draining.kill()
    assert draining.returncode == 0
    pool.assert_clean()


def test_a_shard_that_goes_bad_on_a_disk_is_repaired_when_somebody_reads_it(fresh_pool: FreshPool) -> None:
    pool = fresh_pool(6)
    pool.redfs("volume", "create", "data", "--protect", "ec:4+2")
    place = pool.mount("data")
    digests = fill(place, 1, 3 * MIB)
    pool.umount(place)
    # A piece of the file as it lies on some disk; noise is stored as it is.
    noise = random.Random(1).randbytes(3 * MIB)
    assert hashlib.sha256(noise).digest() in digests.values()
    hits = []
    for number in range(6):
        for path in pool.local.node(number).folder.rglob("*"):
            if path.is_file() and (at := path.read_bytes().find(noise[70_000:70_064])) >= 0:
                hits.append((path, at))
    path, at = hits[0]
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(64))
    assert pool.run("check", "--data").returncode == 10
    place = pool.mount("data")
    assert_all_there({place / path.name: digest for path, digest in digests.items()})
    with pool.api() as api:
        wait_for(lambda: api.status().damage_reports > 0, "the reader has told of it")
        wait_for(lambda: not any(node.damaged_shards for node in api.nodes()), "the bad shard is repaired", HEAL_S)
    pool.umount(place)
    pool.assert_clean()
