"""Measures a RedFS mount beside a plain folder on the same disk, in one run on one machine.

    bench/run.py [--data DIR] [--protect ec:4+2] [--scale 1.0] [--json FILE]

Starts a pool of its own in DIR (removed afterwards), mounts a volume, and runs each workload on the plain folder and
on the mount, one after the other. Beside each of RedFS's rates stands what it took: round trips of the mount to the
coordinator, commits and durable transactions there, and the system calls of the mount process and of all the pool's
processes (where perf may count them). Coordinator, nodes and client share this machine's cores and disk, so a number
says what one small machine does, not what a cluster does.

Cold means: unmounted and mounted again, and the kernel's caches dropped (needs root; without it the run says so).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redfs.client import mounting
from redfs.client.api import Pool
from redfs.client.local_pool import LocalPool, running_pid

MIB = 1 << 20
SEED = 7
PERF_ENDS_S = 30.0
"""Of the random data, so that runs compare."""


@dataclass
class Measured:
    """One workload in one place."""

    rate: float
    unit: str
    seconds: float
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Workload:
    """What is timed. `run` returns how many units it did."""

    name: str
    unit: str
    run: Callable[[Path], float]
    cold: bool = False


def workloads(scale: float) -> list[Workload]:
    """In the order in which they must run: later ones use the files of earlier ones."""
    large_mib = max(8, int(256 * scale))
    files = max(50, int(2000 * scale))
    syncs = max(20, int(300 * scale))
    noise = random.Random(SEED).randbytes(8 * MIB)

    def write(place: Path) -> float:
        with (place / "large").open("wb", buffering=0) as file:
            for number in range(large_mib):
                # Shifted each time, so that no two blocks are equal and deduplication has nothing to find.
                start = (number * 4099) % (7 * MIB)
                file.write(number.to_bytes(8, "big") + noise[start : start + MIB - 8])
            os.fsync(file.fileno())
        return large_mib

    def read(place: Path) -> float:
        with (place / "large").open("rb", buffering=0) as file:
            while file.read(MIB):
                pass
        return large_mib

    def create(place: Path) -> float:
        (place / "empty").mkdir()
        for number in range(files):
            os.close(os.open(place / "empty" / f"file-{number}", os.O_CREAT | os.O_WRONLY, 0o644))
        return files

    def stat(place: Path) -> float:
        for number in range(files):
            os.stat(place / "empty" / f"file-{number}")
        return files

    def unlink(place: Path) -> float:
        for number in range(files):
            os.unlink(place / "empty" / f"file-{number}")
        return files

    def small_write(place: Path) -> float:
        (place / "small").mkdir()
        for number in range(files):
            with (place / "small" / f"file-{number}").open("wb", buffering=0) as file:
                file.write(number.to_bytes(8, "big") + noise[number : number + 4088])
        return files

    def small_read(place: Path) -> float:
        for number in range(files):
            (place / "small" / f"file-{number}").read_bytes()
        return files

    def synced(place: Path) -> float:
        with (place / "log").open("wb", buffering=0) as file:
            for number in range(syncs):
                file.write(number.to_bytes(8, "big") + noise[number : number + 4088])
                os.fsync(file.fileno())
        return syncs

    return [
        Workload("sequential write, fsync at the end", "MiB/s", write),
        Workload("sequential read, cold", "MiB/s", read, cold=True),
        Workload("create empty files", "files/s", create),
        Workload("stat, cold", "files/s", stat, cold=True),
        Workload("unlink", "files/s", unlink),
        Workload("write 4 KiB files", "files/s", small_write),
        Workload("read 4 KiB files, cold", "files/s", small_read, cold=True),
        Workload("4 KiB appends, fsync each", "appends/s", synced),
    ]


def drop_caches() -> bool:
    """The kernel's page, dentry and inode caches; False where we may not."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except PermissionError:
        return False
    return True


@contextlib.contextmanager
def counted_calls(pids: list[int]) -> Iterator[Callable[[], int | None]]:
    """Counts the system calls of processes with perf; the result is None where perf is missing or may not."""
    perf = shutil.which("perf")
    if perf is None or not pids:
        yield lambda: None
        return
    command = [perf, "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", ",".join(map(str, pids))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    result: list[int | None] = [None]
    try:
        yield lambda: result[0]
    finally:
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=PERF_ENDS_S)
        except subprocess.TimeoutExpired:  # a machine too busy to end it: the figure is left out, not the benchmark
            process.kill()
            process.communicate()
            errors = ""
        for line in errors.splitlines():
            first = line.split(",")[0]
            if first.isdigit():
                result[0] = int(first)


