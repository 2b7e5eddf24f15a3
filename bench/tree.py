"""Measures what a large or deep volume tree costs: commands at the coordinator, and cold look-ups through a mount.

    bench/tree.py [--data DIR] [--nodes 1,1000,10000] [--generations 100] [--skip-mounts] [--json FILE]

First a coordinator of its own over LMDB, without storage nodes: commands on trees of more and more nodes (a quarter of
them clones of one volume, a quarter snapshots of others), and on a line of clones of clones. A command's time is that
of its own durable transaction.

Then, with --generations mounted one after the other, a pool on this machine: a volume that went through that many
generations of clones, each of which changed some files, beside a fresh volume of the same content. Cold means mounted
anew for each measurement, with the kernel's caches dropped where we may (root).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from redfs.client import mounting
from redfs.client.api import Pool
from redfs.client.local_pool import LocalPool
from redfs.coordinator import nodes, reads, requests, volumes
from redfs.coordinator.coordinator import ALL_TABLES, MAX_BATCH, Coordinator
from redfs.coordinator.environment import CoordinatorConfig, SystemClock, SystemRandomness
from redfs.coordinator.status import pool_status
from redfs.coordinator.store import LmdbStore
from redfs.core.records import DirEntry, Inode, dirent_key, encode_bucket, encode_inode, inode_key
from redfs.core.volume_tree import ReadTree

REPEATS = 30
"""Of each command: the median is told, and the slowest."""
COLD_REPEATS = 15
FOLDERS = 10
FILES = 100
"""In each folder."""
CHANGED = 3
"""Files that a generation changes, besides one that it makes."""


class Took(NamedTuple):
    """Milliseconds."""

    median_ms: float
    worst_ms: float
    cpu_ms: float = 0.0
    """Median of this thread's own time: without waiting for the disk, and for others on a busy machine."""


def timed(action: Callable[[int], object], repeats: int = REPEATS) -> Took:
    """Runs an action that many times, each with its number."""
    found, own = [], []
    for number in range(repeats):
        began, own_began = time.perf_counter(), time.thread_time()
        action(number)
        own.append((time.thread_time() - own_began) * 1000)
        found.append((time.perf_counter() - began) * 1000)
    return Took(statistics.median(found), max(found), statistics.median(own))


class Results:
    """Prints lines and keeps them for --json."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}

    def add(self, what: str, took: Took) -> None:
        self.rows[what] = took._asdict()
        own = f" {took.cpu_ms:>9.3f} own" if took.cpu_ms else ""
        print(f"{what:<62} {took.median_ms:>9.2f} ms {took.worst_ms:>9.2f} worst{own}", flush=True)

    def ratio(self, what: str, dear: str, cheap: str) -> None:
        by = "cpu_ms" if self.rows[cheap]["cpu_ms"] else "median_ms"
        value = self.rows[dear][by] / self.rows[cheap][by]
        self.rows[what] = {"ratio": value}
        print(f"{what:<62} {value:>9.2f} x", flush=True)


# ---------------------------------------------------------------- the coordinator alone


class Tree:
    """A coordinator over LMDB in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        config = CoordinatorConfig()
        store = LmdbStore(folder, ALL_TABLES, config.map_bytes)
        self.coordinator = Coordinator(store, config, SystemClock(), SystemRandomness())
        for number in range(6):
            hello = nodes.Hello("", 0, f"disk-{number}", f"host:{number}", 1, "", f"/disk/{number}")
            self.coordinator.cluster.attached(*self.run(partial(nodes.register, hello=hello)))

    def close(self) -> None:
        self.coordinator.store.close()

    def run(self, command: Callable[[Any], Any]) -> Any:
        return self.coordinator.execute(command)

    def many(self, commands: list[Callable[[Any], Any]]) -> None:
        for at in range(0, len(commands), MAX_BATCH):
            for outcome in self.coordinator.execute_batch(commands[at : at + MAX_BATCH]):
                if outcome.error is not None:
                    raise outcome.error

    def settle(self) -> None:
        while self.coordinator.background_step():
            pass

    def grow(self, wanted: int) -> None:
        """Adds nodes until there are that many."""
        with self.coordinator.read() as kv:
            have = sum(1 for _ in ReadTree(kv).all())
        commands: list[Callable[[Any], Any]] = []
        for number in range(have, wanted):
            commands.append(self._node(number))
        self.many(commands)
        self.settle()

    @staticmethod
    def _node(number: int) -> Callable[[Any], Any]:
        base = number // 400 * 400
        if number == base or number < 3:
            return lambda txn: volumes.create_volume(txn, f"v{number}")
        shape = number % 4
        if shape == 0:
            return lambda txn: volumes.clone_volume(txn, "subject", f"v{number}")
        if shape == 1 and base:
            return lambda txn: volumes.create_snapshot(txn, f"v{base}@s{number}")
        return lambda txn: volumes.create_volume(txn, f"v{number}")

    def measure(self, results: Results, subject: str, label: str) -> None:
        """Commands on the volume `subject`, which leave the tree as it was."""
        run = self.run
        results.add(f"snapshot, {label}", timed(lambda n: run(lambda t: volumes.create_snapshot(t, f"{subject}@b{n}"))))
        results.add(f"clone, {label}", timed(lambda n: run(lambda t: volumes.clone_volume(t, subject, f"bench{n}"))))
        results.add(
            f"clone of a snapshot, {label}",
            timed(lambda n: run(lambda t: volumes.clone_volume(t, f"{subject}@b{n}", f"bench-s{n}"))),
        )
        results.add(
            f"rename, {label}", timed(lambda n: run(lambda t: volumes.rename_volume(t, f"bench{n}", f"renamed{n}")))
        )
        results.add(
            f"roll back, {label}", timed(lambda n: run(lambda t: volumes.roll_back(t, f"{subject}@b0", f"k{n}")))
        )
        results.add(f"delete, {label}", timed(lambda n: run(lambda t: volumes.delete_volume(t, f"renamed{n}"))))
        for number in range(REPEATS):
            for name in (f"bench-s{number}", f"{subject}@b{number}", f"{subject}@k{number}"):
                run(partial(volumes.delete_volume, name=name))
        self.settle()


