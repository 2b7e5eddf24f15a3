"""Volumes mounted by several hosts at once, with real mounts: what one does, the others see, whatever is open.

The hosts are mounts of one machine here; `tests/hosts` has hosts with networks of their own, and breaks those.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from redfs.client.local_pool import process_is_alive
from tests.integration.pools import RunningPool, wait_for

pytestmark = pytest.mark.mount

THEN_NS = 1_700_000_000_000_000_000
APPENDER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for number in range(int(sys.argv[3])):
    os.write(fd, f"{sys.argv[2]} {number}\\n".encode())
"""
RACER = """
import os, sys
won = 0
for number in range(int(sys.argv[2])):
    try:
        os.close(os.open(f"{sys.argv[1]}/{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        won += 1
    except FileExistsError:
        pass
print(won)
"""

WRITER = """
import mmap, os, struct, sys
told = mmap.mmap(os.open(sys.argv[2], os.O_RDWR), 4096)
fd = os.open(sys.argv[1], os.O_RDWR)
for number in range(1, int(sys.argv[3]) + 1):
    os.pwrite(fd, struct.pack("<Q", number) * 512, 4096)
    told[:8] = struct.pack("<Q", number)
told[8] = 1
"""
OWN_WRITER = """
import mmap, os, sys
told = mmap.mmap(os.open(sys.argv[2], os.O_RDWR), 4096)
fd = os.open(sys.argv[1], os.O_RDWR)
while not told[8]:
    os.pwrite(fd, os.urandom(8), 0)
"""
READER = """
import mmap, os, struct, sys
told = mmap.mmap(os.open(sys.argv[2], os.O_RDWR), 4096)
fd = os.open(sys.argv[1], os.O_RDWR)
while not told[8]:
    written, = struct.unpack("<Q", told[:8])
    found = set(struct.unpack("<512Q", os.pread(fd, 4096, 4096)))
    assert len(found) == 1, found
    assert found.pop() >= written
"""


def two_mounts(pool: RunningPool, volume: str) -> tuple[Path, Path]:
    pool.redfs("volume", "create", volume, "--protect", "ec:2+1")
    return pool.mount(volume, "--shared"), pool.mount(volume, "--shared")


def in_shared_mode(pool: RunningPool, volume: str) -> bool:
    with pool.api() as api:
        return api.volume(volume).in_shared_mode


def pid_of(pool: RunningPool, where: Path) -> int:
    return next(mounted.pid for mounted in pool.local.mounts() if Path(mounted.mountpoint) == where)


def sizes_in(folder: Path) -> dict[str, int]:
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_size for entry in entries}


def run_both(program: str, first: list[str], second: list[str]) -> list[str]:
    """Two processes at once; what they print."""
    both = [
        subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True)
        for words in (first, second)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    return outputs


def test_a_second_writer_must_be_asked_for(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "alone", "--protect", "ec:2+1")
    first = pool.mount("alone")
    code, text = pool.refused("mount", "alone", str(pool.folder / "second"), "--shared")
    assert code == 5
    assert "mount both with --shared" in text
    pool.umount(first)
    first = pool.mount("alone", "--shared")
    code, text = pool.refused("mount", "alone", str(pool.folder / "second"))
    assert code == 5
    assert "mount both with --shared" in text
    pool.redfs("volume", "set", "alone", "--shared")
    second = pool.mount("alone")
    (first / "a").write_text("seen")
    assert (second / "a").read_text() == "seen"
    pool.umount(first)
    pool.umount(second)
    pool.assert_clean()


