"""The namespace engine at the coordinator: what a mount does that shares its volume with others that write.

Every operation that changes something is one round trip, and durable when it returns, so the next operation on any host
sees it. Names and attributes are remembered until somebody is about to change them (`remembered.py`); what is written
to files that this host has just made stays here until another host looks (`held_files.py`). Blocks never change, so
those that were read stay in the block cache. Written data goes to the storage nodes first, then the coordinator lays it
over what the file holds by then: an append goes to the end that the file has in that moment.

A change has a number, so that one that is sent again after a lost answer is answered, not repeated. The coordinator
counts who has which inode open: this engine tells it the first open and the last close of each.

Waits through an absence of the coordinator or of storage nodes for `give_up_s`, as everything in a mount does. Fails
with FsError for what POSIX defines, RolledBack where the volume is another one by now, LeaseLapsed after the session's
end (then it is not known whether the operation took place).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from errno import EEXIST, EFBIG, EIO, ENOENT, ESTALE
from functools import partial
from typing import Any, TypeVar

from redfs.client.fs.config import Buffer, Stored
from redfs.client.fs.engine import O_EXCL, O_TRUNC
from redfs.client.fs.handles import Handle
from redfs.client.fs.held_files import HeldFile, HeldFiles
from redfs.client.fs.local_engine import Place
from redfs.client.fs.remembered import NOTHING, Remembered
from redfs.client.fs.turns import Turns
from redfs.core.errors import (
    CommitRefused,
    Corrupt,
    FsError,
    NotFound,
    RedfsError,
    RolledBack,
    TooFewNodes,
    Unavailable,
)
from redfs.core.namespace import Context, Entry, Listed, Removed, Renamed
from redfs.core.records import (
    MAX_FILE_BYTES,
    SLOT_BYTES,
    Inode,
    Kind,
    Slot,
    Xattr,
    decode_inode,
    decode_slot,
    encode_inode,
    encode_slot,
    encode_xattrs,
    slot_key,
    split_slot_object,
    xattr_key,
)
from redfs.core.slots import merge_plan, resolve, slot_range
from redfs.proto.gen import cluster_pb2 as pb

log = logging.getLogger("redfs.fs")
T = TypeVar("T")

PASSING = (Unavailable, TooFewNodes)
"""Errors after which the same call may succeed, and which no program should see at once."""
GONE_ROUNDS = 4
"""Looks at a range whose blocks turn out to be gone, because somebody has just written over them."""
WRITE_ROUNDS = 64
"""Attempts of one write: each one more means that others have changed the same slots meanwhile."""
LOOK_ROUNDS = 64
"""Looks at names whose files are let go by this host meanwhile, so that what was read may be from before."""
RENAME_NOREPLACE = 1
_ZEROS = bytes(SLOT_BYTES)
_DOTS = (b".", b"..")
_CHANGES_NOTHING = ("open", "release")
"""Operations that leave attributes and names as they are, but for O_TRUNC and the end of an inode."""
_OF_NAMES = ("create", "mknod", "mkdir", "symlink", "unlink", "rmdir", "rename", "make_copy")
"""Operations whose `name` is one in the folder `ino`."""


class ChangeNumbers:
    """The numbers of a session's changes. Plain state."""

    def __init__(self) -> None:
        self._next = 1
        self._under_way: dict[int, None] = {}

    def take(self) -> int:
        """The next number."""
        number = self._next
        self._next += 1
        self._under_way[number] = None
        return number

    def done(self, number: int) -> None:
        """It is answered, or will not be sent again."""
        del self._under_way[number]

    @property
    def answered(self) -> int:
        """All up to this one are done."""
        return next(iter(self._under_way), self._next) - 1


