"""Walking any node of the tree: folders, entries, and a path's versions over a volume's snapshots.

All of it shows the committed state: what a mount still holds dirty comes within seconds. Symbolic links are shown and
never followed. Versions are compared by the records of their data, not by reading it.

Raises NotFound and InvalidArgument for paths, Unavailable, Corrupt as the metadata's reads do.
"""

from __future__ import annotations

import asyncio
import hashlib
import stat
from collections.abc import Sequence
from typing import Any

from redfs.client.console import paths
from redfs.client.console.coordinator import Coordinator
from redfs.client.console.errors import from_fs
from redfs.client.console.views import View, Views
from redfs.core.errors import FsError, InvalidArgument, NotFound
from redfs.core.ids import ROOT_INO
from redfs.core.namespace import Context, Entry
from redfs.core.records import Inode, Kind, slot_key
from redfs.core.slots import slot_count
from redfs.proto.gen import cluster_pb2 as pb

DEFAULT_LIMIT = 500
MAX_LIMIT = 1000
"""Entries in one answer: some 300 KiB."""
NOBODY = Context(0, 0, 0)
"""Who closes what was opened: a view has no owners."""
FIRST_COOKIE = 2
"""Behind `.` and `..`."""
MAX_COOKIE = (1 << 63) - 1
MAX_VERSIONS = 256
"""Snapshots looked into for one path, the newest: each is a view and a few round trips."""
VERSIONS_AT_ONCE = 4
"""Views that one such request holds; beside it others still get theirs."""
VERSION_REQUESTS = 2
"""Such requests at once; later ones wait."""
SLOT_NUMBER = slice(12, None)
"""Of a slot's object: behind inode and generation."""
SLOTS_PER_SCAN = 1000
MAX_COMPARED_SLOTS = 200_000
"""Slot records read for one request, 25 GiB of file in all; beyond it is not known whether versions are the same."""


Identity = tuple[str, int, Any]
"""Of a version: kind, size, and what else must be equal (None: not known)."""


def kind_of(mode: int) -> str:
    """What an inode is, in the API's words."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "symlink" if stat.S_ISLNK(mode) else "special"


def where(view: View, names: Sequence[bytes]) -> str:
    """The path for messages."""
    return f"'/{paths.shown(b'/'.join(names))}' in '{view.node.name}'"


async def walk(view: View, names: Sequence[bytes]) -> Entry:
    """The inode at a path."""
    try:
        entry = Entry(ROOT_INO, await view.vfs.getattr(ROOT_INO))
        for name in names:
            entry = await view.vfs.lookup(entry.ino, name)
    except FsError as error:
        raise from_fs(error, where(view, names)) from error
    return entry


async def page(view: View, path: bytes, after: str, limit: int) -> dict[str, Any]:
    """A folder's entries behind a cursor, in the folder's own order, and the cursor of the next page."""
    names = paths.components(path)
    cookie = _cookie(after)
    entry = await walk(view, names)
    if not stat.S_ISDIR(entry.inode.mode):
        raise InvalidArgument(f"{where(view, names)} is no folder")
    vfs = view.vfs
    handle = await vfs.opendir(entry.ino)
    try:
        listed = await vfs.readdir(handle, cookie, limit)
    except FsError as error:
        raise from_fs(error, where(view, names)) from error
    finally:
        await vfs.releasedir(NOBODY, handle)
    base = b"/" + b"/".join(names)
    entries = [_entry(base, item.name, inode) for item, inode in listed]
    following = str(listed[-1][0].cookie) if len(listed) >= limit else None
    return {"node": view.node.name, "path": paths.encode(base), "entries": entries, "next": following}


def _cookie(after: str) -> int:
    if not after:
        return FIRST_COOKIE
    if not after.isascii() or not after.isdigit() or not FIRST_COOKIE <= int(after[:20]) <= MAX_COOKIE:
        raise InvalidArgument("after must be what `next` said in the page before")
    return int(after)


def _entry(base: bytes, name: bytes, inode: Inode) -> dict[str, Any]:
    kind = kind_of(inode.mode)
    return {
        "name": paths.shown(name),
        "path": paths.encode(base.rstrip(b"/") + b"/" + name),
        "kind": kind,
        "size": inode.size,
        "mtime_ns": inode.mtime_ns,
        "mode": stat.S_IMODE(inode.mode),
        "uid": inode.uid,
        "gid": inode.gid,
        "target": paths.shown(inode.symlink) if kind == "symlink" else None,
    }


# ---------------------------------------------------------------- versions


class Versions:
    """Looks for a path in a volume's snapshots."""

    def __init__(self, coordinator: Coordinator, views: Views) -> None:
        self._coordinator = coordinator
        self._views = views
        self._requests = asyncio.Semaphore(VERSION_REQUESTS)

    async def of(self, volume: str, path: bytes) -> list[dict[str, Any]]:
        """What a path is in each snapshot of a live volume, oldest first, and in the volume itself."""
        names = paths.components(path)
        async with self._requests:
            tree: pb.VolumeList = await self._coordinator.call("ListVolumes")
            nodes = _nodes_of(volume, tree.volumes)
            budget = [MAX_COMPARED_SLOTS]
            slots = asyncio.Semaphore(VERSIONS_AT_ONCE)
            looks = await asyncio.gather(*(self._look(node, names, slots, budget) for node in nodes))
        found: list[dict[str, Any]] = []
        before: tuple[dict[str, Any], Identity | None] | None = None
        for look in looks:
            if look is None:
                continue  # deleted meanwhile
            version, identity = look
            if before is not None and version["exists"]:
                version["same_as_previous"] = _same(before[1], identity)
            before = look
            found.append(version)
        return found

    async def _look(
        self, node: pb.Volume, names: Sequence[bytes], slots: asyncio.Semaphore, budget: list[int]
    ) -> tuple[dict[str, Any], Identity | None] | None:
        version: dict[str, Any] = {
            "node": node.name,
            "volume_id": node.volume_id,
            "created_ns": node.created_ns,
            "exists": False,
            "kind": None,
            "size": 0,
            "mtime_ns": None,
            "same_as_previous": None,
        }
        async with slots:
            try:
                async with self._views.of(node.name) as view:
                    try:
                        entry = await walk(view, names)
                    except (NotFound, InvalidArgument):
                        return version, None
                    identity = await _identity(view, entry, budget)
            except NotFound:
                return None
        inode = entry.inode
        version |= {
            "exists": True,
            "kind": kind_of(inode.mode),
            "size": inode.size,
            "mtime_ns": inode.mtime_ns,
        }
        return version, identity


