"""The shards of one disk: PUT, GET, DELETE, LIST and VERIFY over backing files and the index.

What holds here:

1. `put` returns after an fdatasync that began after its write returned; `delete` after one that began after the
   tombstones were written. What they promised survives any crash.
2. A shard is never overwritten. The same content again is acknowledged, other content refused. Only a shard that was
   found damaged is stored anew (`put`, or `replace` where its content is in doubt): the old record is set aside, which
   means that it is not listed or served any more but stays readable, counts as used and comes back should the new one
   not become durable. It is buried when the new one is durable.
3. A record's space is given back only after its tombstone is durable and nobody reads it any more.
4. A file in which nothing is live is removed. No record is reserved in a file that is full, sealed or removed.
5. After the first failed write or sync nothing is written any more: `on_failure` is called and every write is refused.

Thread safe; blocking. `_changed` guards the counters, the index and who is where. It is not held while data is
written, synced or read, only while a file is created (once in a GiB).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import xxhash

from redfs.core.errors import AlreadyExists, Corrupt, InvalidArgument, NoSpace, NotFound, Unavailable
from redfs.proto.data_plane import SHARD_KEY, NodeStat, ShardInfo, ShardKey
from redfs.proto.frames import MAX_PAYLOAD_BYTES
from redfs.storage_node import record
from redfs.storage_node.backing_file import BackingFile, file_name, write_error
from redfs.storage_node.disk import PAGE_BYTES, Buffer, Disk, DiskFailed, DiskFile
from redfs.storage_node.index import Entry, Index
from redfs.storage_node.record import Kind, RecordHeader, record_bytes

log = logging.getLogger(__name__)

FILE_BYTES: Final = 1 << 30
"""A backing file: few enough for a disk to keep all of them open, small enough to be read whole after a crash."""
PREALLOCATE_BYTES: Final = 32 << 20
"""Taken at once, without changing the size: fdatasync of an 8 KiB append falls from 0.23 to 0.15 ms on ext4."""
MAX_RESERVE_BYTES: Final = 256 << 20
READERS_WAIT_S: Final = 60.0
"""Twice the network timeout: a reader that still holds on after it is gone, and checks what it got in any case."""


@dataclass(frozen=True)
class StoreLimits:
    """Sizes of a store."""

    capacity_bytes: int = 0
    """What the node may use of its disk; 0: all of it."""
    reserve_bytes: int = -1
    """Held back from PUTs so that deleting always works; -1: a sixteenth of the capacity, at most 256 MiB."""
    file_bytes: int = FILE_BYTES

    def reserve(self, disk_bytes: int) -> int:
        """The reserve in bytes, for a disk of that size."""
        if self.reserve_bytes >= 0:
            return self.reserve_bytes
        return min(MAX_RESERVE_BYTES, (self.capacity_bytes or disk_bytes) // 16)


@dataclass(frozen=True)
class ShardRange:
    """A range of a shard's payload, ready to be sent; valid while the `reading` that gave it lasts."""

    backing: BackingFile
    offset: int
    """In the file."""
    length: int
    entry: Entry

    @property
    def file(self) -> DiskFile:
        return self.backing.file


