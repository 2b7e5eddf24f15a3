"""The bounds and times of a mounted volume, in one place, and what its parts need from the data path.

The protocols name exactly the calls that the file system makes on the session, the block store and the block reader;
`client/session.py` and `client/data` implement them, tests put plain memory behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class FsConfig:
    """Bounds of one mount. The defaults keep a busy mount below 600 MiB of memory."""

    cached_records: int = 128 * 1024
    """Records kept: at some 700 bytes each below 100 MiB. Not yet acknowledged ones come on top, bounded below."""
    folder_page_buckets: int = 1000
    """Entries asked for at once: with their inodes a reply of about 250 KiB."""
    whole_folder_entries: int = 2000
    """A folder up to this size is fetched whole when the first of its names is wanted: two pages."""
    folder_cached_buckets: int = 16 * 1024
    """Entries kept of one folder; a longer listing keeps a window."""
    slots_page: int = 256
    """Slots asked for at once: the map of 32 MiB of file."""

    dirty_bytes: int = 96 * 1024 * 1024
    """Dirty and not yet acknowledged file data: twelve segments, enough to keep four in flight while others fill."""
    flush_age_s: float = 5.0
    """Dirty data is written back at this age at the latest."""
    batch_bytes: int = 8 * 1024 * 1024
    """Plain bytes stored at once: one segment."""
    batch_blocks: int = 4096
    """Blocks stored at once: their rows, 100 bytes each, stay below 1 MiB of commit."""
    batches_in_flight: int = 5
    """One more than the segments that the block store keeps in flight, so that it never waits for the next."""
    retry_first_s: float = 1.0
    """Pause after a failed flush; doubles up to `retry_max_s`."""
    retry_max_s: float = 10.0

    commit_delay_s: float = 1.0
    """Namespace operations are committed at this age at the latest."""
    commit_rows: int = 4096
    """Rows in one commit: some 600 KiB. One operation's write-set may pass it."""
    commit_bytes: int = 16 * 1024 * 1024
    """Plain bytes stored for one commit: with them the write buffer's memory comes back."""
    commit_batches: int = 128
    """Flushes in one commit, each with a segment of its own; the coordinator takes 256."""
    commits_in_flight: int = 2
    """The next one travels while the one before is made durable; more would only wait there."""
    pending_rows: int = 32 * 1024
    """Rows not yet acknowledged; operations wait beyond. Some 20 MiB."""
    pending_bytes: int = 96 * 1024 * 1024
    """Plain bytes kept for commits not yet acknowledged; merged slots count whole, so few writes can make many."""
    commit_attempts: int = 16
    """Times that one commit is repaired after a refusal before the mount gives up on it."""

    inode_grant: int = 4096
    """Inode numbers asked for at once; asked again when half are used."""
    reserve_refresh_bytes: int = 16 * 1024 * 1024
    """The space reservation is renewed after this much was written, so that a pool that fills up is noticed."""
    statfs_s: float = 1.0
    """Time that an answer of statfs is used again."""
    prefetch_max_bytes: int = 32 * 1024 * 1024
    """Read-ahead of one sequential reader at most: four segments."""
    prefetch_first_bytes: int = 1024 * 1024
    """Read-ahead when a reader first turns out to be sequential; doubles with each step."""
    small_file_bytes: int = 64 * 1024
    """Readers of smaller files, one after another, bring the neighbours."""
    small_file_window: int = 512
    """Files of a folder whose slots are asked for together."""
    relatime: bool = False
    """Opening for reading sets the access time where that is not newer than the last change, or a day old."""
    may_share: bool = False
    """Other hosts may come to write to the volume too, while files are open here."""
    give_up_s: float = 600.0
    """A request waits this long for a lease or a coordinator that is away, then it is EIO."""
    remembered_names: int = 64 * 1024
    """Inodes whose name and folder are remembered, for messages and for read-ahead of neighbours: 10 MiB."""
    volatile_s: float = 1.0
    """Age of cached records at which a read-only mount of a live volume asks again."""


class Session(Protocol):
    """What is needed of `client.session.CoordinatorSession`."""

    last_commit: int

    @property
    def is_serving(self) -> bool: ...

    @property
    def lease_s(self) -> float: ...

    async def call(self, **body: Any) -> Any: ...

    async def serving(self) -> None: ...


class Stored(Protocol):
    """What is needed of `client.data.store.StoredBatch`."""

    refs: list[tuple[int, int]]
    """(block id, plain length), in the order of the input."""
    segments: list[Any]
    blocks: list[Any]


class Store(Protocol):
    """What is needed of `client.data.store.BlockStore`."""

    async def store(self, plain: Sequence[Buffer], *, dedupe: bool = True) -> Stored: ...

    async def abandon(self, batch: Any) -> None: ...


class Reader(Protocol):
    """What is needed of `client.data.reader.BlockReader`."""

    def learn(self, blocks: Iterable[Any], segments: Iterable[Any]) -> None: ...

    def learn_stored(self, blocks: Iterable[Any], segments: Iterable[Any]) -> None: ...

    def cached(self, block: int) -> Buffer | None: ...

    async def read_many(self, blocks: Sequence[int]) -> Sequence[Buffer]: ...

    def prefetch(self, blocks: Sequence[int], *, whole_segments: bool) -> None: ...


Clock = Callable[[], float]
"""Monotonic seconds."""
