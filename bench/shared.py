"""Measures what it costs that several hosts share a volume, beside one host that has it alone, in one run.

    bench/shared.py [--data DIR] [--protect ec:4+2] [--scale 1.0] [--json FILE]

Starts a pool of its own in DIR (removed afterwards). Hosts are mounts of one volume on this machine, each a process of
its own with a program of its own: they do not share a mount, but do share the machine's cores and disk with the pool,
so more hosts cannot be faster than its cores are. Prints tables in Markdown.

- Alone: the volume is mounted once, in exclusive mode.
- Shared by 1: mounted twice, and one of them is idle; by 2, by 4: as many programs at once.
- Each operation in one folder for all hosts, and in a folder for each; the rate is that of all hosts together.
- Reading: each host reads a file that another one wrote, for the first time; alone, after a new mount.
- Recall: how long another host waits for its first access while the first one has the volume alone, from the request
  to the answer; with nothing to write back, and with data that was just written and not synced.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple

from redfs.client import mounting
from redfs.client.api import Pool
from redfs.client.local_pool import LocalPool
from redfs.client.session import CoordinatorSession
from redfs.proto.gen import cluster_pb2 as pb

MIB = 1 << 20
VOLUME = "shared"
MOST_HOSTS = 4
HOSTS = (1, 2, 4)
DIRTY_MIB = 64
RECALLS = 5
WAIT_S = 120.0
POLL_S = 0.02
SEED = 7
"""Of the random data, so that runs compare."""
_processes = multiprocessing.get_context("spawn")


class Workload(NamedTuple):
    """What is timed. `run` is given the host's folder, its number and how much to do, and returns how much it did."""

    name: str
    unit: str
    run: Callable[[Path, int, int], float]
    amount: int
    in_folders: bool = True
    """Measured in one folder and in separate ones; else once."""


# ---------------------------------------------------------------- what a program does