def test_files_stay_open_while_the_volume_begins_and_ends_to_be_shared(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "passing", "--protect", "ec:2+1")
    first = pool.mount("passing", "--shared")
    with open(first / "log", "ab", buffering=0) as log, open(first / "gone", "w+b", buffering=0) as gone:
        log.write(b"alone\n")
        gone.write(b"without a name")
        (first / "gone").unlink()
        second = pool.mount("passing", "--shared")
        assert in_shared_mode(pool, "passing")
        assert (second / "log").read_bytes() == b"alone\n"
        with open(second / "log", "ab", buffering=0) as other:
            other.write(b"from the other\n")
            log.write(b"shared\n")
        assert os.pread(gone.fileno(), 100, 0) == b"without a name"
        pool.umount(second)
        wait_for(lambda: not in_shared_mode(pool, "passing"), "the volume is one mount's again")
        log.write(b"alone again\n")
        assert (first / "log").read_bytes() == b"alone\nfrom the other\nshared\nalone again\n"
        assert os.pread(gone.fileno(), 100, 0) == b"without a name"
    pool.umount(first)
    pool.wait_for_idle()
    pool.assert_clean()


def test_what_one_host_did_the_other_sees_at_once(pool: RunningPool) -> None:
    first, second = two_mounts(pool, "seen")
    for number in range(20):
        one, other = (first, second) if number % 2 else (second, first)
        (one / "folder").mkdir()
        assert (other / "folder").is_dir()
        (other / "folder" / "file").write_bytes(b"%d" % number * 5000)
        assert (one / "folder" / "file").read_bytes() == b"%d" % number * 5000
        os.truncate(one / "folder" / "file", 7)
        assert (other / "folder" / "file").stat().st_size == 7
        (other / "folder" / "file").rename(other / "moved")
        assert sorted(os.listdir(one)) == ["folder", "moved"]
        (one / "moved").chmod(0o600)
        os.setxattr(one / "moved", "user.kept", b"%d" % number)
        assert (other / "moved").stat().st_mode & 0o777 == 0o600
        assert os.getxattr(other / "moved", "user.kept") == b"%d" % number
        (other / "moved").unlink()
        (one / "folder").rmdir()
        assert os.listdir(other) == []
    pool.umount(first)
    pool.umount(second)
    pool.assert_clean()


def test_new_files_are_seen_whole_whoever_looks_and_however(pool: RunningPool) -> None:
    first, second = two_mounts(pool, "held")
    looks: list[Callable[[Path], object]] = [
        Path.read_bytes,
        lambda file: bytes(file.stat().st_size),
        lambda file: bytes(sizes_in(file.parent)[file.name]),
        lambda file: file.rename(file.with_name("moved")).read_bytes(),
    ]
    for number in range(24):
        one, other = (first, second) if number % 2 else (second, first)
        content = os.urandom(4096 * (number % 3) + number)
        (one / "f").write_bytes(content)
        mtime_ns = (one / "f").stat().st_mtime_ns
        seen = looks[number % 4](other / "f")
        assert seen == content or seen == bytes(len(content))
        left = other / ("moved" if number % 4 == 3 else "f")
        assert left.read_bytes() == content
        assert {left.stat().st_mtime_ns, (one / left.name).stat().st_mtime_ns} == {mtime_ns}
        with open(one / left.name, "ab") as more:
            more.write(b"more")
        assert left.read_bytes() == content + b"more"
        left.unlink()
    for number in range(600):
        (first / str(number)).write_bytes(b"%d" % number * 100)
    assert sizes_in(second) == {str(number): len(str(number)) * 100 for number in range(600)}
    pool.redfs("snapshot", "create", "held@s")
    (second / "new").write_bytes(b"kept at the host that made it")
    pool.redfs("snapshot", "create", "held@t")
    snapshots = second / ".snapshots"
    assert (snapshots / "t" / "new").read_bytes() == b"kept at the host that made it"
    assert not (snapshots / "s" / "new").exists()
    (second / "last").write_bytes(b"before unmounting")
    pool.umount(second)
    assert (first / "last").read_bytes() == b"before unmounting"
    pool.umount(first)
    pool.wait_for_idle()
    pool.assert_clean()


def test_a_file_without_a_name_lives_while_any_host_has_it_open(pool: RunningPool) -> None:
    first, second = two_mounts(pool, "unnamed")
    (first / "file").write_bytes(b"x" * 200_000)
    with open(second / "file", "r+b", buffering=0) as kept:
        (first / "file").unlink()
        assert os.pread(kept.fileno(), 10, 199_990) == b"x" * 10
        os.pwrite(kept.fileno(), b"more", 200_000)
        assert os.fstat(kept.fileno()).st_size == 200_004
        assert os.fstat(kept.fileno()).st_nlink == 0
    pool.wait_for_idle()
    with pool.api() as api:
        wait_for(lambda: api.volume("unnamed").usage.logical_bytes == 0, "the file is gone with its last close")
    pool.umount(first)
    pool.umount(second)
    pool.assert_clean()


