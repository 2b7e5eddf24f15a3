"""`redfs check` finds every kind of damage that it looks for: each is done here, and must be seen."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from redfs.coordinator.coordinator import ALL_TABLES
from redfs.coordinator.environment import CoordinatorConfig
from redfs.coordinator.store import LmdbStore, Writable
from redfs.core.records import Kind
from redfs.core.tables import (
    ALL_U64,
    BLOCKS,
    DEDUPE,
    META,
    SEGMENTS,
    STATS_KEY,
    decode_block,
    decode_segment,
    decode_stats,
    encode_block,
    encode_segment,
    encode_stats,
    u64_key,
)
from redfs.core.versions.layout import VERSIONS
from redfs.proto.data_plane import NodeConnection, ShardInfo
from tests.integration.pools import RunningPool

pytestmark = pytest.mark.mount

MIB = 1 << 20
NOISE = random.Random(17).randbytes(3 * MIB)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPool]:
    """Four nodes and a volume with files, large and small."""
    running = RunningPool(tmp_path_factory.mktemp("pool"), nodes=4)
    try:
        running.up()
        running.redfs("volume", "create", "data", "--protect", "ec:2+1")
        place = running.mount("data")
        for number in range(3):
            with (place / f"large-{number}").open("wb", buffering=0) as file:
                file.write(NOISE[number * MIB :][:MIB])
                os.fsync(file.fileno())
            with (place / f"small-{number}").open("wb", buffering=0) as file:
                file.write(b"%d" % number * 100)
                os.fsync(file.fileno())
        running.umount(place)
        yield running
    finally:
        running.destroy()


def found_by(pool: RunningPool, *options: str) -> str:
    """What the command says about a damaged pool; it must end with the code for damage."""
    done = pool.run("check", *options)
    assert done.returncode == 10, done.stdout + done.stderr
    assert done.stderr.startswith("redfs: the check found ")
    return done.stdout


def some_shard(pool: RunningPool, node: int = 0) -> tuple[NodeConnection, ShardInfo]:
    """A connection to a node, and its largest shard."""
    with pool.api() as api:
        folder = str(pool.local.node(node).folder)
        address = next(n.address for n in api.nodes() if n.data_folder == folder)
    connection = NodeConnection.open(address)
    return connection, max(connection.list_page(), key=lambda info: info.payload_bytes)


def test_a_whole_pool_is_clean(pool: RunningPool) -> None:
    done = pool.run("check", "--data")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("clean: ")
    report = pool.data("check", "--data")
    assert report["clean"]
    assert report["shards"] == report["verified_shards"] > 6
    assert report["blocks"] >= 6


def test_a_missing_shard_and_one_of_a_wrong_length(pool: RunningPool) -> None:
    connection, info = some_shard(pool)
    with connection:
        payload = bytes(connection.get(info.segment, info.shard, 0, info.payload_bytes))
        connection.delete([(info.segment, info.shard)])
        name = f"segment {info.segment:#x} shard {info.shard} on node"
        out = found_by(pool)
        assert name in out
        assert out.count(": missing") == 1
        connection.put(info.segment, info.shard, payload[:-64])
        assert f"{info.payload_bytes - 64} bytes long instead of {info.payload_bytes}" in found_by(pool)
        connection.delete([(info.segment, info.shard)])
        connection.put(info.segment, info.shard, payload)
    pool.assert_clean()


def test_a_shard_that_nobody_names(pool: RunningPool) -> None:
    connection, info = some_shard(pool)
    with connection:
        connection.put(info.segment, 77, b"left over")
        assert "nobody names it" in found_by(pool)
        connection.delete([(info.segment, 77)])
    pool.assert_clean()


def test_a_flipped_byte(pool: RunningPool) -> None:
    wanted = NOISE[1000:1064]
    hits = []
    for number in pool.local.node_numbers():
        for path in pool.local.node(number).folder.rglob("*"):
            if path.is_file() and (at := path.read_bytes().find(wanted)) >= 0:
                hits.append((path, at))
    assert hits, "the file's bytes lie somewhere as they are"
    path, at = hits[0]
    flip(path, at)
    assert pool.run("check").returncode == 0, "metadata alone cannot tell"
    assert found_by(pool, "--data").count(": damaged") == 1
    place = pool.mount("data")
    assert (place / "large-0").read_bytes() == NOISE[:MIB], "reading goes around the damage"
    pool.umount(place)
    flip(path, at)
    pool.assert_clean()


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0xFF]))


def test_a_node_that_is_down_is_named_and_not_called_clean(pool: RunningPool) -> None:
    pool.redfs("node", "stop", "3")
    pool.wait_for_nodes(3)
    done = pool.run("check", "--data")
    assert done.returncode == 7
    assert "node-3" in done.stdout
    assert "node-3" in done.stderr
    pool.redfs("node", "start", "3")
    pool.assert_clean()


def damage_metadata(kv: Writable) -> list[str]:
    """One damage of each kind, on rows of their own; returns what the check must say about each."""
    blocks = [(key, decode_block(raw)) for key, raw in kv.scan(BLOCKS, b"", ALL_U64)]
    large = [(key, row) for key, row in blocks if row.plain_bytes > 1000]
    expected = []

    key, row = large[0]
    kv.put(BLOCKS, key, encode_block(row._replace(refs=row.refs + 1)))
    expected.append(f"says {row.refs + 1} references and slots name it {row.refs} times")

    key, row = large[-1]
    kv.delete(BLOCKS, key)
    expected.append("has no row: its data is lost")

    segment_key = u64_key(large[0][1].segment_id)
    raw = kv.get(SEGMENTS, segment_key)
    assert raw is not None
    segment = decode_segment(raw)
    kv.put(SEGMENTS, segment_key, encode_segment(segment._replace(live_bytes=segment.live_bytes + 1)))
    expected.append(f"says {segment.live_bytes + 1} live bytes")

    key, raw = next(iter(kv.scan(DEDUPE, b"", b"\xff" * 64)))
    kv.put(DEDUPE, key, u64_key(0xDEAD))
    expected.append("the dedupe index leads to block 0xdead, which has no row")

    raw = kv.get(META, STATS_KEY)
    assert raw is not None
    stats = decode_stats(raw)
    kv.put(META, STATS_KEY, encode_stats(stats._replace(logical_bytes=stats.logical_bytes + 5)))
    expected.append("the pool's total logical_bytes")

    entry = next(key for key, value in kv.scan(VERSIONS, b"", b"\xff" * 40) if key[8] == Kind.DIRENT and value)
    kv.delete(VERSIONS, entry)
    expected.append("entries and has")
    return expected


def test_damaged_metadata(pool: RunningPool) -> None:
    pool.redfs("down")
    store = LmdbStore(pool.local.coordinator().folder, ALL_TABLES, CoordinatorConfig().map_bytes)
    try:
        expected = store.write(damage_metadata)
    finally:
        store.close()
    pool.up()
    out = found_by(pool)
    for text in expected:
        assert text in out, out
    assert pool.run("check", "--json").returncode == 10
