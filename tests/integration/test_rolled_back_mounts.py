"""Volumes rolled back while they are mounted: what programs with open files, mappings and folders see, and keep."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.pools import RunningPool, wait_for
from tests.integration.test_snapshots import content_of

pytestmark = pytest.mark.mount

SIZE = 300_000
THEN_NS = 1_700_000_000_000_000_000


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def error_of(call: object, *args: object) -> int | None:
    """The errno that a call ends with; None where it works."""
    try:
        call(*args)  # type: ignore[operator]
    except OSError as error:
        return error.errno
    return None


def alike(place: Path, letter: bytes) -> None:
    """Files that look the same to the kernel, whatever the letter is. They are read, so that it knows their pages."""
    for name in ("same", "closed"):
        (place / name).write_bytes(letter * SIZE)
        os.utime(place / name, ns=(THEN_NS, THEN_NS))
        assert (place / name).read_bytes() == letter * SIZE


def test_a_mounted_volume_is_rolled_back_under_open_files(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "busy", "--protect", "ec:2+1")
    place = pool.mount("busy")
    alike(place, b"A")
    (place / "shorter").write_bytes(b"first\n")
    (place / "folder").mkdir()
    (place / "folder" / "removed").write_bytes(b"comes back")
    pool.redfs("snapshot", "create", "busy@one")
    before = content_of(place)

    alike(place, b"B")
    (place / "shorter").write_bytes(b"first\nsecond\n")
    (place / "folder" / "removed").unlink()
    (place / "later").mkdir()
    (place / "later" / "new").write_bytes(b"not synced")
    after = content_of(place)
    watching = pool.mount("busy", "--read-only")
    wait_for(lambda: content_of(watching).get("same") == b"B" * SIZE, "the other mount sees it")

    with (
        pool.api() as api,  # without the time that a command takes to start, in which the kernel forgets by itself
        opened(place / "same", os.O_RDWR) as same,
        opened(place / "shorter", os.O_WRONLY | os.O_APPEND) as shorter,
        opened(place / "later" / "new", os.O_RDWR) as new,
        opened(place / "later", os.O_RDONLY) as folder,
        opened(watching / "same", os.O_RDONLY) as watched,
        mmap.mmap(same, SIZE) as mapped,
    ):
        assert mapped[:] == b"B" * SIZE
        mapped[7:8] = b"M"  # never synced: the kernel has it, and the mount does not
        after["same"] = b"B" * 7 + b"M" + b"B" * (SIZE - 8)
        assert not (place / "folder" / "removed").exists()  # the kernel remembers that too
        assert (watching / "later" / "new").exists()
        assert api.roll_back("busy@one", keep="two").kept.name == "busy@two"

        assert (place / "folder" / "removed").exists()
        assert not (place / "later").exists()
        assert not (watching / "later" / "new").exists()
        assert mapped[:] == b"A" * SIZE
        assert os.pread(same, SIZE + 1, 0) == b"A" * SIZE
        assert os.pread(watched, SIZE, 0) == b"A" * SIZE
        assert content_of(place) == before
        assert content_of(watching) == before
        assert error_of(os.pread, new, 10, 0) == errno.ESTALE
        assert error_of(os.pwrite, new, b"x", 0) == errno.ESTALE
        assert error_of(os.fstat, new) == errno.ESTALE
        assert error_of(os.listdir, folder) in (errno.ESTALE, errno.ENOENT)
        os.write(shorter, b"appended\n")
        os.pwrite(same, b"C", 1)
        mapped[2:3] = b"D"
        mapped.flush()
        os.fsync(shorter)
    assert (place / "shorter").read_bytes() == b"first\nappended\n"
    assert (place / "same").read_bytes() == b"ACD" + b"A" * (SIZE - 3)

    kept = pool.mount("busy@two")
    assert content_of(kept) == after
    for where in (kept, watching):
        pool.umount(where)
    pool.redfs("rollback", "busy@two", "--discard", "--yes")
    assert content_of(place) == after
    pool.umount(place)
    place = pool.mount("busy")
    assert content_of(place) == after
    pool.umount(place)
    pool.wait_for_idle()
    pool.assert_clean()


def test_a_program_in_a_folder_that_is_no_more_gets_errors_and_the_mount_goes_on(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "stood-in", "--protect", "mirror:2")
    place = pool.mount("stood-in")
    (place / "old").mkdir()
    pool.redfs("snapshot", "create", "stood-in@one")
    (place / "new").mkdir()
    script = "echo; read line; ls ../old . || echo failed; touch x || echo failed; cd ../old 2>&1 && touch y; echo end"
    with subprocess.Popen(
        ["sh", "-c", script], cwd=place / "new", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as shell:  # fmt: skip
        assert shell.stdout is not None
        assert shell.stdout.readline() == "\n"
        pool.redfs("rollback", "stood-in@one")
        said, _ = shell.communicate("go\n", timeout=60)
    assert said.count("failed") == 2
    assert said.endswith("end\n")
    (place / "old" / "z").touch()
    assert os.listdir(place) == ["old"]
    pool.umount(place)


WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
number = 0
while True:
    number += 1
    os.write(fd, b"%07d\\n" % number)
    os.fsync(fd)
    print(number, flush=True)
"""


