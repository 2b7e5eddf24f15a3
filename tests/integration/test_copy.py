"""`redfs cp` on real pools: restoring from snapshots, mounted and not, without moving data; crashes and companions."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from redfs.core.errors import Busy, Unavailable
from tests.integration.pools import RunningPool, wait_for
from tests.lengths import examples

pytestmark = pytest.mark.mount

FreshPool = Callable[[int], RunningPool]
MIB = 1 << 20


def description(top: Path) -> dict[str, Any]:
    """Everything that a copy keeps of a tree, by path."""
    names: dict[int, list[str]] = {}
    out: dict[str, Any] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        status = path.lstat()
        name = str(path.relative_to(top))
        names.setdefault(status.st_ino, []).append(name)
        content = b""
        if path.is_symlink():
            content = os.fsencode(os.readlink(path))
        elif path.is_file():
            content = path.read_bytes()
        out[name] = {
            "status": (
                status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_rdev, status.st_size,
                status.st_mtime_ns,
            ),
            "names": names[status.st_ino],
            "xattrs": {key: os.getxattr(path, key, follow_symlinks=False) for key in _xattrs(path)},
            "content": content,
        }  # fmt: skip
    return out


def _xattrs(path: Path) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def make_tree(top: Path) -> None:
    """Files of all sorts."""
    chance = random.Random(7)
    (top / "folder" / "below").mkdir(parents=True)
    (top / "folder" / "small").write_bytes(b"small")
    (top / "folder" / "large").write_bytes(chance.randbytes(3 * MIB + 5))
    os.link(top / "folder" / "small", top / "folder" / "below" / "linked")
    os.symlink("../small", top / "folder" / "below" / "symlink")
    os.mkfifo(top / "folder" / "fifo", 0o640)
    with (top / "folder" / "sparse").open("wb") as file:
        file.write(b"start")
        file.seek(1 << 36)
        file.write(b"end")
        file.truncate((1 << 36) + 100)
    os.truncate(top / "folder" / "sparse", 20 * MIB)
    for number in range(300):
        (top / "folder" / "below" / f"f{number}").write_bytes(b"%d" % number)
    os.setxattr(top / "folder" / "large", "user.kept", b"value")
    os.setxattr(top / "folder" / "below", "user.kept", b"of a folder")
    # cap_net_raw+ep, as a file of `ping` has it
    os.setxattr(
        top / "folder" / "small", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")
    )
    os.chmod(top / "folder" / "large", 0o4755)
    os.chown(top / "folder" / "below", 1234, 4321)
    for path in sorted(top.rglob("*"), reverse=True):
        os.utime(path, ns=(10**18 + 1, 10**18 + chance.randrange(10**15)), follow_symlinks=False)


@pytest.fixture(scope="module")
def trees(pool: RunningPool) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A volume `source` mounted, with a tree in it, that has a snapshot `source@s`; and what the tree is."""
    pool.redfs("volume", "create", "source", "--protect", "ec:2+1")
    place = pool.mount("source")
    make_tree(place)
    expected = description(place / "folder")
    assert pool.data("snapshot", "create", "source@s")["holder_flushed"]
    yield place, expected
    pool.umount(place)
    pool.wait_for_idle()
    pool.assert_clean()


def stored_bytes(pool: RunningPool) -> tuple[int, int]:
    with pool.api() as api:
        status = api.status()
        return status.stored_bytes, status.segment_bytes


def test_a_deleted_file_and_a_folder_come_back_at_once(pool: RunningPool, trees: tuple[Path, dict[str, Any]]) -> None:
    place, expected = trees
    before = stored_bytes(pool)
    with pool.api() as api:
        (place / "folder" / "small").unlink()
        for _ in range(2):
            assert not (place / "folder" / "small").exists(), "the kernel remembers that it is not there"
        api.copy("source@s", "/folder/small", "source", "/folder/small")
        assert (place / "folder" / "small").read_bytes() == b"small"
        (place / "folder" / "small").write_bytes(b"changed")
        with (place / "folder" / "small").open("rb") as reader:
            api.copy("source@s", "/folder/small", "source", "/folder/small", replace=True)
            assert reader.read() == b"changed", "who has it open keeps it"
        assert (place / "folder" / "small").read_bytes() == b"small"
        (place / "restored").mkdir()
        api.copy("source@s", b"/folder", "source", b"/restored")
        assert description(place / "restored" / "folder") == expected
    assert stored_bytes(pool)[0] <= before[0] + 20, "but for what was written above"
    said = pool.redfs("cp", "source@s:/folder/below", "source:/again")
    assert said == "Copied 303 files, 795 B, without copying data: source:/again\n"
    assert sorted(os.listdir(place / "again")) == sorted(os.listdir(place / "folder" / "below"))
    assert not [name for name in os.listdir(place) if name.startswith(".redfs-copy")]


