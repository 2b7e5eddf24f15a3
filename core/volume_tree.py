"""The volume tree: names, who descends from whom, and what may be done to which node.

Works on any `Kv`; raises the user's errors; stores rows and indexes and nothing else. Versions, sessions and space
are the commands' business. Invariants, asserted where rows are written:

- a name belongs to one node that is not deleted; a deleted node has none;
- the parent of every node but the zero volume has a row;
- a deleted node goes when its space is freed and nothing descends from it;
- a volume's snapshots are named after it;
- nodes, and each volume's snapshots, are counted, so that no command has to look at all of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from redfs.core.errors import AlreadyExists, InternalError, InvalidArgument, NotAllowed, NotFound
from redfs.core.ids import ZERO_VOLUME
from redfs.core.kv import Kv, ReadKv
from redfs.core.tables import (
    ALL_U64,
    CHILDREN,
    META,
    NAMES,
    SNAPSHOT_COUNTS,
    VOLUME_COUNT_KEY,
    VOLUMES,
    VolumeKind,
    VolumeRow,
    VolumeState,
    decode_u64,
    decode_volume,
    encode_u64,
    encode_volume,
    pair_key,
    pair_range,
    split_pair,
    u64_key,
)

ZERO_NAME = "zero"
MAX_NAME_CHARS = 63
MAX_SNAPSHOTS_PER_VOLUME = 4096
"""Renaming a volume renames its snapshots in one command, which must stay short."""
MAX_VOLUMES = 100_000
"""Nodes of the tree that one listing answers in one message."""
MAX_DESCRIPTION_CHARS = 1024
MAX_COLOR_CHARS = 32

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}\Z")


def check_part(name: str, what: str) -> None:
    """Raises InvalidArgument where a volume's or a snapshot's own name is not allowed."""
    if not _NAME.match(name):
        raise InvalidArgument(
            f"{name!r} is no name for a {what}: use 1 to {MAX_NAME_CHARS} of A-Z a-z 0-9 . _ - and start with none "
            "of . -"
        )


def check_volume_name(name: str) -> None:
    """Raises InvalidArgument where a live volume cannot have this name."""
    if "@" in name:
        raise InvalidArgument(f"{name!r} is a snapshot's name: a volume's has no @")
    check_part(name, "volume")
    if name == ZERO_NAME:
        raise InvalidArgument(f"the name {ZERO_NAME!r} belongs to the empty volume: choose another")


def split_snapshot_name(name: str) -> tuple[str, str]:
    """(volume, snapshot) of VOLUME@SNAPSHOT. Raises InvalidArgument."""
    volume, at, snapshot = name.partition("@")
    if not at:
        raise InvalidArgument(f"{name!r} is no snapshot's name: use VOLUME@SNAPSHOT")
    check_part(volume, "volume")
    check_part(snapshot, "snapshot")
    return volume, snapshot


def check_texts(description: str | None, color: str | None) -> None:
    """Raises InvalidArgument where a description or color is too long or spans lines."""
    for text, limit, what in ((description, MAX_DESCRIPTION_CHARS, "description"), (color, MAX_COLOR_CHARS, "color")):
        if text is not None and (len(text) > limit or not text.isprintable()):
            raise InvalidArgument(f"the {what} must be one line of at most {limit} printable characters")


class ReadTree:
    """The tree as it is."""

    def __init__(self, kv: ReadKv) -> None:
        self._read = kv

    def get(self, volume_id: int) -> VolumeRow | None:
        """The node's row, deleted ones too."""
        raw = self._read.get(VOLUMES, u64_key(volume_id))
        return None if raw is None else decode_volume(raw)

    def find(self, name: str) -> VolumeRow | None:
        """The node that has this name."""
        raw = self._read.get(NAMES, name.encode())
        return None if raw is None else self.require(decode_u64(raw))

    def require(self, volume_id: int) -> VolumeRow:
        """The row of a node that must be there. Raises InternalError."""
        row = self.get(volume_id)
        if row is None:
            raise InternalError(f"volume {volume_id} is named and has no row: run `redfs check`")
        return row

    def named(self, name: str) -> VolumeRow:
        """The node that has this name. Raises NotFound."""
        row = self.find(name)
        if row is None:
            what = "snapshot" if "@" in name else "volume"
            raise NotFound(f"no {what} is named {name!r}: `redfs tree` shows them all")
        return row

    def all(self) -> Iterator[VolumeRow]:
        """Every node, deleted ones too, by id."""
        for _, raw in self._read.scan(VOLUMES, b"", ALL_U64):
            yield decode_volume(raw)

    def children(self, volume_id: int) -> Iterator[VolumeRow]:
        """The nodes right below, by id."""
        for key, _ in self._read.scan(CHILDREN, *pair_range(volume_id)):
            yield self.require(split_pair(key)[1])

    def snapshots(self, volume: VolumeRow) -> Iterator[VolumeRow]:
        """The snapshots of a live volume that are not deleted, by name."""
        prefix = f"{volume.name}@".encode()
        for _, raw in self._read.scan(NAMES, prefix, prefix + b"\xff"):
            row = self.require(decode_u64(raw))
            if row.parent_id == volume.volume_id:  # else of a volume that had the name before
                yield row

    def count(self) -> int:
        """How many nodes there are, deleted ones too."""
        raw = self._read.get(META, VOLUME_COUNT_KEY)
        return 0 if raw is None else decode_u64(raw)

    def count_snapshots(self, volume_id: int) -> int:
        """How many snapshots a volume has that are not deleted."""
        raw = self._read.get(SNAPSHOT_COUNTS, u64_key(volume_id))
        return 0 if raw is None else decode_u64(raw)

    def has_snapshots(self, volume_id: int) -> bool:
        """Whether a snapshot of this volume is there."""
        return self.count_snapshots(volume_id) > 0

    def has_children(self, volume_id: int) -> bool:
        return self._read.first(CHILDREN, *pair_range(volume_id)) is not None