def _nodes_of(volume: str, tree: Sequence[pb.Volume]) -> list[pb.Volume]:
    live = next((node for node in tree if node.name == volume and node.state == "ok"), None)
    if live is None:
        raise NotFound(f"no volume '{volume}'")
    if live.kind != "live":
        raise InvalidArgument(f"'{volume}' is no live volume: versions are those of a volume's snapshots")
    prefix = f"{volume}@"
    snapshots = [
        node for node in tree if node.kind == "snapshot" and node.state == "ok" and node.name.startswith(prefix)
    ]
    snapshots.sort(key=lambda node: (node.created_ns, node.volume_id))
    return [*snapshots[-MAX_VERSIONS:], live]


def _same(before: Identity | None, now: Identity | None) -> bool | None:
    """Whether two versions show the same; None where too much would have had to be compared to know. Times prove
    nothing either way: they can be set, and a file that is being written is committed in parts."""
    if before is None or now is None:
        return False
    if before[:2] != now[:2]:
        return False
    return None if before[2] is None or now[2] is None else before[2] == now[2]


async def _identity(view: View, entry: Entry, budget: list[int]) -> Identity:
    """What is equal where two versions show the same: (kind, size, the rest, None where that is not known). A folder's
    is what it lists, not what lies below."""
    inode = entry.inode
    kind = kind_of(inode.mode)
    if kind == "symlink":
        return kind, 0, inode.symlink
    if kind != "file":
        return kind, inode.size, (entry.ino, inode.mtime_ns, inode.rdev)
    end = slot_count(inode.size)
    if end > budget[0]:
        return kind, inode.size, None
    budget[0] -= end
    return kind, inode.size, await _digest(view, entry, end)


async def _digest(view: View, entry: Entry, end: int) -> bytes:
    """Of a file's slot records. Their generation is left out: a cut elsewhere in the file changes it."""
    digest = hashlib.blake2b(digest_size=16)
    ranges = entry.inode.generations
    for number, (first, generation) in enumerate(ranges):
        upto = min(end, ranges[number + 1].first_slot if number + 1 < len(ranges) else end)
        at, last = slot_key(entry.ino, generation, first).obj, slot_key(entry.ino, generation, upto).obj
        while at < last:
            request = pb.ScanRows(volume_id=view.view_id, kind=Kind.SLOT, start=at, end=last, limit=SLOTS_PER_SCAN)
            reply = await view.call(scan_rows=request)
            for row in reply.rows:
                digest.update(row.obj[SLOT_NUMBER] + len(row.value).to_bytes(4, "big") + row.value)
            if reply.complete or not reply.rows:
                break
            at = reply.rows[-1].obj + b"\0"
    return digest.digest()
