"""Measures a rebuild beside what the same disk and network allow, and what clients keep while it runs, in one run.

    bench/rebuild.py [--data DIR] [--protect ec:4+2] [--nodes 8] [--mib 1024] [--json FILE]

Starts a pool of its own in DIR (removed afterwards), writes so many MiB, and takes one node out for good, twice:

- Alone: nobody uses the pool. Beside it the *limit*: programs without any pool that move the same bytes over the same
  disk and the loopback network, k parts of a shard's size read cold and received, one written and synced, as many at
  once as the nodes work on.
- Beside clients: one program writes files of 8 MiB and syncs each, another reads what was written before. Their rates
  before the rebuild, and during it.

All nodes are on one machine: its disk and cores are everybody's, so that a rebuild takes from clients what it gets.
Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple

from redfs.client import mounting
from redfs.client.api import Pool
from redfs.client.local_pool import LocalPool
from redfs.core.policy import Policy, parse_policy
from redfs.proto.gen import cluster_pb2 as pb

MIB = 1 << 20
VOLUME = "rebuilt"
FILE_MIB = 8
SEED = 7
BEFORE_S = 10.0
"""For how long clients are measured by themselves."""
WAIT_S = 600.0
TASKS_PER_NODE = 2
"""What a node makes at once, as the coordinator is set by default."""
_REQUEST = struct.Struct("!HQI")
"""Node, offset, length."""
_processes = multiprocessing.get_context("spawn")


class Rebuilt(NamedTuple):
    """What a rebuild did."""

    mib: float
    took_s: float

    @property
    def rate(self) -> float:
        """MiB of shards made a second."""
        return self.mib / self.took_s


# ---------------------------------------------------------------- clients


def write_file(path: Path, number: int) -> None:
    """8 MiB that nothing else equals, synced."""
    with path.open("wb", buffering=0) as file:
        file.write(random.Random(SEED + number).randbytes(FILE_MIB * MIB))
        os.fsync(file.fileno())


def _writes(folder: str, done_mib: Synchronized[float], stop: Any) -> None:
    number = 1 << 20
    while not stop.is_set():
        write_file(Path(folder) / f"during-{number}", number)
        number += 1
        done_mib.value += FILE_MIB


def _reads(folder: str, files: int, done_mib: Synchronized[float], stop: Any) -> None:
    order = random.Random(SEED)
    while not stop.is_set():
        with (Path(folder) / f"before-{order.randrange(files)}").open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while data := file.read(MIB):
                done_mib.value += len(data) / MIB


class Clients:
    """Both programs, while the block runs."""

    def __init__(self, folder: Path, files: int) -> None:
        self._stop = _processes.Event()
        self._done: dict[str, Synchronized[float]] = {
            "written": _processes.Value("d", 0.0),
            "read": _processes.Value("d", 0.0),
        }
        self._programs = [
            _processes.Process(target=_writes, args=(str(folder), self._done["written"], self._stop)),
            _processes.Process(target=_reads, args=(str(folder), files, self._done["read"], self._stop)),
        ]

    def __enter__(self) -> Clients:
        for program in self._programs:
            program.start()
        deadline_s = time.monotonic() + WAIT_S
        while not all(done.value for done in self._done.values()):
            if time.monotonic() > deadline_s:
                raise TimeoutError("the clients do not begin")
            time.sleep(0.1)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for program in self._programs:
            program.join(WAIT_S)

    @contextlib.contextmanager
    def measuring(self) -> Iterator[dict[str, float]]:
        """MiB a second of each while the block runs; filled in at its end."""
        rates: dict[str, float] = {}
        before = {name: done.value for name, done in self._done.items()}
        began_s = time.monotonic()
        yield rates
        took_s = time.monotonic() - began_s
        rates.update({name: (done.value - before[name]) / took_s for name, done in self._done.items()})


# ---------------------------------------------------------------- the limit


def _serve(listener: socket.socket, files: list[str]) -> None:
    """Sends parts of a node's files to who connects; ends with the listener."""

    def one(connection: socket.socket) -> None:
        opened = [os.open(path, os.O_RDONLY) for path in files]
        with connection:
            while len(asked := connection.recv(_REQUEST.size, socket.MSG_WAITALL)) == _REQUEST.size:
                node, offset, length = _REQUEST.unpack(asked)
                while length:
                    sent = os.sendfile(connection.fileno(), opened[node], offset, length)
                    offset += sent
                    length -= sent

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=one, args=(connection,), daemon=True).start()


def _make(
    port: int, sizes: list[int], k: int, shard_bytes: int, folder: str, seed: int, count: int, barrier: Barrier
) -> None:
    """Makes so many files of a shard's size, each of k parts received from as many nodes' files; synced."""
    drawn = random.Random(seed)
    able = [node for node, size in enumerate(sizes) if size >= 2 * shard_bytes]
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(k)]
        buffers = [bytearray(shard_bytes) for _ in range(k)]
        barrier.wait(WAIT_S)
        for number in range(count):
            for connection, node in zip(connections, drawn.sample(able, k), strict=True):
                offset = drawn.randrange((sizes[node] - shard_bytes) >> 12) << 12
                connection.sendall(_REQUEST.pack(node, offset, shard_bytes))
            for connection, buffer in zip(connections, buffers, strict=True):
                connection.recv_into(buffer, shard_bytes, socket.MSG_WAITALL)
            with (Path(folder) / f"{seed}-{number}").open("wb", buffering=0) as file:
                file.write(buffers[0])
                os.fdatasync(file.fileno())