class Bench:
    """One run: a pool, a mount, a plain folder beside it."""

    def __init__(self, folder: Path, protect: str) -> None:
        self.plain = folder / "plain"
        self.mountpoint = folder / "mount"
        self.local = LocalPool(folder / "pool")
        self.protect = protect

    def start(self) -> None:
        """Pool up, volume there, mounted."""
        self.plain.mkdir(parents=True)
        self.local.start()
        with self.pool() as pool:
            pool.create_volume("bench", self.protect)
        self.mount()

    def stop(self) -> None:
        """Everything down and removed, also after a failure half way."""
        with contextlib.suppress(Exception):
            self.unmount()
        if self.local.exists:
            self.local.stop()
        shutil.rmtree(self.plain.parent, ignore_errors=True)

    def pool(self) -> Pool:
        """A connection to the pool."""
        return Pool.connect(str(self.local.folder))

    def mount(self) -> None:
        """Mounts the volume."""
        mounting.mount(self.local.pool_file().coordinator, "bench", self.mountpoint)

    def unmount(self) -> None:
        """Unmounts it, with everything written."""
        mounting.unmount(self.mountpoint)

    def mount_pids(self) -> list[int]:
        """The process behind the mount."""
        return [mounted.pid for mounted in self.local.mounts()]

    def pool_pids(self) -> list[int]:
        """Coordinator and nodes."""
        return [pid for member in self.local.members() if (pid := running_pid(member))]

    def measure(self, workload: Workload, *, plain: bool) -> Measured:
        """Runs one workload in one of the two places."""
        if workload.cold:
            if not plain:
                self.unmount()
                self.mount()
            drop_caches()
        if plain:
            began = time.perf_counter()
            done = workload.run(self.plain)
            seconds = time.perf_counter() - began
            return Measured(done / seconds, workload.unit, seconds)
        counts: dict[str, int] = {}
        with self.pool() as pool:
            before = pool.status()
            with counted_calls(self.mount_pids()) as of_mount, counted_calls(self.pool_pids()) as of_pool:
                began = time.perf_counter()
                done = workload.run(self.mountpoint)
                seconds = time.perf_counter() - began
            after = pool.status()
        counts["round_trips"] = after.requests - before.requests
        counts["commits"] = after.commits - before.commits
        counts["transactions"] = after.transactions - before.transactions
        for name, calls in (("mount_system_calls", of_mount()), ("pool_system_calls", of_pool())):
            if calls is not None:
                counts[name] = calls
        return Measured(done / seconds, workload.unit, seconds, counts)


def print_row(name: str, plain: Measured, redfs: Measured) -> None:
    """One line for people."""
    counts = ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in redfs.counts.items())
    print(f"{name:<36} {redfs.rate:>10,.0f} {plain.rate:>10,.0f} {redfs.unit:<10} {counts}", flush=True)


def main() -> int:
    """Runs everything; 0 where it all worked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("bench-data"), help="scratch folder, removed afterwards")
    parser.add_argument("--protect", default="ec:4+2", help="protection policy of the volume")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the workloads; 1.0 takes about a minute")
    parser.add_argument("--json", type=Path, help="write the results here too")
    options = parser.parse_args()
    folder: Path = options.data.absolute()
    if folder.exists():
        print(f"bench: {folder} exists: remove it or choose another folder with --data", file=sys.stderr)
        return 2
    bench = Bench(folder, options.protect)
    results: dict[str, Any] = {"protect": options.protect, "scale": options.scale, "cores": os.cpu_count()}
    results["caches_dropped"] = drop_caches()
    if not results["caches_dropped"]:
        print("bench: not root, so the kernel's caches stay warm: the cold rates of the plain folder mean little")
    try:
        bench.start()
        print(f"{options.protect:<36} {'redfs':>10} {'plain':>10}")
        for workload in workloads(options.scale):
            plain = bench.measure(workload, plain=True)
            redfs = bench.measure(workload, plain=False)
            results[workload.name] = {"plain": vars(plain), "redfs": vars(redfs)}
            print_row(workload.name, plain, redfs)
    finally:
        bench.stop()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