def test_into_a_volume_that_nobody_has_mounted(pool: RunningPool, trees: tuple[Path, dict[str, Any]]) -> None:
    _, expected = trees
    pool.redfs("volume", "create", "unmounted", "--protect", "mirror:3")
    before = stored_bytes(pool)
    made = pool.data("cp", "source@s:/folder", "unmounted:/copy")
    assert made["files"] == len(expected)
    assert made["path"] == "/copy"
    assert pool.data("volume", "info", "unmounted")["mounts"] == []
    pool.redfs("cp", "source@s:/", "unmounted:/")
    assert stored_bytes(pool) == before
    place = pool.mount("unmounted")
    assert sorted(os.listdir(place)) == ["copy", "source@s"]
    assert description(place / "copy") == expected
    assert description(place / "source@s" / "folder") == expected
    pool.umount(place)
    pool.assert_clean(verify_data=True)


def test_a_live_source_is_copied_with_what_its_mount_still_holds(
    pool: RunningPool, trees: tuple[Path, dict[str, Any]]
) -> None:
    source, _ = trees
    pool.redfs("volume", "create", "target")
    place = pool.mount("target")
    (source / "dirty").write_bytes(b"told to be written" * 10_000)
    pool.redfs("cp", "source:/dirty", "target:/")
    assert (place / "dirty").read_bytes() == b"told to be written" * 10_000
    (source / "dirty").write_bytes(b"changed since")
    pool.redfs("cp", "source:/dirty", "source:/itself")
    assert (source / "itself").read_bytes() == b"changed since"
    # Changing either side changes only that one.
    with (place / "dirty").open("r+b") as file:
        file.seek(100_000)
        file.write(b"only here")
    (source / "dirty").unlink()
    (source / "itself").unlink()
    pool.umount(place)
    pool.redfs("snapshot", "create", "target@kept")
    place = pool.mount("target@kept")
    content = (place / "dirty").read_bytes()
    assert content == (b"told to be written" * 10_000)[:100_000] + b"only here" + content[100_009:]
    assert content[100_009:] == (b"told to be written" * 10_000)[100_009:]
    pool.umount(place)


def test_mistakes_are_told_in_one_line(pool: RunningPool, trees: tuple[Path, dict[str, Any]]) -> None:
    pool.redfs("volume", "create", "mistakes")
    for mounted in (False, True):
        place = pool.mount("mistakes") if mounted else None
        for source, target, code, words in (
            ("source@s:/nothing", "mistakes:/a", 3, "there is no source@s:/nothing"),
            ("source@none:/folder", "mistakes:/a", 3, "no snapshot is named"),
            ("source@s:/folder/small", "mistakes:/no/folder", 3, "make that folder first"),
            ("source@s:/folder/small/x", "mistakes:/a", 2, "is no folder"),
            ("source@s:/folder/below/symlink/x", "mistakes:/a", 2, "symbolic link"),
            ("source@s:/folder", "source@s:/a", 6, "clone it"),
            ("source@s:/folder", "zero:/a", 6, "zero volume"),
            ("source@s:/folder", "mistakes:/" + "x" * 300, 2, "at most 255 bytes"),
        ):
            found, said = pool.refused("cp", source, target)
            assert (found, words in said) == (code, True), (source, target, said)
        if place is not None:
            pool.redfs("cp", "source@s:/folder/small", "mistakes:/taken")
            code, said = pool.refused("cp", "source@s:/folder/large", "mistakes:/taken")
            assert (code, "--replace" in said) == (4, True)
            assert pool.refused("cp", "source@s:/folder", "mistakes:/taken", "--replace")[0] == 4
            assert os.listdir(place) == ["taken"]
            pool.umount(place)