class VolumeTree(ReadTree):
    """The tree, to change."""

    def __init__(self, kv: Kv) -> None:
        super().__init__(kv)
        self._kv = kv

    def require_free(self, name: str) -> None:
        """Raises AlreadyExists where the name is taken."""
        if self._kv.get(NAMES, name.encode()) is not None:
            raise AlreadyExists(f"{name!r} exists already: choose another name, or delete it first")

    def add(self, row: VolumeRow) -> None:
        """Enters a new node under its parent. Raises AlreadyExists."""
        self.require_free(row.name)
        if row.parent_id:
            self.require(row.parent_id)
            self._kv.put(CHILDREN, pair_key(row.parent_id, row.volume_id), b"")
        self._kv.put(NAMES, row.name.encode(), encode_u64(row.volume_id))
        self._kv.put(META, VOLUME_COUNT_KEY, encode_u64(self.count() + 1))
        if row.kind == VolumeKind.SNAPSHOT:
            self._count_snapshots(row.parent_id, 1)
        self.update(row)

    def _count_snapshots(self, volume_id: int, change: int) -> None:
        count = self.count_snapshots(volume_id) + change
        if count:
            self._kv.put(SNAPSHOT_COUNTS, u64_key(volume_id), encode_u64(count))
        else:
            self._kv.delete(SNAPSHOT_COUNTS, u64_key(volume_id))

    def update(self, row: VolumeRow) -> None:
        """Stores a changed row; its name and parent must be those it had."""
        self._kv.put(VOLUMES, u64_key(row.volume_id), encode_volume(row))

    def rename(self, row: VolumeRow, new_name: str) -> VolumeRow:
        """Renames a node; a live volume's snapshots follow. Raises AlreadyExists, InvalidArgument, NotAllowed."""
        require_changeable(row, "renamed")
        if row.kind == VolumeKind.SNAPSHOT:
            volume, _ = split_snapshot_name(new_name)
            if volume != row.name.partition("@")[0]:
                raise InvalidArgument(
                    f"a snapshot stays with its volume: rename it to {row.name.partition('@')[0]}@NEW"
                )
            return self._rename_one(row, new_name)
        check_volume_name(new_name)
        renamed = self._rename_one(row, new_name)
        for snapshot in list(self.snapshots(row)):
            self._rename_one(snapshot, f"{new_name}@{split_snapshot_name(snapshot.name)[1]}")
        return renamed

    def _rename_one(self, row: VolumeRow, new_name: str) -> VolumeRow:
        if new_name == row.name:
            return row
        self.require_free(new_name)
        self._kv.delete(NAMES, row.name.encode())
        self._kv.put(NAMES, new_name.encode(), encode_u64(row.volume_id))
        renamed = row._replace(name=new_name)
        self.update(renamed)
        return renamed

    def mark_deleted(self, row: VolumeRow) -> VolumeRow:
        """Takes the node's name away and shows it as being deleted; `prune` takes it out when it may go."""
        require_changeable(row, "deleted")
        self._kv.delete(NAMES, row.name.encode())
        if row.kind == VolumeKind.SNAPSHOT:
            self._count_snapshots(row.parent_id, -1)
        marked = row._replace(state=VolumeState.DELETING)
        self.update(marked)
        return marked

    def freed(self, volume_id: int) -> None:
        """The deleted node's space is free: it stays as `deleted` while something descends from it."""
        row = self.get(volume_id)
        if row is not None and row.state == VolumeState.DELETING:
            self.update(row._replace(state=VolumeState.DELETED))
            self.prune(volume_id)

    def prune(self, volume_id: int) -> None:
        """Takes out a deleted node from which nothing descends, and then its parents for which the same holds."""
        row = self.get(volume_id)
        while row is not None and row.state == VolumeState.DELETED and not self.has_children(row.volume_id):
            self._kv.delete(VOLUMES, u64_key(row.volume_id))
            self._kv.put(META, VOLUME_COUNT_KEY, encode_u64(self.count() - 1))
            self._kv.delete(CHILDREN, pair_key(row.parent_id, row.volume_id))
            row = self.get(row.parent_id)


