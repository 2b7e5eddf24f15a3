"""Copies a file or a folder from a frozen node of the volume tree into a volume, without moving data.

The source is a view: records that never change, read through a cache of their own. The target is a `Vfs`, mounted or
not. Each inode of the source gets a new one in the target, with type, mode, owner, times, extended attributes, holes;
a file's slots name the same blocks as the source's, so nothing is read or stored. Blocks keep the protection that they
were written with. Folders are walked page by page, long files slot by slot; what is kept at a time has bounds.

The copy is built beside its place under a temporary name, which follows from its name, and gets its name when it is
whole: nobody sees half a copy there. Where copying fails the temporary one is removed; where the process dies it is
removed by the next copy to the same place.

Left to the caller: freezing the source, and keeping it frozen until all of this is committed (`copier`): only then do
the blocks have references of their own.

Fails with NotFound, InvalidArgument, AlreadyExists for places that cannot be, with Busy where another copy to the same
place is under way, with NoSpace where the target's quota does not leave room, and as `Vfs` and the session do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from errno import EEXIST, EISDIR, ENOENT, ENOTDIR
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import NamedTuple

from redfs.client.fs.metadata import Metadata
from redfs.client.fs.vfs import Vfs
from redfs.core import namespace as engine
from redfs.core.errors import (
    AlreadyExists,
    Busy,
    Corrupt,
    FsError,
    InvalidArgument,
    NoSpace,
    NotFound,
    RedfsError,
    Unavailable,
)
from redfs.core.ids import ROOT_INO
from redfs.core.namespace import RENAME_NOREPLACE, Context, Entry, Miss
from redfs.core.namespace.lookup import DOT_DOT_COOKIE
from redfs.core.records import (
    INODE_HAS_XATTRS,
    MAX_NAME_BYTES,
    SLOT_BYTES,
    Inode,
    Slot,
    Xattr,
    generation_of,
    inode_key,
    name_hash,
    slot_key,
)
from redfs.core.slots import logical_bytes, slot_count
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.fs")

PAGE_ENTRIES = 256
"""Entries of a folder worked on together: what they need is fetched in a few calls."""
FEW_SLOTS = 4
"""Files of so many slots have them fetched together with those of their neighbours: at most one call of 1000."""
SLOTS_AT_ONCE = 512
"""Slots of a long file that are fetched and recorded together: 64 MiB of file, some 5 ms without a pause."""
MAX_DEPTH = 2048
"""Folders within one another: what the longest path that programs can name reaches. A level keeps up to a page."""
MAX_OPEN_LINKS = 128 * 1024
"""Files with several names of which not all were met yet: 25 MiB. Beyond, names become files of their own."""
MAX_PATH_BYTES = 64 * 1024
"""Of a path in a request: above what programs can name."""
REMOVE_S = 30.0
"""For removing a copy that failed: what is left then is removed by the next one to the same place."""
TEMPORARY_PREFIX = b".redfs-copy-"

Lookup = Callable[[int, bytes], Awaitable[Entry]]


def split_path(path: bytes) -> list[bytes]:
    """The components of a path inside a volume. A leading `/`, double ones and `.` mean nothing; InvalidArgument."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if len(path) > MAX_PATH_BYTES or b"\0" in path:
        raise InvalidArgument(f"a path has at most {MAX_PATH_BYTES} bytes and no NUL")
    if b".." in parts:
        raise InvalidArgument(f"{_text(path)} has '..' in it: write the path from the top of the volume")
    for part in parts:
        if len(part) > MAX_NAME_BYTES:
            raise InvalidArgument(f"a name has at most {MAX_NAME_BYTES} bytes: {_text(part[:32])}... is longer")
    return parts


def names_folder(path: bytes) -> bool:
    """Whether the path is written as a folder's: with a `/` at its end."""
    return path.endswith((b"/", b"/."))


def temporary_name(name: bytes) -> bytes:
    """The name that a copy has while it is made, in the folder where it will be `name`."""
    return TEMPORARY_PREFIX + b"%015x" % name_hash(0, name)


