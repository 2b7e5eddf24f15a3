"""One program on one file: whatever can be done to bytes, each read compared with an array in memory.

The file is open several times at once: plainly, for appending, and past the kernel's cache (O_DIRECT, where the file
system offers it); and it is mapped. All must show the same bytes. On several hosts each operation is done by one that
is drawn. What is not done: writing into a map behind the file's end, which means nothing; and on several hosts mapping
a file without having looked at it since another one wrote.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.exerciser.operations import content
from tests.exerciser.tree_program import REMEMBERED, Different

MAX_FILE_BYTES = 3 * 1024 * 1024
"""Some twenty slots, so that offsets meet in every way."""
ALIGNMENT_BYTES = 4096
LENGTHS = (1, 7, 512, 4095, 4096, 4097, 10_000, 65_536, 131_071, 131_072, 131_073, 400_000)
WEIGHTS = {
    "write": 22, "read": 22, "append": 8, "truncate": 8, "read_direct": 6, "write_direct": 6, "read_map": 8,
    "write_map": 8, "fsync": 3, "fdatasync": 2, "reopen": 3, "read_behind_end": 2, "write_far": 2, "status": 5,
    "write_many": 3, "read_many": 3, "truncate_on_open": 1,
}  # fmt: skip


class FileProgram:
    """Random operations on the file at `paths`: one, or one for each host."""

    def __init__(self, seed: int, paths: Sequence[Path]) -> None:
        self.steps = 0
        self._path = path = paths[0]
        self._paths = paths
        self._opened: dict[Path, tuple[int, int, int]] = {}
        self._random = random.Random(seed)
        self._data = bytearray()
        self._saved = b""
        self._last: deque[str] = deque(maxlen=REMEMBERED)
        self._buffer = mmap.mmap(-1, MAX_FILE_BYTES)  # page-aligned memory, as O_DIRECT wants it
        self._plain = self._appending = self._direct = -1
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644))

    def run(self, steps: int) -> None:
        """Does so many operations. Raises Different."""
        for _ in range(steps):
            if len(self._paths) > 1:
                self._path = self._random.choice(self._paths)
            self._open()
            name = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            operation: Callable[[], None] = getattr(self, f"_{name}")
            self._last.append(name)
            operation()
            self.steps += 1

    def verify(self) -> None:
        """Reads all of it in every way. Raises Different."""
        for path in self._paths:
            self._path = path
            self._open()
            self._last.append("read all")
            self._same("read", 0, os.pread(self._plain, len(self._data) + 1, 0), len(self._data) + 1)
            self._status()
            if self._data:
                with mmap.mmap(self._plain, len(self._data), prot=mmap.PROT_READ) as view:
                    self._same("map", 0, view[:], len(self._data))

    def sync(self) -> None:
        """Makes everything durable."""
        self._open()
        os.fsync(self._plain)

    def close_all(self) -> None:
        """Closes the file."""
        for descriptors in self._opened.values():
            for descriptor in descriptors:
                if descriptor >= 0:
                    os.close(descriptor)
        self._opened.clear()

    def save(self) -> None:
        """Remembers everything as it is: the volume is kept in a snapshot."""
        self._saved = bytes(self._data)

    def restore(self) -> None:
        """Goes back: the volume was rolled back."""
        self._data = bytearray(self._saved)

    # ------------------------------------------------------------ helpers

    def _open(self) -> None:
        """Opens the file on the host that is drawn, where it is not open."""
        if self._path not in self._opened:
            plain = os.open(self._path, os.O_RDWR)
            appending = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                direct = os.open(self._path, os.O_RDWR | os.O_DIRECT)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                direct = -1
            self._opened[self._path] = plain, appending, direct
        self._plain, self._appending, self._direct = self._opened[self._path]

    def _same(self, how: str, offset: int, got: bytes, length: int) -> None:
        expected = bytes(self._data[offset : offset + length])
        if got == expected:
            return
        size = len(self._data)
        at = next(
            (i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), min(len(expected), len(got))
        )
        raise Different(
            f"step {self.steps}: {how} of {length} bytes at {offset} in {size}: "
            f"{len(got)} bytes, expected {len(expected)}; "
            f"first other byte at {offset + at}: {got[at : at + 16].hex()}, expected {expected[at : at + 16].hex()}\n"
            "  the last operations:\n    " + "\n    ".join(self._last)
        )

    def _range(self, alignment: int = 1) -> tuple[int, int]:
        """Where and how much to write; the file may grow."""
        rng = self._random
        size = len(self._data)
        offset = rng.choice((rng.randrange(size + 1), rng.randrange(size + 1), size, rng.randrange(size + 200_000)))
        length = rng.choice(LENGTHS)
        offset, length = offset // alignment * alignment, -(-length // alignment) * alignment
        offset = min(offset, MAX_FILE_BYTES - alignment)
        return offset, min(length, MAX_FILE_BYTES - offset)

    def _bytes(self, what: str, offset: int, length: int) -> bytes:
        self._last[-1] = f"{what} {length} bytes at {offset} (of {len(self._data)})"
        return content(self._random.randrange(1 << 30), length)

    def _put(self, offset: int, data: bytes) -> None:
        self._data.extend(bytes(max(0, offset - len(self._data))))
        self._data[offset : offset + len(data)] = data

    def _written(self, count: int, data: bytes) -> None:
        if count != len(data):
            raise Different(f"step {self.steps}: {count} of {len(data)} bytes were written")

    # ------------------------------------------------------------ operations

    def _write(self) -> None:
        offset, length = self._range()
        data = self._bytes("write", offset, length)
        self._written(os.pwrite(self._plain, data, offset), data)
        self._put(offset, data)

    def _write_far(self) -> None:
        """Leaves a hole."""
        offset = self._random.randrange(MAX_FILE_BYTES - 10)
        data = self._bytes("write", offset, 10)
        self._written(os.pwrite(self._plain, data, offset), data)
        self._put(offset, data)

    def _write_many(self) -> None:
        """One call with several buffers."""
        offset, length = self._range()
        data = self._bytes("pwritev", offset, length)
        cut = self._random.randrange(length)
        self._written(os.pwritev(self._plain, [data[:cut], data[cut:]], offset), data)
        self._put(offset, data)

    def _append(self) -> None:
        length = min(self._random.choice(LENGTHS), MAX_FILE_BYTES - len(self._data))
        data = self._bytes("append", len(self._data), length)
        self._written(os.write(self._appending, data), data)
        self._put(len(self._data), data)

    def _read(self) -> None:
        offset, length = self._random.randrange(len(self._data) + 1), self._random.choice(LENGTHS)
        self._same("read", offset, os.pread(self._plain, length, offset), length)

    def _read_many(self) -> None:
        offset, length = self._random.randrange(len(self._data) + 1), self._random.choice(LENGTHS)
        first, second = bytearray(length), bytearray(100)
        count = os.preadv(self._plain, [first, second], offset)
        self._same("preadv", offset, bytes(first + second)[:count], length + 100)

    def _read_behind_end(self) -> None:
        offset = len(self._data) + self._random.choice((0, 1, 4096, 10**6, 1 << 40))
        self._same("read", offset, os.pread(self._plain, 4096, offset), 4096)

    def _truncate(self) -> None:
        rng = self._random
        size = len(self._data)
        new = rng.choice((rng.randrange(size + 1), rng.randrange(size + 1), size + rng.randrange(300_000), size, 0))
        if new == 0 and rng.random() < 0.7:
            new = size // 2
        new = min(new, MAX_FILE_BYTES)
        self._last[-1] = f"truncate from {size} to {new}"
        if rng.random() < 0.5:
            os.ftruncate(self._plain, new)
        else:
            os.truncate(self._path, new)
        del self._data[new:]
        self._data.extend(bytes(new - len(self._data)))

    def _truncate_on_open(self) -> None:
        os.close(os.open(self._path, os.O_WRONLY | os.O_TRUNC))
        self._data.clear()

    def _read_direct(self) -> None:
        if self._direct < 0:
            return
        offset, length = self._range(ALIGNMENT_BYTES)
        view = memoryview(self._buffer)[:length]
        count = os.preadv(self._direct, [view], offset)
        self._last[-1] = f"read {length} bytes at {offset} past the cache"
        self._same("direct read", offset, bytes(view[:count]), length)

    def _write_direct(self) -> None:
        if self._direct < 0:
            return
        offset, length = self._range(ALIGNMENT_BYTES)
        data = self._bytes("write past the cache", offset, length)
        self._buffer[:length] = data
        self._written(os.pwritev(self._direct, [memoryview(self._buffer)[:length]], offset), data)
        self._put(offset, data)

    def _read_map(self) -> None:
        if not self._data:
            return
        offset = self._random.randrange(len(self._data))
        length = min(self._random.choice(LENGTHS), len(self._data) - offset)
        self._look()
        with mmap.mmap(self._plain, len(self._data), prot=mmap.PROT_READ) as view:
            self._same("map", offset, view[offset : offset + length], length)

    def _write_map(self) -> None:
        if not self._data:
            return
        offset = self._random.randrange(len(self._data))
        length = min(self._random.choice(LENGTHS), len(self._data) - offset)
        data = self._bytes("write into the map", offset, length)
        self._look()
        with mmap.mmap(self._plain, len(self._data)) as view:
            view[offset : offset + length] = data
            if self._random.random() < 0.5:
                view.flush()
        self._put(offset, data)

    def _look(self) -> None:
        """What another host wrote is in a map once the file was looked at."""
        if len(self._paths) > 1:
            os.fstat(self._plain)

    def _fsync(self) -> None:
        os.fsync(self._plain)

    def _fdatasync(self) -> None:
        os.fdatasync(self._appending)

    def _reopen(self) -> None:
        self.close_all()
        self._open()

    def _status(self) -> None:
        size = os.fstat(self._plain).st_size
        if size != len(self._data) or os.stat(self._path).st_size != size:
            raise Different(f"step {self.steps}: the size is {size}, expected {len(self._data)}: {list(self._last)}")
