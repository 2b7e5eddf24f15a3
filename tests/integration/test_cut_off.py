"""Hosts that are cut off: for shorter than their lease, and for longer while another host takes the volume over."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.integration.hosts import Program, mount_on, mount_when_free
from tests.integration.pools import RunningPool, wait_for

pytestmark = [pytest.mark.mount, pytest.mark.slow]

SIZE = 300_000
THEN_NS = 1_700_000_000_000_000_000


def write(path: Path, data: bytes) -> None:
    """Durable, and to the kernel always as old as before."""
    path.write_bytes(data)
    os.utime(path, ns=(THEN_NS, THEN_NS))
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def test_frozen_for_less_than_its_lease_a_host_loses_nothing(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "short", "--protect", "ec:2+1")
    host = mount_on(pool, "short")
    with Program() as program:
        fd = program.do("open", host.place / "file", os.O_RDWR | os.O_CREAT)
        program.do("pwrite", fd, b"A" * SIZE, 0)
        host.freeze()
        syncing = program.begin("fsync", fd)
        assert "is mounted by" in pool.refused("mount", "short", str(pool.mount_folder()))[1]
        assert not syncing.is_answered
        host.thaw()
        assert syncing.outcome() == (None, None)
        assert program.do("pread", fd, SIZE, 0) == b"A" * SIZE
        program.do("close", fd)
    assert "lost" not in host.told()
    host.umount()
    again = mount_on(pool, "short")
    assert (again.place / "file").read_bytes() == b"A" * SIZE
    again.umount()


def test_a_host_that_was_cut_off_too_long_works_again_without_a_remount(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "long", "--protect", "ec:2+1")
    a = mount_on(pool, "long")
    for name in ("kept", "unsaved", "removed"):
        write(a.place / name, b"A" * SIZE)
    pool.redfs("snapshot", "create", "long@before")
    with Program() as program:
        kept, unsaved, removed = [program.do("open", a.place / n, os.O_RDWR) for n in ("kept", "unsaved", "removed")]
        unsaved_again = program.do("open", a.place / "unsaved", os.O_RDONLY)
        in_snapshot = program.do("open", a.place / ".snapshots" / "before" / "kept", os.O_RDONLY)
        folder = program.do("open", a.place, os.O_RDONLY)
        for fd in (kept, in_snapshot):  # the kernel knows their pages
            assert program.do("pread", fd, SIZE, 0) == b"A" * SIZE
        (a.place / "early").write_bytes(b"x")
        program.do("fsync", folder)
        program.do("pwrite", unsaved, b"B" * 1000, 0)
        (a.place / "never").mkdir()
        a.freeze()

        b = mount_when_free(pool, "long")
        reading = program.begin("pread", kept, SIZE, 0)
        assert (b.place / "unsaved").read_bytes() == b"A" * SIZE
        assert sorted(os.listdir(b.place)) == ["early", "kept", "removed", "unsaved"]
        write(b.place / "kept", b"C" * SIZE)
        (b.place / "removed").unlink()
        (b.place / "new").write_bytes(b"of another host")
        a.thaw()
        wait_for(lambda: "cannot be had again yet" in a.told(), "it asks for its volume")
        assert not reading.is_answered, "it serves nothing that another host may have changed"
        assert "unsaved changes are lost: /unsaved\n" in a.told()
        b.umount()

        assert reading.outcome() == (b"C" * SIZE, None)
        assert program.do("pread", kept, SIZE, 0) == b"C" * SIZE
        assert (a.place / "new").read_bytes() == b"of another host"
        for fd in (unsaved, unsaved_again):
            assert program.error("pread", fd, 1, 0) == errno.EIO
            assert program.error("fsync", fd) == errno.EIO
        assert program.error("pwrite", unsaved, b"x", 0) == errno.EIO
        assert program.error("fsync", folder) == errno.EIO, "a folder was lost in it"
        assert sorted(program.do("listdir", folder)) == ["early", "kept", "new", "unsaved"]
        assert program.error("pread", removed, 1, 0) == errno.ESTALE
        assert program.do("pread", in_snapshot, SIZE, 0) == b"A" * SIZE
        assert program.error("close", unsaved) == errno.EIO
        assert program.error("close", unsaved_again) == errno.EIO

        # All else works, without a remount.
        assert (a.place / "unsaved").read_bytes() == b"A" * SIZE
        program.do("pwrite", kept, b"D" * SIZE, 0)
        program.do("fsync", kept)
    (a.place / "later").mkdir()
    write(a.place / "later" / "file", b"made after it")
    write(a.place / "unsaved", b"E" * SIZE)
    assert "is attached again" in a.told()
    a.umount()
    c = mount_on(pool, "long", "--read-only")
    assert (c.place / "kept").read_bytes() == b"D" * SIZE
    assert (c.place / "unsaved").read_bytes() == b"E" * SIZE
    assert (c.place / "later" / "file").read_bytes() == b"made after it"
    c.umount()
    pool.assert_clean()


def test_a_host_that_was_cut_off_is_unmounted_while_another_one_has_the_volume(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "left", "--protect", "ec:2+1")
    a = mount_on(pool, "left")
    write(a.place / "file", b"A" * SIZE)
    with (a.place / "file").open("r+b") as file:
        file.write(b"B")
    a.freeze()
    b = mount_when_free(pool, "left")
    a.thaw()
    wait_for(lambda: "cannot be had again yet" in a.told(), "it asks for its volume")
    _, told = pool.refused("umount", str(a.place))
    assert "could be saved" in told
    assert "was silent for too long" in told
    assert (b.place / "file").read_bytes() == b"A" * SIZE
    b.umount()