class Source:
    """What is copied from: a frozen node of the tree."""

    def __init__(self, metadata: Metadata, name: str) -> None:
        self.name = name
        self._metadata = metadata

    async def find(self, path: bytes) -> Entry:
        """The inode at a path. Raises NotFound, InvalidArgument."""
        top = Entry(ROOT_INO, (await self._metadata.run(engine.getattr, ROOT_INO)).value)
        entry = await _walk(self._lookup, top, split_path(path), self.name)
        if names_folder(path) and not S_ISDIR(entry.inode.mode):
            raise InvalidArgument(f"{self.name}:{_text(path)} is no folder: leave out the / at its end")
        return entry

    async def _lookup(self, parent: int, name: bytes) -> Entry:
        return (await self._metadata.run(engine.lookup, parent, name)).value

    async def inode(self, ino: int) -> Inode:
        return (await self._metadata.run(engine.getattr, ino)).value

    async def page(self, ino: int, after_cookie: int) -> tuple[list[tuple[bytes, Entry]], int]:
        """(names and inodes of some entries behind a cookie, cookie to go on from); no entries at the end.

        Their attributes and few slots are fetched too, all together.
        """
        while True:
            listed = (await self._metadata.run(engine.readdir, ino, after_cookie, PAGE_ENTRIES)).value
            unknown = [inode_key(item.ino) for item in listed if item.inode is None]
            unknown = [key for key in unknown if not self._metadata.knows(key)]
            if not unknown:
                break
            await self._metadata.fetch(Miss(keys=unknown))
        page: list[tuple[bytes, Entry]] = []
        for item in listed:
            if item.inode is None:
                raise Corrupt(f"folder {ino} of {self.name} has an entry without an inode: run `redfs check`")
            page.append((item.name, Entry(item.ino, item.inode)))
        await self._fetch(page)
        return page, listed[-1].cookie if listed else after_cookie

    async def _fetch(self, page: Sequence[tuple[bytes, Entry]]) -> None:
        keys = []
        with_xattrs = []
        for _, (ino, inode) in page:
            if inode.flags & INODE_HAS_XATTRS:
                with_xattrs.append(ino)
            if S_ISREG(inode.mode) and slot_count(inode.size) <= FEW_SLOTS:
                numbers = range(slot_count(inode.size))
                keys += [slot_key(ino, generation_of(inode.generations, number), number) for number in numbers]
        keys = [key for key in keys if not self._metadata.knows(key)]
        if keys or with_xattrs:
            await self._metadata.fetch(Miss(keys=keys, xattrs_of=with_xattrs))

    async def xattrs(self, ino: int) -> list[Xattr]:
        return (await self._metadata.run(engine.all_xattrs, ino)).value

    async def slots(self, ino: int, inode: Inode) -> AsyncIterator[tuple[dict[int, Slot], int]]:
        """A file's slots in order, some at a time, each with the size that the file has with them; at least once."""
        count = slot_count(inode.size)
        if count <= FEW_SLOTS:
            few = (await self._metadata.run(engine.read_slots, ino, 0, FEW_SLOTS)).value
            yield {number: slot for number, slot in enumerate(few) if slot}, inode.size
            return
        ranges = [r for r in inode.generations if r.first_slot < count]
        for index, (first, generation) in enumerate(ranges):
            end = ranges[index + 1].first_slot if index + 1 < len(ranges) else count
            complete = False
            while not complete:
                rows, complete = await self._metadata.scan_slots(ino, generation, first, end, SLOTS_AT_ONCE)
                first = end if complete or not rows else rows[-1][0] + 1
                complete = first >= end
                yield dict(rows), min(inode.size, first * SLOT_BYTES)


class Copied(NamedTuple):
    """What became of a copy."""

    reply: pb.CopyFilesReply
    parent: int
    name: bytes
    """The entry that is new."""


async def copy_files(
    source: Source,
    vfs: Vfs,
    request: pb.CopyFiles,
    *,
    under_way: set[tuple[int, bytes]],
) -> Copied:
    """Carries out a request; see the module. What it did is in the write log then, not yet committed.

    `under_way`: the temporary entries of the copies into this volume that run now; kept here.
    """
    steps = _Steps(vfs, request.target)
    found = await source.find(request.source_path)
    parts = split_path(request.source_path)
    own_name = parts[-1] if parts else request.source.encode()
    place = await _find_place(vfs, request, own_name, is_folder=S_ISDIR(found.inode.mode))
    temporary = (place.parent, temporary_name(place.name))
    if temporary in under_way:
        raise Busy(f"another copy to {place.shown} is under way: wait for its end")
    under_way.add(temporary)
    try:
        if await _lookup(vfs, *temporary) is not None:
            log.info("removing what a copy to %s left that did not come to its end", place.shown)
            await _remove(steps, *temporary)
        copy = _Copy(source, steps)
        try:
            await copy.copy(found, *temporary)
            await _give_name(steps, place, temporary[1], replace=request.replace and not S_ISDIR(found.inode.mode))
        except BaseException:
            await _remove_quietly(steps, *temporary)
            raise
    finally:
        under_way.discard(temporary)
    reply = pb.CopyFilesReply(files=copy.files, bytes=copy.bytes, path=place.path)
    return Copied(reply, place.parent, place.name)