def limit(nodes: list[Path], k: int, shard_bytes: int, shards: int, folder: Path) -> float:
    """MiB of shards a second, by programs that do nothing else; as many at once as that many nodes make."""
    files = [max((f for f in node.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size) for node in nodes]
    drop_cache(nodes)
    folder.mkdir()
    makers = len(nodes) * TASKS_PER_NODE
    each = max(1, shards // makers)
    barrier = _processes.Barrier(makers + 1)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        server = _processes.Process(target=_serve, args=(listener, [str(f) for f in files]), daemon=True)
        server.start()
        port, sizes = listener.getsockname()[1], [f.stat().st_size for f in files]
        programs = [
            _processes.Process(target=_make, args=(port, sizes, k, shard_bytes, str(folder), seed, each, barrier))
            for seed in range(makers)
        ]
        for program in programs:
            program.start()
        barrier.wait(WAIT_S)
        began_s = time.monotonic()
        for program in programs:
            program.join(WAIT_S)
        took_s = time.monotonic() - began_s
        server.terminate()
        server.join(WAIT_S)
    shutil.rmtree(folder)
    return makers * each * shard_bytes / MIB / took_s


def drop_cache(folders: list[Path]) -> None:
    """Nothing of the files there stays in memory."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fdatasync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# ---------------------------------------------------------------- the run


class Bench:
    """One run: a pool and its mount."""

    def __init__(self, folder: Path, policy: Policy, protect: str, nodes: int) -> None:
        self.folder = folder
        self.policy = policy
        self.protect = protect
        self.nodes = nodes
        self.local = LocalPool(folder / "pool")
        self.mountpoint = folder / "mount"

    def start(self) -> None:
        """Pool up, volume mounted."""
        self.folder.mkdir(parents=True)
        self.local.start(self.nodes)
        with self.pool() as pool:
            pool.create_volume(VOLUME, self.protect)
        mounting.mount(self.local.pool_file().coordinator, VOLUME, self.mountpoint)

    def stop(self) -> None:
        """Everything down and removed, also after a failure half way."""
        with contextlib.suppress(Exception):
            mounting.unmount(self.mountpoint)
        if self.local.exists:
            self.local.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pool(self) -> Pool:
        """A connection to the pool."""
        return Pool.connect(str(self.local.folder))

    def fill(self, mib: int) -> int:
        """Writes so much; the number of files."""
        for number in range(mib // FILE_MIB):
            write_file(self.mountpoint / f"before-{number}", number)
        return mib // FILE_MIB

    def node_folders(self) -> list[Path]:
        """Of all nodes."""
        return [self.local.node(number).folder for number in self.local.node_numbers()]

    def rebuild(self, node_id: int) -> Rebuilt:
        """Takes a node out; returns when nothing of the pool is endangered any more."""
        with self.pool() as pool:
            pool.control_node(node_id, "out")
            began_s = time.monotonic()
            deadline_s = began_s + WAIT_S
            made = 0
            while (job := self._job(pool)) or not made:
                made = max(made, job.done_bytes if job else 0)
                if time.monotonic() > deadline_s:
                    raise TimeoutError(f"what node {node_id} held is not made anew after {WAIT_S:.0f} s")
                time.sleep(0.02)
            return Rebuilt(made / MIB, time.monotonic() - began_s)

    @staticmethod
    def _job(pool: Pool) -> pb.Job | None:
        return next((job for job in pool.jobs() if job.kind == "rebuild"), None)


def main() -> int:
    """Runs everything; 0 where it all worked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("bench-data"), help="scratch folder, removed afterwards")
    parser.add_argument("--protect", default="ec:4+2", help="protection policy of the volume")
    parser.add_argument("--nodes", type=int, default=8, help="nodes of the pool; two of them are taken out")
    parser.add_argument("--mib", type=int, default=1024, help="what is stored before")
    parser.add_argument("--json", type=Path, help="write the results here too")
    options = parser.parse_args()
    folder: Path = options.data.absolute()
    policy = parse_policy(options.protect)
    if folder.exists():
        print(f"bench: {folder} exists: remove it or choose another folder with --data", file=sys.stderr)
        return 2
    if options.nodes < policy.k + policy.m + 2:
        print(f"bench: two nodes are taken out: --nodes must be {policy.k + policy.m + 2} or more", file=sys.stderr)
        return 2
    bench = Bench(folder, policy, options.protect, options.nodes)
    try:
        bench.start()
        files = bench.fill(options.mib)
        shard_bytes = FILE_MIB * MIB // policy.k
        nodes = bench.node_folders()
        shards = options.mib * MIB // policy.k // shard_bytes
        most = limit(nodes[1:], policy.k, shard_bytes, shards, folder / "limit")
        drop_cache(nodes)
        alone = bench.rebuild(1)
        with Clients(bench.mountpoint, files) as clients:
            with clients.measuring() as before:
                time.sleep(BEFORE_S)
            with clients.measuring() as during:
                beside = bench.rebuild(2)
    finally:
        bench.stop()
    print("| | MiB/s | of |")
    print("|---|---:|---|")
    print(f"| the limit: shards made by plain programs | {most:,.0f} | |")
    for name, made in (("alone", alone), ("beside clients", beside)):
        print(f"| rebuild {name}, {made.mib:,.0f} MiB | {made.rate:,.0f} | {made.rate / most:.0%} of the limit |")
    for name in before:
        share = f"{during[name] / before[name]:.0%} of before"
        print(f"| clients, {name}: before | {before[name]:,.0f} | |")
        print(f"| clients, {name}: during the rebuild | {during[name]:,.0f} | {share} |")
    if options.json:
        results = {
            "limit": most,
            "alone": alone._asdict(),
            "beside": beside._asdict(),
            "before": before,
            "during": during,
        }
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