def test_a_copy_keeps_to_the_quota(pool: RunningPool, trees: tuple[Path, dict[str, Any]]) -> None:
    pool.redfs("volume", "create", "limited", "--quota", "4M")
    with pool.api() as api:
        api.copy("source@s", "/folder/large", "limited", "/one")
        code, said = pool.refused("cp", "source@s:/folder/large", "limited:/two")
        assert (code, "quota" in said) == (8, True)
        place = pool.mount("limited")
        code, said = pool.refused("cp", "source@s:/folder/large", "limited:/two")
        assert (code, "quota" in said) == (8, True)
        assert os.listdir(place) == ["one"]
        api.copy("source@s", "/folder/below", "limited", "/below")
        pool.umount(place)


def test_many_copies_at_once(pool: RunningPool, trees: tuple[Path, dict[str, Any]]) -> None:
    """By processes that all want the volume that nobody has mounted, while it is mounted and unmounted."""
    _, expected = trees
    pool.redfs("volume", "create", "crowded")
    with ThreadPoolExecutor(4) as threads:
        copies = [threads.submit(pool.redfs, "cp", "source@s:/folder", f"crowded:/{number}") for number in range(4)]
        for copy in copies:
            copy.result()
    place = pool.mount("crowded")
    for number in range(4):
        assert description(place / str(number)) == expected
    pool.umount(place)