class _Steps:
    """The changes that one copy makes: each is a step, and each is made in the state of the volume that it began in."""

    def __init__(self, vfs: Vfs, name: str) -> None:
        self.vfs = vfs
        self._name = name
        self._lineage = vfs.lineage

    @asynccontextmanager
    async def step(self) -> AsyncIterator[Context]:
        """Inside, the volume is not rolled back. Unavailable where it was: what was made so far may be there in part,
        if the snapshot was taken meanwhile, and going on would give the copy its name without the rest."""
        async with self.vfs.gate.passed():
            if self.vfs.lineage != self._lineage:
                raise Unavailable(f"{self._name!r} was rolled back while it was copied to: copy again")
            yield Context(0, 0, self.vfs.now_ns())


# ---------------------------------------------------------------- places


class _Place(NamedTuple):
    """Where a copy is to be."""

    parent: int
    name: bytes
    path: bytes
    shown: str


async def _walk(lookup: Lookup, top: Entry, parts: Sequence[bytes], node: str) -> Entry:
    at = top
    for index, part in enumerate(parts):
        if not S_ISDIR(at.inode.mode):
            what = "a symbolic link, which is not followed here" if S_ISLNK(at.inode.mode) else "no folder"
            raise InvalidArgument(f"{_shown(node, parts[:index])} is {what}")
        try:
            at = await lookup(at.ino, part)
        except FsError as error:
            if error.errno != ENOENT:
                raise
            raise NotFound(f"there is no {_shown(node, parts[: index + 1])}") from None
    return at


async def _find_place(vfs: Vfs, request: pb.CopyFiles, own_name: bytes, *, is_folder: bool) -> _Place:
    """The target's folder and name. Raises what stands in the way."""
    node = request.target
    parts = split_path(request.target_path)
    as_folder = not parts or names_folder(request.target_path)
    top = Entry(ROOT_INO, await vfs.getattr(ROOT_INO))
    there: Entry | None = top
    parent = top
    if parts:
        try:
            parent = await _walk(vfs.lookup, top, parts[:-1], node)
        except NotFound as error:
            raise NotFound(f"{error}: make that folder first") from None
        if not S_ISDIR(parent.inode.mode):
            await _walk(vfs.lookup, top, parts, node)  # says which component is none
        there = await _lookup(vfs, parent.ino, parts[-1])
    if there is not None and S_ISDIR(there.inode.mode):
        parent, parts = there, [*parts, own_name]
        there = await _lookup(vfs, parent.ino, own_name)
    elif as_folder and (there is not None or not is_folder):
        raise InvalidArgument(f"{_shown(node, parts)} is no folder: leave out the / at its end, or make that folder")
    shown = _shown(node, parts)
    if there is not None:
        if S_ISDIR(there.inode.mode):
            raise AlreadyExists(f"{shown} is a folder already, and none is ever replaced: choose another place")
        if is_folder:
            raise AlreadyExists(f"{shown} exists and is no folder: choose another place")
        if not request.replace:
            raise AlreadyExists(f"{shown} exists already: have it replaced (--replace), or choose another place")
    return _Place(parent.ino, parts[-1], b"/" + b"/".join(parts), shown)


async def _lookup(vfs: Vfs, parent: int, name: bytes) -> Entry | None:
    try:
        return await vfs.lookup(parent, name)
    except FsError as error:
        if error.errno != ENOENT:
            raise
        return None


async def _give_name(steps: _Steps, place: _Place, temporary: bytes, *, replace: bool) -> None:
    """The copy is whole: it gets its name."""
    try:
        flags = 0 if replace else RENAME_NOREPLACE
        async with steps.step() as ctx:
            await steps.vfs.rename(ctx, place.parent, temporary, place.parent, place.name, flags)
    except FsError as error:
        if error.errno not in (EEXIST, EISDIR, ENOTDIR):
            raise
        raise AlreadyExists(f"{place.shown} was made by somebody else meanwhile: choose another place") from None


def _shown(node: str, parts: Sequence[bytes]) -> str:
    return f"{node}:/{_text(b'/'.join(parts))}"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


# ---------------------------------------------------------------- copying


class _Folder:
    """A folder that is being copied."""

    def __init__(self, ino: int, like: Inode, target: int) -> None:
        self.ino = ino
        self.like = like
        self.target = target
        self.cookie = DOT_DOT_COOKIE
        self.below: list[tuple[int, bytes]] = []
        """Folders of the last page that are still to be copied."""


