"""Opening a store: from the saved index after a clean stop, from the backing files after any other.

Rebuilding reads the footers and record headers of sealed files, and all of the unsealed ones (normally one). Before
a file is read it is synced and dropped from memory, so whatever is found is on the disk: a repeated PUT or DELETE that
is acknowledged because of it holds. Records are found whole, or not at all; a record behind damage is found too.

Raises WrongFormat for files of another disk or a newer program, OSError where the disk cannot be read. Writes nothing
but footers and tombstones that were due, so being killed here costs only time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from redfs.proto.data_plane import SHARD_KEY
from redfs.storage_node.backing_file import MAX_FILE_NUMBER, BackingFile, file_name, file_numbers
from redfs.storage_node.disk import Disk, DiskFailed
from redfs.storage_node.index import Entry, FileRow, Index
from redfs.storage_node.record import FooterEntry, Kind, RecordHeader, footer_bytes, pages
from redfs.storage_node.shard_store import ShardStore, StoreLimits

log = logging.getLogger(__name__)


def open_store(
    disk: Disk,
    index: Index,
    disk_uuid: bytes,
    generation: int,
    saved_generation: int | None,
    limits: StoreLimits,
    on_failure: Callable[[DiskFailed], None],
) -> ShardStore:
    """A store ready to serve. `saved_generation` is that of the clean stop before this start; None: there was none."""
    store = ShardStore(disk, index, disk_uuid, generation, limits, on_failure)
    numbers = file_numbers(disk)
    for number in numbers:
        store.files[number] = BackingFile(disk.open(file_name(number)), number, disk_uuid)
    store.next_number = max(numbers, default=0) + 1
    assert store.next_number <= MAX_FILE_NUMBER, "a file a second would take 136 years"
    rows = index.load(saved_generation) if saved_generation is not None else None
    if rows is not None and rows.keys() == store.files.keys() and all(_fits(store.files[n], rows[n]) for n in rows):
        for number, row in rows.items():
            store.files[number].restore(row)
    else:
        _rebuild(store)
    unsealed = [file for file in store.files.values() if not file.full]
    for file in unsealed[:-1]:
        file.full = True
    store.active = unsealed[-1] if unsealed else None
    store.used_bytes = sum(file.used_bytes for file in store.files.values())
    store.seal_full_files()
    return store


def _fits(file: BackingFile, row: FileRow) -> bool:
    return file.file.size() == row.size_bytes


def _rebuild(store: ShardStore) -> None:
    store.index.clear()
    if not store.files:
        return
    log.info("reading %d backing files to rebuild the index", len(store.files))
    for file in list(store.files.values()):
        file.file.fdatasync()
        file.file.forget_cache()
        file.check_owner()
        footer = file.read_footer()
        if footer is None:
            for offset, header in file.scan():
                _found(store, file, offset, header, damaged=False)
        else:
            file.sealed = file.full = True
            file.dead_bytes = footer_bytes(len(footer))
            for entry in footer:
                _found_in_footer(store, file, entry)
        file.end_bytes = file.preallocated_bytes = pages(file.file.size())
    for file in list(store.files.values()):
        if not file.live_records:
            del store.files[file.number]
            store.disk.unlink(file.file.name)
            file.file.close()
    log.info("rebuilt the index: %d shards in %d backing files", store.index.count(), len(store.files))


def _found_in_footer(store: ShardStore, file: BackingFile, entry: FooterEntry) -> None:
    expected = RecordHeader(Kind.SHARD, entry.segment, entry.shard, entry.payload_bytes, entry.checksum)
    header = file.read_header(entry.offset)
    if header == expected:
        _found(store, file, entry.offset, expected, damaged=False)
    elif header is not None and header.kind is Kind.TOMBSTONE:
        return
    elif header is None and file.is_blank(entry.offset):
        return  # deleted, and its space given back
    else:
        # The footer vouches for a record whose header the disk lost: keep it, in what state it may be.
        damaged = not file.payload_is_good(entry.offset, entry.payload_bytes, entry.checksum)
        log.error("the header of shard %d/%d in %s is damaged", entry.segment, entry.shard, file.file.name)
        _found(store, file, entry.offset, expected, damaged=damaged)


def _found(store: ShardStore, file: BackingFile, offset: int, header: RecordHeader, *, damaged: bool) -> None:
    """Enters a record. Of two records of a shard, as a repair leaves them when it is cut short, the good one stays."""
    key = SHARD_KEY.pack(header.segment, header.shard)
    entry = Entry(file.number, offset, header.payload_bytes, header.checksum, damaged)
    other = store.index.get(key)
    if other is not None:
        other_file = store.files[other.file_number]
        if not damaged and file.payload_is_good(offset, header.payload_bytes, header.checksum):
            _bury(other_file, other.offset, header._replace(payload_bytes=other.payload_bytes, checksum=other.checksum))
            other_file.drop(other.offset, other.payload_bytes)
        else:
            _bury(file, offset, header)
            return
    store.index.put(key, entry)
    file.add(offset, header)


def _bury(file: BackingFile, offset: int, header: RecordHeader) -> None:
    file.bury(offset, header)
    file.sync.wait()
