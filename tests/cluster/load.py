"""Files whose content is known: written, synced, read back and compared, while everything else breaks.

Runs in a client's container (Python's own library only) or on a host:

    load.py run FOLDER RECORDS --seed S --pause SECONDS [--beside FOLDER]    until RECORDS/stop is there
    load.py check FOLDER RECORDS                           everything that was acknowledged is there

BESIDE is another mount of FOLDER, read-only, which may lag behind: files that were synced some time ago are read there.

A file's bytes follow from its name and their place alone. Files are created and appended to, and each change is synced;
RECORDS/acknowledged gets a line before it (`begun`, how long the file may be now) and one after fsync has returned
(`synced`, how long it must be). A file that is removed has a line before (`removing`). So what a crash leaves is known:
at least the synced length, at most the begun one, and every byte as its place wants it.

An operation that fails is done again until it works or PAUSE seconds are over, counted from when it was begun; one that
took longer is a failed request, and kept in RECORDS/result.json with what errors were seen on the way. RECORDS/progress
has the number of operations that were done, and how many of them were reads of BESIDE, for who waits for some more.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_FILES = 150
MAX_BYTES = 48 << 20
"""Of all files together: a small disk holds it with its protection."""
SMALL_BYTES, MEDIUM_BYTES, LARGE_BYTES = 20_000, 300_000, 3 << 20
RETRY_S = 0.2
LAG_S = 2.5
"""A read-only mount asks again after a second, and a kernel keeps what it was told for another."""
MAX_ERRORS = 200
"""Kept word by word; more are only counted."""
CHUNK_BYTES = 32


def content(key: str, start: int, length: int) -> bytes:
    """Bytes of the file with that key: blocks of SHAKE-128, so that any range can be made by itself."""
    unit = 1 << 16
    first, last = start // unit, (start + length + unit - 1) // unit
    text = b"".join(hashlib.shake_128(f"{key}/{number}".encode()).digest(unit) for number in range(first, last))
    return text[start - first * unit :][:length]


class Load:
    """One run over a folder."""

    def __init__(self, folder: Path, records: Path, seed: int, pause_s: float, beside: Path | None = None) -> None:
        self.folder = folder
        self.beside = beside
        self.records = records
        self.pause_s = pause_s
        self.random = random.Random(seed)
        self.seed = seed
        self.files: dict[str, int] = {}
        self.synced_s: dict[str, float] = {}
        """When they were changed last; monotonic."""
        self.made = 0
        self.journal = (records / "acknowledged").open("a", buffering=1)
        self.result: dict[str, Any] = {
            "operations": 0,
            "written_bytes": 0,
            "read_bytes": 0,
            "reads_beside": 0,
            "longest_s": 0.0,
            "errors": [],
            "error_count": 0,
            "failed": [],
            "wrong": [],
        }

    def run(self) -> None:
        """Until told to stop."""
        try:
            while not (self.records / "stop").exists():
                self.one()
                self.result["operations"] += 1
                self.publish("progress", f"{self.result['operations']} {self.result['reads_beside']}")
        finally:
            self.publish("result.json", json.dumps(self.result))

    def publish(self, name: str, text: str) -> None:
        beside = self.records / f".{name}"
        beside.write_text(text)
        beside.replace(self.records / name)

    def one(self) -> None:
        """One operation, drawn."""
        what = self.random.random()
        if len(self.files) >= MAX_FILES or sum(self.files.values()) > MAX_BYTES:
            self.remove(next(iter(self.files)))
        elif what < 0.35 or not self.files:
            self.made += 1
            self.append(f"file-{self.seed}-{self.made}")
        elif what < 0.6:
            self.append(self.random.choice(list(self.files)))
        elif what < 0.95:
            self.read(self.random.choice(list(self.files)))
        else:
            self.remove(self.random.choice(list(self.files)))

    def append(self, name: str) -> None:
        draw = self.random.random()
        most = SMALL_BYTES if draw < 0.6 else MEDIUM_BYTES if draw < 0.95 else LARGE_BYTES
        start = self.files.get(name, 0)
        end = start + self.random.randint(1, most)
        self.note("begun", name, end)
        text = content(name, start, end - start)

        def do() -> None:
            with (self.folder / name).open("ab" if start else "wb", buffering=0) as file:
                # What was written before a failure is there already, or not: an append goes on where the file ends.
                file.seek(0, os.SEEK_END)
                there = file.tell()
                if not start <= there <= end:
                    raise OSError(f"{name} has {there} bytes, not {start} to {end}")
                left = memoryview(text)[there - start :]
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())

        if self.tried(f"append to {name}", do):
            self.files[name] = end
            self.synced_s[name] = time.monotonic()
            self.result["written_bytes"] += end - start
            self.note("synced", name, end)
        else:
            self.files.pop(name, None)  # its length is not known any more: the check takes what it may be

    def read(self, name: str) -> None:
        size = self.files[name]
        start = self.random.randrange(size)
        length = min(size - start, self.random.choice((4096, 100_000, size)))
        folder = self.folder
        if self.beside is not None and time.monotonic() - self.synced_s[name] > LAG_S:
            folder = self.beside

        def do() -> None:
            with (folder / name).open("rb", buffering=0) as file:
                with contextlib.suppress(OSError):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                found = b""
                while len(found) < length and (
                    more := os.pread(file.fileno(), length - len(found), start + len(found))
                ):
                    found += more
            if found != content(name, start, length):
                self.result["wrong"].append(f"{name}: {start}+{length}: {first_difference(name, start, found)}")

        if self.tried(f"read {name}", do):
            self.result["read_bytes"] += length
            self.result["reads_beside"] += folder is self.beside

    def remove(self, name: str) -> None:
        self.note("removing", name, 0)
        del self.files[name]

        def do() -> None:
            with contextlib.suppress(FileNotFoundError):
                (self.folder / name).unlink()

        self.tried(f"remove {name}", do)

    def tried(self, what: str, do: Callable[[], None]) -> bool:
        """Done again until it works. False where the pause was over before."""
        began_s = time.monotonic()
        self.publish("doing", what)
        while True:
            try:
                do()
            except OSError as error:
                after_s = time.monotonic() - began_s
                print(f"{what}: {error} after {after_s:.1f} s", flush=True)
                self.result["error_count"] += 1
                if len(self.result["errors"]) < MAX_ERRORS:
                    self.result["errors"].append(f"{what}: {error} after {after_s:.1f} s")
                if after_s <= self.pause_s and not (self.records / "stop").exists():
                    time.sleep(RETRY_S)
                    continue
                self.result["failed"].append(f"{what}: {error} after {after_s:.1f} s")
                return False
            took_s = time.monotonic() - began_s
            self.result["longest_s"] = max(self.result["longest_s"], took_s)
            if took_s > self.pause_s:
                self.result["failed"].append(f"{what}: took {took_s:.1f} s")
            return True

    def note(self, what: str, name: str, size: int) -> None:
        self.journal.write(f"{what} {name} {size}\n")


def first_difference(name: str, start: int, found: bytes) -> str:
    wanted = content(name, start, len(found))
    for place, (a, b) in enumerate(zip(found, wanted, strict=True)):
        if a != b:
            return f"other bytes from {start + place}: {found[place : place + CHUNK_BYTES].hex()}"
    return f"ends at {start + len(found)}"


def check(folder: Path, records: Path) -> list[str]:
    """What is not as the acknowledged lines want it; empty where all is."""
    least: dict[str, int] = {}
    most: dict[str, int] = {}
    removed = set()
    for line in (records / "acknowledged").read_text().splitlines():
        what, name, size = line.split()
        if what == "begun":
            most[name] = int(size)
            least.setdefault(name, 0)
        elif what == "synced":
            least[name] = int(size)
        else:
            removed.add(name)
    problems = []
    for name in most:
        try:
            found = (folder / name).read_bytes()
        except FileNotFoundError:
            if least[name] and name not in removed:
                problems.append(f"{name} is gone, {least[name]} bytes of it were synced")
            continue
        except OSError as error:
            problems.append(f"{name}: {error}")
            continue
        if name not in removed and len(found) < least[name]:
            problems.append(f"{name} has {len(found)} bytes, {least[name]} were synced")
        if len(found) > most[name]:
            problems.append(f"{name} has {len(found)} bytes, {most[name]} were written")
        elif found != content(name, 0, len(found)):
            problems.append(f"{name}: {first_difference(name, 0, found)}")
    extra = {path.name for path in folder.iterdir()} - set(most)
    return problems + [f"{name} was never made" for name in sorted(extra)]


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description="writes, syncs, reads back and compares")
    parser.add_argument("what", choices=["run", "check"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("records", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=60.0)
    parser.add_argument("--beside", type=Path)
    given = parser.parse_args()
    if given.what == "run":
        Load(given.folder, given.records, given.seed, given.pause, given.beside).run()
        return 0
    problems = check(given.folder, given.records)
    print(json.dumps(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
