"""One backing file: where records are appended, buried and read, and what a start finds in it.

The file only grows. Space for a record is reserved by the store, under its lock; the record is then written and synced
without it, by many threads at once. When the file is full and nothing is being written any more it is sealed with a
footer. The counters here belong to the store and change under its lock.

Writes fail with NoSpace (what they left behind the store takes back) or DiskFailed (the node must stop).
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from typing import Final

import xxhash

from redfs.core.errors import NoSpace, WrongFormat
from redfs.storage_node import record
from redfs.storage_node.disk import PAGE_BYTES, Buffer, Disk, DiskFailed, DiskFile
from redfs.storage_node.group_sync import GroupSync
from redfs.storage_node.index import FileRow
from redfs.storage_node.record import FooterEntry, Kind, Place, RecordHeader, pages, record_bytes

log = logging.getLogger(__name__)

SUFFIX: Final = ".shards"
MAX_FILE_NUMBER: Final = 2**32 - 1
CHECK_CHUNK_BYTES: Final = 1 << 20
"""Read at once when a payload is checked: enough for full disk speed, little enough for every thread to have one."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_ZERO_HEADER: Final = bytes(record.HEADER_BYTES)


def file_name(number: int) -> str:
    """The name of backing file `number`."""
    return f"{number:08d}{SUFFIX}"


def file_numbers(disk: Disk) -> list[int]:
    """Numbers of the backing files on a disk, ascending."""
    stems = (name.removesuffix(SUFFIX) for name in disk.list() if name.endswith(SUFFIX))
    return sorted(int(stem) for stem in stems if stem.isdigit())


def write_error(error: OSError, what: str) -> NoSpace | DiskFailed:
    """What a failed write means to the caller."""
    if error.errno in _FULL:
        return NoSpace("the node's disk is full: delete something or add a node")
    return DiskFailed(f"{what} failed: {error}")