def require_changeable(row: VolumeRow, done: str) -> None:
    """Raises NotAllowed for the zero volume, NotFound for a node that was deleted."""
    if row.volume_id == ZERO_VOLUME:
        raise NotAllowed(f"the zero volume can only be cloned, it cannot be {done}")
    if row.state != VolumeState.OK:
        raise NotFound(f"{row.name!r} was deleted")


def operations_on(row: VolumeRow, *, has_snapshots: bool) -> tuple[str, ...]:
    """What may be asked for on a node, by name; nothing on one that was deleted."""
    if row.state != VolumeState.OK:
        return ()
    if row.kind == VolumeKind.ZERO:
        return ("clone",)
    if row.kind == VolumeKind.SNAPSHOT:
        return ("mount", "clone", "restore", "set", "rename", "delete")
    rollback = ("rollback",) if has_snapshots else ()
    return ("snapshot", "clone", "clone_backed", "mount", "set", "rename", *rollback, "delete")


def verify_tree(kv: ReadKv) -> Iterator[str]:
    """Contradictions between the tree's tables, one line each; none when it is sound."""
    tree = ReadTree(kv)
    named: dict[int, str] = {decode_u64(raw): key.decode() for key, raw in kv.scan(NAMES, b"", b"\xff")}
    nodes = 0
    snapshots: Counter[int] = Counter()
    for row in tree.all():
        nodes += 1
        if row.kind == VolumeKind.SNAPSHOT and row.state == VolumeState.OK:
            snapshots[row.parent_id] += 1
            volume = tree.get(row.parent_id)
            if volume is not None and volume.state == VolumeState.OK and row.name.partition("@")[0] != volume.name:
                yield f"snapshot {row.volume_id} ({row.name}) is not named after its volume {volume.name}"
        if row.state == VolumeState.OK:
            if named.pop(row.volume_id, None) != row.name:
                yield f"volume {row.volume_id} ({row.name}) is not found under its name"
        elif row.volume_id in named:
            yield f"deleted volume {row.volume_id} ({row.name}) still has the name {named.pop(row.volume_id)!r}"
        if row.parent_id:
            if tree.get(row.parent_id) is None:
                yield f"volume {row.volume_id} ({row.name}) descends from volume {row.parent_id}, which has no row"
            if kv.get(CHILDREN, pair_key(row.parent_id, row.volume_id)) is None:
                yield f"volume {row.volume_id} ({row.name}) is not listed under its parent {row.parent_id}"
        elif row.volume_id != ZERO_VOLUME:
            yield f"volume {row.volume_id} ({row.name}) has no parent"
        if row.state == VolumeState.DELETED and not tree.has_children(row.volume_id):
            yield f"deleted volume {row.volume_id} ({row.name}) is shown although nothing descends from it"
    if nodes != tree.count():
        yield f"the tree has {nodes} nodes and says {tree.count()}"
    counted = {decode_u64(key): decode_u64(raw) for key, raw in kv.scan(SNAPSHOT_COUNTS, b"", ALL_U64)}
    for volume_id in sorted(snapshots.keys() | counted.keys()):
        if snapshots[volume_id] != counted.get(volume_id, 0) or counted.get(volume_id) == 0:
            yield f"volume {volume_id} has {snapshots[volume_id]} snapshots and says {counted.get(volume_id, 0)}"
    for volume_id, name in named.items():
        yield f"the name {name!r} leads to volume {volume_id}, which has no row"
    for key, _ in kv.scan(CHILDREN, b"", ALL_U64):
        parent, child = split_pair(key)
        row_below = tree.get(child)
        if row_below is None or row_below.parent_id != parent:
            yield f"volume {child} is listed under {parent} and does not descend from it"
