"""A shard store on a simulated disk that is started, stopped, killed and crashed as a node is."""

from __future__ import annotations

import random
from dataclasses import replace

import xxhash

from redfs.core.errors import NotFound
from redfs.storage_node.disk import DiskFailed
from redfs.storage_node.identity import load_state, save_state
from redfs.storage_node.index import MemoryIndex
from redfs.storage_node.recovery import open_store
from redfs.storage_node.shard_store import ShardStore, StoreLimits
from tests.simulation.disk import SimulatedDisk

DISK_UUID = bytes(range(16))
SMALL_FILES = StoreLimits(file_bytes=96 * 1024, reserve_bytes=0)
"""Backing files of 24 pages, so that a handful of shards fills one."""


def payload_of(seed: int, size: int) -> bytes:
    """Bytes that differ from page to page."""
    return random.Random(seed).randbytes(size)


class Rig:
    """One node's disk through all its lives."""

    def __init__(self, seed: int = 0, limits: StoreLimits = SMALL_FILES, capacity_bytes: int = 1 << 40) -> None:
        self.disk = SimulatedDisk(seed, capacity_bytes)
        self.index = MemoryIndex()
        self.limits = limits
        self.failures: list[DiskFailed] = []
        self.store: ShardStore

    def start(self) -> ShardStore:
        before = load_state(self.disk)
        state = replace(before, generation=before.generation + 1, clean=False)
        save_state(self.disk, state)
        if not before.clean:
            self.index = MemoryIndex()
        saved = before.generation if before.clean else None
        self.store = open_store(
            self.disk, self.index, DISK_UUID, state.generation, saved, self.limits, self.failures.append
        )
        return self.store

    def stop(self) -> None:
        assert self.store.close()
        save_state(self.disk, replace(load_state(self.disk), clean=True))

    def power_cycle(self) -> ShardStore:
        self.disk.restart()
        return self.start()

    def restart_after_kill(self) -> ShardStore:
        self.disk.kill()
        return self.start()

    def put(self, segment: int, shard: int, payload: bytes) -> None:
        self.store.put(segment, shard, payload, xxhash.xxh3_64_intdigest(payload))

    def held(self) -> dict[tuple[int, int], bytes]:
        """Everything the store lists, read and verified."""
        found = {}
        for info in self.store.list_page(None, 10_000):
            self.store.verify(info.segment, info.shard)
            payload = self.store.read(info.segment, info.shard)
            assert len(payload) == info.payload_bytes
            assert xxhash.xxh3_64_intdigest(payload) == info.checksum
            found[info.segment, info.shard] = payload
        return found

    def get(self, segment: int, shard: int) -> bytes | None:
        try:
            return self.store.read(segment, shard)
        except NotFound:
            return None
