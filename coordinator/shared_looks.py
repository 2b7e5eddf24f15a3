"""What sessions read in shared mode: one operation of the namespace engine on the committed state, and where data lies.

A change is durable before it is answered, so a look that begins after the answer sees it, on whatever host; what
another session holds (`hold_book.py`) is waited for. What a session may remember of the answer is told with it
(`remembered.py`). Raises FsError, LeaseLapsed, Busy, NotAllowed (see
`sessions.require_shared`), RolledBack, InvalidArgument, and WaitNeeded where it must be run again later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from errno import EINVAL, EISDIR, ENOENT
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

from redfs.coordinator import convert
from redfs.coordinator.coordinator import Coordinator
from redfs.coordinator.hold_book import Guard
from redfs.coordinator.reads import locate
from redfs.coordinator.sessions import access_of, require_shared
from redfs.coordinator.shared_opens import require_known
from redfs.coordinator.shared_operations import require_lineage
from redfs.coordinator.shared_view import SharedView
from redfs.core import namespace as engine
from redfs.core.errors import FsError, InvalidArgument, Unavailable
from redfs.core.kv import ReadKv
from redfs.core.namespace import MAX_READDIR_ENTRIES
from redfs.core.namespace.inodes import need_inode
from redfs.core.records import SLOT_BYTES, Kind, decode_slot, generation_of, inode_key, slot_key
from redfs.core.slots import slot_count
from redfs.core.tables import Access
from redfs.core.versions.ancestry import Ancestry
from redfs.core.versions.reader import VersionReader
from redfs.proto.gen import cluster_pb2 as pb

MAX_READ_BYTES = 64 << 20
"""A range of a file that is looked up at once: 512 slots, at most 8192 blocks."""
LOOK_ROUNDS = 16
"""Looks at a folder that is read anew because files in it were let go meanwhile."""
QUICK_ENTRIES = 256
"""Entries of a folder that are listed on the spot: about 2 ms."""
QUICK_READ_BYTES = 16 << 20
"""The same for a read."""
_DOTS = (b".", b"..")


class _Look(NamedTuple):
    kv: ReadKv
    view: SharedView
    request: pb.Look


def is_quick_look(request: pb.Look) -> bool:
    """Whether it takes so little that it may be answered between two messages."""
    if request.operation == "readdir":
        return 0 < request.limit <= QUICK_ENTRIES
    return request.operation != "read" or request.size <= QUICK_READ_BYTES


def look(coordinator: Coordinator, session_id: int, request: pb.Look) -> pb.LookReply:
    """Runs one look; see the module."""
    env = coordinator.env
    for _ in range(LOOK_ROUNDS):
        guard = env.holds.guard(request.volume_id, session_id)
        mark = env.remembered.mark()
        with coordinator.read() as kv:
            require_known(kv, env, request.volume_id)
            reply = _look(kv, session_id, request, env.ancestry, guard)
            # Only who may write has to declare itself after a restart, and drops what it remembers before.
            may_remember = access_of(kv, session_id, request.volume_id) == Access.SHARED
        guard.check()
        if not guard.is_outdated:
            told = _told_of(request, reply) if may_remember else ()
            reply.remember = bool(told) and env.remembered.grant(request.volume_id, session_id, told, mark)
            return reply
    raise Unavailable("files are being let go faster than they can be looked at: try again")


def _look(kv: ReadKv, session_id: int, request: pb.Look, ancestry: Ancestry, guard: Guard) -> pb.LookReply:
    operation = _LOOKS.get(request.operation)
    if operation is None:
        raise InvalidArgument(f"there is nothing to look for by {request.operation!r}: is the client newer?")
    volume = require_shared(kv, session_id, request.volume_id, write=False)
    require_lineage(volume, request.lineage)
    return operation(_Look(kv, SharedView(VersionReader(kv, ancestry), volume.lineage, guard), request))


def _told_of(request: pb.Look, reply: pb.LookReply) -> Collection[int]:
    """The inodes that a session shows when it shows the answer again."""
    if request.operation == "lookup":
        # Of "." and ".." nothing is remembered: they are no names in the folder.
        return () if request.name in _DOTS else {request.ino, reply.ino or request.ino}
    if request.operation in ("getattr", "read"):
        return (request.ino,)
    if request.operation == "readdir":
        return {request.ino, *[entry.ino for entry in reply.entries if entry.inode]}
    return ()


def _lookup(at: _Look) -> pb.LookReply:
    try:
        entry = engine.lookup(at.view, at.request.ino, at.request.name).value
    except FsError as error:
        if error.errno != ENOENT or at.view.get(inode_key(at.request.ino)) is None:
            raise
        return pb.LookReply()
    return pb.LookReply(ino=entry.ino, inode=at.view.raw(inode_key(entry.ino)))


def _getattr(at: _Look) -> pb.LookReply:
    need_inode(at.view, at.request.ino)
    return pb.LookReply(ino=at.request.ino, inode=at.view.raw(inode_key(at.request.ino)))


def _readlink(at: _Look) -> pb.LookReply:
    return pb.LookReply(value=engine.readlink(at.view, at.request.ino).value)


def _getxattr(at: _Look) -> pb.LookReply:
    return pb.LookReply(value=engine.getxattr(at.view, at.request.ino, at.request.name).value)


def _listxattr(at: _Look) -> pb.LookReply:
    return pb.LookReply(names=engine.listxattr(at.view, at.request.ino).value)


def _readdir(at: _Look) -> pb.LookReply:
    """A page of a folder. An entry whose inode is not there (damage) comes without one."""
    request, raw = at.request, at.view.raw
    limit = min(request.limit or MAX_READDIR_ENTRIES, MAX_READDIR_ENTRIES)
    entries = engine.readdir(at.view, request.ino, request.after_cookie, limit).value
    return pb.LookReply(
        entries=[
            pb.Listed(cookie=e.cookie, name=e.name, ino=e.ino, file_type=e.file_type, inode=raw(inode_key(e.ino)))
            for e in entries
        ]
    )


def _read(at: _Look) -> pb.LookReply:
    """The inode, the slots of the range that are not holes, and where their blocks lie."""
    ino, offset, size = at.request.ino, at.request.offset, at.request.size
    if size > MAX_READ_BYTES:
        raise InvalidArgument(f"at most {MAX_READ_BYTES} bytes are read at once")
    inode = need_inode(at.view, ino)
    if not S_ISREG(inode.mode):
        raise FsError(EISDIR if S_ISDIR(inode.mode) else EINVAL)
    rows: list[tuple[int, bytes, bytes]] = []
    slot, end = offset // SLOT_BYTES, slot_count(min(offset + size, inode.size))
    while slot < end:
        generation = generation_of(inode.generations, slot)
        upto = min([end, *[r.first_slot for r in inode.generations if r.first_slot > slot]])
        first, last = slot_key(ino, generation, slot), slot_key(ino, generation, upto)
        rows += [(Kind.SLOT, obj, value) for obj, value in at.view.slots(first, last, upto - slot)]
        slot = upto
    located = locate(at.kv, dict.fromkeys(piece.block for _, _, value in rows for piece in decode_slot(value)))
    return pb.LookReply(
        ino=ino,
        inode=at.view.raw(inode_key(ino)),
        slots=convert.to_rows(rows),
        blocks=[convert.to_block(*block) for block in located.blocks],
        segments=[convert.to_segment(*segment) for segment in located.segments],
    )


_LOOKS: dict[str, Callable[[_Look], pb.LookReply]] = {
    "lookup": _lookup,
    "getattr": _getattr,
    "readlink": _readlink,
    "getxattr": _getxattr,
    "listxattr": _listxattr,
    "readdir": _readdir,
    "read": _read,
}
