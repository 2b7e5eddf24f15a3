"""A disk on which the power can go at any operation, for tests of what a storage node promises.

It implements the node's `Disk` and keeps two states of every file: what programs see, and what is durable. When power
is lost, of every page written and not synced the old or the new content survives, and of the names changed and not
synced a prefix of the changes; a seeded random source decides. A write that power cuts short may have come to any byte.
Further faults: flipped bits, a full disk, an fdatasync that fails (the pages then count as written and are not, as
on Linux).

`lose_power_at` counts operations that change something; reading is free. Single threads only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Callable, Sequence

Buffer = bytes | bytearray | memoryview
PAGE_BYTES = 4096


class PowerLost(Exception):
    """The disk is off: nothing more happens until `restart`."""


class _Inode:
    def __init__(self) -> None:
        self.current = bytearray()
        self.durable = bytearray()
        self.dirty: set[int] = set()
        self.allocated: set[int] = set()
        self.durable_allocated: set[int] = set()
        self.preallocated: set[int] = set()


class SimulatedFile:
    """An open file of a `SimulatedDisk`."""

    def __init__(self, disk: SimulatedDisk, name: str, inode: _Inode) -> None:
        self._disk = disk
        self._name = name
        self._inode = inode
        self._life = disk.life

    @property
    def name(self) -> str:
        return self._name

    def _check(self) -> None:
        if self._disk.off or self._disk.life != self._life:
            raise PowerLost(self._name)

    def size(self) -> int:
        self._check()
        return len(self._inode.current)

    def allocated_bytes(self) -> int:
        self._check()
        return len(self._inode.allocated | self._inode.preallocated) * PAGE_BYTES

    def pread_into(self, view: memoryview, offset: int) -> int:
        self._check()
        found = self._inode.current[offset : offset + len(view)]
        view[: len(found)] = found
        return len(found)

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        self._check()
        data = b"".join(bytes(buffer) for buffer in buffers)
        self._disk.operation(lambda: self._write(data[: self._disk.random.randint(0, len(data))], offset))
        self._write(data, offset)

    def _write(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        begin = offset
        while begin < end:
            page = begin // PAGE_BYTES
            stop = min(end, (page + 1) * PAGE_BYTES)
            self._write_in_page(page, data[begin - offset : stop - offset], begin)
            begin = stop

    def _write_in_page(self, page: int, piece: bytes, begin: int) -> None:
        inode = self._inode
        if page not in inode.allocated:
            if page not in inode.preallocated and self._disk.room_bytes() < PAGE_BYTES:
                raise OSError(errno.ENOSPC, "no space left on the simulated disk")
            inode.allocated.add(page)
        if len(inode.current) < begin + len(piece):
            inode.current.extend(bytes(begin + len(piece) - len(inode.current)))
        inode.current[begin : begin + len(piece)] = piece
        inode.dirty.add(page)

    def fdatasync(self) -> None:
        self._check()
        self._disk.operation(lambda: None)
        if self._disk.fail_next_sync:
            self._disk.fail_next_sync = False
            self._inode.dirty.clear()  # the kernel believes them written
            raise OSError(errno.EIO, "fdatasync failed on the simulated disk")
        self._settle(lambda page: True, len(self._inode.current))

    def _settle(self, survives: Callable[[int], bool], size: int) -> None:
        """Makes the dirty pages that survive durable, and the size."""
        inode = self._inode
        durable = bytearray(size)
        kept = inode.durable[:size]
        durable[: len(kept)] = kept
        allocated = set(inode.durable_allocated)
        for page in sorted(inode.dirty):
            if survives(page):
                begin = page * PAGE_BYTES
                content = bytes(inode.current[begin : begin + PAGE_BYTES])[: max(0, size - begin)]
                durable[begin : begin + len(content)] = content
                if page in inode.allocated:
                    allocated.add(page)
                else:
                    allocated.discard(page)
        inode.durable = durable
        inode.durable_allocated = {page for page in allocated if page * PAGE_BYTES < size}
        inode.dirty.clear()

    def preallocate(self, offset: int, length: int) -> bool:
        self._check()
        self._disk.operation(lambda: None)
        if self._disk.full_without_warning:
            return False
        pages = set(range(offset // PAGE_BYTES, -(-(offset + length) // PAGE_BYTES)))
        new = pages - self._inode.allocated - self._inode.preallocated
        if len(new) * PAGE_BYTES > self._disk.room_bytes():
            raise OSError(errno.ENOSPC, "no space left on the simulated disk")
        self._inode.preallocated |= new
        return True

    def punch_hole(self, offset: int, length: int) -> bool:
        self._check()
        self._disk.operation(lambda: None)
        inode = self._inode
        first, end = -(-offset // PAGE_BYTES), (offset + length) // PAGE_BYTES
        for page in range(first, end):
            begin = page * PAGE_BYTES
            if begin < len(inode.current):
                stop = min(begin + PAGE_BYTES, len(inode.current))
                inode.current[begin:stop] = bytes(stop - begin)
                inode.dirty.add(page)
            inode.allocated.discard(page)
            inode.preallocated.discard(page)
        return True

    def truncate(self, size: int) -> None:
        self._check()
        self._disk.operation(lambda: None)
        inode = self._inode
        for page in range(size // PAGE_BYTES, -(-len(inode.current) // PAGE_BYTES)):
            inode.dirty.add(page)
        if size < len(inode.current):
            del inode.current[size:]
        else:
            inode.current.extend(bytes(size - len(inode.current)))
        inode.allocated = {page for page in inode.allocated if page * PAGE_BYTES < size}
        inode.preallocated = {page for page in inode.preallocated if page * PAGE_BYTES < size}

    def seek_data(self, offset: int) -> int | None:
        self._check()
        pages = [page for page in self._inode.allocated if (page + 1) * PAGE_BYTES > offset]
        if not pages or offset >= len(self._inode.current):
            return None
        found = max(offset, min(pages) * PAGE_BYTES)
        return found if found < len(self._inode.current) else None

    def forget_cache(self) -> None:
        self._check()
        inode = self._inode
        assert not inode.dirty, "only what is synced can be forgotten"
        inode.current = bytearray(inode.durable)
        inode.allocated = set(inode.durable_allocated)

    def forget_range(self, offset: int, length: int) -> None:
        self._check()
        inode = self._inode
        for page in range(-(-offset // PAGE_BYTES), (offset + length) // PAGE_BYTES):
            begin, end = page * PAGE_BYTES, min((page + 1) * PAGE_BYTES, len(inode.current), len(inode.durable))
            if page not in inode.dirty and begin < end:
                inode.current[begin:end] = inode.durable[begin:end]

    def sendfile(self, out_fd: int, offset: int, length: int) -> int:
        self._check()
        return os.write(out_fd, self._inode.current[offset : offset + length])

    def close(self) -> None:
        """Nothing is held."""

    # what only the disk calls

    def crash(self) -> None:
        inode = self._inode
        rng = self._disk.random
        chance = rng.choice((0.0, 0.5, 1.0))
        low, high = sorted((len(inode.durable), len(inode.current)))
        size = rng.choice((len(inode.durable), len(inode.current), rng.randint(low, high)))
        self._settle(lambda page: rng.random() < chance, size)
        inode.current = bytearray(inode.durable)
        inode.allocated = set(inode.durable_allocated)
        inode.preallocated.clear()


class SimulatedDisk:
    """A `Disk` in memory."""

    def __init__(self, seed: int, capacity_bytes: int = 1 << 40) -> None:
        self.random = random.Random(seed)
        self.operations = 0
        self.lose_power_at: int | None = None
        """The number of the operation that power is lost in; operations count from 1."""
        self.fail_next_sync = False
        self.full_without_warning = False
        """Preallocates nothing and tells nobody how full it is, as some network file systems do."""
        self.off = False
        self.life = 0
        self.capacity_bytes = capacity_bytes
        self._names: dict[str, _Inode] = {}
        self._durable_names: dict[str, _Inode] = {}
        self._pending: list[tuple[str, _Inode | None, str]] = []
        """Changes of names not synced: (name, inode or None for gone, old name or "")."""

    # -------------------------------------------------------------------- faults

    def operation(self, part: Callable[[], None]) -> None:
        """Counts one; in the one that power is lost in, `part` of it happens."""
        if self.off:
            raise PowerLost
        self.operations += 1
        if self.operations == self.lose_power_at:
            with contextlib.suppress(OSError):
                if self.random.random() < 0.7:
                    part()
            self.off = True
            raise PowerLost(f"at operation {self.operations}")

    def restart(self) -> None:
        """Power is lost, if it was not yet, and comes back: handles are void, what was not synced is in doubt."""
        self.kill()
        for name, inode in list(self._names.items()):
            SimulatedFile(self, name, inode).crash()
        for name, inode in self._durable_names.items():
            if inode not in self._names.values():
                SimulatedFile(self, name, inode).crash()
        names = dict(self._durable_names)
        for name, changed, old in self._pending[: self.random.randint(0, len(self._pending))]:
            self._change(names, name, changed, old)
        self._names, self._durable_names = names, dict(names)
        self._pending.clear()

    def kill(self) -> None:
        """The process is killed: handles are void, nothing is lost."""
        self.off = False
        self.lose_power_at = None
        self.life += 1

    def flip_bit(self, name: str, offset: int, bit: int = 0, *, in_memory: bool = True) -> None:
        """Damages one bit, on the disk and in memory, or on the disk only: then reading shows it once what is in
        memory was forgotten."""
        inode = self._names[name]
        if in_memory:
            inode.current[offset] ^= 1 << bit
        if offset < len(inode.durable):
            inode.durable[offset] ^= 1 << bit

    def cut_short(self, name: str, size: int) -> None:
        """Loses the end of a file, on the disk and in memory."""
        inode = self._names[name]
        del inode.current[size:]
        del inode.durable[size:]
        inode.dirty = {page for page in inode.dirty if page * PAGE_BYTES < size}

    def size_of(self, name: str) -> int:
        return len(self._names[name].current)

    # -------------------------------------------------------------------- Disk

    def list(self) -> list[str]:
        return sorted(self._names)

    @staticmethod
    def _change(names: dict[str, _Inode], name: str, inode: _Inode | None, old: str) -> None:
        if old:
            names.pop(old, None)
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode

    def _rename_or_make(self, name: str, inode: _Inode | None, old: str = "") -> None:
        self.operation(lambda: self._note(name, inode, old))
        self._note(name, inode, old)

    def _note(self, name: str, inode: _Inode | None, old: str) -> None:
        self._change(self._names, name, inode, old)
        self._pending.append((name, inode, old))

    def _sync_folder(self) -> None:
        self.operation(lambda: None)
        self._durable_names = dict(self._names)
        self._pending.clear()

    def create(self, name: str) -> SimulatedFile:
        if name in self._names:
            raise FileExistsError(errno.EEXIST, "exists", name)
        inode = _Inode()
        self._rename_or_make(name, inode)
        self._sync_folder()
        return SimulatedFile(self, name, inode)

    def open(self, name: str) -> SimulatedFile:
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return SimulatedFile(self, name, self._names[name])

    def has(self, name: str) -> bool:
        return name in self._names

    def unlink(self, name: str) -> None:
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        self._rename_or_make(name, None)

    def publish(self, name: str, content: bytes) -> None:
        inode = _Inode()
        beside = f"{name}.new"
        self._rename_or_make(beside, inode)
        file = SimulatedFile(self, beside, inode)
        file.pwritev([content], 0)
        file.fdatasync()
        self._rename_or_make(name, inode, beside)
        self._sync_folder()

    def read(self, name: str) -> bytes | None:
        inode = self._names.get(name)
        return None if inode is None else bytes(inode.current)

    def total_bytes(self) -> int:
        return self.capacity_bytes

    def free_bytes(self) -> int:
        return self.capacity_bytes if self.full_without_warning else self.room_bytes()

    def room_bytes(self) -> int:
        """What can really be written."""
        taken = sum(len(inode.allocated | inode.preallocated) for inode in self._names.values())
        return self.capacity_bytes - taken * PAGE_BYTES