class ShardStore:
    """Made by `recovery.open_store`, which fills in the files that are there."""

    def __init__(
        self,
        disk: Disk,
        index: Index,
        disk_uuid: bytes,
        generation: int,
        limits: StoreLimits,
        on_failure: Callable[[DiskFailed], None],
    ) -> None:
        self.disk = disk
        self.index = index
        self.disk_uuid = disk_uuid
        self.generation = generation
        self.files: dict[int, BackingFile] = {}
        self.active: BackingFile | None = None
        self.used_bytes = 0
        """Of all files, with what writers under way have reserved."""
        self.next_number = 1
        self._limits = limits
        self._disk_bytes = disk.total_bytes()
        self._reserve_bytes = limits.reserve(self._disk_bytes)
        self._on_failure = on_failure
        self._failure: DiskFailed | None = None
        self._closing = False
        self._changed = threading.Condition(threading.Lock())
        self._busy: set[bytes] = set()
        """Shards that a PUT or DELETE is at work on; at most one of them each."""
        self._readers: dict[bytes, int] = {}
        self._aside: dict[bytes, Entry] = {}
        """Records that are being replaced; at most one for each `replace` under way."""

    # -------------------------------------------------------------------- PUT

    def put(self, segment: int, shard: int, payload: Buffer, checksum: int) -> None:
        """Stores a shard durably. Raises Corrupt (the payload is not what `checksum` says), AlreadyExists, NoSpace,
        InvalidArgument, Unavailable (the disk failed or the node stops). A retry is safe."""
        key, header = _new_record(segment, shard, payload, checksum)
        with self._working_on([key]):
            held = self.index.get(key)
            if held is not None:
                if (held.payload_bytes, held.checksum) != header[3:]:
                    raise AlreadyExists(f"shard {segment}/{shard} is held with other content")
                if not held.damaged:
                    return
            self._store(key, header, payload, held)

    def replace(self, segment: int, shard: int, payload: Buffer, checksum: int) -> None:
        """As `put`, also where the shard is held with other content: that was stored wrongly then, and is set aside
        until this is durable. A record with this content that reads well is left as it is."""
        key, header = _new_record(segment, shard, payload, checksum)
        with contextlib.suppress(NotFound, Corrupt):
            self.verify(segment, shard, fresh=True)
        with self._working_on([key]):
            held = self.index.get(key)
            if held is None:
                self._store(key, header, payload, None)
            elif held.damaged or (held.payload_bytes, held.checksum) != header[3:]:
                log.error(
                    "shard %d/%d is replaced: set aside in %s at %d, %d bytes, checksum %016x; now %d bytes, %016x",
                    segment, shard, file_name(held.file_number), held.offset, held.payload_bytes, held.checksum,
                    header.payload_bytes, checksum,
                )  # fmt: skip
                self._set_aside(key, held)
                try:
                    self._store(key, header, payload, held)
                except BaseException:
                    self._take_back(key, held)
                    raise
                finally:
                    with self._changed:
                        del self._aside[key]

    def _set_aside(self, key: bytes, held: Entry) -> None:
        with self._changed:
            self._aside[key] = held
            self.index.delete([key])

    def _take_back(self, key: bytes, held: Entry) -> None:
        """The new record did not become durable: the old one is the shard again, whatever it is worth."""
        with self._changed:
            if self.index.get(key) is None:
                self.index.put(key, held)

    def aside(self) -> list[ShardInfo]:
        """Shards whose old record is set aside now."""
        with self._changed:
            held = [(SHARD_KEY.unpack(key), entry) for key, entry in sorted(self._aside.items())]
        return [ShardInfo(segment, shard, entry.payload_bytes, entry.checksum) for (segment, shard), entry in held]

    def _store(self, key: bytes, header: RecordHeader, payload: Buffer, old: Entry | None) -> None:
        """Writes a record, then buries the one that it takes the place of."""
        file, offset = self._reserve(record_bytes(header.payload_bytes))
        try:
            self._write(file, offset, key, header, payload)
        finally:
            self._leave(file)
        if old is not None:
            self._remove([(key, old)])

    def _write(self, file: BackingFile, offset: int, key: bytes, header: RecordHeader, payload: Buffer) -> None:
        footprint = record_bytes(header.payload_bytes)
        try:
            file.write(offset, header, payload)
            file.sync.wait()
            with self._changed:
                self.index.put(key, Entry(file.number, offset, header.payload_bytes, header.checksum))
                file.add(offset, header)
        except NoSpace:
            # What was written must not come back as a record, and its space is needed.
            file.give_back(offset, footprint)
            with self._changed:
                self.used_bytes -= footprint
                if file.end_bytes == offset + footprint:
                    file.end_bytes = offset
            raise

    def _reserve(self, footprint: int) -> tuple[BackingFile, int]:
        """Room for a record in the active file; the caller must `_leave` that file. Raises NoSpace."""
        retired = None
        try:
            with self._changed:
                self._check_room(footprint)
                file = self.active
                if file is None or (file.end_bytes and file.end_bytes + footprint > self._limits.file_bytes):
                    self.active = self._create()
                    if file is not None:
                        retired = file
                        retired.full = True
                        retired.in_flight += 1  # until its footer is written, below
                    file = self.active
                offset = file.end_bytes
                if offset + footprint > file.preallocated_bytes:
                    self._preallocate(file, offset + footprint)
                file.end_bytes = offset + footprint
                file.in_flight += 1
                self.used_bytes += footprint
        finally:
            if retired is not None:
                self._leave(retired)
        return file, offset

    def _check_room(self, footprint: int) -> None:
        capacity = self._limits.capacity_bytes
        if capacity and self.used_bytes + footprint + self._reserve_bytes > capacity:
            raise NoSpace(f"the node is full ({self.used_bytes} of {capacity} bytes): delete something or add a node")

    def _create(self) -> BackingFile:
        number = self.next_number
        try:
            file = BackingFile(self.disk.create(file_name(number)), number, self.disk_uuid)
        except OSError as error:
            raise write_error(error, "creating a backing file") from error
        self.next_number += 1
        self.files[number] = file
        return file

    def _preallocate(self, file: BackingFile, needed_end: int) -> None:
        """Takes space up to `needed_end` and, where there is plenty, a good deal more."""
        start = max(file.preallocated_bytes, file.end_bytes)
        needed = needed_end - start
        room = self.disk.free_bytes() - self._reserve_bytes
        if room < needed:
            raise NoSpace("the node's disk is full: delete something or add a node")
        wanted = max(needed, min(PREALLOCATE_BYTES, self._limits.file_bytes - start))
        length = wanted if room >= 2 * wanted else needed
        try:
            file.file.preallocate(start, length)
        except OSError as error:
            raise write_error(error, "preallocating space") from error
        file.preallocated_bytes = start + length

    def _leave(self, file: BackingFile) -> None:
        """A writer is done with the file. The last one out of a full file seals it, of an empty one removes it."""
        with self._changed:
            file.in_flight -= 1
            self._changed.notify_all()
            if file.in_flight or self._failure is not None:
                return
            if self._is_over(file):
                self._forget(file)
            elif file.full and not file.sealed:
                file.in_flight = 1
                entries = sorted(file.entries.values())
            else:
                return
        if file.removed:
            self._unlink(file)
        else:
            self._seal(file, entries)

    def _is_over(self, file: BackingFile) -> bool:
        return not file.live_records and not file.in_flight and bool(file.end_bytes) and not file.removed

    def _seal(self, file: BackingFile, entries: list[record.FooterEntry]) -> None:
        """Writes the footer. Without room for one the file stays as it is, and an unclean start reads all of it."""
        footer_bytes = 0
        try:
            footer_bytes = file.write_footer(entries)
        except NoSpace:
            log.warning("no room for the footer of %s", file.file.name)
        with self._changed:
            file.in_flight -= 1
            if footer_bytes:
                file.sealed = True
                file.entries = {}
                file.dead_bytes += footer_bytes
                self.used_bytes += footer_bytes
            over = self._is_over(file)
            if over:
                self._forget(file)
            self._changed.notify_all()
        if over:
            self._unlink(file)

    # -------------------------------------------------------------------- DELETE

    def delete(self, keys: Iterable[ShardKey]) -> None:
        """Deletes shards durably; those not held count as deleted. A retry is safe. Raises Unavailable."""
        packed = list(dict.fromkeys(SHARD_KEY.pack(segment, shard) for segment, shard in keys))
        with self._working_on(packed):
            held = [(key, entry) for key in packed if (entry := self.index.get(key)) is not None]
            with self._changed:
                self.index.delete([key for key, _ in held])
            self._remove(held)

    def _remove(self, records: Sequence[tuple[bytes, Entry]]) -> None:
        """Buries records that the index does not name any more, durably, and gives back their space."""
        by_file: dict[int, list[tuple[bytes, Entry]]] = {}
        for key, entry in records:
            by_file.setdefault(entry.file_number, []).append((key, entry))
        for number, dead in by_file.items():
            self._bury_in(self.files[number], dead)

    def _bury_in(self, file: BackingFile, dead: Sequence[tuple[bytes, Entry]]) -> None:
        for key, entry in dead:
            segment, shard = SHARD_KEY.unpack(key)
            header = RecordHeader(Kind.TOMBSTONE, segment, shard, entry.payload_bytes, entry.checksum)
            file.bury(entry.offset, header)
        file.sync.wait()
        self._wait_for_readers(key for key, _ in dead)
        with self._changed:
            for _, entry in dead:
                file.drop(entry.offset, entry.payload_bytes)
                self.used_bytes -= record_bytes(entry.payload_bytes)
            over = self._is_over(file)
            if over:
                self._forget(file)
            else:
                file.in_flight += 1  # it must not be removed while its space is given back
        if over:
            self._unlink(file)
            return
        for _, entry in dead:
            file.give_back(entry.offset, record_bytes(entry.payload_bytes))
        self._leave(file)

    def _wait_for_readers(self, keys: Iterable[bytes]) -> None:
        wanted = list(keys)
        deadline_s = time.monotonic() + READERS_WAIT_S
        with self._changed:
            while any(key in self._readers for key in wanted):
                if not self._changed.wait(deadline_s - time.monotonic()):
                    log.warning("a reader holds on to a deleted shard: its space is given back now")
                    return

    def _forget(self, file: BackingFile) -> None:
        """Takes a file in which nothing is live out of the store. The lock is held."""
        file.removed = True
        del self.files[file.number]
        self.used_bytes -= file.used_bytes
        if self.active is file:
            self.active = None

    def _unlink(self, file: BackingFile) -> None:
        try:
            self.disk.unlink(file.file.name)
        except OSError as error:
            log.warning("cannot remove %s: %s", file.file.name, error)
        with self._changed:
            unused = not file.readers
        if unused:
            file.file.close()

    # -------------------------------------------------------------------- reading

    @contextlib.contextmanager
    def reading(self, segment: int, shard: int, offset: int = 0, length: int = -1) -> Iterator[ShardRange]:
        """A range of a shard (length -1: to its end) that stays readable inside the `with`. Raises NotFound,
        InvalidArgument. The bytes are not checked here: whoever reads them has their checksums."""
        key = SHARD_KEY.pack(segment, shard)
        with self._changed:
            entry = self.index.get(key)
            if entry is None:
                raise NotFound(f"shard {segment}/{shard} is not on this node")
            if length < 0:
                length = entry.payload_bytes - offset
            if offset < 0 or length < 0 or offset + length > entry.payload_bytes:
                raise InvalidArgument(
                    f"shard {segment}/{shard} has {entry.payload_bytes} bytes: cannot read {length} from {offset}"
                )
            file = self.files[entry.file_number]
            file.readers += 1
            self._readers[key] = self._readers.get(key, 0) + 1
        try:
            yield ShardRange(file, entry.offset + PAGE_BYTES + offset, length, entry)
        finally:
            with self._changed:
                file.readers -= 1
                left = self._readers[key] - 1
                if left:
                    self._readers[key] = left
                else:
                    del self._readers[key]
                    self._changed.notify_all()
                unused = file.removed and not file.readers
            if unused:
                file.file.close()

    def read(self, segment: int, shard: int, offset: int = 0, length: int = -1) -> bytes:
        """Bytes of a shard. Errors as `reading`."""
        with self.reading(segment, shard, offset, length) as found:
            buffer = bytearray(found.length)
            got = found.file.pread_into(memoryview(buffer), found.offset)
        return bytes(buffer[:got])

    def find(self, segment: int, shard: int) -> ShardInfo | None:
        """What is held of a shard, as it was stored."""
        entry = self.index.get(SHARD_KEY.pack(segment, shard))
        return None if entry is None else ShardInfo(segment, shard, entry.payload_bytes, entry.checksum)

    def list_page(self, after: ShardKey | None, limit: int) -> list[ShardInfo]:
        """At most `limit` shards after a key, in order."""
        start = SHARD_KEY.pack(*after) if after is not None else b""
        found = ((SHARD_KEY.unpack(key), entry) for key, entry in self.index.page(start, limit))
        return [ShardInfo(segment, shard, entry.payload_bytes, entry.checksum) for (segment, shard), entry in found]

    def verify(self, segment: int, shard: int, *, fresh: bool = False) -> None:
        """Reads a shard back and checks it and its header; `fresh`: from the disk, not from what memory remembers.

        Raises NotFound (not held, or the backing file is gone), Corrupt; such a one may be PUT anew.
        """
        with self.reading(segment, shard) as found:
            entry, file = found.entry, found.backing
            expected = RecordHeader(Kind.SHARD, segment, shard, entry.payload_bytes, entry.checksum)
            there = file.removed or self.disk.has(file.file.name)
            if fresh:
                file.file.forget_range(entry.offset, record_bytes(entry.payload_bytes))
            if (
                there
                and file.read_header(entry.offset) == expected
                and file.payload_is_good(entry.offset, entry.payload_bytes, entry.checksum)
            ):
                return
            key = SHARD_KEY.pack(segment, shard)
            with self._changed:
                is_current = self.index.get(key) == entry
                if is_current:
                    self.index.put(key, entry._replace(damaged=True))
                if not there and self.active is file:
                    self.active = None  # somebody removed it: what is written to it would be lost with the process
                    file.full = True
        if not is_current:
            raise NotFound(f"shard {segment}/{shard} was deleted or replaced meanwhile")
        if not there:
            log.error("backing file %s is gone, and shard %d/%d with it", file.file.name, segment, shard)
            raise NotFound(f"the backing file {file.file.name} of shard {segment}/{shard} is gone from the node's disk")
        log.error("shard %d/%d in %s at %d is damaged", segment, shard, file.file.name, entry.offset)
        raise Corrupt(f"shard {segment}/{shard} is damaged on this node's disk")

    def stat(self) -> NodeStat:
        """Capacity and state."""
        with self._changed:
            used = self.used_bytes
            files = len(self.files)
            spare = sum(max(0, f.preallocated_bytes - f.end_bytes) for f in self.files.values() if not f.full)
        free = self.disk.free_bytes() + spare - self._reserve_bytes
        capacity = self._limits.capacity_bytes
        if capacity:
            free = min(free, capacity - used - self._reserve_bytes)
        return NodeStat(
            capacity_bytes=capacity or self._disk_bytes,
            used_bytes=used,
            free_bytes=max(0, free),
            shards=self.index.count(),
            backing_files=files,
            generation=self.generation,
            failed=self._failure is not None,
        )

    # -------------------------------------------------------------------- working together

    @contextlib.contextmanager
    def _working_on(self, keys: Sequence[bytes]) -> Iterator[None]:
        """Keeps other PUTs and DELETEs off these shards; takes all of them at once, so nobody waits in a circle. A disk
        that fails inside is failed for good: Unavailable."""
        with self._changed:
            while True:
                self._check_writable()
                if self._busy.isdisjoint(keys):
                    break
                self._changed.wait()
            self._busy.update(keys)
        try:
            yield
        except DiskFailed as error:
            raise self._fail(error) from error
        finally:
            with self._changed:
                self._busy.difference_update(keys)
                self._changed.notify_all()

    def _check_writable(self) -> None:
        if self._failure is not None:
            raise Unavailable(f"the node's disk failed: {self._failure}")
        if self._closing:
            raise Unavailable("the node is stopping")

    def _fail(self, error: DiskFailed) -> Unavailable:
        with self._changed:
            if self._failure is None:
                self._failure = error
                log.critical("the disk failed, nothing is written any more: %s", error)
                self._on_failure(error)
            self._changed.notify_all()
        return Unavailable(f"the node's disk failed: {error}")

    def seal_full_files(self) -> None:
        """Seals what a start found full and without a footer."""
        for file in [f for f in self.files.values() if f.full and not f.sealed]:
            with self._changed:
                file.in_flight += 1
            self._leave(file)

    def close(self) -> bool:
        """Refuses new writes, waits for those under way, and saves the index. False where the stop is not a clean one:
        the next start reads the files."""
        with self._changed:
            self._closing = True
            while self._failure is None and (self._busy or any(f.in_flight for f in self.files.values())):
                self._changed.wait()
            if self._failure is not None:
                return False  # whoever is still at work keeps what is open; the process ends
            if self.active is not None:
                self.active.file.truncate(self.active.file.size())  # gives back what was preallocated
            self.index.save(self.generation, {number: file.row() for number, file in self.files.items()})
            self.index.close()
            for file in self.files.values():
                file.file.close()
        return True


def _new_record(segment: int, shard: int, payload: Buffer, checksum: int) -> tuple[bytes, RecordHeader]:
    """Key and header of a shard that is to be stored. Raises InvalidArgument, Corrupt."""
    payload_bytes = len(payload)
    if not 0 < payload_bytes <= MAX_PAYLOAD_BYTES:
        raise InvalidArgument(f"a shard has 1 to {MAX_PAYLOAD_BYTES} bytes, not {payload_bytes}")
    if xxhash.xxh3_64_intdigest(payload) != checksum:
        raise Corrupt(f"shard {segment}/{shard} arrived damaged: send it again")
    return SHARD_KEY.pack(segment, shard), RecordHeader(Kind.SHARD, segment, shard, payload_bytes, checksum)
