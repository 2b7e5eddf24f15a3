"""Who has what open in shared mode, as the state thread must take it: the open book, and what is not in it yet.

After the coordinator started, a session that shares a volume has to declare what it has open. Until it did, or ended,
every inode of the volume counts as open: one that loses its last name stays, and the reaper takes it when it is started
again, as it is by each declaration and each end.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from errno import ENFILE

from redfs.coordinator.hold_book import MAX_HELD_INODES, NotDeclared
from redfs.coordinator.jobs import add_job
from redfs.coordinator.open_book import MAX_OPEN_INODES
from redfs.coordinator.sessions import require_session, require_shared
from redfs.coordinator.txn import Environment, Txn, scan_pairs
from redfs.core.errors import FsError, InvalidArgument
from redfs.core.kv import ReadKv
from redfs.core.records import inode_key
from redfs.core.tables import MOUNTS, SHARING, Access, JobKind


class _Everything:
    """Nobody knows what is open."""

    def __contains__(self, ino: object) -> bool:
        return True


EVERYTHING = _Everything()


def undeclared(txn: Txn, volume_id: int) -> list[int]:
    """Sessions that share the volume and have not said yet what they have open."""
    book = txn.env.open_book
    return [
        session
        for session, access in scan_pairs(txn.kv, MOUNTS, volume_id)
        if Access(access[0]) in SHARING and not book.has_declared(volume_id, session)
    ]


def sharing_writers(kv: ReadKv, volume_id: int) -> list[int]:
    """Sessions that share the volume and may change it."""
    return [session for session, access in scan_pairs(kv, MOUNTS, volume_id) if access[0] == Access.SHARED]


def undeclared_writers(kv: ReadKv, env: Environment, volume_id: int) -> list[int]:
    """Sessions that share the volume, may hold inodes of it, and have not said yet which."""
    book = env.open_book
    return [session for session in sharing_writers(kv, volume_id) if not book.has_declared(volume_id, session)]


def require_known(kv: ReadKv, env: Environment, volume_id: int) -> None:
    """Raises NotDeclared while it is not known what of the volume is held."""
    if volume_id in env.holds.known:
        return
    waiting = undeclared_writers(kv, env, volume_id)
    if waiting:
        raise NotDeclared(volume_id, waiting)
    env.holds.known.add(volume_id)  # whoever comes from now on has nothing to declare


def open_inodes(txn: Txn, volume_id: int) -> Container[int]:
    """The inodes that must be taken as open. Nothing is copied."""
    return EVERYTHING if undeclared(txn, volume_id) else txn.env.open_book.container(volume_id)


def enter(txn: Txn, session_id: int, volume_id: int, ino: int) -> None:
    """A session opens an inode. ENFILE where it has too many."""
    book = txn.env.open_book
    if book.count(volume_id, session_id) >= MAX_OPEN_INODES:
        raise FsError(ENFILE, f"one mount has at most {MAX_OPEN_INODES} files open")
    book.enter(volume_id, session_id, ino)


def declare_open(
    txn: Txn, session_id: int, volume_id: int, inodes: Sequence[int], held: Sequence[int] = ()
) -> list[int]:
    """A session says what it has open, besides what it told before; those that are gone. Safe to repeat.

    What it holds counts the first time only: later it is known better here, also while a declaration travels.
    """
    require_session(txn, session_id)
    volume = require_shared(txn.kv, session_id, volume_id, write=False)
    # Twice the bound, because a repetition names what is in the book already.
    if len(inodes) + txn.env.open_book.count(volume_id, session_id) > 2 * MAX_OPEN_INODES:
        raise InvalidArgument(f"one mount has at most {MAX_OPEN_INODES} files open")
    epoch = txn.versions.head_epoch(volume.lineage)
    if len(held) > MAX_HELD_INODES:
        raise InvalidArgument(f"one mount holds at most {MAX_HELD_INODES} files")
    if not txn.env.open_book.has_declared(volume_id, session_id):
        for ino in held:
            txn.env.holds.grant(volume_id, session_id, ino)
    gone = [ino for ino in inodes if txn.versions.get(volume.lineage, epoch, *inode_key(ino)) is None]
    txn.env.open_book.declare(volume_id, session_id, set(inodes).difference(gone))
    add_job(txn, JobKind.REAP, volume_id, 0, volume_id, volume.name)
    return gone