@pytest.mark.slow
def test_a_large_file_takes_no_time_and_no_room(fresh_pool: FreshPool) -> None:
    pool = fresh_pool(3)
    pool.redfs("volume", "create", "v", "--protect", "mirror:2", "--compression", "none")
    place = pool.mount("v")
    blob = random.Random(1).randbytes(128 * 1024)
    size = examples(512) * MIB
    started_s = time.monotonic()
    with (place / "big").open("wb") as file:
        for number in range(size // len(blob)):
            file.write(number.to_bytes(8, "big") + blob[8:])
    wrote_s = time.monotonic() - started_s
    pool.redfs("snapshot", "create", "v@s")
    pool.redfs("volume", "create", "w", "--protect", "mirror:2")
    before, disk_before = stored_bytes(pool), pool.disk_bytes()
    with pool.api() as api:
        for target in ("v", "w"):
            started_s = time.monotonic()
            reply = api.copy("v@s", "/big", target, "/copy")
            took_s = time.monotonic() - started_s
            assert reply.bytes == size
            assert took_s < wrote_s
    assert stored_bytes(pool) == before
    assert pool.disk_bytes() < disk_before + MIB
    with (place / "copy").open("rb") as file:
        for number in (0, 1, 3333, size // len(blob) - 1):
            file.seek(number * len(blob))
            assert file.read(len(blob)) == number.to_bytes(8, "big") + blob[8:]
    pool.umount(place)
    for name in ("v@s", "v"):
        pool.redfs("snapshot" if "@" in name else "volume", "rm", name, "--yes")
    pool.wait_for_idle()
    pool.assert_clean(verify_data=True)
    place = pool.mount("w")
    with (place / "copy").open("rb") as file:
        file.seek(size - 5)
        assert file.read() == blob[-5:]
    pool.umount(place)


def many_files(place: Path, count: int) -> None:
    for number in range(count):
        if number % 200 == 0:
            folder = place / f"d{number}"
            folder.mkdir()
        (folder / f"f{number}").write_bytes(b"%d" % number)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["the mount of the target", "the coordinator", "the caller"])
def test_a_kill_in_the_middle_leaves_the_volume_sound(fresh_pool: FreshPool, who: str) -> None:
    pool = fresh_pool(3)
    for name in ("source", "target"):
        pool.redfs("volume", "create", name, "--protect", "mirror:2")
    source = pool.mount("source")
    many_files(source, 3000)
    pool.redfs("snapshot", "create", "source@s")
    expected = description(source)
    pool.umount(source)
    place = None if who == "the caller" else pool.mount("target")
    words = ("cp", "source@s:/", "target:/copy")
    caller = subprocess.Popen(
        [sys.executable, "-m", "redfs.client.cli.main", "--pool", str(pool.local.folder), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with pool.api() as api:
        wait_for(lambda: api.volume("target").usage.logical_bytes > 1000, "some of it is committed")
    if who == "the caller":
        caller.kill()
    elif who == "the coordinator":
        pool.kill("coordinator")
        pool.up()
    else:
        for pid in pool.mount_pids():
            os.kill(pid, signal.SIGKILL)
        place = None
    said = caller.communicate(timeout=120)[1]
    assert caller.returncode in (0, 7, -signal.SIGKILL), said
    if place is None:
        pool.clear_dead_mounts()
    pool.wait_for_nodes(3)

    def again() -> bool:
        """As soon as the lease of whoever died is over, or what goes on has come to its end."""
        with pool.api() as api:
            try:
                if who != "the coordinator":
                    api.copy("source@s", "/", "target", "/copy")
            except (Unavailable, Busy):
                return False
        return True

    wait_for(again, "another copy works")
    if place is None:
        place = pool.mount("target")
    wait_for(lambda: (place / "copy").is_dir(), "the copy has its name")
    assert os.listdir(place) == ["copy"], "nothing is left of the one that did not come to its end"
    whole = place / "copy"
    if (whole / "source@s").exists():
        # The first had come to its end without anybody knowing; the second went into its folder, as cp does.
        first = description(whole)
        assert all(first[path] == known for path, known in expected.items() if path != ".")
        whole /= "source@s"
    assert description(whole) == expected
    pool.umount(place)
    pool.wait_for_idle()
    pool.assert_clean()


@pytest.mark.slow
def test_ctrl_c_takes_back_what_was_copied(fresh_pool: FreshPool) -> None:
    pool = fresh_pool(3)
    for name in ("source", "target"):
        pool.redfs("volume", "create", name, "--protect", "mirror:2")
    source = pool.mount("source")
    many_files(source, 3000)
    pool.umount(source)
    words = ("cp", "source:/", "target:/copy")
    caller = subprocess.Popen(
        [sys.executable, "-m", "redfs.client.cli.main", "--pool", str(pool.local.folder), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with pool.api() as api:
        wait_for(lambda: api.volume("target").usage.logical_bytes > 1000, "some of it is committed")
    caller.send_signal(signal.SIGINT)
    said = caller.communicate(timeout=120)
    place = pool.mount("target")
    assert (caller.returncode, said[1].strip(), os.listdir(place)) in (
        (130, "redfs: stopped", []),
        (0, "", ["copy"]),
    )
    pool.umount(place)
    pool.wait_for_idle()
    pool.assert_clean()


@pytest.mark.slow
def test_unmounting_ends_a_copy(fresh_pool: FreshPool) -> None:
    pool = fresh_pool(3)
    for name in ("source", "target"):
        pool.redfs("volume", "create", name, "--protect", "mirror:2")
    source = pool.mount("source")
    many_files(source, 3000)
    place = pool.mount("target")
    with ThreadPoolExecutor(1) as thread, pool.api() as api:
        copying = thread.submit(lambda: api.copy("source", "/", "target", "/copy"))
        wait_for(lambda: api.volume("target").usage.logical_bytes > 1000 or copying.done(), "some of it is copied")
        pool.umount(place)
        error = copying.exception()
        place = pool.mount("target")
        if error is None:
            assert os.listdir(place) == ["copy"]
        else:
            assert isinstance(error, Unavailable)
            assert "ended while it copied" in str(error)
            assert os.listdir(place) == []
    pool.umount(place)
    pool.umount(source)
    pool.wait_for_idle()
    pool.assert_clean()


def test_files_and_modes_of_the_copy_are_those_of_the_source(
    pool: RunningPool, trees: tuple[Path, dict[str, Any]]
) -> None:
    """Spot checks that do not go through `description`."""
    pool.redfs("volume", "create", "spots")
    pool.redfs("cp", "source@s:/folder", "spots:/")
    place = pool.mount("spots") / "folder"
    assert stat.filemode((place / "large").stat().st_mode) == "-rwsr-xr-x"
    assert (place / "small").stat().st_ino == (place / "below" / "linked").stat().st_ino
    assert os.readlink(place / "below" / "symlink") == "../small"
    assert stat.S_ISFIFO((place / "fifo").lstat().st_mode)
    assert (place / "sparse").stat().st_size == 20 * MIB
    assert os.getxattr(place / "large", "user.kept") == b"value"
    assert len(os.getxattr(place / "small", "security.capability")) == 20
    assert (place / "below").stat().st_uid == 1234
    pool.umount(place.parent)
