"""Diff, send and receive with real processes: what arrives, what a broken stream leaves, what it costs."""

from __future__ import annotations

import io
import os
import random
import stat
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from redfs.client import receive as receive_module
from redfs.client import send as send_module
from redfs.client.receive import SUFFIX, receive
from redfs.client.send import send
from redfs.core.errors import AlreadyExists, Busy, Corrupt, InvalidArgument, NotAllowed, NotFound
from redfs.proto.gen import cluster_pb2 as pb
from tests.integration.pools import RunningPool, wait_for

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPool]:
    """Another pool, with too few nodes for the first one's policies."""
    running = RunningPool(tmp_path_factory.mktemp("other"), nodes=2)
    try:
        running.up()
        yield running
    finally:
        running.destroy()


def everything(top: Path) -> dict[str, object]:
    """All that a program can see: paths, modes, owners, times, contents, links, attributes, which names are one."""
    names: defaultdict[int, list[str]] = defaultdict(list)
    found: dict[str, object] = {}
    for path in [top, *top.rglob("*")]:
        info = path.lstat()
        name = str(path.relative_to(top))
        content: object = None
        if stat.S_ISREG(info.st_mode):
            content = path.read_bytes()
            names[info.st_ino].append(name)
        elif stat.S_ISLNK(info.st_mode):
            content = os.readlink(path)
        attributes = {key: os.getxattr(path, key, follow_symlinks=False) for key in _attributes(path)}
        found[name] = (
            info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_size, info.st_mtime_ns, info.st_ctime_ns,
            info.st_rdev, info.st_blocks, content, attributes,
        )  # fmt: skip
    found["names"] = sorted(sorted(group) for group in names.values())
    return found


def _attributes(path: Path) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def fill(top: Path, seed: int) -> None:
    """Something of each kind."""
    rng = random.Random(seed)
    (top / "folder" / "deeper").mkdir(parents=True)
    (top / "folder" / "big").write_bytes(rng.randbytes(3_000_000))
    (top / "folder" / "text").write_bytes(b"compresses well " * 40_000)
    for number in range(40):
        (top / "folder" / "deeper" / f"small-{number}").write_bytes(rng.randbytes(rng.randrange(5000)))
    (top / "link").symlink_to("folder/big")
    os.link(top / "folder" / "big", top / "same")
    os.mkfifo(top / "pipe")
    with (top / "sparse").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
        file.truncate(20_000_000)
    (top / "private").write_bytes(b"")
    (top / "private").chmod(0o600)
    os.chown(top / "private", 7, 8)
    os.setxattr(top / "folder", "user.colour", b"blue")
    os.setxattr(top / "private", "user.large", rng.randbytes(30_000))
    (top / os.fsdecode(b"odd \xff\nname")).write_bytes(b"odd")
    os.utime(top / "link", ns=(5, 6), follow_symlinks=False)
    with (top / "cut").open("wb") as file:
        file.write(rng.randbytes(12_000_000))
        file.truncate(1_000_000)
        file.seek(11_000_000)
        file.write(b"after the cut")


def change(top: Path, seed: int) -> None:
    rng = random.Random(seed)
    with (top / "folder" / "big").open("r+b") as file:
        file.write(b"overwritten at the start")
    with (top / "folder" / "text").open("ab") as file:
        file.write(b"appended")
    (top / "folder" / "deeper").rename(top / f"moved-{seed}")
    (top / f"moved-{seed}").rename(top / "folder" / "deeper")
    for number in range(0, 40, 7):
        (top / "folder" / "deeper" / f"small-{number}").unlink(missing_ok=True)
    (top / f"new-{seed}").mkdir()
    (top / f"new-{seed}" / "file").write_bytes(rng.randbytes(700_000))
    os.link(top / "folder" / "text", top / f"hard-{seed}")
    (top / "same").unlink(missing_ok=True)
    os.setxattr(top / "folder", "user.colour", b"%d" % seed)
    if "user.large" in _attributes(top / "private"):
        os.removexattr(top / "private", "user.large")
    with (top / "cut").open("r+b") as file:
        file.truncate(0)
        file.truncate(20_000_000)
        file.seek(15_000_000)
        file.write(rng.randbytes(200_000))
    (top / "sparse").unlink(missing_ok=True)
    (top / "folder").chmod(0o700 + seed)


def stream_of(pool: RunningPool, node: str, base: str = "") -> bytes:
    out = io.BytesIO()
    send(str(pool.local.folder), node, out, base=base)
    return out.getvalue()


def take(pool: RunningPool, name: str, data: bytes, *, force: bool = False) -> str:
    return receive(str(pool.local.folder), name, io.BytesIO(data), force=force).snapshot


def seen(pool: RunningPool, node: str) -> dict[str, object]:
    where = pool.mount(node)
    try:
        return everything(where)
    finally:
        pool.umount(where)