class _Copy:
    """One copy under way."""

    def __init__(self, source: Source, steps: _Steps) -> None:
        self.files = 0
        self.bytes = 0
        self._source = source
        self._steps = steps
        self._vfs = steps.vfs
        self._links: dict[int, list[int]] = {}
        """Source inode -> [its copy, names that are still to come]."""
        self._links_lost = False

    async def copy(self, found: Entry, parent: int, name: bytes) -> None:
        """Copies an inode and all below it."""
        await self._vfs.engine.leaves_room(0, anew=True)  # a session without a mount has not asked yet
        if not S_ISDIR(found.inode.mode):
            await self._file(found, parent, name)
            return
        stack = [await self._folder(found, parent, name)]
        while stack:
            folder = stack[-1]
            if folder.below:
                ino, name = folder.below.pop()
                if len(stack) >= MAX_DEPTH:
                    raise InvalidArgument(f"folders lie more than {MAX_DEPTH} deep in one another: copy them in parts")
                stack.append(await self._folder(Entry(ino, await self._source.inode(ino)), folder.target, name))
                continue
            page, folder.cookie = await self._source.page(folder.ino, folder.cookie)
            if not page:
                # Last, since every entry that was made in it changed them.
                times = folder.like
                async with self._steps.step() as ctx:
                    await self._vfs.setattr(ctx, folder.target, atime_ns=times.atime_ns, mtime_ns=times.mtime_ns)
                stack.pop()
            for child_name, child in page:
                if S_ISDIR(child.inode.mode):
                    folder.below.append((child.ino, child_name))
                else:
                    await self._file(child, folder.target, child_name)

    async def _folder(self, found: Entry, parent: int, name: bytes) -> _Folder:
        return _Folder(found.ino, found.inode, await self._make(found, parent, name))

    async def _file(self, found: Entry, parent: int, name: bytes) -> None:
        """Copies what is no folder, or gives its copy another name."""
        known = self._links.get(found.ino)
        if known is not None:
            async with self._steps.step() as ctx:
                await self._vfs.link(ctx, known[0], parent, name)
            self.files += 1
            known[1] -= 1
            if not known[1]:
                del self._links[found.ino]
            return
        made = await self._make(found, parent, name)
        if found.inode.nlink > 1:
            if len(self._links) < MAX_OPEN_LINKS:
                self._links[found.ino] = [made, found.inode.nlink - 1]
            elif not self._links_lost:
                self._links_lost = True
                log.warning(
                    "more than %d files with several names are being copied: some names become files of their own",
                    MAX_OPEN_LINKS,
                )

    async def _make(self, found: Entry, parent: int, name: bytes) -> int:
        """The copy of one inode, whole but for a folder's entries."""
        await asyncio.sleep(0)  # programs that use the mount get their turn
        ino, like = found
        vfs = self._vfs
        xattrs = await self._source.xattrs(ino)
        self.files += 1
        if not S_ISREG(like.mode):
            async with self._steps.step() as ctx:
                return await vfs.copy_in(ctx, parent, name, like, xattrs, {}, 0)
        made = 0
        async for slots, size in self._source.slots(ino, like):
            async with self._steps.step() as ctx:
                await self._charge(slots)
                if made:
                    await vfs.copy_in_more(made, slots, size)
                else:
                    made = await vfs.copy_in(ctx, parent, name, like, xattrs, slots, size)
            await asyncio.sleep(0)
        return made

    async def _charge(self, slots: Mapping[int, Slot]) -> None:
        """Counts logical bytes that are about to be taken over. NoSpace where the quota does not leave so many."""
        size = logical_bytes(slots)
        if not await self._vfs.engine.leaves_room(size):
            raise NoSpace(
                f"the quota of '{self._vfs.volume_name}' does not leave room for the copy, which counts like files "
                "that were written: raise it, or delete files there"
            )
        self.bytes += size


# ---------------------------------------------------------------- taking away


async def _remove(steps: _Steps, parent: int, name: bytes) -> None:
    """Removes a name and all below it."""
    vfs = steps.vfs
    stack: list[tuple[int, bytes]] = [(parent, name)]
    while stack:
        parent, name = stack[-1]
        entry = await vfs.lookup(parent, name)
        if not S_ISDIR(entry.inode.mode):
            async with steps.step() as ctx:
                await vfs.unlink(ctx, parent, name)
            stack.pop()
            continue
        listed = await vfs.engine.readdir(entry.ino, DOT_DOT_COOKIE, PAGE_ENTRIES)
        if not listed:
            async with steps.step() as ctx:
                await vfs.rmdir(ctx, parent, name)
            stack.pop()
        for item, _ in listed:
            if item.file_type << 12 == 0o040000:
                stack.append((entry.ino, item.name))
                break
            async with steps.step() as ctx:
                await vfs.unlink(ctx, entry.ino, item.name)
        await asyncio.sleep(0)


async def _remove_quietly(steps: _Steps, parent: int, name: bytes) -> None:
    """After a failure, which is told; what stays is removed by the next copy to that place."""
    try:
        async with asyncio.timeout(REMOVE_S):
            await _remove(steps, parent, name)
    except (RedfsError, TimeoutError) as error:
        if not isinstance(error, FsError) or error.errno != ENOENT:
            log.warning("what was copied so far stays in %s as %s: %s", steps.vfs.path_of(parent), _text(name), error)