def test_appends_of_two_hosts_lose_nothing_and_exclusive_creation_has_one_winner(pool: RunningPool) -> None:
    first, second = two_mounts(pool, "racing")
    count = 150
    run_both(APPENDER, [str(first / "log"), "one", str(count)], [str(second / "log"), "two", str(count)])
    lines = (first / "log").read_text().splitlines()
    for who in ("one", "two"):
        assert [line for line in lines if line.startswith(who)] == [f"{who} {number}" for number in range(count)]
    assert len(lines) == 2 * count
    (first / "names").mkdir()
    won = run_both(RACER, [str(first / "names"), str(count)], [str(second / "names"), str(count)])
    assert sum(map(int, won)) == count
    pool.umount(first)
    pool.umount(second)
    pool.assert_clean()


def test_pages_are_dropped_also_where_somebody_sets_the_time_back(pool: RunningPool) -> None:
    first, second = two_mounts(pool, "times")
    (first / "file").write_bytes(b"A" * 100_000)
    os.utime(first / "file", ns=(THEN_NS, THEN_NS))
    with open(second / "file", "rb", buffering=0) as reading:
        assert os.pread(reading.fileno(), 100_000, 0) == b"A" * 100_000
        with open(first / "file", "r+b", buffering=0) as writing:
            writing.write(b"B" * 100_000)
        os.utime(first / "file", ns=(THEN_NS, THEN_NS))
        assert os.pread(reading.fileno(), 100_000, 0) == b"B" * 100_000
        with mmap.mmap(reading.fileno(), 100_000, prot=mmap.PROT_READ) as view:
            assert view[:] == b"B" * 100_000
        changes: list[tuple[bytes, Callable[[], None]]] = [
            (b"C", lambda: os.fchmod(reading.fileno(), 0o600)),
            (b"D", lambda: os.utime(reading.fileno(), ns=(THEN_NS, THEN_NS))),
            (b"E", lambda: os.fchown(reading.fileno(), 1, 1)),
        ]
        for letter, change in changes:
            with open(first / "file", "r+b", buffering=0) as writing:
                writing.write(letter * 100_000)
            change()
            assert os.pread(reading.fileno(), 100_000, 0) == letter * 100_000, "this host's own change is no excuse"
    pool.umount(first)
    pool.umount(second)


def test_what_was_written_elsewhere_is_read_also_while_this_host_writes(pool: RunningPool) -> None:
    """The kernel learns by attributes that its pages are old, and leaves those out that come beside an own write."""
    first, second = two_mounts(pool, "beside")
    (first / "file").write_bytes(bytes(8192))
    (pool.folder / "told").write_bytes(bytes(4096))
    arguments = [str(pool.folder / "told"), "200"]
    programs = [(WRITER, second), (OWN_WRITER, first), (READER, first), (READER, first)]
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(where / "file"), *arguments])
        for program, where in programs
    ]
    assert [process.wait(timeout=300) for process in running] == [0] * len(running)
    pool.umount(first)
    pool.umount(second)


def test_files_that_several_hosts_write_can_be_mapped(pool: RunningPool) -> None:
    first, second = two_mounts(pool, "mapped")
    with open(first / "file", "w+b", buffering=0) as file:
        file.truncate(8192)
        with mmap.mmap(file.fileno(), 8192) as view:
            view[4090:4100] = b"by mapping"
            view.flush()
            assert (second / "file").read_bytes()[4090:4100] == b"by mapping"
            os.pwrite(file.fileno(), b"by writing", 4090)
            assert view[4090:4100] == b"by writing"
    with open(second / "file", "rb") as seen, mmap.mmap(seen.fileno(), 0, prot=mmap.PROT_READ) as view:
        assert view[4090:4100] == b"by writing"
    program = second / "program"
    program.write_text("#!/bin/sh\necho runs\n")
    program.chmod(0o755)
    assert subprocess.run([first / "program"], capture_output=True, check=True).stdout == b"runs\n"
    shutil.copy("/bin/true", second / "true")
    subprocess.run([first / "true"], check=True)
    pool.umount(first)
    pool.umount(second)


