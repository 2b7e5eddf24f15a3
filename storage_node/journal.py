"""The coordinator's journal on this node's disk: files of change lists, checkpoints, and who may write them.

In the folder `journal/` (docs/formats/journal.md):

    journal.json          highest term seen, newest record of which nodes keep the journal
    00000007.lists        frames of change lists, one after another; a new file begins when one is large enough
    00000009.checkpoint   all rows at one point, in pieces; complete when its end is there

What holds here:

1. `Writer.append` returns when its frame is durable. A frame is taken only behind the point that it names. What stands
   behind that point is cut off first: the writer gave those lists up, nobody was told that they are stored.
2. A term lower than one that was seen is refused (`Fenced`), and a writer that another one has followed (`Busy`).
3. Lists that do not follow what is here begin a new run, and leave the old run and its checkpoint alone until `drop`.
4. `drop` removes only what a newer complete checkpoint of the current run makes needless.

| what a crash leaves | what the next start makes of it |
|---|---|
| a frame cut short at the end | is cut off, durably, before anything is appended |
| an undamaged frame behind a damaged one | the file is left alone and is not written to: the journal is not whole |
| a checkpoint without an end, a file without its header | is removed |
| an old file that was to be removed | is removed by the next drop |

Fails with Fenced, InvalidArgument (says from where to send), NoSpace (nothing has changed), Unavailable (the disk
failed; `on_failure` was called). Thread safe: `_lock` guards lists and terms, `_checkpoint_lock` what is being
written of a checkpoint, so that lists never wait for it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import xxhash

from redfs.core.errors import Busy, Fenced, InvalidArgument, NoSpace, NotFound, Unavailable, WrongFormat
from redfs.core.journal import (
    END_BYTES,
    FILE_HEADER_BYTES,
    CheckpointEnd,
    FileHeader,
    FileKind,
    FrameHead,
    JournalSet,
    Point,
    check_frame,
    check_piece,
    decode_end,
    decode_file_header,
    encode_end,
    encode_file_header,
    piece_checksum,
    read_lists_file,
)
from redfs.storage_node.backing_file import write_error
from redfs.storage_node.disk import Buffer, Disk, DiskFailed, DiskFile
from redfs.storage_node.identity import pack, unpack

log = logging.getLogger(__name__)

FOLDER: Final = "journal"
STATE_FILE: Final = "journal.json"
STATE_FORMAT: Final = "redfs-node-journal"
LISTS: Final = ".lists"
CHECKPOINT: Final = ".checkpoint"
FILE_BYTES: Final = 16 << 20
"""A file of lists: what a checkpoint makes needless goes in steps of this, and a start reads the newest one whole."""
PREALLOCATE_BYTES: Final = 4 << 20
"""Taken at once, without changing the size: fdatasync of a small append is a third quicker then."""
SYNC_PIECES_BYTES: Final = 8 << 20
"""A checkpoint is synced this often, so that a list's fdatasync never waits for much more than that."""
MAX_READ_BYTES: Final = 4 << 20
MAX_POOL_ID_CHARS: Final = 16


@dataclass
class _Lists:
    """A file of lists."""

    number: int
    base: Point
    last: Point
    end: int
    """Bytes of header and whole frames."""
    cuts: dict[Point, int] = field(default_factory=dict)
    """Points of the newest file, and where they end; empty for others."""
    damaged: bool = False


class _Checkpoint(NamedTuple):
    number: int
    point: Point
    size: int


class Opened(NamedTuple):
    """How the journal stands when a writer comes."""

    match: Point | None
    """The newest of the writer's points that is here: it may go on from it."""
    end: Point | None
    whole: bool
    """With the lists up to `match`, this node has everything: a complete checkpoint and all lists behind it."""
    lists_bytes: int
    """Of the run, behind its checkpoint."""
    checkpoint_bytes: int


def file_name(number: int, suffix: str) -> str:
    return f"{number:08d}{suffix}"


