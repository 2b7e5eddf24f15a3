"""Everything that can be done to the volume tree, done to a real pool and to a plain dictionary beside it.

Each operation takes its choices from a `Dice`, so that Hypothesis and a seeded generator drive the same operations.
What may not be done is tried too, and must be refused. `compare` holds the pool against the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import pytest

from redfs.core.errors import AlreadyExists, FsError, NotAllowed, NotFound, RedfsError
from redfs.core.records import SLOT_BYTES
from tests.tree.world import FOLDER, Content, File, Mount, World

T = TypeVar("T")
MAX_NODES = 14
MAX_PATHS = 12
SETTINGS = ("description", "color", "protection", "compression", "quota_bytes")


class Dice(Protocol):
    """Choices, from outside."""

    def pick(self, choices: Sequence[T]) -> T: ...

    def number(self, low: int, high: int) -> int: ...


@dataclass
class Node:
    """A node of the tree as the model has it."""

    volume_id: int
    name: str
    kind: str
    parent_id: int
    settings: dict[str, Any]
    content: Content = field(default_factory=dict)
    deleted: bool = False


class Tree:
    """The pool and the model."""

    def __init__(self) -> None:
        self.world = World()
        self.nodes: dict[int, Node] = {1: Node(1, "zero", "zero", 0, {})}
        self.mounts: dict[int, Mount] = {}
        self._names = 0

    # ------------------------------------------------------------ choosing

    def named(self, *kinds: str) -> list[Node]:
        return [n for n in self.nodes.values() if n.kind in kinds and not n.deleted]

    def has_room(self) -> bool:
        return len(self.named("live", "snapshot")) < MAX_NODES

    def _fresh(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def _find(self, name: str) -> Node:
        return next(node for node in self.named("live", "snapshot", "zero") if node.name == name)

    # ------------------------------------------------------------ the tree's operations

    def create(self, dice: Dice) -> None:
        """A volume is born from the zero volume, by either of its two names."""
        name = self._fresh("v")
        settings = self._settings(dice)
        if dice.number(0, 1):
            made = self.world.call("create_volume", name, **settings)
        else:
            made = self.world.call("clone", "zero", name, **settings).snapshot
        whole = {"description": "", "color": "", "protection": "ec:4+2", "compression": "zstd", "quota_bytes": 0}
        self._add(made, "live", 1, whole | settings, {})

    def _settings(self, dice: Dice) -> dict[str, Any]:
        choices: dict[str, Sequence[Any]] = {
            "description": ("", "mine", "Größe"),
            "color": ("", "red", "#3a7bd5"),
            "protection": ("ec:4+2", "mirror:3", "ec:2+1", "single"),
            "compression": ("zstd", "none"),
            "quota_bytes": (0, 1 << 40),
        }
        chosen = [name for name in SETTINGS if dice.number(0, 2) == 0]
        return {name: dice.pick(choices[name]) for name in chosen}

    def _add(self, made: Any, kind: str, parent_id: int, settings: dict[str, Any], content: Content) -> Node:
        node = Node(made.volume_id, made.name, kind, parent_id, dict(settings), dict(content))
        assert made.parent_id == parent_id
        self.nodes[node.volume_id] = node
        return node

    def snapshot(self, dice: Dice) -> None:
        source = dice.pick(self.named("live"))
        reply = self.world.call("create_snapshot", f"{source.name}@{self._fresh('s')}")
        assert reply.holder_flushed
        self._add(reply.snapshot, "snapshot", source.volume_id, source.settings, source.content)

    def clone(self, dice: Dice) -> None:
        source = dice.pick(self.named("live", "snapshot"))
        settings = self._settings(dice)
        reply = self.world.call("clone", source.name, self._fresh("c"), **settings)
        self._add(reply.snapshot, "live", source.volume_id, source.settings | settings, source.content)

    def clone_backed(self, dice: Dice) -> None:
        source = dice.pick(self.named("live"))
        name = self._fresh("b")
        reply = self.world.call("clone", source.name, name, backed=True)
        snapshot = self.world.call("volume", f"{source.name}@{name}")
        backing = self._add(snapshot, "snapshot", source.volume_id, source.settings, source.content)
        self._add(reply.snapshot, "live", backing.volume_id, source.settings, source.content)

    def rename(self, dice: Dice) -> None:
        node = dice.pick(self.named("live", "snapshot"))
        if node.kind == "snapshot":
            volume = node.name.partition("@")[0]
            new = f"{volume}@{self._fresh('r')}"
            self.world.call("rename_volume", node.name, new)
            node.name = new
            return
        new = self._fresh("n")
        self.world.call("rename_volume", node.name, new)
        for below in self.named("snapshot"):
            if below.parent_id == node.volume_id:
                below.name = f"{new}@{below.name.partition('@')[2]}"
        node.name = new

    def set(self, dice: Dice) -> None:
        node = dice.pick(self.named("live", "snapshot"))
        settings = self._settings(dice)
        if node.kind == "snapshot" and settings.keys() - {"description", "color"}:
            self.refused(NotAllowed, "set_volume", node.name, **settings)
            return
        self.world.call("set_volume", node.name, **settings)
        node.settings |= settings

    def roll_back(self, dice: Dice) -> None:
        snapshots = [n for n in self.named("snapshot") if not self.nodes[n.parent_id].deleted]
        if not snapshots:
            return
        snapshot = dice.pick(snapshots)
        volume = self.nodes[snapshot.parent_id]
        if volume.volume_id in self.mounts and dice.number(0, 2) == 0:
            self.world.run(self.mounts.pop(volume.volume_id).close())
        how = dice.number(0, 2) if self.has_room() else 0
        keep = self._fresh("k") if how == 1 else ""
        reply = self.world.call("roll_back", snapshot.name, keep=keep, discard=how == 0)
        assert reply.HasField("kept") == (how != 0)
        if how:
            self._add(reply.kept, "snapshot", volume.volume_id, volume.settings, volume.content)
        volume.content = dict(snapshot.content)

    def delete(self, dice: Dice) -> None:
        node = dice.pick(self.named("live", "snapshot"))
        self.world.call("delete_volume", node.name, force=True)
        mount = self.mounts.pop(node.volume_id, None)
        if mount is not None:
            self._drop(mount)
        node.deleted = True
        self._prune()

    def _drop(self, mount: Mount) -> None:
        """Ends the mount of a volume that was deleted under it: it is told at once."""
        self.world.run(self.world.until(lambda: mount.vfs.failure is not None))
        with contextlib.suppress(RedfsError):  # what is lost; nothing is for a snapshot
            self.world.run(mount.close())
        self.world.run(mount.session.close())

    def _prune(self) -> None:
        """Deleted nodes go when nothing descends from them."""
        while gone := [
            n.volume_id
            for n in self.nodes.values()
            if n.deleted and not any(c.parent_id == n.volume_id for c in self.nodes.values())
        ]:
            for number in gone:
                del self.nodes[number]

    def free_exactly(self, dice: Dice) -> None:
        """Deleting gives back just what was counted before, and what was charged to the node alone."""
        self.unmount_all()
        self.world.run(self.world.idle())
        node = dice.pick(self.named("live", "snapshot"))
        counted = self.world.call("freed", [node.name])
        assert self.world.call("volume", node.name).usage.logical_alone_bytes == counted.logical_bytes
        before = self.world.call("status")
        self.world.call("delete_volume", node.name)
        node.deleted = True
        self._prune()
        self.world.run(self.world.idle())
        after = self.world.call("status")
        for name in ("logical_bytes", "unique_bytes", "stored_bytes", "segment_bytes"):
            assert getattr(before, name) - getattr(after, name) == getattr(counted, name), name

    # ------------------------------------------------------------ what is refused

    def refused(self, error: type[RedfsError], name: str, *args: Any, **kwargs: Any) -> None:
        with pytest.raises(error):
            self.world.call(name, *args, **kwargs)

    def try_what_is_not_allowed(self, dice: Dice) -> None:
        self.refused(NotAllowed, "create_snapshot", "zero@s")
        self.refused(NotAllowed, "delete_volume", "zero")
        self.refused(NotAllowed, "rename_volume", "zero", "one")
        self.refused(NotAllowed, "set_volume", "zero", description="one")
        with pytest.raises(NotAllowed):
            self.world.run(self.world.mount("zero"))
        self.refused(NotFound, "volume", "nothing")
        for node in self.named("snapshot")[:1]:
            self.refused(NotAllowed, "clone", node.name, "x", backed=True)
            lives = not self.nodes[node.parent_id].deleted
            self.refused(AlreadyExists if lives else NotFound, "create_snapshot", node.name)
        for node in self.named("live")[:1]:
            self.refused(AlreadyExists, "clone", "zero", node.name)

    # ------------------------------------------------------------ mounts and files

    def mount(self, dice: Dice) -> None:
        """A live volume, or a snapshot, in which nothing can be changed."""
        node = dice.pick(self.named("live", "snapshot"))
        mount = self._mounted(node)
        if node.kind == "snapshot":
            with pytest.raises(FsError):
                self.world.run(mount.mkdir("never"))

    def _mounted(self, node: Node) -> Mount:
        mount = self.mounts.get(node.volume_id)
        if mount is None:
            mount = self.mounts[node.volume_id] = self.world.run(self.world.mount(node.name))
        return mount

    def unmount(self, dice: Dice) -> None:
        if self.mounts:
            self.world.run(self.mounts.pop(dice.pick(sorted(self.mounts))).close())

    def unmount_all(self) -> None:
        while self.mounts:
            self.world.run(self.mounts.popitem()[1].close())

    def change_files(self, dice: Dice) -> None:
        """A few changes in one volume, which is mounted for it if need be."""
        node = dice.pick(self.named("live"))
        mount = self._mounted(node)
        for _ in range(dice.number(1, 4)):
            self.world.run(self._change(dice, mount, node.content))

    async def _change(self, dice: Dice, mount: Mount, content: Content) -> None:
        files = sorted(path for path, file in content.items() if file.kind == "file")
        folders = ["", *sorted(path for path, file in content.items() if file == FOLDER)]
        room = len(content) < MAX_PATHS
        verb = dice.pick(["write", "write", "append", "truncate", "mkdir", "symlink", "unlink", "rmdir", "rename"])
        if verb == "write" and (room or files):
            path = self._path(dice, folders) if room else dice.pick(files)
            if content.get(path, File("file")).kind == "file":
                data = self._data(dice)
                await mount.write(path, data)
                content[path] = File("file", data)
        elif verb == "append" and files:
            path = dice.pick(files)
            data = self._data(dice)
            before = content[path].content
            await mount.append(path, len(before), data)
            content[path] = File("file", before + data)
        elif verb == "truncate" and files:
            path = dice.pick(files)
            size = dice.number(0, len(content[path].content))
            await mount.truncate(path, size)
            content[path] = File("file", content[path].content[:size])
        elif verb in ("mkdir", "symlink") and room:
            path = self._path(dice, folders)
            if path not in content:
                if verb == "mkdir":
                    await mount.mkdir(path)
                    content[path] = FOLDER
                else:
                    await mount.symlink(path, b"somewhere")
                    content[path] = File("symlink", b"somewhere")
        elif verb == "unlink" and (there := sorted(p for p, file in content.items() if file != FOLDER)):
            path = dice.pick(there)
            await mount.unlink(path)
            del content[path]
        elif verb == "rmdir":
            empty = [f for f in folders[1:] if not any(p.startswith(f + "/") for p in content)]
            if empty:
                path = dice.pick(empty)
                await mount.rmdir(path)
                del content[path]
        elif verb == "rename" and content:
            await self._rename_path(dice, mount, content, folders)

    async def _rename_path(self, dice: Dice, mount: Mount, content: Content, folders: list[str]) -> None:
        old = dice.pick(sorted(content))
        new = self._path(dice, [f for f in folders if f != old and not f.startswith(old + "/")])
        if new in content or new == old:
            return
        await mount.rename(old, new)
        for path in [p for p in content if p == old or p.startswith(old + "/")]:
            content[new + path[len(old) :]] = content.pop(path)

    def _path(self, dice: Dice, folders: list[str]) -> str:
        folder, name = dice.pick(folders), dice.pick("abcdefgh")
        return f"{folder}/{name}" if folder else name

    def _data(self, dice: Dice) -> bytes:
        """Some bytes, often equal to others, of less than a slot, a slot, or several."""
        size = dice.pick((0, 1, 5000, SLOT_BYTES, SLOT_BYTES + 1, 3 * SLOT_BYTES - 7))
        return (bytes([dice.number(1, 3)]) * 251 + bytes(5))[: size or 1] * (size // 256 + 1) if size else b""

    def copy(self, dice: Dice) -> None:
        """A file, a folder or everything of any node goes into a live volume, mounted or not; no data is stored."""
        source = dice.pick([n for n in self.named("live", "snapshot") if n.content])
        target = dice.pick(self.named("live"))
        path = dice.pick(["", *sorted(source.content)])
        new = self._fresh("copy")
        replaced = sorted(p for p, file in target.content.items() if file.kind == "file")
        whole = path == "" or source.content[path].kind == "folder"
        if len(target.content) + len(source.content) > 3 * MAX_PATHS:
            return
        if replaced and not whole and dice.number(0, 1):
            new = dice.pick(replaced)
            self.refused(AlreadyExists, "copy", source.name, path or "/", target.name, new)
        self.world.call("copy", source.name, path or "/", target.name, new, replace=True)
        below = {p[len(path) :].lstrip("/"): file for p, file in source.content.items() if not path or _is_in(p, path)}
        target.content.pop(new, None)
        if not path:
            target.content[new] = FOLDER
        for inside, file in below.items():
            target.content[f"{new}/{inside}" if inside else new] = file

    # ------------------------------------------------------------ the pool against the model

    def compare(self) -> None:
        """Every node's place, settings, allowed operations and content; the accounts; and what `check` says."""
        self.world.run(self.world.idle())
        listed = {volume.volume_id: volume for volume in self.world.call("volumes")}
        assert listed.keys() == self.nodes.keys()
        for number, node in self.nodes.items():
            self._compare_node(listed[number], node)
        for number, node in self.nodes.items():
            mount = self.mounts.get(number)
            if mount is not None:
                assert self.world.run(mount.content()) == node.content, node.name
                self.world.run(mount.sync())
            if not node.deleted and node.kind != "zero":
                assert self.world.run(self.world.look(node.name)) == node.content, node.name
        self.world.run(self.world.idle())
        self._compare_usage()
        assert self.world.problems() == []

    def _compare_node(self, shown: Any, node: Node) -> None:
        assert (shown.kind, shown.parent_id) == (node.kind, node.parent_id), node.name
        if node.deleted:
            assert shown.state != "ok"
            assert list(shown.allowed) == []
            return
        assert (shown.name, shown.state) == (node.name, "ok")
        if node.kind == "zero":
            assert list(shown.allowed) == ["clone"]
            return
        assert {name: getattr(shown, name) for name in SETTINGS} == node.settings
        assert len(shown.mounts) == (node.volume_id in self.mounts)
        assert ("snapshot" in shown.allowed) == (node.kind == "live")
        assert ("restore" in shown.allowed) == (node.kind == "snapshot")

    def _compare_usage(self) -> None:
        for node in self.named("live"):
            usage = self.world.call("volume", node.name).usage
            assert usage.logical_bytes == sum(len(f.content) for f in node.content.values() if f.kind == "file")
            assert usage.stored_bytes <= usage.logical_bytes + 2 * len(node.content) * MAX_NODES

    def close(self) -> None:
        """In the end everything is deleted, and nothing may be left."""
        try:
            self.unmount_all()
            for node in self.named("live", "snapshot"):
                self.world.call("delete_volume", node.name)
            self.world.run(self.world.idle())
            assert self.world.problems() == []
            status = self.world.call("status")
            assert (status.logical_bytes, status.blocks, status.segments, status.charged_bytes) == (0, 0, 0, 0)
            assert [volume.name for volume in self.world.call("volumes")] == ["zero"]
        finally:
            self.world.close()


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