def test_a_folder_that_is_open_here_is_moved_there_and_moved_on_here(pool: RunningPool) -> None:
    first, second = two_mounts(pool, "moved")
    for name in ("a", "b", "c", "a/open", "a/other"):
        (first / name).mkdir()
    held = os.open(second / "a" / "open", os.O_RDONLY | os.O_DIRECTORY)
    os.listdir(second / "a" / "other")
    (first / "a" / "open").rename(first / "b" / "there")
    (second / "b" / "there").rename(second / "c" / "on")
    os.mkdir("below", dir_fd=held)
    os.close(held)
    (first / "a" / "other").rename(first / "c" / "again")
    (second / "c" / "again").rename(second / "a" / "end")
    pool.umount(first)
    pool.umount(second)
    pool.assert_clean()


def test_a_read_only_mount_that_shares_sees_every_change(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "watched", "--protect", "ec:2+1")
    first = pool.mount("watched", "--shared")
    reader = pool.mount("watched", "--shared", "--read-only")
    for number in range(10):
        (first / "file").write_text(str(number))
        assert (reader / "file").read_text() == str(number)
    with pytest.raises(OSError) as refused:
        (reader / "file").write_text("no")
    assert refused.value.errno == errno.EROFS
    pool.umount(reader)
    pool.umount(first)


@pytest.mark.slow
def test_a_killed_host_leaves_the_others_at_work(pool: RunningPool) -> None:
    first, second = two_mounts(pool, "killed")
    left = os.open(first / "open", os.O_WRONLY | os.O_CREAT)
    os.write(left, b"written")
    os.fsync(left)
    (first / "unsynced").write_bytes(b"lost with the host")
    (first / "seen").write_bytes(b"seen by another")
    assert (second / "seen").read_bytes() == b"seen by another"
    (first / "open").rename(first / "renamed")
    pid = pid_of(pool, first)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not process_is_alive(pid), "the mount is killed")
    assert (second / "renamed").read_bytes() == b"written"
    assert (second / "seen").read_bytes() == b"seen by another"
    assert (second / "unsynced").read_bytes() == b"", "it waited for the end of the lease"
    for name in ("renamed", "seen", "unsynced"):
        (second / name).unlink()
    (second / "new").write_text("goes on")
    with pytest.raises(OSError) as refused:
        os.close(left)
    assert refused.value.errno == errno.ENOTCONN
    pool.clear_dead_mount(first)
    wait_for(lambda: not in_shared_mode(pool, "killed"), "the rest has the volume alone")
    (second / "alone").write_text("still goes on")
    first = pool.mount("killed", "--shared")
    assert (first / "alone").read_text() == "still goes on"
    assert sorted(os.listdir(first)) == ["alone", "new"]
    pool.umount(first)
    pool.umount(second)
    pool.wait_for_idle()
    pool.assert_clean()


@pytest.mark.slow
def test_a_coordinator_that_is_killed_forgets_nothing_that_is_open(pool: RunningPool) -> None:
    first, second = two_mounts(pool, "restarted")
    (first / "file").write_bytes(b"here")
    with open(second / "file", "r+b", buffering=0) as kept:
        (first / "file").unlink()
        for _ in range(2):
            pool.kill("coordinator")
            pool.redfs("up", "--no-console")
            (first / "kept back").write_text("before")
            pool.kill("coordinator")
            pool.redfs("up", "--no-console")
            assert (second / "kept back").read_text() == "before"
            (first / "made").write_text("anew")
            assert (second / "made").read_text() == "anew"
            assert os.pread(kept.fileno(), 10, 0) == b"here"
            (second / "made").unlink()
    pool.umount(first)
    pool.umount(second)
    pool.wait_for_idle()
    pool.assert_clean()