def put_folder(txn: Any, lineage: int) -> None:
    """A folder of FILES files, inodes from 10 on, straight into the version store."""
    txn.put_record(lineage, *inode_key(10), encode_inode(Inode(0o40755, 0, 0, 2, FILES, 0, 0, 0, 0, parent=1)))
    for number in range(FILES):
        put_file(txn, lineage, number, 0)


def put_file(txn: Any, lineage: int, number: int, time_ns: int) -> None:
    ino = 100 + number
    bucket = encode_bucket((DirEntry(b"file-%d" % number, ino, 8, 0),))
    txn.put_record(lineage, *dirent_key(10, number << 20), bucket)
    txn.put_record(lineage, *inode_key(ino), encode_inode(Inode(0o100644, 0, 0, 1, 0, 0, time_ns, time_ns, time_ns)))


def measure_coordinator(folder: Path, results: Results, node_counts: list[int], generations: int) -> None:
    """Commands by the number of nodes and of generations."""
    tree = Tree(folder / "coordinator")
    try:
        tree.run(lambda txn: volumes.create_volume(txn, "subject"))
        for count in node_counts:
            tree.grow(count)
            tree.measure(results, "subject", f"{count:,} nodes")
            results.add(f"list, {count:,} nodes", timed(lambda _: requests.list_volumes(tree.coordinator), 5))
            results.add(f"status, {count:,} nodes", timed(lambda _: pool_status(tree.coordinator), 5))
    finally:
        tree.close()
    tree = Tree(folder / "line")
    try:
        row = tree.run(lambda txn: volumes.create_volume(txn, "g1"))
        tree.run(lambda txn: put_folder(txn, row.lineage))
        measure_reads(tree, results, "g1", "1 generation")
        tree.measure(results, "g1", "1 generation")
        for number in range(2, generations + 1):
            row = tree.run(partial(volumes.clone_volume, source_name=f"g{number - 1}", name=f"g{number}"))
            for change in range(CHANGED):
                file = (7 * number + 31 * change) % FILES
                tree.run(partial(put_file, lineage=row.lineage, number=file, time_ns=number))
        tree.settle()
        last = f"g{generations}"
        measure_reads(tree, results, last, f"{generations} generations")
        tree.measure(results, last, f"{generations} generations")
    finally:
        tree.close()
    for what in ("look up", "list a folder"):
        results.ratio(
            f"{what} at the coordinator, ratio", f"{what}, {generations} generations", f"{what}, 1 generation"
        )


def measure_reads(tree: Tree, results: Results, name: str, label: str) -> None:
    """One request of a session each: a record of a file that was never changed, and a whole folder."""
    ancestry = getattr(tree.coordinator.env, "ancestry", None)

    def volume(kv: Any) -> reads.VolumeReader:
        row = ReadTree(kv).named(name)
        return reads.reader_of(kv, row) if ancestry is None else reads.reader_of(kv, row, ancestry)

    def look_up(number: int) -> None:
        with tree.coordinator.read() as kv:
            assert volume(kv).get(*inode_key(100 + number % FILES)) is not None

    def list_folder(_: int) -> None:
        with tree.coordinator.read() as kv:
            rows, _last, complete = reads.read_folder(volume(kv), 10, b"", 0)
            assert complete
            assert len(rows) == 2 * FILES

    results.add(f"look up, {label}", timed(look_up, 10 * REPEATS))
    results.add(f"list a folder, {label}", timed(list_folder))


# ---------------------------------------------------------------- through mounts