def names_of(pool: RunningPool) -> set[str]:
    with pool.api() as api:
        return {volume.name for volume in api.volumes() if volume.state == "ok"}


def info(pool: RunningPool, name: str) -> pb.Volume:
    with pool.api() as api:
        return api.volume(name)


def status(pool: RunningPool) -> pb.PoolStatus:
    with pool.api() as api:
        return api.status()


def test_everything_arrives_whole_and_then_step_by_step(pool: RunningPool, other: RunningPool) -> None:
    pool.redfs("volume", "create", "photos", "--protect", "ec:4+2", "--description", "ours")
    place = pool.mount("photos")
    fill(place, 1)
    kept_open = (place / "unlinked").open("wb")
    kept_open.write(b"nobody else sees this" * 10_000)
    kept_open.flush()
    (place / "unlinked").unlink()
    pool.redfs("snapshot", "create", "photos@0")
    assert take(other, "copy", stream_of(pool, "photos@0")) == "copy@0"
    assert info(other, "copy").description == info(other, "copy@0").description == "ours"
    assert info(other, "copy").protection == "mirror:2", "as far as the pool has nodes"
    truth = seen(pool, "photos@0")
    assert seen(other, "copy@0") == truth
    assert seen(other, "copy") == truth
    for step in (1, 2, 3):
        change(place, step)
        pool.redfs("snapshot", "create", f"photos@{step}")
        data = stream_of(pool, f"photos@{step}", f"photos@{step - 1}")
        assert len(data) < 4_000_000, "only what changed"
        assert take(other, "copy", data) == f"copy@{step}"
        truth = seen(pool, f"photos@{step}")
        assert seen(other, f"copy@{step}") == truth
        assert seen(other, "copy") == truth
    kept_open.close()
    pool.umount(place)
    # Nothing of what was deleted or cut off on the way is kept: step by step holds what a whole stream holds.
    take(other, "fresh", stream_of(pool, "photos@3"))
    held = {name: info(other, name).usage.logical_bytes for name in ("fresh@3", "copy@3")}
    assert held["fresh@3"] == held["copy@3"] > 0
    other.assert_clean()
    # Skipping a step works too: the base only has to be there.
    skipped = stream_of(pool, "photos@3", "photos@0")
    assert take(pool, "again", stream_of(pool, "photos@0")) == "again@0"
    assert take(pool, "again", skipped) == "again@3"
    assert seen(pool, "again@3") == seen(pool, "photos@3")
    pool.assert_clean()


def test_a_stream_into_the_same_pool_stores_nothing_anew(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "source", "--protect", "ec:4+2")
    place = pool.mount("source")
    fill(place, 5)
    pool.redfs("snapshot", "create", "source@s")
    before = status(pool)
    assert take(pool, "twin", stream_of(pool, "source@s")) == "twin@s"
    after = status(pool)
    assert (after.stored_bytes, after.blocks) == (before.stored_bytes, before.blocks)
    assert after.logical_bytes > before.logical_bytes
    pool.umount(place)
    assert seen(pool, "twin") == seen(pool, "source@s")
    pool.assert_clean()