class BackingFile:
    """An open backing file and what the store knows of it."""

    def __init__(self, file: DiskFile, number: int, disk_uuid: bytes) -> None:
        self.number = number
        self.file = file
        self.sync = GroupSync(file.fdatasync)
        self._disk_uuid = disk_uuid
        self.end_bytes = 0
        """Where the next record goes; always on a page boundary."""
        self.preallocated_bytes = 0
        self.live_records = 0
        self.live_bytes = 0
        self.dead_bytes = 0
        """The footer, and torn records that a crash left."""
        self.sealed = False
        self.full = False
        """No record is appended any more; sealed as soon as nothing is being written."""
        self.in_flight = 0
        """Writers that have reserved and not finished: the file may be neither sealed nor removed."""
        self.readers = 0
        self.removed = False
        self.entries: dict[int, FooterEntry] = {}
        """Live records by offset, until the footer is written: at most 32 bytes for every 8 KiB of one file."""

    @property
    def used_bytes(self) -> int:
        """Disk space that the file's records and footer take."""
        return self.live_bytes + self.dead_bytes

    def place(self, offset: int) -> Place:
        return Place(self._disk_uuid, self.number, offset)

    # -------------------------------------------------------------------- records

    def write(self, offset: int, header: RecordHeader, payload: Buffer) -> None:
        """Writes a record at a reserved offset. Durable after `sync.wait()`. Raises NoSpace, DiskFailed."""
        try:
            self.file.pwritev(record.record_buffers(self.place(offset), header, payload), offset)
        except OSError as error:
            raise write_error(error, "writing a record") from error

    def bury(self, offset: int, header: RecordHeader) -> None:
        """Writes a tombstone over a record's header page. Durable after `sync.wait()`. Raises DiskFailed."""
        try:
            self.file.pwritev([record.tombstone_page(self.place(offset), header)], offset)
        except OSError as error:
            raise DiskFailed(f"writing a tombstone failed: {error}") from error

    def give_back(self, offset: int, length: int) -> None:
        """Returns a range's space to the file system, if that can. What lay there must be durably dead."""
        try:
            self.file.punch_hole(offset, length)
        except OSError as error:
            # Punching may itself need a block of metadata; the space comes back with the whole file then.
            log.warning("cannot give back %d bytes of %s: %s", length, self.file.name, error)

    def read_header(self, offset: int) -> RecordHeader | None:
        """The header at an offset, or None where there is none."""
        return record.parse_header(self._read(offset, record.HEADER_BYTES), self.place(offset))

    def is_blank(self, offset: int) -> bool:
        """Whether zeros lie where a header would be: a record that was given back."""
        return self._read(offset, record.HEADER_BYTES) == _ZERO_HEADER

    def payload_is_good(self, offset: int, payload_bytes: int, checksum: int) -> bool:
        """Reads the payload of the record at `offset` and checks it. What cannot be read is not good."""
        digest = xxhash.xxh3_64()
        chunk = memoryview(bytearray(min(payload_bytes, CHECK_CHUNK_BYTES)))
        start = offset + PAGE_BYTES
        done = 0
        while done < payload_bytes:
            view = chunk[: payload_bytes - done]
            try:
                got = self.file.pread_into(view, start + done)
            except OSError as error:
                log.warning("cannot read %s at %d: %s", self.file.name, start + done, error)
                return False
            if got < len(view):
                return False
            digest.update(view)
            done += got
        return digest.intdigest() == checksum

    def add(self, offset: int, header: RecordHeader) -> None:
        """Counts a record that is durable."""
        self.live_records += 1
        self.live_bytes += record_bytes(header.payload_bytes)
        if not self.sealed:
            self.entries[offset] = FooterEntry(
                offset, header.segment, header.shard, header.payload_bytes, header.checksum
            )

    def drop(self, offset: int, payload_bytes: int) -> None:
        """Uncounts a record that is durably buried."""
        self.live_records -= 1
        self.live_bytes -= record_bytes(payload_bytes)
        self.entries.pop(offset, None)
        assert self.live_records >= 0, "a record is dropped once"

    def _read(self, offset: int, length: int) -> bytes:
        """Fewer bytes at the end of the file, none where the disk cannot read."""
        buffer = bytearray(length)
        try:
            got = self.file.pread_into(memoryview(buffer), offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            log.warning("cannot read %s at %d: %s", self.file.name, offset, error)
            return b""
        return bytes(buffer[:got])

    # -------------------------------------------------------------------- footer

    def write_footer(self, entries: list[FooterEntry]) -> int:
        """Ends the file with a durable footer; returns its bytes. Raises NoSpace (no footer then), DiskFailed."""
        buffers = record.footer_buffers(self._disk_uuid, self.number, self.end_bytes, entries)
        size_bytes = record.footer_bytes(len(entries))
        try:
            self.file.pwritev(buffers, self.end_bytes)
            self.file.truncate(self.end_bytes + size_bytes)  # gives back what was preallocated and not used
        except OSError as error:
            raise write_error(error, "writing a footer") from error
        self.sync.wait()
        return size_bytes

    def read_footer(self) -> list[FooterEntry] | None:
        """The records that the footer lists; None where the file was not sealed, or the footer is damaged."""
        size = self.file.size()
        if size < PAGE_BYTES or size % PAGE_BYTES:
            return None
        last = size - PAGE_BYTES
        found = record.parse_footer(self._read(last, PAGE_BYTES), self.place(last))
        if found is None or found.entries_offset + pages(found.entry_count * record.ENTRY.size) != last:
            return None
        packed = self._read(found.entries_offset, found.entry_count * record.ENTRY.size)
        if xxhash.xxh3_64_intdigest(packed) != found.entries_checksum:
            log.warning("the footer of %s is damaged: reading the whole file", self.file.name)
            return None
        return list(record.unpack_entries(packed))

    # -------------------------------------------------------------------- start

    def check_owner(self) -> None:
        """Raises WrongFormat where the file was written by another disk's node."""
        other = record.foreign_disk(self._read(0, PAGE_BYTES), self._disk_uuid)
        if other is not None:
            raise WrongFormat(
                f"{self.file.name} belongs to disk {other.hex()}, this node's disk is {self._disk_uuid.hex()}: "
                "move the file back to its own folder"
            )

    def scan(self) -> Iterator[tuple[int, RecordHeader]]:
        """Whole records of a file without a footer: (offset, header). Steps over damage page by page.

        Bytes of torn records are added to `dead_bytes`: they are left in place, since a torn record and one that the
        disk damaged later look the same.
        """
        size = self.file.size()
        offset = 0
        torn = 0
        while offset < size:
            data = self.file.seek_data(offset)
            if data is None:
                break
            offset = max(offset, data // PAGE_BYTES * PAGE_BYTES)
            header = self.read_header(offset)
            if header is None or header.kind is Kind.TOMBSTONE:
                offset += PAGE_BYTES
                continue
            whole = offset + PAGE_BYTES + header.payload_bytes <= size
            if whole and self.payload_is_good(offset, header.payload_bytes, header.checksum):
                yield offset, header
                offset += record_bytes(header.payload_bytes)
            else:
                torn += 1
                self.dead_bytes += min(record_bytes(header.payload_bytes), pages(size) - offset)
                offset += PAGE_BYTES
        if torn:
            log.warning("%s: %d torn records, as an unclean stop leaves them", self.file.name, torn)

    def row(self) -> FileRow:
        """What a clean stop saves."""
        return FileRow(
            self.file.size(),
            self.end_bytes,
            self.live_records,
            self.live_bytes,
            self.dead_bytes,
            self.sealed,
            record.pack_entries(self.entries.values()),
        )

    def restore(self, row: FileRow) -> None:
        """The opposite of `row`."""
        self.end_bytes, self.live_records, self.live_bytes = row.end_bytes, row.live_records, row.live_bytes
        self.preallocated_bytes = row.end_bytes
        self.sealed = self.full = row.sealed
        self.dead_bytes = row.dead_bytes
        self.entries = {entry.offset: entry for entry in record.unpack_entries(row.entries)}
