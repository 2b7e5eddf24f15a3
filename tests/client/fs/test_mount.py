"""The mount process with a real pool and the real kernel: how mounts begin and end, and bytes through both."""

from __future__ import annotations

import errno
import mmap
import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from redfs.client import mounting
from redfs.core.errors import Busy, InvalidArgument, NotFound
from tests.integration.pools import RunningPool, wait_for

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@pytest.fixture(scope="module")
def pool() -> Iterator[RunningPool]:
    """Three nodes for the tests of this module, each with a volume of its own."""
    with tempfile.TemporaryDirectory(prefix="redfs-mount-test-") as folder:
        os.chmod(folder, 0o755)  # for the test that is another user
        running = RunningPool(Path(folder), nodes=3)
        try:
            running.up()
            yield running
        finally:
            running.destroy()


def process_of(mountpoint: Path) -> int:
    """The mount's process."""
    record = mounting.find_record(mountpoint)
    assert record is not None
    return record.pid


def new_volume(pool: RunningPool, name: str) -> str:
    pool.redfs("volume", "create", name, "--protect", "ec:2+1")
    return name


def again(pool: RunningPool, volume: str) -> Path:
    """Mounts a volume once the session of its last mount has ended."""
    where = pool.mount(volume)
    assert mounting.find_record(where) is not None
    return where


def fill(where: Path) -> dict[str, bytes]:
    """Writes files of many sizes, without any fsync."""
    content = {f"f{size}": random.Random(size).randbytes(size) for size in (0, 1, 4096, 131_072, 131_073, 3_000_000)}
    for name, data in content.items():
        (where / name).write_bytes(data)
    return content


def check(where: Path, content: dict[str, bytes]) -> None:
    assert {path.name: path.read_bytes() for path in where.iterdir()} == content


def test_unmounting_saves_everything_and_ends_the_process(pool: RunningPool) -> None:
    volume = new_volume(pool, "umount")
    where = pool.mount(volume)
    pid = process_of(where)
    content = fill(where)
    pool.redfs("umount", str(where))
    assert mounting.process_started(pid) is None
    assert mounting.find_record(where) is None
    assert mounting.mounted_at(where) is None
    check(again(pool, volume), content)


@pytest.mark.parametrize("way", ["umount", "lazy", "term"])
def test_however_a_mount_ends_everything_is_saved(pool: RunningPool, way: str) -> None:
    volume = new_volume(pool, f"end-{way}")
    where = pool.mount(volume)
    pid = process_of(where)
    content = fill(where)
    if way == "term":
        os.kill(pid, signal.SIGTERM)
    else:
        subprocess.run(["umount", *(["-l"] if way == "lazy" else []), str(where)], check=True)
    wait_for(lambda: mounting.process_started(pid) is None, "the mount process ends")
    assert mounting.mounted_at(where) is None
    check(again(pool, volume), content)


def test_a_killed_mount_keeps_what_was_fsynced_and_can_be_cleaned_up(pool: RunningPool) -> None:
    volume = new_volume(pool, "killed")
    where = pool.mount(volume)
    with open(where / "kept", "wb") as file:
        file.write(b"precious" * 1000)
        file.flush()
        os.fsync(file.fileno())
    (where / "perhaps").write_bytes(b"x")
    pid = process_of(where)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: mounting.process_started(pid) is None, "the mount process is gone")
    with pytest.raises(OSError) as caught:
        os.stat(where)
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)  # the latter while its threads still end
    with pytest.raises(Busy, match="has died: run `redfs umount"):
        mounting.check_mountpoint(where)
    mounting.unmount(where)
    assert mounting.mounted_at(where) is None
    assert (again(pool, volume) / "kept").read_bytes() == b"precious" * 1000


def test_a_mount_that_is_in_use_for_a_moment_is_unmounted(pool: RunningPool, monkeypatch: pytest.MonkeyPatch) -> None:
    where = pool.mount(new_volume(pool, "moment"))
    using = [os.open(where, os.O_RDONLY), os.open(where, os.O_RDONLY)]
    really = mounting._umount

    def umount(path: Path, *, lazy: bool, force: bool = False) -> None:
        try:
            really(path, lazy=lazy, force=force)
        except Busy:
            os.close(using.pop())
            raise

    monkeypatch.setattr(mounting, "_umount", umount)
    mounting.unmount(where)
    assert mounting.mounted_at(where) is None