class Content:
    """What the volumes hold: FOLDERS folders of FILES files, three levels deep, and one folder that is always busy."""

    @staticmethod
    def folder(place: Path, number: int) -> Path:
        return place / "some" / "way" / "down" / f"folder-{number}"

    @classmethod
    def make(cls, place: Path) -> None:
        for number in range(FOLDERS):
            cls.folder(place, number).mkdir(parents=True)
            for file in range(FILES):
                (cls.folder(place, number) / f"file-{file}").write_bytes(b"the first content")

    @classmethod
    def change(cls, place: Path, generation: int) -> None:
        """Changes CHANGED files in one folder and puts a file in the place of another one in the busy folder 0."""
        for change in range(CHANGED):
            file = (7 * generation + 31 * change) % FILES
            (cls.folder(place, 1 + generation % (FOLDERS - 1)) / f"file-{file}").write_bytes(b"of %d" % generation)
        (cls.folder(place, 0) / f"file-{generation % FILES}").unlink()
        (cls.folder(place, 0) / f"file-{generation % FILES}").write_bytes(b"new in %d" % generation)


def drop_caches() -> bool:
    """The kernel's caches; False where we may not."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except PermissionError:
        return False
    return True


class Mounts:
    """A pool on this machine and one place to mount its volumes at."""

    def __init__(self, folder: Path) -> None:
        self.local = LocalPool(folder / "pool")
        self.place = folder / "mount"

    def within(self, volume: str, action: Callable[[Path], None]) -> None:
        mounting.mount(self.local.pool_file().coordinator, volume, self.place)
        try:
            action(self.place)
        finally:
            mounting.unmount(self.place)

    def pool(self) -> Pool:
        return Pool.connect(str(self.local.folder))


def measure_mounts(folder: Path, results: Results, generations: int) -> None:
    """Cold look-ups in a volume that was cloned again and again, beside a fresh one."""
    mounts = Mounts(folder)
    try:
        mounts.local.start()
        with mounts.pool() as pool:
            pool.create_volume("g1", "ec:4+2")
            pool.create_volume("fresh", "ec:4+2")
        for name in ("g1", "fresh"):
            mounts.within(name, Content.make)
        for number in range(2, generations + 1):
            with mounts.pool() as pool:
                pool.clone(f"g{number - 1}", f"g{number}")
            mounts.within(f"g{number}", partial(Content.change, generation=number))
        measure_cold(mounts, results, {"a fresh volume": "fresh", f"{generations} generations": f"g{generations}"})
        for what in COLD:
            results.ratio(f"{what}, ratio", f"{what}, {generations} generations", f"{what}, a fresh volume")
    finally:
        if mounts.local.exists:
            mounts.local.stop()


COLD: dict[str, Callable[[Path], object]] = {
    "stat a file deep down": lambda place: os.stat(Content.folder(place, 5) / "file-50"),
    "read it": lambda place: (Content.folder(place, 5) / "file-50").read_bytes(),
    "list a folder of 100 files": lambda place: [e.stat() for e in os.scandir(Content.folder(place, 7))],
    "list a folder that each generation changed": lambda place: [
        e.stat() for e in os.scandir(Content.folder(place, 0))
    ],
}
"""What is timed in a fresh mount, one after the other."""


def measure_cold(mounts: Mounts, results: Results, names: dict[str, str]) -> None:
    """Mounts the volumes in turns and times each action once for each mount."""
    took: dict[str, list[float]] = {f"{what}, {label}": [] for what in COLD for label in names}

    def look(place: Path, label: str) -> None:
        drop_caches()
        for what, action in COLD.items():
            began = time.perf_counter()
            action(place)
            took[f"{what}, {label}"].append((time.perf_counter() - began) * 1000)

    for _ in range(COLD_REPEATS):
        for label, name in names.items():
            mounts.within(name, partial(look, label=label))
    for what, found in took.items():
        results.add(what, Took(statistics.median(found), max(found)))


def main() -> int:
    """Runs everything; 0 where it all worked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("bench-data"), help="scratch folder, removed afterwards")
    parser.add_argument("--nodes", default="4,1000,10000", help="sizes of the tree, ascending")
    parser.add_argument("--generations", type=int, default=100, help="clones of clones")
    parser.add_argument("--skip-mounts", action="store_true", help="the coordinator alone, under a minute")
    parser.add_argument("--json", type=Path, help="write the results here too")
    options = parser.parse_args()
    folder: Path = options.data.absolute()
    if folder.exists():
        print(f"bench: {folder} exists: remove it or choose another folder with --data", file=sys.stderr)
        return 2
    results = Results()
    try:
        measure_coordinator(folder, results, [int(word) for word in options.nodes.split(",")], options.generations)
        if not options.skip_mounts:
            if not drop_caches():
                print("bench: not root, so the kernel's caches stay warm")
            measure_mounts(folder, results, options.generations)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(results.rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