def _create(folder: Path, host: int, count: int) -> float:
    for number in range(count):
        os.close(os.open(folder / f"file-{host}-{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    return count


def _stat(folder: Path, host: int, count: int) -> float:
    for number in range(count):
        os.stat(folder / f"file-{host}-{number}")
    return count


def _unlink(folder: Path, host: int, count: int) -> float:
    for number in range(count):
        os.unlink(folder / f"file-{host}-{number}")
    return count


def _mkdir(folder: Path, host: int, count: int) -> float:
    for number in range(count):
        (folder / f"folder-{host}-{number}").mkdir()
    return count


def _small(folder: Path, host: int, count: int) -> float:
    noise = random.Random(SEED + host).randbytes(4096 + count)
    for number in range(count):
        with (folder / f"small-{host}-{number}").open("xb", buffering=0) as file:
            file.write(noise[number : number + 4096])
    return count


def _write(folder: Path, host: int, mib: int) -> float:
    write_noise(folder / f"large-{host}", mib, host)
    return mib


def _read(folder: Path, host: int, mib: int) -> float:
    with (folder / f"large-{host}").open("rb", buffering=0) as file:
        while file.read(MIB):
            pass
    return mib


def write_noise(path: Path, mib: int, seed: int, *, sync: bool = True) -> None:
    """Writes a file in which no two blocks are equal, and none equals one of another seed."""
    noise = random.Random(SEED + seed).randbytes(8 * MIB)
    with path.open("wb", buffering=0) as file:
        for number in range(mib):
            start = (number * 4099) % (7 * MIB)
            file.write(number.to_bytes(8, "big") + noise[start : start + MIB - 8])
        if sync:
            os.fsync(file.fileno())


def workloads(scale: float) -> list[Workload]:
    """In the order in which they must run: later ones use the files of earlier ones."""
    many, some, mib = max(20, int(400 * scale)), max(10, int(150 * scale)), max(8, int(64 * scale))
    return [
        Workload("create an empty file, close", "files/s", _create, many),
        Workload("stat", "files/s", _stat, many),
        Workload("unlink", "files/s", _unlink, many),
        Workload("mkdir", "folders/s", _mkdir, many),
        Workload("create, write 4 KiB, close", "files/s", _small, some),
        Workload("write 1 MiB at a time, fsync", "MiB/s", _write, mib, in_folders=False),
        Workload("read 1 MiB at a time", "MiB/s", _read, mib, in_folders=False),
    ]


def _program(
    run: Callable[[Path, int, int], float], folder: Path, host: int, amount: int, barrier: Barrier, results: Any
) -> None:
    barrier.wait(WAIT_S)
    began_s = time.monotonic()
    done = run(folder, host, amount)
    results.put((began_s, time.monotonic(), done))


# ---------------------------------------------------------------- the run


class Bench:
    """One run: a pool and its mounts."""

    def __init__(self, folder: Path, protect: str) -> None:
        self.folder = folder
        self.protect = protect
        self.local = LocalPool(folder / "pool")
        self.mounts = [folder / f"host-{host}" for host in range(MOST_HOSTS)]
        self.mounted: set[int] = set()
        self._rounds = 0

    def start(self) -> None:
        """Pool up, volume there."""
        self.folder.mkdir(parents=True)
        self.local.start()
        with self.pool() as pool:
            pool.create_volume(VOLUME, self.protect)

    def stop(self) -> None:
        """Everything down and removed, also after a failure half way."""
        for host in list(self.mounted):
            with contextlib.suppress(Exception):
                self.unmount(host)
        if self.local.exists:
            self.local.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pool(self) -> Pool:
        """A connection to the pool."""
        return Pool.connect(str(self.local.folder))

    def mount(self, host: int) -> None:
        """Mounts the volume as one that may be shared."""
        mounting.mount(self.local.pool_file().coordinator, VOLUME, self.mounts[host], shared=True)
        self.mounted.add(host)

    def unmount(self, host: int) -> None:
        """Unmounts it, with everything written."""
        self.mounted.discard(host)
        mounting.unmount(self.mounts[host])

    def mount_just(self, count: int) -> None:
        """So many hosts have it mounted."""
        for host in range(count, MOST_HOSTS):
            if host in self.mounted:
                self.unmount(host)
        for host in range(count):
            if host not in self.mounted:
                self.mount(host)
        self.wait_for_mode(shared=count > 1)

    def wait_for_mode(self, *, shared: bool) -> None:
        """Until the volume is in shared mode, or is not any more."""
        deadline = time.monotonic() + WAIT_S
        with self.pool() as pool:
            while pool.volume(VOLUME).in_shared_mode != shared:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the volume does not come to be {'shared' if shared else 'exclusive'}")
                time.sleep(POLL_S)

    def measure(self, workload: Workload, hosts: Sequence[int], folders: Sequence[Path]) -> float:
        """The rate of all programs together, from when the first begins to when the last has ended."""
        barrier = _processes.Barrier(len(hosts))
        results: Any = _processes.Queue()
        programs = [
            _processes.Process(target=_program, args=(workload.run, folder, host, workload.amount, barrier, results))
            for host, folder in zip(hosts, folders, strict=True)
        ]
        for program in programs:
            program.start()
        try:
            ended = [results.get(timeout=WAIT_S) for _ in programs]
        finally:
            for program in programs:
                program.join(WAIT_S)
        took_s = max(end for _, end, _ in ended) - min(begin for begin, _, _ in ended)
        return float(sum(done for _, _, done in ended) / took_s)

    def rates(self, scale: float, count: int, *, alone: bool) -> dict[str, float]:
        """All workloads with so many hosts at work: name -> rate."""
        self.mount_just(1 if alone else max(2, count))
        found: dict[str, float] = {}
        for together in (True, False):
            self._rounds += 1
            top = self.mounts[0] / f"round-{self._rounds}"
            top.mkdir()
            for host in range(count):
                (top / f"of-{host}").mkdir()
            for workload in workloads(scale):
                if not together and not workload.in_folders:
                    continue
                if workload.run is _read:
                    found[workload.name] = self._measure_reading(workload, top.name, count, alone=alone)
                    continue
                names = ["." if together or not workload.in_folders else f"of-{host}" for host in range(count)]
                folders = [self.mounts[host] / top.name / name for host, name in enumerate(names)]
                key = workload.name if not workload.in_folders else f"{workload.name}{'' if together else ', separate'}"
                found[key] = self.measure(workload, range(count), folders)
        return found

    def _measure_reading(self, workload: Workload, folder: str, count: int, *, alone: bool) -> float:
        """Each host reads what another one wrote."""
        if alone:
            self.unmount(0)
            self.mount(0)
        elif count == 1:
            write_noise(self.mounts[1] / folder / "large-0", workload.amount, SEED)
        # The one who reads host n's file is host n + 1, which only its mount knows.
        readers = [(host + 1) % count for host in range(count)]
        return self.measure(workload, range(count), [self.mounts[reader] / folder for reader in readers])

    async def recalls(self, dirty_mib: int) -> list[float]:
        """Some recalls of a volume whose holder has so much to write: seconds that another host waits to be let in."""
        await asyncio.to_thread(self.mount_just, 1)
        times = []
        for number in range(RECALLS):
            await asyncio.to_thread(self.wait_for_mode, shared=False)
            if dirty_mib:
                await asyncio.to_thread(write_noise, self.mounts[0] / "dirty", dirty_mib, 1000 + number, sync=False)
            session = await CoordinatorSession.open(str(self.local.folder), "bench")
            try:
                began_s = time.monotonic()
                await session.call(attach=pb.Attach(name=VOLUME, shared=True))
                times.append(time.monotonic() - began_s)
            finally:
                await session.close()
        return times

    async def all_recalls(self) -> dict[int, list[float]]:
        """MiB that the holder has not synced -> times."""
        return {dirty_mib: await self.recalls(dirty_mib) for dirty_mib in (0, DIRTY_MIB)}


def print_rates(rates: dict[str, dict[str, float]], scale: float) -> None:
    """The table of rates."""
    columns = list(rates)
    print(f"| | unit | {' | '.join(columns)} |")
    print(f"|---|---|{'---:|' * len(columns)}")
    for workload in workloads(scale):
        for key, label in ((workload.name, ", one folder"), (f"{workload.name}, separate", ", separate folders")):
            if key not in rates[columns[0]]:
                continue
            shown = f"{workload.name}{label if workload.in_folders else ', a file each'}"
            values = " | ".join(f"{rates[column][key]:,.0f}" for column in columns)
            print(f"| {shown} | {workload.unit} | {values} |")


def main() -> int:
    """Runs everything; 0 where it all worked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("bench-data"), help="scratch folder, removed afterwards")
    parser.add_argument("--protect", default="ec:4+2", help="protection policy of the volume")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the workloads; 1.0 takes some minutes")
    parser.add_argument("--json", type=Path, help="write the results here too")
    options = parser.parse_args()
    folder: Path = options.data.absolute()
    if folder.exists():
        print(f"bench: {folder} exists: remove it or choose another folder with --data", file=sys.stderr)
        return 2
    bench = Bench(folder, options.protect)
    results: dict[str, Any] = {"protect": options.protect, "scale": options.scale, "cores": os.cpu_count()}
    try:
        bench.start()
        rates = {"alone": bench.rates(options.scale, 1, alone=True)}
        for count in HOSTS:
            rates[f"shared by {count}"] = bench.rates(options.scale, count, alone=False)
        print_rates(rates, options.scale)
        print("\n| recall, the holder has | median | longest |\n|---|---:|---:|")
        for dirty_mib, times in asyncio.run(bench.all_recalls()).items():
            results[f"recall with {dirty_mib} MiB"] = times
            label = f"{dirty_mib} MiB not synced" if dirty_mib else "nothing to write"
            print(f"| {label} | {statistics.median(times):.2f} s | {max(times):.2f} s |", flush=True)
        results["rates"] = rates
    finally:
        bench.stop()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