class Journal:
    """See the module. `open` reads what is there."""

    def __init__(
        self,
        disk: Disk,
        pool_id: Callable[[], str],
        on_failure: Callable[[DiskFailed], None] = lambda _: None,
        file_bytes: int = FILE_BYTES,
    ) -> None:
        self._disk = disk
        self._pool_id = pool_id
        self._on_failure = on_failure
        self._file_bytes = file_bytes
        self._lock = threading.RLock()
        self._checkpoint_lock = threading.Lock()
        self._failure: DiskFailed | None = None
        self._term = 0
        self._set = JournalSet()
        self._files: list[_Lists] = []
        """The current run, in order; the last one is appended to."""
        self._old: list[str] = []
        """Files of lists of earlier runs."""
        self._newest: DiskFile | None = None
        self._preallocated = 0
        self._checkpoint: _Checkpoint | None = None
        self._building: _Building | None = None
        self._next = 1
        self._writer: Writer | None = None

    # -------------------------------------------------------------------- start

    def open(self) -> None:
        """Reads what is there and cuts off what a crash left. Raises WrongFormat, OSError, DiskFailed."""
        self._load_state()
        names = self._disk.list()
        numbers = [int(name[:8]) for name in names if name[:8].isdigit()]
        self._next = max(numbers, default=0) + 1
        for name in names:
            if name.endswith(CHECKPOINT):
                self._find_checkpoint(name)
        for name in names:
            if name.endswith(LISTS):
                self._find_lists(name)
        if self._files:
            self._cut_tail(self._files[-1])

    def _load_state(self) -> None:
        packed = self._disk.read(STATE_FILE)
        if packed is None:
            return
        content = unpack(STATE_FORMAT, packed, STATE_FILE)
        try:
            self._term = int(content["highest_term"])
            self._set = JournalSet.from_fields(content["set"])
        except (KeyError, ValueError, TypeError) as error:
            raise WrongFormat(f"{STATE_FILE} is damaged: remove the folder {FOLDER}, it is made anew") from error

    def _find_checkpoint(self, name: str) -> None:
        found: _Checkpoint | None = None
        with contextlib.closing(self._disk.open(name)) as file:
            size = file.size()
            with contextlib.suppress(WrongFormat):
                header = decode_file_header(_read(file, 0, FILE_HEADER_BYTES))
                decode_end(_read(file, max(0, size - END_BYTES), END_BYTES))
                found = _Checkpoint(int(name[:8]), header.point, size)
        if found is None:
            log.info("%s was not finished: it is removed", name)
            self._disk.unlink(name)
        elif self._checkpoint is None or found.number > self._checkpoint.number:
            self._checkpoint = found

    def _find_lists(self, name: str) -> None:
        with contextlib.closing(self._disk.open(name)) as file:
            data = _read(file, 0, file.size())
        try:
            found = read_lists_file(data)
        except WrongFormat as error:
            if len(data) <= FILE_HEADER_BYTES:
                log.info("%s was not begun: it is removed", name)
                self._disk.unlink(name)
            else:
                log.error("%s in the journal cannot be read: %s", name, error)
                self._begin_run()
                self._old.append(name)
            return
        lists = _Lists(int(name[:8]), found.header.point, found.last, found.end, damaged=found.damaged)
        lists.cuts = {found.header.point: FILE_HEADER_BYTES}
        lists.cuts |= {head.after: offset + head.whole_bytes for offset, head in found.frames}
        if self._files:
            before = self._files[-1]
            if before.last != lists.base or before.damaged:
                self._begin_run()
            else:
                before.cuts = {}
        self._files.append(lists)

    def _begin_run(self) -> None:
        """What is there becomes an old run."""
        self._old += [file_name(lists.number, LISTS) for lists in self._files]
        self._files = []

    def _cut_tail(self, lists: _Lists) -> None:
        if lists.damaged:
            log.error("%s is damaged in its middle: it is left as it is", file_name(lists.number, LISTS))
            return
        self._newest = self._disk.open(file_name(lists.number, LISTS))
        if self._newest.size() > lists.end:
            self._newest.truncate(lists.end)
            self._newest.fdatasync()
        self._preallocated = lists.end

    # -------------------------------------------------------------------- terms and sets

    def note_set(self, given: JournalSet) -> JournalSet:
        """Remembers a record durably, unless a newer one is known; returns the newest. Raises Fenced."""
        with self._lock, self._failing():
            self._admit(given.term)
            if given.age > self._set.age:
                self._publish(self._term, given)
            return self._set

    def fence(self, term: int) -> None:
        """Refuses lower terms from now on. Raises Fenced where a higher one is known."""
        with self._lock, self._failing():
            self._admit(term)

    def _admit(self, term: int) -> None:
        """Refuses terms that are over and remembers a new one durably. The lock is held."""
        if term < self._term:
            raise Fenced(
                f"the journal belongs to a coordinator of term {self._term:#x}, this one has {term:#x}: "
                "its metadata is out of date"
            )
        if term > self._term:
            self._publish(term, self._set)
            self._writer = None

    def _publish(self, term: int, record: JournalSet) -> None:
        content = {"highest_term": term, "set": record.to_fields()}
        try:
            self._disk.publish(STATE_FILE, pack(STATE_FORMAT, content))
        except OSError as error:
            raise write_error(error, f"writing {STATE_FILE}") from error
        self._term, self._set = term, record

    # -------------------------------------------------------------------- lists

    def open_writer(self, term: int, points: list[Point]) -> tuple[Writer, Opened]:
        """A writer, the only one from now on, and how the journal stands for one that can go on from `points`, newest
        first. Raises Fenced."""
        with self._lock, self._failing():
            self._admit(term)
            self._writer = Writer(self, term)
            if not self._files or self._files[-1].damaged:
                return self._writer, Opened(None, None, False, 0, 0)
            newest = self._files[-1]
            match = next((point for point in points if point in newest.cuts), None)
            whole = self._is_whole() and match is not None
            size = self._checkpoint.size if self._checkpoint is not None else 0
            return self._writer, Opened(match, newest.last, whole, sum(lists.end for lists in self._files), size)

    def _is_whole(self) -> bool:
        """Whether the newest checkpoint belongs to the current run. One that was begun in the run has a greater
        number than the run's first file; later the first file may be newer, but then the checkpoint is older lists'."""
        if self._checkpoint is None or not self._files or self._files[-1].damaged:
            return False
        first = self._files[0]
        point = self._checkpoint.point
        if point == first.base:
            return True
        return self._checkpoint.number > first.number and point.position >= first.base.position

    def reset(self, writer: Writer, point: Point) -> None:
        """Begins a run behind a point. The caller sends a checkpoint next."""
        with self._lock, self._failing():
            self._check_writer(writer)
            self._begin_run()
            self._create(point)

    def append(self, writer: Writer, before: Point, frame: Buffer) -> Point:
        """Appends a frame behind a point; durable when it returns. Raises Fenced, InvalidArgument (the point is not
        here: `reset`), NoSpace."""
        head = _checked(frame)
        with self._lock, self._failing():
            self._check_writer(writer)
            if head.before != before or head.term > self._term:
                raise InvalidArgument("a frame of the journal does not follow the point that it was sent for")
            if not self._files or before not in self._files[-1].cuts:
                last = self._files[-1].last if self._files else Point(0, 0)
                raise InvalidArgument(
                    f"the journal here ends with list {last.position}, not with {before.position}: send all from there"
                )
            lists = self._files[-1]
            if head.after in lists.cuts:
                return head.after  # sent again: the chain says that it is the same
            if lists.last != before:
                self._cut_back(lists, before)
            elif lists.end >= self._file_bytes:
                lists = self._create(before)
            self._write(lists, frame)
            lists.last = head.after
            lists.cuts[lists.last] = lists.end
            return lists.last

    def _create(self, base: Point) -> _Lists:
        number, self._next = self._next, self._next + 1
        name = file_name(number, LISTS)
        file = None
        try:
            file = self._disk.create(name)
            file.pwritev([encode_file_header(FileHeader(FileKind.LISTS, self._pool(), base))], 0)
            file.fdatasync()
        except OSError as error:
            if file is not None:
                with contextlib.suppress(OSError):
                    self._disk.unlink(name)
            raise write_error(error, f"creating {name}") from error
        if self._newest is not None:
            self._newest.close()
        if self._files:
            self._files[-1].cuts = {}
        self._newest, self._preallocated = file, FILE_HEADER_BYTES
        lists = _Lists(number, base, base, FILE_HEADER_BYTES, {base: FILE_HEADER_BYTES})
        self._files.append(lists)
        return lists

    def _cut_back(self, lists: _Lists, point: Point) -> None:
        """Durable before anything is written behind it: else a crash could leave old frames behind new ones."""
        file = self._file()
        end = lists.cuts[point]
        try:
            file.truncate(end)
            file.fdatasync()
        except OSError as error:
            raise DiskFailed(f"cutting the journal failed: {error}") from error
        log.info("the journal goes back from list %d to %d", lists.last.position, point.position)
        lists.cuts = {cut: at for cut, at in lists.cuts.items() if at <= end}
        lists.last, lists.end, self._preallocated = point, end, end

    def _write(self, lists: _Lists, frame: Buffer) -> None:
        file = self._file()
        end = lists.end + len(frame)
        try:
            if end > self._preallocated:
                length = max(PREALLOCATE_BYTES, end - self._preallocated)
                with contextlib.suppress(OSError):  # a nearly full disk may still have room for the frame itself
                    if self._disk.free_bytes() > 2 * length and file.preallocate(self._preallocated, length):
                        self._preallocated += length
            file.pwritev([frame], lists.end)
            file.fdatasync()
        except OSError as error:
            failure = write_error(error, "appending to the journal")
            if isinstance(failure, NoSpace):
                self._cut_back(lists, lists.last)
            raise failure from error
        lists.end = end

    def _file(self) -> DiskFile:
        if self._newest is None:
            raise Unavailable("the journal has no open file")
        return self._newest

    def _check_writer(self, writer: Writer) -> None:
        if writer is not self._writer:
            self._admit(writer.term)
            raise Busy("the journal has another writer by now: open it again")

    def _pool(self) -> str:
        return self._pool_id()[:MAX_POOL_ID_CHARS].ljust(MAX_POOL_ID_CHARS, "\0")

    # -------------------------------------------------------------------- checkpoints

    def begin_checkpoint(self, term: int, point: Point) -> None:
        """A checkpoint of all rows at a point follows, in pieces. One that was not finished is given up."""
        with self._lock, self._failing():
            self._admit(term)
            number, self._next = self._next, self._next + 1
        with self._checkpoint_lock, self._failing():
            self._give_up()
            name = file_name(number, CHECKPOINT)
            try:
                file = self._disk.create(name)
                self._building = _Building(number, name, term, point, file)
                self._building.write(encode_file_header(FileHeader(FileKind.CHECKPOINT, self._pool(), point)))
            except OSError as error:
                raise write_error(error, "beginning a checkpoint") from error

    def add_piece(self, term: int, piece: Buffer) -> None:
        """The next piece. Raises Fenced, InvalidArgument, NoSpace; the checkpoint is given up then."""
        with self._checkpoint_lock, self._failing():
            building = self._under_way(term)
            try:
                check_piece(piece, building.pieces)
                building.write(piece)
                building.pieces += 1
                building.digest.update(piece_checksum(piece))
                if building.unsynced >= SYNC_PIECES_BYTES:
                    building.sync()
            except OSError as error:
                self._give_up()
                raise write_error(error, "writing a checkpoint") from error
            except WrongFormat:
                self._give_up()
                raise

    def end_checkpoint(self, term: int, end: CheckpointEnd) -> None:
        """All pieces are there. The checkpoint is complete and durable when it returns."""
        with self._checkpoint_lock, self._failing():
            building = self._under_way(term)
            if (end.pieces, end.digest) != (building.pieces, building.digest.intdigest()):
                self._give_up()
                raise InvalidArgument("a checkpoint arrived with other pieces than were sent")
            try:
                building.sync()  # the end must never be there without the rest
                building.write(encode_end(end))
                building.sync()
            except OSError as error:
                self._give_up()
                raise write_error(error, "ending a checkpoint") from error
            building.file.close()
            self._building = None
        with self._lock:
            if self._checkpoint is None or building.number > self._checkpoint.number:
                self._checkpoint = _Checkpoint(building.number, building.point, building.size)

    def _under_way(self, term: int) -> _Building:
        if self._building is None or self._building.term != term:
            raise InvalidArgument("no checkpoint is being written here: begin it again")
        if term < self._term:
            raise Fenced("another coordinator writes the journal by now")
        return self._building

    def _give_up(self) -> None:
        if self._building is not None:
            building, self._building = self._building, None
            building.file.close()
            with contextlib.suppress(OSError):
                self._disk.unlink(building.name)

    def drop(self, term: int, before: int) -> None:
        """Removes what is not needed any more to have everything up to now, provided that a complete checkpoint of
        the current run holds all lists before that position. Else nothing happens."""
        with self._lock, self._failing():
            self._admit(term)
            if not self._is_whole() or self._checkpoint is None or self._checkpoint.point.position < before:
                return
            needless = [file_name(f.number, LISTS) for f in self._files[:-1] if self._is_behind(f)]
            kept = self._checkpoint.number
            building = self._building
            for name in self._disk.list():
                own = int(name[:8]) if name[:8].isdigit() else -1
                if name.endswith(CHECKPOINT) and own != kept and (building is None or building.number != own):
                    needless.append(name)
            for name in [*self._old, *needless]:
                try:
                    self._disk.unlink(name)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    log.warning("cannot remove %s from the journal: %s", name, error)
            self._old = []
            self._files = [f for f in self._files[:-1] if not self._is_behind(f)] + self._files[-1:]

    def _is_behind(self, lists: _Lists) -> bool:
        return self._checkpoint is not None and lists.last.position <= self._checkpoint.point.position

    # -------------------------------------------------------------------- for a restore

    def state(self) -> dict[str, Any]:
        """What is here: the highest term, the newest record of a set, and (name, bytes) of all files, oldest first."""
        with self._lock:
            files = []
            for name in self._disk.list():
                if name.endswith((LISTS, CHECKPOINT)):
                    with contextlib.closing(self._disk.open(name)) as file:
                        files.append([name, file.size()])
            return {"term": self._term, "set": self._set.to_fields(), "files": files}

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of a file. Raises NotFound, InvalidArgument."""
        if not name.endswith((LISTS, CHECKPOINT)) or not name[:8].isdigit() or len(name) > 8 + len(CHECKPOINT):
            raise NotFound(f"the journal has no file {name!r}")
        if not 0 <= length <= MAX_READ_BYTES:
            raise InvalidArgument(f"at most {MAX_READ_BYTES} bytes of the journal at once")
        try:
            with contextlib.closing(self._disk.open(name)) as file:
                return _read(file, offset, length)
        except FileNotFoundError as error:
            raise NotFound(f"the journal has no file {name!r} any more") from error

    # -------------------------------------------------------------------- failing

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """A disk that fails inside is failed for good: Unavailable."""
        if self._failure is not None:
            raise Unavailable(f"the node's disk failed: {self._failure}")
        try:
            yield
        except DiskFailed as error:
            if self._failure is None:
                self._failure = error
                log.critical("the disk failed, the journal is not written any more: %s", error)
                self._on_failure(error)
            raise Unavailable(f"the node's disk failed: {error}") from error

    def close(self) -> None:
        """Gives up what is under way and closes the files."""
        with self._checkpoint_lock:
            self._give_up()
        with self._lock:
            self._writer = None
            if self._newest is not None:
                with contextlib.suppress(OSError):
                    self._newest.truncate(self._newest.size())  # gives back what was preallocated
                self._newest.close()
                self._newest = None


class _Building:
    """A checkpoint that is being written."""

    def __init__(self, number: int, name: str, term: int, point: Point, file: DiskFile) -> None:
        self.number = number
        self.name = name
        self.term = term
        self.point = point
        self.file = file
        self.pieces = 0
        self.size = 0
        self.unsynced = 0
        self.digest = xxhash.xxh3_64()

    def write(self, data: Buffer) -> None:
        self.file.pwritev([data], self.size)
        self.size += len(data)
        self.unsynced += len(data)

    def sync(self) -> None:
        self.file.fdatasync()
        self.unsynced = 0


class Writer:
    """The one who may append, until the next one opens."""

    def __init__(self, journal: Journal, term: int) -> None:
        self._journal = journal
        self.term = term

    def append(self, before: Point, frame: Buffer) -> Point:
        """See `Journal.append`."""
        return self._journal.append(self, before, frame)

    def reset(self, point: Point) -> None:
        """See `Journal.reset`."""
        self._journal.reset(self, point)


def _checked(frame: Buffer) -> FrameHead:
    head = check_frame(frame)
    if head.whole_bytes != len(frame):
        raise WrongFormat("a frame of the journal has bytes behind its end")
    return head


def _read(file: DiskFile, offset: int, length: int) -> bytes:
    buffer = bytearray(max(0, min(length, file.size() - offset)))
    got = file.pread_into(memoryview(buffer), offset)
    return bytes(buffer[:got])
