"""SQLite in both journal modes: writers and the mount are killed in the middle; what was acknowledged is there."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from tests.programs.place import Place, kill

COMMITS = 60
"""Of each writer before it is killed."""
WRITERS = 2
ROUNDS = 2
WAIT_S = 600.0

_WRITER = """
import random, sqlite3, sys, time
path, journal, writer, first = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
db = sqlite3.connect(path, timeout=60, isolation_level=None)
db.execute(f"pragma journal_mode={journal}")
db.execute("pragma synchronous=extra")  # with full the end of a DELETE journal may be lost, and so the last commit
number = first
while True:
    began_s = time.monotonic()
    db.execute("begin immediate")
    db.execute("insert into entries values (?, ?, ?)", (writer, number, f"{number}" * 300))
    db.execute("update counters set number = number + 1")
    db.execute("commit")
    print(number, flush=True)
    number += 1
    # Who waits for the lock looks again after longer and longer times, and would never find it free where transactions
    # take much longer than what is between them.
    time.sleep(random.random() * max(0.02, time.monotonic() - began_s))
"""


def check_sqlite(place: Place) -> None:
    """WAL and DELETE journals: kill -9 of writers and of the mount; integrity, and every acknowledged transaction."""
    for journal in ("wal", "delete"):
        path = place.folder / f"{journal}.db"
        with contextlib.closing(_open(path)) as db:
            db.execute(f"pragma journal_mode={journal}")
            db.execute("create table entries (writer, number, text, primary key (writer, number))")
            db.execute("create table counters (number)")
            db.execute("insert into counters values (0)")
        next_numbers = [0] * WRITERS
        for turn in range(ROUNDS + (place.kill_mount is not None)):
            writers = [_start(path, journal, n, next_numbers[n]) for n in range(WRITERS)]
            try:
                acknowledged = [_read(one, place.times(COMMITS)) for one in writers]
                if turn == ROUNDS and place.kill_mount is not None:
                    place.kill_mount()
            finally:
                kill(writers)
            acknowledged = [[*some, *_rest(one)] for some, one in zip(acknowledged, writers, strict=True)]
            if turn >= ROUNDS - 1:
                place.remounted()
            next_numbers = _look(place.other_view / path.name, acknowledged)


def _start(path: Path, journal: str, writer: int, first: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), journal, str(writer), str(first)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def _read(writer: subprocess.Popen[str], count: int) -> list[int]:
    """The next numbers that a writer was told are committed."""
    assert writer.stdout is not None
    deadline = time.monotonic() + WAIT_S * max(1, count // COMMITS)
    lines: list[int] = []
    while len(lines) < count:
        line = writer.stdout.readline()
        assert line, "a writer ended by itself"
        assert time.monotonic() < deadline, "a writer does not get on"
        lines.append(int(line))
    return lines


def _rest(writer: subprocess.Popen[str]) -> list[int]:
    assert writer.stdout is not None
    with writer.stdout as out:
        return [int(line) for line in out.read().splitlines(keepends=True) if line.endswith("\n")]


def _look(path: Path, acknowledged: list[list[int]]) -> list[int]:
    """Checks the database; the number after each writer's last."""
    with contextlib.closing(_open(path)) as db:
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
        (total,) = db.execute("select count(*) from entries").fetchone()
        assert db.execute("select number from counters").fetchone() == (total,), "half a transaction is there"
        after = []
        for writer, numbers in enumerate(acknowledged):
            there = [n for (n,) in db.execute("select number from entries where writer = ? order by 1", (writer,))]
            assert there == list(range(len(there))), "a transaction in the middle is missing"
            assert len(there) > numbers[-1], f"{numbers[-1] - len(there) + 1} acknowledged transactions are lost"
            after.append(len(there))
    return after


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=60, isolation_level=None)
