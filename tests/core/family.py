"""One family of volumes in memory: the namespace engine over the version store, with snapshots, clones, roll-backs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from redfs.core import namespace as ns
from redfs.core.ids import ROOT_INO, Lineage
from redfs.core.kv import Kv, MemoryKv
from redfs.core.records import (
    SLOT_BYTES,
    DirBucket,
    Inode,
    Key,
    Kind,
    Piece,
    Record,
    Slot,
    XattrBucket,
    decode,
    decode_bucket,
    decode_xattrs,
    encode,
    generation_of,
    inode_key,
    slot_key,
    split_dirent_object,
)
from redfs.core.tables import BLOCKS, BlockRow, encode_block, u64_key
from redfs.core.versions import Holder, HolderType, Pin, VersionStore

FAMILY = 7
SEED = 0


class Listed(NamedTuple):
    """What a full listing says about one name."""

    ino: int
    place: tuple[int, bytes]
    inode: Inode
    content: object
    attributes: object


class HeadView:
    """A view of a lineage as of an epoch; None: its head."""

    def __init__(self, store: VersionStore, lineage: int, epoch: int | None = None) -> None:
        self._store = store
        self._lineage = lineage
        self._epoch = store.head_epoch(lineage) if epoch is None else epoch

    def get(self, key: Key) -> Record | None:
        raw = self._store.get(self._lineage, self._epoch, *key)
        return None if raw is None else decode(key.kind, raw)

    def get_many(self, keys: Any) -> list[Record | None]:
        return [self.get(key) for key in keys]

    def peek(self, key: Key) -> Record | None:
        return self.get(key)

    def _of(self, kind: int, ino: int, after: int | None, limit: int) -> list[tuple[int, bytes]]:
        start = inode_key(ino).obj + (b"" if after is None else (after + 1).to_bytes(8))
        rows = self._store.scan(self._lineage, self._epoch, kind, start, inode_key(ino + 1).obj, limit)
        return [(split_dirent_object(obj)[1], raw) for obj, raw in rows]

    def folder(self, ino: int, after_hash: int | None, limit: int) -> list[tuple[int, DirBucket]]:
        return [(number, decode_bucket(raw)) for number, raw in self._of(Kind.DIRENT, ino, after_hash, limit)]

    def xattrs(self, ino: int) -> list[tuple[int, XattrBucket]]:
        return [(number, decode_xattrs(raw)) for number, raw in self._of(Kind.XATTR, ino, None, 1000)]


class Family:
    """Lineages, and pins by name. `kv` may be wrapped to count what is read."""

    def __init__(self, kv: Kv | None = None) -> None:
        self.kv = MemoryKv() if kv is None else kv
        self.store = VersionStore(self.kv, lambda *_: None)
        self.now = 1
        self.next_lineage = FAMILY + 1
        self.next_block = 1
        self.next_ino = ROOT_INO + 1
        self.next_holder = 1
        self.to_reclaim: list[Callable[[], bool]] = []
        self.store.create_lineage(FAMILY, FAMILY)
        self.write(FAMILY, ns.make_root(1, hash_seed=SEED, family=FAMILY))

    # -- changes of a head

    def write(self, lineage: int, writes: Mapping[Key, Record | None]) -> None:
        for key, record in writes.items():
            if record is None:
                self.store.delete(lineage, *key)
            else:
                self.store.put(lineage, *key, encode(key.kind, record))

    def do(self, lineage: int, op: Callable[..., ns.Outcome[Any]], *args: Any, **more: Any) -> Any:
        """An operation of the engine that takes a context, at the head."""
        self.now += 1
        outcome = op(HeadView(self.store, lineage), ns.Context(0, 0, self.now), *args, **more)
        self.write(lineage, outcome.writes)
        return outcome.value

    def make(self, lineage: int, op: Callable[..., ns.Outcome[Any]], parent: int, name: bytes, *args: Any) -> int:
        """create, mkdir, symlink or mknod: the new inode's number."""
        ino = self.next_ino
        self.next_ino += 1
        self.do(lineage, op, parent, name, *args, ino)
        return ino

    def put_slots(self, lineage: int, ino: int, words: Mapping[int, str], size: int | None = None) -> None:
        """Full slots, each of one new block whose fingerprint is the word's."""
        self.now += 1
        slots: dict[int, Slot] = {}
        for slot, word in words.items():
            slots[slot] = (Piece(0, SLOT_BYTES, self.block(word), 0),) if word else ()
        if size is None:
            size = (max(words) + 1) * SLOT_BYTES
        outcome = ns.record_data(HeadView(self.store, lineage), ino, slots, size, self.now, self.now)
        self.write(lineage, outcome.writes)

    def block(self, word: str) -> int:
        """A new block with that content."""
        number = self.next_block
        self.next_block += 1
        mark = hashlib.sha256(word.encode()).digest()
        self.kv.put(BLOCKS, u64_key(number), encode_block(BlockRow(1, 0, 1, SLOT_BYTES, 0, 0, mark, 1)))
        return number

    # -- the tree

    def pin(self, lineage: int) -> tuple[Pin, Holder]:
        """Freezes a head."""
        holder = Holder(HolderType.SNAPSHOT, self.next_holder)
        self.next_holder += 1
        return Pin(Lineage(lineage), self.store.pin_head(lineage, holder)), holder

    def release(self, pin: Pin, holder: Holder) -> None:
        if self.store.release(*pin, holder):
            self.to_reclaim.append(lambda: self.store.reclaim_pin_step(*pin, 7).done)

    def fork(self, pin: Pin) -> int:
        """A new head at a pin."""
        child = self.next_lineage
        self.next_lineage += 1
        self.store.fork(*pin, child, FAMILY)
        return child

    def clone(self, lineage: int) -> int:
        """A new head at a head."""
        child = self.next_lineage
        pin = Pin(Lineage(lineage), self.store.pin_head(lineage, Holder(HolderType.FORK, child)))
        return self.fork(pin)

    def drop_head(self, lineage: int) -> None:
        self.store.drop_head(lineage)
        self.to_reclaim.append(lambda: self.store.reclaim_head_step(lineage, 7).done)

    def reclaim(self, steps: int) -> None:
        """Background work."""
        for _ in range(steps):
            if not self.to_reclaim:
                return
            if self.to_reclaim[0]():
                self.to_reclaim.pop(0)

    # -- what is there, the slow way

    def listing(self, pin: Pin) -> dict[bytes, Listed]:
        """Every path as of a pin; the top folder's is empty."""
        view = HeadView(self.store, *pin)
        top = view.get(inode_key(ROOT_INO))
        assert isinstance(top, Inode)
        found = {b"": self._listed(pin, view, ROOT_INO, (ROOT_INO, b""), top)}
        folders: list[tuple[int, bytes]] = [(ROOT_INO, b"")]
        while folders:
            folder, path = folders.pop()
            for _, bucket in view.folder(folder, None, 100_000):
                for entry in bucket:
                    inode = view.get(inode_key(entry.ino))
                    assert isinstance(inode, Inode)
                    below = path + b"/" + entry.name if path else entry.name
                    found[below] = self._listed(pin, view, entry.ino, (folder, entry.name), inode)
                    if entry.file_type == 4:
                        folders.append((entry.ino, below))
        return found

    def _listed(self, pin: Pin, view: HeadView, ino: int, place: tuple[int, bytes], inode: Inode) -> Listed:
        content: list[object] = [inode.symlink, inode.rdev]
        attributes: list[object] = [inode.mode, inode.uid, inode.gid, view.xattrs(ino)]
        if inode.mode >> 12 != 4:
            attributes.append(inode.mtime_ns)
            content.append(inode.size)
        if inode.mode >> 12 == 8:
            for slot in range(-(-inode.size // SLOT_BYTES)):
                record = view.get(slot_key(ino, generation_of(inode.generations, slot), slot))
                pieces: Any = record or ()
                content.append([(p.offset, p.length, self.mark(p.block), p.block_offset) for p in pieces])
        return Listed(ino, place, inode, content, attributes)

    def mark(self, block: int) -> bytes:
        return (self.kv.get(BLOCKS, u64_key(block)) or b"")[-40:-8]
