"""What the metadata's journal costs: durable commands with it, and with the embedded store alone, in one run.

    bench/journal.py [--data DIR] [--nodes 3] [--commands 400] [--json FILE]

Makes a coordinator in DIR (removed afterwards) and nodes as processes of their own that serve the journal over the
data plane, all on this machine's disk. Each round runs commands that each wait for their transaction, as one fsync
does; then as many in batches, as a busy pool has them. Rounds with no journal, one copy and all copies take turns, so
that a disk that is slow for a while is slow for all. "In batches" is commands a second; the others are milliseconds.

All copies share one disk here, where they wait for each other's syncs: with a disk for each node the journal costs the
slower of two syncs and a round trip.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from redfs.coordinator.coordinator import ALL_TABLES, Coordinator
from redfs.coordinator.environment import CoordinatorConfig, SystemClock, SystemRandomness
from redfs.coordinator.journal import JOURNAL, Journal
from redfs.coordinator.journal_keeper import JournalKeeper
from redfs.coordinator.journal_peers import NetworkPeers
from redfs.coordinator.store import LmdbStore
from redfs.coordinator.txn import Txn
from redfs.core.tables import OPERATIONS, pair_key
from redfs.proto import frames
from redfs.proto.frames import Hello
from redfs.storage_node.disk import FolderDisk
from redfs.storage_node.index import MemoryIndex
from redfs.storage_node.journal import Journal as NodeJournal
from redfs.storage_node.recovery import open_store
from redfs.storage_node.server import DataServer
from redfs.storage_node.shard_store import StoreLimits

SWITCH_INTERVAL_S = 0.0005
VALUE_BYTES = 120
ROWS = 4
"""A small commit: about what an append and its inode are."""
BATCH = 64
ROUNDS = 5


def serve_node(folder: Path, number: int, pool_id: str, pipe: Connection) -> None:
    """A node's process: data plane and journal, until the pipe closes."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    disk = FolderDisk(folder)
    store = open_store(disk, MemoryIndex(), bytes(16), 1, None, StoreLimits(), lambda _: None)
    journal = NodeJournal(FolderDisk(folder / "journal"), lambda: pool_id)
    journal.open()
    server = DataServer(frames.listen("127.0.0.1:0"), store, lambda: Hello(pool_id, number, 1), journal=journal)
    server.start()
    pipe.send(server.port)
    pipe.recv()
    server.stop()
    journal.close()


class Bench:
    """A coordinator, and its nodes' addresses."""

    def __init__(self, folder: Path, addresses: dict[int, str]) -> None:
        config = CoordinatorConfig(map_bytes=1 << 30)
        folder.mkdir(parents=True)
        self.coordinator = Coordinator(
            LmdbStore(folder, (*ALL_TABLES, JOURNAL), config.map_bytes), config, SystemClock(), SystemRandomness()
        )
        self.addresses = addresses
        self.key = 0

    def with_journal(self, copies: int) -> None:
        """The journal on so many nodes, begun anew."""
        if self.coordinator.journal is not None:
            self.coordinator.journal.close()
            self.coordinator.journal = None
        if not copies:
            return
        config, clock = self.coordinator.config, self.coordinator.env.clock
        peers = NetworkPeers("", self.addresses.get, config.journal_wait_s)
        journal = Journal(peers, config.journal_wait_s, clock.monotonic, time.time_ns())
        journal.start(self.coordinator.store, [])
        nodes = list(self.addresses)[:copies]
        for node_id in nodes:
            if node_id not in journal.members():
                journal.follow(journal.open_link(node_id))
        keeper = JournalKeeper(
            journal, peers, self.coordinator.store, ALL_TABLES, self.coordinator.cluster, config, clock
        )
        due = keeper.due()
        if due:
            keeper.make_checkpoint(due)
        until_s = time.monotonic() + 30
        while len(journal.members()) < copies and time.monotonic() < until_s:
            journal.tend(nodes)
        if len(journal.members()) < copies:
            raise RuntimeError("the nodes do not take the journal")
        self.coordinator.journal = journal

    def command(self, txn: Txn) -> None:
        self.key += 1
        for row in range(ROWS):
            txn.kv.put(OPERATIONS, pair_key(self.key % 5000, row), self.key.to_bytes(8) * (VALUE_BYTES // 8))

    def one_by_one(self, count: int) -> list[float]:
        """Milliseconds of each."""
        took = []
        for _ in range(count):
            began_s = time.perf_counter()
            self.coordinator.execute(self.command)
            took.append((time.perf_counter() - began_s) * 1000)
        return took

    def in_batches(self, count: int) -> float:
        """Commands a second."""
        began_s = time.perf_counter()
        for _ in range(0, count, BATCH):
            self.coordinator.execute_batch([self.command] * BATCH)
        return count / (time.perf_counter() - began_s)


def measure(bench: Bench, copies: list[int], commands: int) -> dict[str, dict[str, float]]:
    """Rounds of all, in turns."""
    single: dict[int, list[float]] = {n: [] for n in copies}
    batched: dict[int, list[float]] = {n: [] for n in copies}
    for _ in range(ROUNDS):
        for number in copies:
            bench.with_journal(number)
            bench.one_by_one(10)
            single[number] += bench.one_by_one(commands // ROUNDS)
            batched[number].append(bench.in_batches(commands * 4))
    return {
        ("LMDB alone" if not n else f"journal, {n} cop{'y' if n == 1 else 'ies'}"): {
            "median_ms": statistics.median(single[n]),
            "p99_ms": statistics.quantiles(single[n], n=100)[98],
            "in_batches_per_s": statistics.median(batched[n]),
        }
        for n in copies
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What the metadata's journal costs.")
    parser.add_argument("--data", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--commands", type=int, default=400)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    folder = Path(tempfile.mkdtemp(prefix="redfs-journal-", dir=given.data))
    pipes: list[Connection] = []
    processes: list[Any] = []
    try:
        addresses = {}
        for number in range(1, given.nodes + 1):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("spawn").Process(
                target=serve_node, args=(folder / f"node-{number}", number, "", theirs)
            )
            process.start()
            pipes.append(ours)
            processes.append(process)
            addresses[number] = f"127.0.0.1:{ours.recv()}"
        found = measure(Bench(folder / "coordinator", addresses), [0, 1, given.nodes], given.commands)
    finally:
        for pipe in pipes:
            pipe.send(None)
        for process in processes:
            process.join(10)
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{'':24}{'one, median':>14}{'one, 99 %':>14}{'in batches':>16}")
    for name, figures in found.items():
        median, p99 = f"{figures['median_ms']:.2f} ms", f"{figures['p99_ms']:.2f} ms"
        print(f"{name:24}{median:>14}{p99:>14}{figures['in_batches_per_s']:>14,.0f}/s")
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
