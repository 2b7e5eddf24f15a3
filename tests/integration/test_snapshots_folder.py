"""`.snapshots` in mounts: every snapshot of the volume as a folder that can only be read."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time

import pytest

from tests.integration.pools import RunningPool, wait_for
from tests.integration.test_rolled_back_mounts import error_of, opened
from tests.integration.test_snapshots import content_of

pytestmark = pytest.mark.mount


def test_snapshots_are_folders_inside_of_the_mount(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "docs", "--protect", "ec:2+1")
    place = pool.mount("docs")
    folder = place / ".snapshots"
    assert os.listdir(folder) == []
    (place / "a").mkdir()
    (place / "a" / "file").write_bytes(b"first" * 50_000)
    os.symlink("a/file", place / "link")
    os.setxattr(place / "a" / "file", "user.note", b"kept")
    assert error_of(os.stat, folder / "one") == errno.ENOENT  # what is not there must not be remembered
    pool.redfs("snapshot", "create", "docs@one")
    before = content_of(place)
    assert (folder / "one" / "a" / "file").read_bytes() == b"first" * 50_000
    (place / "a" / "file").write_bytes(b"second")
    (place / "later").write_bytes(b"later")
    pool.redfs("snapshot", "create", "docs@two")
    assert sorted(os.listdir(folder)) == ["one", "two"]
    assert os.listdir(place).count(".snapshots") == 0
    assert content_of(folder / "one") == before
    assert content_of(folder / "two") == content_of(place)
    assert os.readlink(folder / "one" / "link") == "a/file"
    assert (folder / "one" / "link").read_bytes() == b"first" * 50_000
    assert os.getxattr(folder / "one" / "a" / "file", "user.note") == b"kept"
    assert os.access(folder / "one" / "a" / "file", os.R_OK)
    assert os.statvfs(folder / "one").f_blocks == os.statvfs(place).f_blocks
    numbers = {(p / "a" / "file").stat().st_ino for p in (place, folder / "one", folder / "two")}
    assert len(numbers) == 3, "tools must not take them for one file"
    assert (folder / "one").stat().st_mode == place.stat().st_mode

    shutil.copy2(folder / "one" / "a" / "file", place / "restored")
    assert (place / "restored").read_bytes() == b"first" * 50_000
    subprocess.run(["cp", "-a", str(folder / "one" / "a"), str(place / "whole")], check=True, timeout=60)
    assert (place / "whole" / "file").read_bytes() == b"first" * 50_000

    only_read = pool.mount("docs", "--read-only")
    assert sorted(os.listdir(only_read / ".snapshots")) == ["one", "two"]
    assert content_of(only_read / ".snapshots" / "one") == before
    frozen = pool.mount("docs@one")
    assert not (frozen / ".snapshots").exists()
    pool.umount(only_read)
    pool.umount(frozen)

    with opened(folder / "one" / "a" / "file", os.O_RDONLY) as held:
        pool.redfs("snapshot", "rm", "docs@one", "--yes")
        wait_for(lambda: not (folder / "one").exists(), "the deleted snapshot is gone")
        assert os.listdir(folder) == ["two"]
        assert os.pread(held, 1 << 20, 0) == b"first" * 50_000, "what is open can be read to its end"
    assert (folder / "two" / "a" / "file").read_bytes() == b"second"
    pool.umount(place)
    pool.redfs("snapshot", "rm", "docs@two", "--yes")
    pool.redfs("volume", "rm", "docs", "--yes")
    pool.wait_for_idle()
    pool.assert_clean()


def test_nothing_changes_in_the_folder_of_snapshots(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "fixed", "--protect", "mirror:2")
    place = pool.mount("fixed")
    (place / "file").write_bytes(b"file")
    (place / "folder").mkdir()
    pool.redfs("snapshot", "create", "fixed@one")
    folder = place / ".snapshots"
    one = folder / "one"
    refused = [
        (errno.EEXIST, os.mkdir, folder), (errno.EEXIST, os.symlink, "x", folder), (errno.EEXIST, os.mknod, folder),
        (errno.EEXIST, os.link, place / "file", folder),
        (errno.EISDIR, os.unlink, folder), (errno.EPERM, os.rmdir, folder),
        (errno.EPERM, os.rename, folder, place / "x"),
        (errno.EROFS, os.mkdir, folder / "x"), (errno.EROFS, os.rmdir, one),
        (errno.EROFS, os.rename, one, folder / "x"), (errno.EXDEV, os.rename, one, place / "x"),
        (errno.EXDEV, os.rename, place / "file", one / "x"), (errno.EXDEV, os.rename, one / "file", place / "x"),
        (errno.EXDEV, os.rename, place / "folder", folder / "x"), (errno.EXDEV, os.link, place / "file", one / "x"),
        (errno.EXDEV, os.link, one / "file", place / "x"), (errno.EROFS, os.link, one / "file", one / "x"),
        (errno.EROFS, os.rename, one / "file", one / "x"), (errno.EROFS, os.unlink, one / "file"),
        (errno.EROFS, os.truncate, one / "file", 0), (errno.EROFS, os.chmod, one / "file", 0o600),
        (errno.EROFS, os.setxattr, one / "file", "user.a", b"x"), (errno.EROFS, os.chmod, folder, 0o777),
        (errno.EROFS, os.open, one / "file", os.O_WRONLY), (errno.EROFS, os.open, one / "x", os.O_CREAT | os.O_WRONLY),
        (errno.EROFS, os.open, folder / "x", os.O_CREAT | os.O_WRONLY), (errno.EROFS, os.symlink, "x", one / "x"),
    ]  # fmt: skip
    for wanted, call, *arguments in refused:
        assert error_of(call, *arguments) == wanted, (call, arguments)
    assert os.listxattr(folder) == []
    assert error_of(os.getxattr, folder, "user.a") == errno.ENODATA
    assert sorted(os.listdir(place)) == ["file", "folder"]
    (place / "folder" / ".snapshots").mkdir()  # only the top has one
    assert os.listdir(place / "folder") == [".snapshots"]
    assert content_of(one) == {"file": b"file"}
    pool.umount(place)


def test_many_snapshots_are_looked_into_one_after_the_other(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "many", "--protect", "mirror:2")
    place = pool.mount("many")
    names = [f"s{number:02}" for number in range(40)]
    with pool.api() as api:
        for name in names:
            (place / "file").write_bytes(name.encode())
            api.create_snapshot(f"many@{name}")
    folder = place / ".snapshots"
    assert sorted(os.listdir(folder)) == names
    first = {name: (folder / name / "file").stat().st_ino for name in names}
    for name in reversed(names):
        assert (folder / name / "file").read_bytes() == name.encode()
        assert (folder / name / "file").stat().st_ino == first[name], "a number stays, also where its view was remade"
    everything = subprocess.run(
        ["find", str(place), "-name", "file"], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()  # fmt: skip
    assert everything == [str(place / "file")], "a walk through the volume does not see them"
    pool.umount(place)


def test_snapshots_stay_what_they_are_when_the_volume_is_rolled_back(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "back", "--protect", "mirror:2")
    place = pool.mount("back")
    folder = place / ".snapshots"
    (place / "file").write_bytes(b"one")
    pool.redfs("snapshot", "create", "back@one")
    (place / "file").write_bytes(b"two")
    with opened(folder / "one" / "file", os.O_RDONLY) as held:
        pool.redfs("rollback", "back@one", "--keep", "two")
        assert (place / "file").read_bytes() == b"one"
        assert (folder / "two" / "file").read_bytes() == b"two"
        assert os.pread(held, 9, 0) == b"one"
    pool.kill("coordinator")
    pool.up()
    deadline = time.monotonic() + 60
    while True:
        try:
            assert (folder / "two" / "file").read_bytes() == b"two"
            break
        except OSError:
            assert time.monotonic() < deadline
    assert (folder / "one" / "file").read_bytes() == b"one"
    pool.umount(place)
