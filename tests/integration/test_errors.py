"""What people do wrong, and what is in their way: one clear line each, the right exit code, and nothing broken."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.pools import RunningPool, wait_for

pytestmark = pytest.mark.mount

FreshPool = Callable[[int], RunningPool]


def test_wrong_names_and_policies(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "taken")
    pool.redfs("snapshot", "create", "taken@one")
    for words, code, said in (
        (("volume", "info", "nothing"), 3, "nothing"),
        (("mount", "nothing", str(pool.folder / "nowhere")), 3, "nothing"),
        (("mount", "taken@nothing", str(pool.folder / "nowhere")), 3, "nothing"),
        (("snapshot", "create", "nothing@one"), 3, "nothing"),
        (("clone", "nothing", "x"), 3, "nothing"),
        (("volume", "rm", "nothing", "--yes"), 3, "nothing"),
        (("volume", "create", "taken"), 4, "taken"),
        (("clone", "taken", "taken"), 4, "taken"),
        (("snapshot", "create", "taken@one"), 4, "taken@one"),
        (("volume", "create", "bad/name"), 2, "bad/name"),
        (("volume", "create", ""), 2, "name"),
        (("volume", "create", "x", "--protect", "raid7"), 2, "raid7"),
        (("volume", "create", "x", "--protect", "ec:0+1"), 2, "ec:0+1"),
        (("volume", "create", "wide", "--protect", "ec:10+4"), 9, "node"),
        (("volume", "rm", "zero", "--yes"), 6, "zero"),
        (("mount", "zero", str(pool.folder / "nowhere")), 6, "zero"),
        (("node", "stop", "77"), 3, "77"),
    ):
        found, text = pool.refused(*words)
        assert found == code, f"{words}: {found}: {text}"
        assert said in text, f"{words}: {text}"
    pool.redfs("snapshot", "rm", "taken@one", "--yes")
    pool.redfs("volume", "rm", "taken", "--yes")


def test_mount_points_that_will_not_do(pool: RunningPool, tmp_path: Path) -> None:
    pool.redfs("volume", "create", "mine")
    place = pool.mount("mine")
    (tmp_path / "file").write_text("in the way")
    code, text = pool.refused("mount", "mine", str(tmp_path / "file"))
    assert code == 2, text
    # On a folder that is a mount already; a second writer; deleting what is mounted without a yes.
    pool.redfs("volume", "create", "other")
    assert pool.refused("mount", "other", str(place))[0] == 5
    assert pool.refused("mount", "mine", str(tmp_path / "second"))[0] == 5
    assert pool.refused("volume", "rm", "mine")[0] == 2
    # In use: nothing is unmounted, and nothing is stopped.
    with (place / "open").open("w") as file:
        file.write("x")
        assert pool.refused("umount", str(place))[0] == 5
        assert pool.refused("down")[0] == 5
    assert pool.data("status")["nodes_up"] == 6
    pool.umount(place)
    assert pool.refused("umount", str(place))[0] in (2, 3)


def test_a_coordinator_that_is_not_there(pool: RunningPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        for words in (("status",), ("mount", "mine", str(tmp_path / "x")), ("check",)):
            code, text = pool.refused("--pool", address, *words)
            assert code == 7, text
            assert address in text
    code, text = pool.refused("--pool", str(tmp_path), "status")
    assert code == 3
    assert "redfs up" in text


def test_up_again_and_a_taken_port(fresh_pool: FreshPool, tmp_path: Path) -> None:
    pool = fresh_pool(1)
    assert pool.data("up", "--no-console")["started"] == []
    port = pool.local.pool_file().coordinator.rpartition(":")[2]
    code, text = pool.refused("up", "--data", str(tmp_path / "second"), "--port", port)
    assert code == 5
    assert port in text
    assert pool.data("up", "--no-console", "--nodes", "2")["started"] == ["node-1"]
    pool.redfs("down")
    pool.redfs("down")
    assert sorted(pool.data("up", "--no-console")["started"]) == ["coordinator", "node-0", "node-1"]
    assert pool.local.pool_file().coordinator.rpartition(":")[2] == port


def test_a_disk_of_another_pool_is_refused(fresh_pool: FreshPool) -> None:
    one, two = fresh_pool(1), fresh_pool(1)
    one.redfs("down")
    two.redfs("down")
    os.rename(one.local.node(0).folder, one.folder / "own")
    os.rename(two.local.node(0).folder, one.local.folder / "node-0")
    code, text = one.refused("up")
    assert code == 7
    assert "pool" in text


def test_a_pool_of_a_version_to_come_is_refused(fresh_pool: FreshPool) -> None:
    pool = fresh_pool(1)
    path = pool.local.folder / "pool.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"version": 99}))
    code, text = pool.refused("status")
    assert code == 11
    assert "99" in text
    path.write_text(json.dumps(content))


def test_metadata_of_a_version_to_come_is_refused(fresh_pool: FreshPool) -> None:
    pool = fresh_pool(1)
    pool.redfs("down")
    path = pool.local.coordinator().folder / "identity"
    content = path.read_bytes()
    path.write_bytes(content[:8] + (99).to_bytes(2, "big") + content[10:])
    code, text = pool.refused("up")
    assert code == 7
    assert "version 99" in text
    path.write_bytes(content)
    pool.up()


def test_a_full_pool(fresh_pool: FreshPool) -> None:
    """Writes fail with ENOSPC, deleting works, and the space is there again."""
    pool = fresh_pool(3)
    pool.redfs("down")
    for number in range(3):
        # Disks of their own, small ones; what the nodes had there is hidden, so they join afresh.
        folder = str(pool.local.node(number).folder)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", folder], check=True)
    for path in (pool.local.coordinator().folder).iterdir():
        path.unlink()
    (pool.local.folder / "pool.json").unlink()
    pool.up()
    pool.redfs("volume", "create", "data", "--protect", "ec:2+1", "--compression", "none")
    place = pool.mount("data")
    source = random.Random(1)
    written = 0
    with pytest.raises(OSError) as caught:  # noqa: PT012
        while written < 1 << 30:
            with (place / f"file-{written >> 20}").open("wb", buffering=0) as file:
                file.write(source.randbytes(4 << 20))
                os.fsync(file.fileno())
            written += 4 << 20
    assert caught.value.errno == errno.ENOSPC
    assert written >= 64 << 20
    first = place / "file-0"
    assert first.read_bytes() == random.Random(1).randbytes(4 << 20)
    for path in list(place.iterdir()):
        path.unlink()
    pool.wait_for_idle()

    def there_is_room() -> bool:
        try:
            with (place / "again").open("wb", buffering=0) as file:
                file.write(source.randbytes(16 << 20))
                os.fsync(file.fileno())
        except OSError:
            return False
        return True

    wait_for(there_is_room, "room again")
    pool.umount(place)
    pool.wait_for_idle()
    pool.assert_clean()


def test_too_few_nodes_to_write(fresh_pool: FreshPool) -> None:
    pool = fresh_pool(3)
    pool.redfs("volume", "create", "data", "--protect", "mirror:3")
    place = pool.mount("data")
    with (place / "before").open("wb", buffering=0) as file:
        file.write(b"before")
        os.fsync(file.fileno())
    pool.redfs("node", "stop", "0")
    with pytest.raises(OSError), (place / "after").open("wb", buffering=0) as file:  # noqa: PT012
        file.write(b"after")
        os.fsync(file.fileno())
    assert (place / "before").read_bytes() == b"before"
    problems = " ".join(pool.data("status")["problems"])
    assert "node" in problems
    pool.redfs("node", "start", "0")
    with (place / "later").open("wb", buffering=0) as file:
        file.write(b"later")
        os.fsync(file.fileno())
    pool.umount(place)