OPERATIONS: dict[str, tuple[Callable[[Tree, Dice], None], Callable[[Tree], bool], int]] = {
    "create": (Tree.create, Tree.has_room, 1),
    "snapshot": (Tree.snapshot, lambda t: t.has_room() and bool(t.named("live")), 3),
    "clone": (Tree.clone, lambda t: t.has_room() and bool(t.named("live", "snapshot")), 2),
    "clone_backed": (Tree.clone_backed, lambda t: t.has_room() and bool(t.named("live")), 1),
    "rename": (Tree.rename, lambda t: bool(t.named("live", "snapshot")), 1),
    "set": (Tree.set, lambda t: bool(t.named("live", "snapshot")), 1),
    "roll_back": (Tree.roll_back, lambda t: bool(t.named("snapshot")), 2),
    "delete": (Tree.delete, lambda t: bool(t.named("live", "snapshot")), 2),
    "free_exactly": (Tree.free_exactly, lambda t: bool(t.named("live", "snapshot")), 1),
    "mount": (Tree.mount, lambda t: bool(t.named("live", "snapshot")), 1),
    "unmount": (Tree.unmount, lambda t: bool(t.mounts), 2),
    "change_files": (Tree.change_files, lambda t: bool(t.named("live")), 6),
    "copy": (Tree.copy, lambda t: bool(t.named("live")) and any(n.content for n in t.named("live", "snapshot")), 3),
    "try_what_is_not_allowed": (Tree.try_what_is_not_allowed, lambda t: True, 1),
}
"""Name -> (operation, when it is possible, how often a random history does it)."""