def test_a_cut_or_damaged_stream_leaves_nothing(
    pool: RunningPool, other: RunningPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Many commits before the damage is seen.
    monkeypatch.setattr(send_module, "MAX_GROUP_ROWS", 10)
    monkeypatch.setattr(receive_module, "GROUPS_AHEAD", 0)
    pool.redfs("volume", "create", "v", "--protect", "mirror:2")
    place = pool.mount("v")
    fill(place, 9)
    pool.redfs("snapshot", "create", "v@0")
    whole = stream_of(pool, "v@0")
    change(place, 1)
    pool.redfs("snapshot", "create", "v@1")
    step = stream_of(pool, "v@1", "v@0")
    pool.umount(place)
    rng = random.Random(4)
    there = names_of(other)
    for _ in range(3):
        with pytest.raises(Corrupt):
            take(other, "v", whole[: rng.randrange(2000, len(whole))])
        damaged = bytearray(whole)
        damaged[rng.randrange(2000, len(whole))] ^= 4
        with pytest.raises(Corrupt):
            take(other, "v", bytes(damaged))
        assert names_of(other) == there
    with pytest.raises(Corrupt, match="cut"):
        take(other, "v", whole[:-1])
    assert names_of(other) == there
    take(other, "v", whole)
    truth = seen(other, "v@0")
    there = names_of(other)
    for end in (len(step) - 1, len(step) // 2, rng.randrange(2000, len(step))):
        with pytest.raises(Corrupt):
            take(other, "v", step[:end])
        assert names_of(other) == there
        assert seen(other, "v") == truth, "as it was before"
    assert take(other, "v", step) == "v@1"
    other.wait_for_idle()
    other.assert_clean()


def test_what_does_not_fit_is_refused(pool: RunningPool, other: RunningPool) -> None:
    pool.redfs("volume", "create", "w", "--protect", "mirror:2")
    place = pool.mount("w")
    (place / "a").write_bytes(b"a" * 100_000)
    pool.redfs("snapshot", "create", "w@0")
    (place / "b").write_bytes(b"b")
    pool.redfs("snapshot", "create", "w@1")
    (place / "c").write_bytes(b"c")
    pool.redfs("snapshot", "create", "w@2")
    live = stream_of(pool, "w")
    pool.umount(place)
    whole, step, far = stream_of(pool, "w@0"), stream_of(pool, "w@1", "w@0"), stream_of(pool, "w@2", "w@1")
    with pytest.raises(InvalidArgument, match="no ancestor"):
        stream_of(pool, "w@0", "w@1")
    with pytest.raises(InvalidArgument, match="no snapshot"):
        stream_of(pool, "w@1", "w")
    with pytest.raises(NotAllowed, match="zero"):
        stream_of(pool, "zero")
    with pytest.raises(NotFound):
        take(other, "w", step)
    take(other, "w", whole)
    with pytest.raises(AlreadyExists):
        take(other, "w", whole)
    with pytest.raises(NotFound, match="no snapshot that was received"):
        take(other, "w", far)
    mounted = other.mount("w")
    with pytest.raises(Busy):
        take(other, "w", step)
    (mounted / "of our own").write_bytes(b"x")
    other.umount(mounted)
    with pytest.raises(NotAllowed, match="--force"):
        take(other, "w", step)
    assert take(other, "w", step, force=True) == "w@1"
    assert seen(other, "w") == seen(pool, "w@1")
    with pytest.raises(AlreadyExists, match="received w@1 already"):
        take(other, "w", step)
    with pytest.raises(InvalidArgument):
        take(other, "x" + SUFFIX, whole)
    # A mounted volume is flushed and sent as it is.
    made = take(other, "live", live)
    assert made.startswith("live@sent-")
    assert seen(other, "live") == seen(pool, "w")


def test_what_a_killed_receiver_left_is_taken_over(pool: RunningPool, other: RunningPool) -> None:
    pool.redfs("volume", "create", "k", "--protect", "mirror:2")
    place = pool.mount("k")
    fill(place, 3)
    pool.redfs("snapshot", "create", "k@0")
    pool.umount(place)
    whole = stream_of(pool, "k@0")
    command = [sys.executable, "-m", "redfs.client.cli.main", "--pool", str(other.local.folder), "receive", "k"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd="/") as running:
        assert running.stdin is not None
        running.stdin.write(whole[: len(whole) * 3 // 4])
        running.stdin.flush()
        wait_for(lambda: "k" + SUFFIX in names_of(other), "receiving")
        wait_for(lambda: bool(info(other, "k" + SUFFIX).mounts), "received into")
        running.kill()
    assert "k" not in names_of(other)
    assert "k" + SUFFIX in names_of(other)
    assert "incomplete" in info(other, "k" + SUFFIX).description

    def taken() -> bool:
        """As soon as the killed one's lease has lapsed."""
        try:
            take(other, "k", whole)
        except Busy:
            return False
        return True

    wait_for(taken, "the stream received")
    assert f"k{SUFFIX}" not in names_of(other)
    assert seen(other, "k") == seen(pool, "k@0")


def test_the_command_line_pipes_one_into_the_other(pool: RunningPool, other: RunningPool, tmp_path: Path) -> None:
    pool.redfs("volume", "create", "c", "--protect", "mirror:2")
    place = pool.mount("c")
    (place / "a").write_bytes(b"a" * 300_000)
    pool.redfs("snapshot", "create", "c@0")
    (place / "a").rename(place / "b\\")
    (place / "new").write_bytes(b"n")
    program = [sys.executable, "-m", "redfs.client.cli.main"]
    with (tmp_path / "stream").open("wb") as out:
        sent = subprocess.run(
            [*program, "--pool", str(pool.local.folder), "send", "c@0"], stdout=out, stderr=subprocess.PIPE, text=True,
            check=True, cwd="/",
        )  # fmt: skip
    assert sent.stderr.startswith("Sent c@0: ")
    with (tmp_path / "stream").open("rb") as file:
        got = subprocess.run(
            [*program, "--pool", str(other.local.folder), "receive", "c", "--json"], stdin=file, capture_output=True,
            text=True, check=True, cwd="/",
        )  # fmt: skip
    assert '"snapshot": "c@0"' in got.stdout
    # New files get numbers that the stream did not bring.
    own = other.mount("c")
    (own / "own").write_bytes(b"own")
    assert (own / "own").stat().st_ino != (own / "a").stat().st_ino
    assert (own / "a").read_bytes() == b"a" * 300_000
    other.umount(own)
    other.assert_clean()
    # The mount is flushed for the comparison.
    assert pool.redfs("diff", "c@0", "c").splitlines() == ["R a -> b\\x5c", "+ new"]
    pool.umount(place)