def test_what_cannot_be_a_mount_point_is_told(pool: RunningPool, tmp_path: Path) -> None:
    volume = new_volume(pool, "points")
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    with pytest.raises(InvalidArgument, match="not a folder"):
        mounting.mount(str(pool.local.folder), volume, tmp_path / "file")
    with pytest.raises(InvalidArgument, match="not empty"):
        mounting.mount(str(pool.local.folder), volume, tmp_path / "full")
    with pytest.raises(NotFound, match="nowhere"):
        mounting.mount(str(pool.local.folder), "nowhere", tmp_path / "a")
    with pytest.raises(NotFound, match="no volume is mounted"):
        mounting.unmount(tmp_path)
    where = pool.mount(volume)
    with pytest.raises(Busy, match="mounted on"):
        mounting.mount(str(pool.local.folder), volume, where)
    with open(where / "file", "w"), pytest.raises(Busy, match="in use"):
        mounting.unmount(where)
    mounting.unmount(where)


def test_a_mount_in_the_foreground(pool: RunningPool, tmp_path: Path) -> None:
    volume = new_volume(pool, "front")
    where = tmp_path / "front"
    command = [sys.executable, "-m", "redfs.client.mount_process", "--foreground", "--pool", str(pool.local.folder)]
    with subprocess.Popen(
        [*command, "--volume", volume, "--mountpoint", str(where)], stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: mounting.find_record(where) is not None, "the mount answers")
        (where / "a").write_text("hello")
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "is unmounted from" in log
    assert (again(pool, volume) / "a").read_text() == "hello"


def test_random_reads_and_writes_against_plain_bytes(pool: RunningPool) -> None:
    volume = new_volume(pool, "random")
    where = pool.mount(volume)
    dice = random.Random(7)
    model = bytearray()
    path = where / "file"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    for step in range(400):
        match dice.choice(["write", "write", "read", "cut", "sync", "map", "append", "size", "reopen"]):
            case "write":
                at = dice.randrange(min(2_000_000, len(model) + 200_000))
                data = dice.randbytes(dice.choice([1, 100, 4096, 50_000, 131_072, 400_000]))
                assert os.pwrite(descriptor, data, at) == len(data)
                model.extend(bytes(max(0, at - len(model))))
                model[at : at + len(data)] = data
            case "append":
                with open(path, "ab", buffering=0) as file:
                    file.write(b"%d" % step)
                model += b"%d" % step
            case "read":
                at, size = dice.randrange(len(model) + 1), dice.choice([1, 5000, 300_000])
                assert os.pread(descriptor, size, at) == model[at : at + size], step
            case "cut":
                size = dice.randrange(2_000_000)
                os.ftruncate(descriptor, size)
                del model[size:]
                model.extend(bytes(size - len(model)))
            case "sync":
                os.fsync(descriptor)
            case "map" if len(model) > 5000:
                with mmap.mmap(descriptor, len(model)) as mapped:
                    at = dice.randrange(len(model) - 4000)
                    mapped[at : at + 4000] = model[at : at + 4000] = dice.randbytes(4000)
            case "size":
                assert os.fstat(descriptor).st_size == len(model)
            case "reopen":
                os.close(descriptor)
                descriptor = os.open(path, os.O_RDWR)
    os.close(descriptor)
    pool.umount(where)
    assert (again(pool, volume) / "file").read_bytes() == model


def test_many_programs_at_once(pool: RunningPool) -> None:
    volume = new_volume(pool, "crowd")
    where = pool.mount(volume)

    def work(worker: int) -> None:
        folder = where / f"w{worker}"
        folder.mkdir()
        for index in range(60):
            path = folder / f"{index}.tmp"
            with open(path, "wb") as file:
                file.write(b"%d-%d" % (worker, index) * 100)
                if index % 10 == 0:
                    file.flush()
                    os.fsync(file.fileno())
            path.rename(folder / f"{index}")
            if index % 3 == 0:
                (folder / f"{index}").unlink()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    pool.umount(where)
    where = again(pool, volume)
    for worker in range(8):
        found = {path.name: path.read_bytes() for path in (where / f"w{worker}").iterdir()}
        assert found == {f"{i}": b"%d-%d" % (worker, i) * 100 for i in range(60) if i % 3}


def test_a_writer_that_is_not_the_owner_takes_away_set_user_id(pool: RunningPool) -> None:
    where = pool.mount(new_volume(pool, "suid"))
    path = where / "program"
    path.write_bytes(b"x")
    path.chmod(0o6777)
    for how in ("printf y >> {}", "printf z > {}", "truncate -s 0 {}"):
        path.chmod(0o6777)
        command = how.format(path)
        subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", command], check=True)
        assert stat.S_IMODE(path.stat().st_mode) == 0o777, how


def test_a_snapshot_shows_what_was_there_and_allows_no_change(pool: RunningPool) -> None:
    volume = new_volume(pool, "frozen")
    where = pool.mount(volume)
    content = fill(where)
    pool.redfs("snapshot", "create", f"{volume}@one")
    (where / "later").write_text("x")
    frozen = pool.mount(f"{volume}@one")
    check(frozen, content)
    with pytest.raises(OSError) as caught:
        (frozen / "new").write_text("x")
    assert caught.value.errno == errno.EROFS
