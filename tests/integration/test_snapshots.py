"""Snapshots and clones of volumes in use, in any order, against a model that copies everything."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.pools import RunningPool, wait_for
from tests.lengths import examples

pytestmark = pytest.mark.mount

FreshPool = Callable[[int], RunningPool]
Content = dict[str, bytes]


def content_of(place: Path) -> Content:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_a_snapshot_holds_what_was_written_before_it_and_nothing_later(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "photos", "--protect", "ec:4+2")
    place = pool.mount("photos")
    (place / "folder").mkdir()
    (place / "folder" / "a").write_bytes(b"before" * 1000)
    (place / "b").write_bytes(b"not synced, still in the mount")
    made = pool.data("snapshot", "create", "photos@one")
    assert made["holder_flushed"]
    (place / "folder" / "a").write_bytes(b"after")
    (place / "b").unlink()
    (place / "c").write_bytes(b"new")

    frozen = pool.mount("photos@one")
    assert content_of(frozen) == {"folder/a": b"before" * 1000, "b": b"not synced, still in the mount"}
    with pytest.raises(OSError, match="Read-only"):
        (frozen / "x").write_bytes(b"")
    pool.redfs("clone", "photos@one", "try-it")
    clone = pool.mount("try-it")
    (clone / "b").write_bytes(b"of the clone")
    os.rename(clone / "folder", clone / "renamed")
    assert content_of(clone) == {"renamed/a": b"before" * 1000, "b": b"of the clone"}
    assert content_of(frozen) == {"folder/a": b"before" * 1000, "b": b"not synced, still in the mount"}
    assert content_of(place) == {"folder/a": b"after", "c": b"new"}
    for where in (place, frozen, clone):
        pool.umount(where)
    for words in (("volume", "rm", "photos"), ("snapshot", "rm", "photos@one")):
        pool.redfs(*words, "--yes")
    clone = pool.mount("try-it")
    assert content_of(clone) == {"renamed/a": b"before" * 1000, "b": b"of the clone"}
    pool.umount(clone)
    pool.wait_for_idle()
    pool.assert_clean()


def test_a_live_volume_is_cloned_while_it_is_written(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "source", "--protect", "mirror:2")
    place = pool.mount("source")
    (place / "a").write_bytes(b"a" * 300_000)
    pool.redfs("clone", "source", "copy")
    pool.redfs("clone", "source", "backed", "--backed", "--snapshot", "point", "--protect", "mirror:3")
    (place / "a").write_bytes(b"changed")
    backed = pool.data("volume", "info", "backed")
    assert backed["protection"] == "mirror:3"
    assert backed["parent_id"] == pool.data("volume", "info", "source@point")["volume_id"]
    where = pool.mount("backed")
    assert content_of(where) == {"a": b"a" * 300_000}
    pool.umount(where)
    clone = pool.mount("copy")
    assert content_of(clone) == {"a": b"a" * 300_000}
    assert content_of(place) == {"a": b"changed"}
    pool.umount(place)
    pool.umount(clone)


def test_a_mount_whose_volume_was_deleted_gives_errors_and_is_unmounted(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "doomed", "--protect", "mirror:2")
    place = pool.mount("doomed")
    (place / "a").write_bytes(b"a")
    pool.redfs("snapshot", "create", "doomed@s")
    frozen = pool.mount("doomed@s")
    code, said = pool.refused("volume", "rm", "doomed")
    assert code == 2
    assert "is mounted by" in said
    (place / "b").write_bytes(b"not saved yet")
    pool.redfs("volume", "rm", "doomed", "--yes")
    pool.redfs("snapshot", "rm", "doomed@s", "--yes")
    for where in (place, frozen):
        with pytest.raises(OSError, match="Input/output error"):
            (where / "new").stat()
    with pytest.raises(OSError, match="Input/output error"):
        (place / "c").write_bytes(b"c")
    code, said = pool.refused("umount", str(place))
    assert "'doomed'" in said, "what was written and not saved is gone: that is no quiet success"
    assert not os.path.ismount(place)
    pool.umount(frozen)
    pool.wait_for_idle()
    pool.assert_clean()


def test_a_volume_is_rolled_back_and_forth(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "rolled", "--protect", "mirror:2")
    place = pool.mount("rolled")
    (place / "folder").mkdir()
    (place / "folder" / "a").write_bytes(b"before" * 1000)
    pool.redfs("snapshot", "create", "rolled@one")
    (place / "folder" / "a").unlink()
    (place / "b").write_bytes(b"after")
    pool.umount(place)

    assert pool.data("rollback", "rolled@one", "--keep", "two")["kept"]["name"] == "rolled@two"
    place = pool.mount("rolled")
    assert content_of(place) == {"folder/a": b"before" * 1000}
    (place / "c").write_bytes(b"goes on from the snapshot")
    pool.umount(place)
    pool.redfs("rollback", "rolled@two", "--discard", "--yes")
    place = pool.mount("rolled")
    assert content_of(place) == {"b": b"after"}
    pool.umount(place)
    for name in ("rolled@one", "rolled@two"):
        pool.redfs("snapshot", "rm", name, "--yes")
    pool.redfs("volume", "rm", "rolled", "--yes")
    pool.wait_for_idle()
    pool.assert_clean()


class Model:
    """The volume tree as copies: the obvious, slow way."""

    def __init__(self) -> None:
        self.live: dict[str, Content] = {}
        self.snapshots: dict[str, Content] = {}
        self.made = 0

    def name(self) -> str:
        self.made += 1
        return f"n{self.made}"


def change(place: Path, content: Content, source: random.Random) -> None:
    """Some changes to a mounted volume and to its model."""
    for _ in range(source.randrange(1, 4)):
        name = f"f{source.randrange(8)}"
        if source.random() < 0.2 and name in content:
            (place / name).unlink()
            del content[name]
        else:
            fresh = source.randbytes(source.choice((10, 3000, 150_000)))
            old = content.get(name, b"")
            position = source.randrange(len(old) + 1)
            with (place / name).open("r+b" if name in content else "w+b", buffering=0) as file:
                file.seek(position)
                file.write(fresh)
            content[name] = old[:position] + fresh + old[position + len(fresh) :]


@pytest.mark.timeout(1200)
def test_snapshots_and_clones_in_any_order(fresh_pool: FreshPool) -> None:
    nodes_made = examples(40)
    pool = fresh_pool(4)
    empty_disk = pool.disk_bytes()
    source = random.Random(nodes_made)
    model = Model()
    mounts: dict[str, Path] = {}
    with pool.api() as api:

        def create() -> str:
            name = model.name()
            api.create_volume(name, "ec:2+1")
            model.live[name] = {}
            return name

        create()
        while model.made < nodes_made:
            act = source.random()
            name = source.choice(sorted(model.live))
            if act < 0.45 and len(mounts) < 4:
                if name not in mounts:
                    mounts[name] = pool.mount(name)
                change(mounts[name], model.live[name], source)
            elif act < 0.6:
                if mounts:
                    closing = source.choice(sorted(mounts))
                    pool.umount(mounts.pop(closing))
            elif act < 0.75:
                snapshot = f"{name}@{model.name()}"
                assert api.create_snapshot(snapshot).holder_flushed
                model.snapshots[snapshot] = dict(model.live[name])
            elif act < 0.93:
                origin = source.choice(sorted(model.live | model.snapshots))
                made = model.name()
                api.clone(origin, made)
                model.live[made] = dict((model.live | model.snapshots)[origin])
            elif model.snapshots:
                gone = source.choice(sorted(model.snapshots))
                api.delete_volume(gone)
                del model.snapshots[gone]

        for where in mounts.values():
            pool.umount(where)
        for name, content in sorted((model.live | model.snapshots).items()):
            where = pool.mount(name)
            assert content_of(where) == content, name
            pool.umount(where)
        pool.assert_clean()

        names = sorted(model.live | model.snapshots)
        source.shuffle(names)
        for name in names:
            api.delete_volume(name)
        pool.wait_for_idle()
        wait_for(lambda: sum(node.shards for node in api.nodes()) == 0, "no shard left on any node")
    pool.assert_clean()
    assert [volume["kind"] for volume in pool.data("tree")] == ["zero"]
    assert pool.disk_bytes() < empty_disk + (4 << 20), "the disk space is back"