def test_whatever_was_synced_is_in_the_kept_snapshot_or_in_the_volume(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "written", "--protect", "mirror:2")
    place = pool.mount("written")
    (place / "log").write_bytes(b"")
    synced: list[int] = []
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(place / "log")], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        lines = iter(writer.stdout)
        reading = threading.Thread(target=lambda: synced.extend(int(line) for line in lines))
        reading.start()
        try:
            wait_for(lambda: len(synced) > 5, "the program writes")
            pool.redfs("snapshot", "create", "written@one")
            parts = []
            for keep in ("two", "three"):
                count = len(synced)
                wait_for(lambda count=count: len(synced) > count + 20, "the program writes on")  # type: ignore[misc]
                pool.redfs("rollback", "written@one", "--keep", keep)
                parts.append(len(synced))
            wait_for(lambda: len(synced) > parts[-1] + 20, "the program writes after it")
        finally:
            writer.kill()
            reading.join(60)
    shown = [(place / "log").read_bytes()]
    for keep in ("one", "two", "three"):
        kept = pool.mount(f"written@{keep}")
        shown.append((kept / "log").read_bytes())
        pool.umount(kept)
    numbers = [[int(line) for line in data.splitlines()] for data in shown]
    assert all(b"\0" not in data for data in shown), "appends go to the end that the file has"
    live, one, two, three = numbers
    for later in (live, two, three):
        assert later[: len(one)] == one
        assert later == sorted(later)
    assert two == list(range(1, len(two) + 1)), "all that was written before is kept"
    assert set(synced) <= set(live) | set(two) | set(three)
    assert three[len(one) :][0] > two[-1] - 1
    assert live[len(one) :][0] > three[-1] - 1
    pool.umount(place)


WORKER = """
import errno, mmap, os, random, sys
place, seed = sys.argv[1], int(sys.argv[2])
dice = random.Random(seed)
ALLOWED = {errno.ESTALE, errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR}
print("begun", flush=True)
while True:
    path = f"{place}/d{dice.randrange(3)}/f{dice.randrange(6)}"
    try:
        what = dice.randrange(7)
        if what == 0:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT)
            os.write(fd, dice.randbytes(dice.choice((10, 5000, 200_000))))
            os.fsync(fd)
            os.close(fd)
        elif what == 1:
            os.unlink(path)
        elif what == 2:
            os.rename(path, f"{place}/d{dice.randrange(3)}/f{dice.randrange(6)}")
        elif what == 3:
            os.listdir(os.path.dirname(path))
        elif what == 4:
            with open(path, "rb") as file:
                file.read()
        elif what == 5:
            fd = os.open(path, os.O_RDWR)
            size = os.fstat(fd).st_size
            if size > 4096:
                with mmap.mmap(fd, 4096) as mapped:
                    mapped[7] = 7
            os.close(fd)
        else:
            fd = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.write(fd, b"appended")
            os.close(fd)
    except OSError as error:
        if error.errno not in ALLOWED:
            print(f"{what}: {error}", flush=True)
            sys.exit(1)
"""


@pytest.mark.slow
def test_programs_at_work_go_on_over_many_roll_backs(fresh_pool: Callable[[int], RunningPool]) -> None:
    pool = fresh_pool(3)
    pool.redfs("volume", "create", "stormy", "--protect", "ec:2+1")
    place = pool.mount("stormy")
    (place / "d0").mkdir()
    (place / "d0" / "f0").write_bytes(b"first" * 10_000)
    pool.redfs("snapshot", "create", "stormy@s0")
    snapshots = ["stormy@s0"]
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(place), str(seed)], stdout=subprocess.PIPE, text=True)
        for seed in range(4)
    ]
    try:
        with pool.api() as api:
            for number in range(1, 13):
                kept = api.roll_back(snapshots[number * 7 % len(snapshots)], keep=f"s{number}").kept
                snapshots.append(kept.name)
            # A mapping of a file that is empty now ends its program as everywhere.
            ended = {worker.poll() for worker in workers} - {None, -signal.SIGBUS}
            assert not ended, "a program met an error that it should not"
            for worker in workers:
                worker.kill()
                worker.wait(60)
            api.roll_back(snapshots[5], keep="last")
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate(timeout=60)
    shown = content_of(place)
    frozen = pool.mount(snapshots[5])
    assert shown == content_of(frozen)
    pool.umount(frozen)
    pool.umount(place)
    again = pool.mount("stormy")
    assert content_of(again) == shown
    pool.umount(again)
    pool.wait_for_idle()
    pool.assert_clean()


def test_folders_that_the_roll_back_moved_are_found_while_others_are_renamed(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "moved", "--protect", "ec:2+1")
    place = pool.mount("moved")
    for name in ("here", "there", "left", "right"):
        (place / name).mkdir()
    folders = [f"folder-{number}" for number in range(100)]
    for name in folders:
        (place / "here" / name).mkdir()
    for number in range(3):
        (place / "left" / f"{number}").touch()
    pool.redfs("snapshot", "create", "moved@before")
    for name in folders:
        (place / "here" / name).rename(place / "there" / name)
    rename_for_ever = """
import os, sys
name = sys.argv[1]
os.rename("left/" + name, "right/" + name)
print("begun", flush=True)
while True:
    os.rename("right/" + name, "left/" + name)
    os.rename("left/" + name, "right/" + name)
"""
    pool.redfs("rollback", "moved@before", "--discard", "--yes")
    renaming = [
        subprocess.Popen([sys.executable, "-c", rename_for_ever, f"{n}"], cwd=place, stdout=subprocess.PIPE)
        for n in range(3)
    ]
    try:
        for program in renaming:
            assert program.stdout is not None
            assert program.stdout.readline() == b"begun\n"
        # The kernel moves a folder that it knows elsewhere only while nothing is renamed; of three, one always is.
        assert [name for name in folders if error_of(os.stat, place / "here" / name)] == []
        assert [program.poll() for program in renaming] == [None] * 3
    finally:
        for program in renaming:
            program.kill()
            program.communicate()
    pool.umount(place)
