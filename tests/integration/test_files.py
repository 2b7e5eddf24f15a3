"""Programs that people run, on a mounted volume: what they write is what they and others read, also after a remount."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.pools import RunningPool

pytestmark = pytest.mark.mount

MIB = 1 << 20


@pytest.fixture
def volume(pool: RunningPool, request: pytest.FixtureRequest) -> str:
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "").lower()[:40]
    pool.redfs("volume", "create", name, "--protect", "ec:4+2")
    return str(name)


@pytest.fixture
def place(pool: RunningPool, volume: str) -> Iterator[Path]:
    where = pool.mount(volume)
    yield where
    pool.umount(where)


def picture(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every path below, with its mode and content."""
    found: dict[str, tuple[int, bytes]] = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        if path.is_symlink():
            content = os.readlink(path).encode()
        elif path.is_dir():
            content = b""
        else:
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = (info.st_mode, content)
    return found


def remount(pool: RunningPool, where: Path, volume: str) -> None:
    """Unmounted and mounted again on the same folder: nothing is in any cache."""
    pool.umount(where)
    pool.redfs("mount", volume, str(where))


def copy_tree(source: Path, target: Path) -> None:
    shutil.copytree(
        source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "site-packages", "test", "config-*")
    )


def test_a_source_tree(pool: RunningPool, place: Path, volume: str, tmp_path: Path) -> None:
    stdlib = Path(sysconfig.get_path("stdlib"))
    for name in ("asyncio", "email", "json", "encodings"):
        copy_tree(stdlib / name, tmp_path / "source" / name)
    expected = picture(tmp_path / "source")
    subprocess.run(["cp", "-a", str(tmp_path / "source"), str(place / "copy")], check=True, timeout=120)
    assert picture(place / "copy") == expected
    remount(pool, place, volume)
    assert picture(place / "copy") == expected


@pytest.mark.slow
def test_all_of_pythons_library(pool: RunningPool, place: Path, volume: str, tmp_path: Path) -> None:
    copy_tree(Path(sysconfig.get_path("stdlib")), tmp_path / "source")
    subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(tmp_path / "all.tar"), "source"], check=True, timeout=120)
    subprocess.run(["tar", "-C", str(place), "-xf", str(tmp_path / "all.tar")], check=True, timeout=240)
    remount(pool, place, volume)
    assert picture(place / "source") == picture(tmp_path / "source")
    shutil.rmtree(place / "source")
    assert list(place.iterdir()) == []


def test_git(place: Path) -> None:
    repository = place / "repository"
    repository.mkdir()

    def git(*words: str) -> str:
        settings = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org", "-c", "safe.directory=*"]
        done = subprocess.run(
            ["git", *settings, *words], cwd=repository, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    git("init", "--quiet")
    for number in range(60):
        (repository / f"file-{number}.txt").write_text(f"{number}\n" * number)
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    (repository / "file-1.txt").write_text("changed\n")
    git("mv", "file-2.txt", "renamed.txt")
    git("commit", "--quiet", "-am", "two")
    git("gc", "--quiet")
    git("fsck", "--strict")
    assert git("status", "--porcelain") == ""
    assert len(git("log", "--oneline").splitlines()) == 2


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_sqlite(pool: RunningPool, place: Path, volume: str, journal: str) -> None:
    path = place / "data.db"
    database = sqlite3.connect(path)
    try:
        assert database.execute(f"pragma journal_mode={journal}").fetchone()[0] == journal.lower()
        database.execute("create table numbers (n integer primary key, text text)")
        for number in range(40):
            with database:
                database.execute("insert into numbers values (?, ?)", (number, "x" * number * 50))
        with database:
            database.execute("delete from numbers where n % 3 = 0")
        other = sqlite3.connect(path)
        try:
            assert other.execute("select count(*) from numbers").fetchone()[0] == 26
        finally:
            other.close()
        assert database.execute("pragma integrity_check").fetchone()[0] == "ok"
    finally:
        database.close()
    remount(pool, place, volume)
    database = sqlite3.connect(path)
    try:
        assert database.execute("pragma integrity_check").fetchone()[0] == "ok"
        assert database.execute("select sum(n) from numbers").fetchone()[0] == sum(n for n in range(40) if n % 3)
    finally:
        database.close()


@pytest.mark.parametrize("size_mib", [24, pytest.param(512, marks=pytest.mark.slow)])
def test_a_big_file(pool: RunningPool, place: Path, volume: str, size_mib: int) -> None:
    source = random.Random(3)
    written, read = hashlib.sha256(), hashlib.sha256()
    with (place / "big").open("wb", buffering=0) as file:
        for _ in range(size_mib):
            piece = source.randbytes(MIB)
            file.write(piece)
            written.update(piece)
        os.fsync(file.fileno())
    remount(pool, place, volume)
    with (place / "big").open("rb", buffering=0) as file:
        while piece := file.read(MIB):
            read.update(piece)
    assert read.digest() == written.digest()
    assert (place / "big").stat().st_size == size_mib * MIB


def test_random_writes_against_a_plain_file(pool: RunningPool, place: Path, volume: str, tmp_path: Path) -> None:
    source = random.Random(11)
    with (place / "file").open("w+b", buffering=0) as real, (tmp_path / "file").open("w+b", buffering=0) as model:
        for step in range(300):
            position, length = source.randrange(2 * MIB), source.choice((1, 100, 4096, 70_000, 300_000))
            if step % 50 == 49:
                os.ftruncate(real.fileno(), position)
                os.ftruncate(model.fileno(), position)
            elif step % 3 == 2:
                assert os.pread(real.fileno(), length, position) == os.pread(model.fileno(), length, position)
            else:
                piece = source.randbytes(length)
                os.pwrite(real.fileno(), piece, position)
                os.pwrite(model.fileno(), piece, position)
            if step % 40 == 39:
                os.fsync(real.fileno())
    assert (place / "file").read_bytes() == (tmp_path / "file").read_bytes()
    remount(pool, place, volume)
    assert (place / "file").read_bytes() == (tmp_path / "file").read_bytes()


def test_everything_written_here_is_accounted_for(pool: RunningPool) -> None:
    pool.wait_for_idle()
    pool.assert_clean()