class RemoteEngine:
    """See the module. `opened`: inode -> handles, kept by the vfs."""

    is_shared = True
    uncommitted = 0

    def __init__(self, place: Place, numbers: ChangeNumbers, *, read_only: bool = False) -> None:
        self._place = place
        self._session = place.session
        self._config = place.config
        self._numbers = numbers
        self._opens = Turns()
        """First opens and last closes of an inode are told in order."""
        self.failure: RedfsError | None = None
        self._read_only = read_only
        self.remembered = Remembered(place.clock, lambda: place.session.lease_s / 3)
        self.held = HeldFiles(place, self._patiently, self._numbered, self.remembered)

    async def start(self) -> None:
        """Reserves space for what is kept of new files."""
        if not self._read_only:
            await self.held.space.ask()

    # ------------------------------------------------------------ finding

    async def lookup(self, parent: int, name: bytes) -> Entry:
        known = self._remembered_entry(parent, name)
        if known is not None:
            return known
        for _ in range(LOOK_ROUNDS):
            mark, asked = self.held.endings.mark(), self.remembered.mark()
            reply = await self._look("lookup", ino=parent, name=name)
            if reply.ino == NOTHING:
                if reply.remember:
                    self.remembered.learn_name(asked, parent, name, NOTHING)
                raise FsError(ENOENT)
            if not self.held.endings.any_since(mark, [reply.ino]):
                inode = decode_inode(reply.inode)
                if reply.remember:
                    self.remembered.learn_name(asked, parent, name, reply.ino)
                    self.remembered.learn_inode(asked, reply.ino, inode)
                return Entry(reply.ino, self.held.shown(reply.ino, inode))
        raise _too_busy(parent)

    def _remembered_entry(self, parent: int, name: bytes) -> Entry | None:
        """What a name is known to be; None: not known. ENOENT where there is known to be nothing."""
        if self.failure is not None:
            raise self.failure
        ino = self.remembered.name(parent, name)
        if ino == NOTHING:
            raise FsError(ENOENT)
        inode = None if ino is None else self.remembered.inode(ino)
        return None if ino is None or inode is None else Entry(ino, self.held.shown(ino, inode))

    async def getattr(self, ino: int) -> Inode:
        held = self._held(ino)
        if held is not None:
            return held.shown
        known = self.remembered.inode(ino)
        if known is not None:
            return known
        asked = self.remembered.mark()
        reply = await self._look("getattr", ino=ino)
        inode = decode_inode(reply.inode)
        if reply.remember:
            self.remembered.learn_inode(asked, ino, inode)
        return inode

    async def readlink(self, ino: int) -> bytes:
        value: bytes = (await self._look("readlink", ino=ino)).value
        return value

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        value: bytes = (await self._look("getxattr", ino=ino, name=name)).value
        return value

    async def listxattr(self, ino: int) -> list[bytes]:
        return list((await self._look("listxattr", ino=ino)).names)

    def lacks_attribute(self, ino: int, name: bytes) -> bool:
        """Somebody else may have set it just now, unless the file is held."""
        return self.held.lacks_attribute(ino, name)

    async def readdir(self, ino: int, after_cookie: int, limit: int) -> list[tuple[Listed, Inode]]:
        for _ in range(LOOK_ROUNDS):
            mark, asked = self.held.endings.mark(), self.remembered.mark()
            reply = await self._look("readdir", ino=ino, after_cookie=after_cookie, limit=limit)
            if not self.held.endings.any_since(mark, [entry.ino for entry in reply.entries]):
                break
        else:
            raise _too_busy(ino)
        listed = []
        for entry in reply.entries:
            recorded = decode_inode(entry.inode)
            if reply.remember and entry.name not in _DOTS:
                self.remembered.learn_name(asked, ino, entry.name, entry.ino)
                self.remembered.learn_inode(asked, entry.ino, recorded)
            inode = self.held.shown(entry.ino, recorded)
            listed.append((Listed(entry.cookie, entry.name, entry.ino, entry.file_type, inode), inode))
        return listed

    # ------------------------------------------------------------ making, removing, moving

    async def create(self, ctx: Context, parent: int, name: bytes, mode: int, flags: int) -> Entry:
        with self.held.creating() as made:
            hold = self.held.is_wanted
            reply = await self._change("create", ctx, ino=parent, name=name, mode=mode, flags=flags, hold=hold)
            if reply.held:
                made(reply.ino, decode_inode(reply.inode))
        if reply.existed:
            # Somebody else was faster. Its last close here may be under way, so it is opened in turn with that.
            try:
                inode = await self.opened(ctx, reply.ino, flags & ~(O_EXCL | O_TRUNC), again=False)
            except FsError as error:
                raise FsError(ESTALE) if error.errno == ENOENT else error from None
            return Entry(reply.ino, inode)
        return Entry(reply.ino, decode_inode(reply.inode))

    async def mknod(self, ctx: Context, parent: int, name: bytes, mode: int, rdev: int) -> Entry:
        return _entry(await self._change("mknod", ctx, ino=parent, name=name, mode=mode, rdev=rdev))

    async def mkdir(self, ctx: Context, parent: int, name: bytes, mode: int) -> Entry:
        return _entry(await self._change("mkdir", ctx, ino=parent, name=name, mode=mode))

    async def symlink(self, ctx: Context, parent: int, name: bytes, target: bytes) -> Entry:
        return _entry(await self._change("symlink", ctx, ino=parent, name=name, value=target))

    async def link(self, ctx: Context, ino: int, new_parent: int, new_name: bytes) -> Entry:
        async with self.held.pinned(ino):
            reply = await self._change("link", ctx, ino=ino, new_parent=new_parent, new_name=new_name)
            return Entry(ino, self._recorded(ino, reply.inode))

    async def unlink(self, ctx: Context, parent: int, name: bytes) -> Removed:
        reply = await self._change("unlink", ctx, ino=parent, name=name)
        return self._removed(reply.ino, reply.inode)

    async def rmdir(self, ctx: Context, parent: int, name: bytes) -> Removed:
        reply = await self._change("rmdir", ctx, ino=parent, name=name)
        return self._removed(reply.ino, reply.inode)

    async def rename(
        self, ctx: Context, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> Renamed:
        """Where it replaces another, the moved file's data is recorded first."""
        if self.held.dirty_inodes:
            if not flags:
                try:
                    return await self._rename(ctx, old_parent, old_name, new_parent, new_name, RENAME_NOREPLACE)
                except FsError as error:
                    if error.errno != EEXIST:
                        raise
            if flags != RENAME_NOREPLACE:
                source = await self._look("lookup", ino=old_parent, name=old_name)
                await self.held.let_go([source.ino])
        return await self._rename(ctx, old_parent, old_name, new_parent, new_name, flags)

    async def _rename(
        self, ctx: Context, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> Renamed:
        reply = await self._change(
            "rename", ctx, ino=old_parent, name=old_name, new_parent=new_parent, new_name=new_name, flags=flags
        )
        replaced = self._removed(reply.replaced, reply.replaced_inode) if reply.replaced else None
        return Renamed(reply.ino, self._recorded(reply.ino, reply.inode), replaced)

    def _removed(self, ino: int, record: bytes) -> Removed:
        if record:
            return Removed(ino, self._recorded(ino, record))
        self.held.gone(ino)
        return Removed(ino, None)

    def _recorded(self, ino: int, record: bytes) -> Inode:
        """An inode as a change has left it, as it is shown."""
        inode = decode_inode(record)
        self.held.changed(ino, inode)
        return self.held.shown(ino, inode)

    def _held(self, ino: int) -> HeldFile | None:
        """The file, if it is held."""
        if self.failure is not None:
            raise self.failure
        return self.held.get(ino)

    async def copy_in(
        self,
        ctx: Context,
        parent: int,
        name: bytes,
        like: Inode,
        xattrs: Sequence[Xattr],
        slots: Mapping[int, Slot],
        size: int,
    ) -> Entry:
        rows = [
            pb.Row(kind=Kind.XATTR, obj=xattr_key(0, number).obj, value=encode_xattrs((xattr,)))
            for number, xattr in enumerate(xattrs)
        ]
        rows += _slot_rows(slots)
        return _entry(
            await self._change("make_copy", ctx, ino=parent, name=name, inode=encode_inode(like), rows=rows, size=size)
        )

    async def copy_in_more(self, ino: int, slots: Mapping[int, Slot], size: int) -> None:
        await self._change("record_slots", Context(0, 0, 0), ino=ino, rows=_slot_rows(slots), size=size)

    async def leaves_room(self, size: int, *, anew: bool = False) -> bool:
        """The coordinator refuses what does not fit."""
        return True

    # ------------------------------------------------------------ attributes

    async def setattr(self, ctx: Context, ino: int, change: Mapping[str, Any]) -> Inode:
        """A new size of a held file stays here, all else is sent. A time that is set counts until the next write."""
        given = {name: value for name, value in change.items() if value is not None}
        if "size" in given:
            held = self._held(ino)
            if held is not None and len(given) == 1 and given["size"] >= 0 and self.held.cut(held, given["size"]):
                return held.shown
            await self.held.let_go([ino])
        async with self.held.pinned(ino) as held:
            changes = 0 if held is None else held.changes
            reply = await self._change("setattr", ctx, ino=ino, attributes=pb.SetAttributes(**given))
            if held is not None and "mtime_ns" in given and held.changes == changes:
                held.mtime_ns = None
            return self._recorded(ino, reply.inode)

    async def setxattr(self, ctx: Context, ino: int, name: bytes, value: bytes, flags: int) -> None:
        async with self.held.pinned(ino):
            reply = await self._change("setxattr", ctx, ino=ino, name=name, value=value, flags=flags)
            self._recorded(ino, reply.inode)

    async def removexattr(self, ctx: Context, ino: int, name: bytes) -> None:
        async with self.held.pinned(ino):
            reply = await self._change("removexattr", ctx, ino=ino, name=name)
            self._recorded(ino, reply.inode)

    # ------------------------------------------------------------ open files

    async def opened(self, ctx: Context, ino: int, flags: int, *, again: bool) -> Inode:
        async with self._opens.of(ino):
            if again and not flags & O_TRUNC:
                return await self.getattr(ino)
            if flags & O_TRUNC:
                await self.held.let_go([ino])
            self.held.opened(ino)
            async with self.held.pinned(ino):
                reply = await self._change("open", ctx, ino=ino, flags=flags)
                return self._recorded(ino, reply.inode)

    async def closed(self, ctx: Context, ino: int) -> None:
        async with self._opens.of(ino):
            let_go = self.held.closed(ino)
            reply = await self._change("release", ctx, ino=ino, let_go=let_go)
            if not reply.inode:
                self.held.gone(ino)

    def error_of(self, ino: int) -> RedfsError | None:
        """They are kept, and tried again. Where a file is not held, a write that fails says so itself."""
        return self.held.error_of(ino)

    async def fsync(self, ino: int) -> None:
        held = self._held(ino)
        if held is not None and held.is_dirty:
            await self.held.let_go([ino])
        error = self.held.error_of(ino)
        if error is not None:
            raise error

    async def barrier(self) -> None:
        """Every operation is durable when it returns."""

    async def sync(self) -> None:
        await self.held.flush()

    async def returned(self, inodes: Sequence[int]) -> None:
        """Another host asks about inodes that this one holds: returns when they are let go, or cannot be."""
        try:
            await self.held.returned(inodes)
        except RedfsError as error:
            log.warning("another host waits for data that could not be stored: %s", error)

    # ------------------------------------------------------------ reading

    async def read(self, handle: Handle, offset: int, size: int) -> Buffer:
        ino = handle.ino
        held = self._held(ino)
        if held is not None:
            return bytes(held.content[offset : offset + size])
        upto = self._read_ahead_to(handle, offset, size)
        for _ in range(GONE_ROUNDS):
            inode, slots = await self._content(ino, offset, upto)
            if offset >= inode.size:
                return b""
            length = min(size, inode.size - offset)
            self._prefetch(slots, offset + length, min(upto, inode.size))
            try:
                return await self._assemble(slots, offset, length)
            except NotFound as error:
                log.debug("a block of inode %d was replaced while it was read: %s", ino, error)
                self.remembered.drop([ino])
        raise Corrupt(f"blocks of inode {ino} at {offset} are nowhere to be found: run `redfs check`")

    async def _content(self, ino: int, offset: int, upto: int) -> tuple[Inode, Mapping[int, Slot]]:
        """The inode and the slots of a range as they are; holes are left out or empty."""
        first, last = offset // SLOT_BYTES, (upto - 1) // SLOT_BYTES
        known = self.remembered.content(ino, first, last)
        if known is not None:
            return known
        asked = self.remembered.mark()
        reply = await self._look("read", ino=ino, offset=first * SLOT_BYTES, size=(last + 1 - first) * SLOT_BYTES)
        inode = decode_inode(reply.inode)
        self._place.reader.learn(reply.blocks, reply.segments)
        slots = {split_slot_object(row.obj)[2]: decode_slot(row.value) for row in reply.slots}
        if reply.remember:
            with_holes = {number: slots.get(number, ()) for number in range(first, last + 1)}
            self.remembered.learn_content(asked, ino, inode, with_holes)
        return inode, slots

    def _read_ahead_to(self, handle: Handle, offset: int, size: int) -> int:
        """Where a read's range ends with what is fetched ahead: the more, the longer reading goes on in order."""
        end = offset + size
        if offset != handle.next_offset:
            handle.window = handle.ahead = 0
        elif offset and handle.ahead - end <= handle.window // 2:
            handle.window = min(max(2 * handle.window, self._config.prefetch_first_bytes), self._config.batch_bytes)
            handle.ahead = end + handle.window
            end = handle.ahead
        handle.next_offset = offset + size
        return end

    def _prefetch(self, slots: Mapping[int, Slot], offset: int, upto: int) -> None:
        if upto > offset:
            first, last = offset // SLOT_BYTES, (upto - 1) // SLOT_BYTES
            blocks = [piece.block for n in range(first, last + 1) for piece in slots.get(n, ())]
            self._place.reader.prefetch(list(dict.fromkeys(blocks)), whole_segments=False)

    async def _assemble(self, slots: Mapping[int, Slot], offset: int, length: int) -> Buffer:
        """The bytes of a range. NotFound where a block is gone."""
        extents = [
            extent
            for number, start, part, _ in slot_range(offset, length)
            for extent in resolve(slots.get(number, ()), start, part)
        ]
        blocks = list(dict.fromkeys([extent.block for extent in extents if extent.block]))
        data = dict(zip(blocks, await self._place.reader.read_many(blocks), strict=True)) if blocks else {}
        parts: list[Buffer] = []
        for extent in extents:
            if not extent.block:
                parts.append(_ZEROS[: extent.length])
                continue
            block = data[extent.block]
            whole = extent.block_offset == 0 and len(block) == extent.length
            start = extent.block_offset
            parts.append(block if whole else memoryview(block)[start : start + extent.length])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # ------------------------------------------------------------ writing

    async def write(self, handle: Handle, offset: int, data: Buffer) -> int:
        """Stores bytes and lays them over the file. Where several were appended at once, each is in one piece."""
        if not len(data):
            return 0
        if offset + len(data) > MAX_FILE_BYTES:
            raise FsError(EFBIG)
        append = handle.appends
        while (held := self._held(handle.ino)) is not None:
            if self.held.write(held, len(held.content) if append else offset, data):
                return len(data)
            await self.held.let_go([handle.ino])
        blocks = _cut(data, 0 if append else offset % SLOT_BYTES)
        reply = await self._store_and_tell(handle.ino, offset, append, blocks)
        for _ in range(WRITE_ROUNDS):
            if not reply.full:
                return len(data)
            for row in reply.full:
                await self._merge(handle.ino, row)
            reply = await self._store_and_tell(handle.ino, offset, append, blocks)
        raise FsError(EIO, f"inode {handle.ino} is written to at {offset} by too many at once")

    async def _merge(self, ino: int, row: pb.Row) -> None:
        """Rewrites a slot that lists too many pieces as one block, unless somebody changes it meanwhile."""
        slot = decode_slot(row.value) if row.value else ()
        plan = merge_plan(slot)
        if not plan.length:
            return
        number = split_slot_object(row.obj)[2]
        try:
            data = await self._assemble({number: slot}, number * SLOT_BYTES + plan.offset, plan.length)
        except NotFound:
            return  # it is another one by now
        await self._store_and_tell(ino, number * SLOT_BYTES + plan.offset, False, [data], [row])

    async def _store_and_tell(
        self, ino: int, offset: int, append: bool, blocks: Sequence[Buffer], expected: Sequence[pb.Row] = ()
    ) -> pb.WriteThroughReply:
        dedupe = True
        for _ in range(WRITE_ROUNDS):
            stored = await self._patiently(partial(self._place.store.store, blocks, dedupe=dedupe))
            try:
                reply = await self._tell(ino, offset, append, stored, expected)
            except CommitRefused as error:
                log.info(
                    "%d blocks that a write counted on are gone: storing its data again", len(error.missing_blocks)
                )
                await self._place.store.abandon(stored)
                dedupe = False
                continue
            except RedfsError:
                await self._place.store.abandon(stored)
                raise
            if reply.full:
                await self._place.store.abandon(stored)
            return reply
        raise FsError(EIO, f"blocks that inode {ino} was to hold are gone again and again")

    async def _tell(
        self, ino: int, offset: int, append: bool, stored: Stored, expected: Sequence[pb.Row]
    ) -> pb.WriteThroughReply:
        def request(number: int, answered: int) -> dict[str, Any]:
            return {
                "write_through": pb.WriteThrough(
                    volume_id=self._place.volume_id,
                    lineage=self._place.lineage,
                    number=number,
                    answered=answered,
                    ino=ino,
                    offset=0 if append else offset,
                    append=append,
                    segments=stored.segments,
                    blocks=stored.blocks,
                    parts=[pb.StoredPart(block_id=block, bytes=length) for block, length in stored.refs],
                    expected=expected,
                )
            }

        with self.remembered.changing([ino]):
            reply: pb.WriteThroughReply = await self._numbered(request)
        return reply

    # ------------------------------------------------------------ the end

    def tick(self) -> None:
        """Writes what is old of new files."""
        if self.failure is None:
            self.held.tick()

    @property
    def is_clean(self) -> bool:
        return not self.held.dirty_inodes

    def unsure(self) -> tuple[set[int], set[int]]:
        dirty = set(self.held.dirty_inodes)
        return dirty, dirty

    def fail(self, error: RedfsError) -> None:
        self.failure = error
        self.held.fail(error)

    async def abandon(self, error: RedfsError) -> None:
        self.held.fail(error)
        await self.held.stop()

    async def ended(self) -> None:
        await self.held.ended()

    async def stop(self) -> None:
        await self.held.stop()

    # ------------------------------------------------------------ the conversation

    async def _look(self, operation: str, **fields: Any) -> Any:
        """A reply. It shows everything that had returned, on any host, when this was called."""
        if self.failure is not None:
            raise self.failure
        look = pb.Look(volume_id=self._place.volume_id, lineage=self._place.lineage, operation=operation, **fields)
        return await self._patiently(lambda: self._call(look=look))

    async def _change(self, operation: str, ctx: Context, **fields: Any) -> Any:
        if operation in _CHANGES_NOTHING and not fields.get("flags", 0) & O_TRUNC:
            reply = await self._send_change(operation, ctx, fields, ())
            if not reply.inode:
                self.remembered.drop([fields["ino"]])
            return reply
        inodes = [fields["ino"], fields["new_parent"]] if "new_parent" in fields else [fields["ino"]]
        names = []
        if operation in _OF_NAMES:
            names.append((fields["ino"], fields["name"]))
        if "new_name" in fields:
            names.append((fields["new_parent"], fields["new_name"]))
        with self.remembered.changing(inodes, names) as dropped:
            return await self._send_change(operation, ctx, fields, dropped)

    async def _send_change(
        self, operation: str, ctx: Context, fields: Mapping[str, Any], dropped: Sequence[int]
    ) -> Any:
        def request(number: int, answered: int) -> dict[str, Any]:
            return {
                "change": pb.Change(
                    volume_id=self._place.volume_id,
                    lineage=self._place.lineage,
                    number=number,
                    answered=answered,
                    operation=operation,
                    uid=ctx.uid,
                    gid=ctx.gid,
                    groups=ctx.groups,
                    forgot=dropped,
                    **fields,
                )
            }

        return await self._numbered(request)

    async def _numbered(self, request: Callable[[int, int], dict[str, Any]]) -> Any:
        """Sends a change until it is answered: under one number, so that it takes place once."""
        if self.failure is not None:
            raise self.failure
        number = self._numbers.take()
        try:
            return await self._patiently(lambda: self._call(**request(number, self._numbers.answered)))
        finally:
            self._numbers.done(number)

    async def _call(self, **body: Any) -> Any:
        try:
            return await self._session.call(**body)
        except RolledBack:
            self._place.on_rolled_back()
            raise

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Calls again while it fails by what passes, for `give_up_s`."""
        until_s = self._place.clock() + self._config.give_up_s
        pause_s = self._config.retry_first_s
        while True:
            try:
                return await call()
            except PASSING as error:
                if self.failure is not None:
                    raise self.failure from None
                if self._place.clock() >= until_s:
                    raise
                log.warning("an operation waits: %s", error)
            await self._place.sleep(pause_s)
            pause_s = min(2 * pause_s, self._config.retry_max_s)


def _entry(reply: pb.ChangeReply) -> Entry:
    return Entry(reply.ino, decode_inode(reply.inode))


def _too_busy(ino: int) -> FsError:
    return FsError(EIO, f"files in folder {ino} are being let go faster than it can be read")


def _slot_rows(slots: Mapping[int, Slot]) -> list[pb.Row]:
    return [
        pb.Row(kind=Kind.SLOT, obj=slot_key(0, 1, number).obj, value=encode_slot(slot))
        for number, slot in slots.items()
    ]


def _cut(data: Buffer, start: int) -> list[Buffer]:
    """Parts that end where slots do, if the data begins `start` bytes behind the beginning of one."""
    first = SLOT_BYTES - start
    if len(data) <= first:
        return [data]
    view = memoryview(data)
    return [view[:first], *[view[at : at + SLOT_BYTES] for at in range(first, len(data), SLOT_BYTES)]]
