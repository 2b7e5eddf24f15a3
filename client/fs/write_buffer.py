"""Dirty file data: what programs have written and the pool does not hold yet.

Data is kept per inode and slot as the very buffers that came in (a full slot goes out as one without a copy). A slot
has up to two layers: the active one takes writes; while a flush stores it, it is frozen and lies under a new active
one. A read sees stored data, the frozen layer over it and the active one on top.

Everything is plain state of one event loop and nothing here waits. Which data goes out when is left to `flusher`,
waiting for room and for reserved space to `vfs`, recording what was stored to the engine's `record_data`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from redfs.client.fs.config import Buffer
from redfs.core.errors import RedfsError
from redfs.core.records import SLOT_BYTES
from redfs.core.slots import slot_range

JOIN_BYTES = 16 * 1024
"""Writes up to this size that continue each other are gathered in one buffer, larger ones kept as they came."""
CHUNK_OVERHEAD_BYTES = 160
"""Charged for each separate range beside its bytes, so that many tiny ones cannot outgrow the bound."""
FILE_OVERHEAD_BYTES = 1024
"""Charged for each dirty file."""


def _part(data: Buffer, start: int, end: int) -> Buffer:
    """A part of a buffer; of a bytearray a copy, because a view would keep it from growing."""
    if start == 0 and end == len(data):
        return data
    if isinstance(data, bytearray):
        return bytes(memoryview(data)[start:end])
    return memoryview(data)[start:end]


class Layer:
    """Some ranges of one slot and their bytes."""

    __slots__ = ("bytes", "chunks", "tick")

    def __init__(self, tick: int) -> None:
        self.chunks: list[tuple[int, Buffer]] = []
        """(offset in the slot, bytes): ascending and apart."""
        self.bytes = 0
        self.tick = tick
        """When it was begun, on the write buffer's counter."""

    @property
    def end(self) -> int:
        """Where the last range ends."""
        if not self.chunks:
            return 0
        start, data = self.chunks[-1]
        return start + len(data)

    @property
    def charge(self) -> int:
        """What it counts for against the bound."""
        return self.bytes + CHUNK_OVERHEAD_BYTES * len(self.chunks)

    def write(self, start: int, data: Buffer) -> None:
        """Puts bytes over what is there. The buffer must not change afterwards."""
        chunks = self.chunks
        if not chunks:
            chunks.append((start, data))
            self.bytes = len(data)
            return
        last_start, last = chunks[-1]
        last_end = last_start + len(last)
        if start < last_end:
            self._write_over(start, data)
            return
        self.bytes += len(data)
        if start == last_end and len(data) <= JOIN_BYTES and (type(last) is bytearray or len(last) <= JOIN_BYTES):
            if type(last) is not bytearray:
                last = bytearray(last)
                chunks[-1] = (last_start, last)
            last += data
        else:
            chunks.append((start, data))

    def _write_over(self, start: int, data: Buffer) -> None:
        end = start + len(data)
        at = bisect_right(self.chunks, start, key=_start) - 1
        if at >= 0:
            old_start, old = self.chunks[at]
            if type(old) is bytearray and end <= old_start + len(old):
                old[start - old_start : end - old_start] = data
                return
        before: list[tuple[int, Buffer]] = []
        after: list[tuple[int, Buffer]] = []
        for chunk in self.chunks:
            old_start, old = chunk
            old_end = old_start + len(old)
            if old_end <= start:
                before.append(chunk)
            elif old_start >= end:
                after.append(chunk)
            else:
                if old_start < start:
                    before.append((old_start, _part(old, 0, start - old_start)))
                if old_end > end:
                    after.append((end, _part(old, end - old_start, len(old))))
        self._replace([*before, (start, data), *after])

    def cut(self, length: int) -> None:
        """Forgets what lies behind `length`."""
        kept: list[tuple[int, Buffer]] = []
        for start, data in self.chunks:
            if start < length:
                kept.append((start, _part(data, 0, min(len(data), length - start))))
        self._replace(kept)

    def under(self, newer: Layer | None) -> None:
        """Puts all ranges of a newer layer over this one: what a failed flush does with the two."""
        if newer is not None:
            for start, data in newer.chunks:
                # Whoever stored a bytearray may still look at it, which would keep it from growing.
                self.write(start, bytes(data) if isinstance(data, bytearray) else data)

    def _replace(self, chunks: list[tuple[int, Buffer]]) -> None:
        self.chunks = chunks
        self.bytes = sum([len(data) for _, data in chunks])

    def view(self, start: int, length: int) -> Buffer | None:
        """The bytes of a range that one chunk holds whole, without a copy where that is safe."""
        at = bisect_right(self.chunks, start, key=_start) - 1
        if at < 0:
            return None
        chunk_start, data = self.chunks[at]
        if start + length > chunk_start + len(data):
            return None
        return _part(data, start - chunk_start, start - chunk_start + length)

    def read_into(self, out: bytearray, out_at: int, start: int, length: int) -> None:
        """Copies what there is of a range of the slot over `out`, whose index `out_at` is the range's start."""
        end = start + length
        for chunk_start, data in self.chunks:
            if chunk_start >= end:
                break
            low, high = max(chunk_start, start), min(chunk_start + len(data), end)
            if low < high:
                out[out_at + low - start : out_at + high - start] = memoryview(data)[
                    low - chunk_start : high - chunk_start
                ]

    def covers(self, start: int, length: int) -> bool:
        """Whether it has every byte of a range."""
        at, end = start, start + length
        for chunk_start, data in self.chunks:
            if at >= end or chunk_start > at:
                break
            at = max(at, chunk_start + len(data))
        return at >= end

    def ranges(self) -> list[tuple[int, int]]:
        """(start, length) of what it holds, with touching ones joined."""
        out: list[tuple[int, int]] = []
        for start, data in self.chunks:
            if out and out[-1][0] + out[-1][1] == start:
                out[-1] = (out[-1][0], out[-1][1] + len(data))
            else:
                out.append((start, len(data)))
        return out

    def joined(self) -> Buffer:
        """All its bytes, range after range."""
        if len(self.chunks) == 1:
            return self.chunks[0][1]
        return b"".join([data for _, data in self.chunks])


def _start(chunk: tuple[int, Buffer]) -> int:
    return chunk[0]


class DirtySlot:
    """The layers of one slot."""

    __slots__ = ("active", "frozen")

    def __init__(self) -> None:
        self.active: Layer | None = None
        self.frozen: Layer | None = None


class DirtyFile:
    """What is dirty of one inode."""

    __slots__ = ("end", "error", "full", "held", "ino", "mtime_ns", "orphaned", "since_s", "slots")

    def __init__(self, ino: int) -> None:
        self.ino = ino
        self.slots: dict[int, DirtySlot] = {}
        self.end = 0
        """Where the last dirty or just stored byte ends: with it the file is at least this long."""
        self.mtime_ns: int | None = None
        """Time of the last write that is not recorded yet; None where somebody set the times since."""
        self.since_s = 0.0
        """Clock of the oldest active data."""
        self.full = 0
        """Active layers that fill their slot."""
        self.held = 0
        """While positive no flush of it begins: it is being truncated."""
        self.orphaned = False
        """The inode is gone: what is still being stored of it is not recorded."""
        self.error: RedfsError | None = None
        """Why the last flush of it failed, until one succeeds."""

    @property
    def is_frozen(self) -> bool:
        """Whether a flush is storing some of it."""
        return any(slot.frozen is not None for slot in self.slots.values())

    @property
    def is_active(self) -> bool:
        """Whether some of it waits for a flush."""
        return any(slot.active is not None for slot in self.slots.values())

    def dirty_since(self, tick: int) -> bool:
        """Whether data written up to that tick is not recorded yet."""
        for slot in self.slots.values():
            if slot.frozen is not None and slot.frozen.tick <= tick:
                return True
            if slot.active is not None and slot.active.tick <= tick:
                return True
        return False


class WriteBuffer:
    """The dirty data of all files, counted."""

    def __init__(self) -> None:
        self.files: dict[int, DirtyFile] = {}
        self.ready: dict[int, DirtyFile] = {}
        """Files with full slots, and closed ones: worth storing as soon as there is a segment's worth."""
        self.ready_bytes = 0
        """Roughly what `ready` holds; never less than nothing, reset when `ready` is empty."""
        self.charged_bytes = 0
        """Active, frozen and stored but not acknowledged bytes, with overheads."""
        self.tick = 0

    def write(self, ino: int, offset: int, data: Buffer, now_ns: int, now_s: float) -> int:
        """Takes a write. `data` is kept and must not change. Returns the slots that it filled."""
        file = self.files.get(ino)
        if file is None:
            file = self.files[ino] = DirtyFile(ino)
            file.since_s = now_s
            self.charged_bytes += FILE_OVERHEAD_BYTES
        self.tick += 1
        filled = 0
        number, start = divmod(offset, SLOT_BYTES)
        if start + len(data) <= SLOT_BYTES:
            filled = self._write_slot(file, number, start, data, now_s)
        else:
            view = memoryview(data)
            for number, start, length, at in slot_range(offset, len(data)):
                filled += self._write_slot(file, number, start, view[at - offset : at - offset + length], now_s)
        file.end = max(file.end, offset + len(data))
        file.mtime_ns = now_ns
        if filled:
            file.full += filled
            self._ready(file, filled * SLOT_BYTES)
        return filled

    def _write_slot(self, file: DirtyFile, number: int, start: int, data: Buffer, now_s: float) -> int:
        slot = file.slots.get(number)
        if slot is None:
            if not file.slots:
                file.since_s = now_s
            slot = file.slots[number] = DirtySlot()
        layer = slot.active
        if layer is None:
            layer = slot.active = Layer(self.tick)
        charge, was_full = layer.charge, layer.bytes == SLOT_BYTES
        layer.write(start, data)
        self.charged_bytes += layer.charge - charge
        return 1 if layer.bytes == SLOT_BYTES and not was_full else 0

    def closed(self, ino: int) -> bool:
        """Nobody has the file open any more: it is ready to go as it is. Whether anything is dirty."""
        file = self.files.get(ino)
        if file is None:
            return False
        self._ready(
            file, sum([s.active.bytes for s in file.slots.values() if s.active and s.active.bytes < SLOT_BYTES])
        )
        return True

    def _ready(self, file: DirtyFile, more_bytes: int) -> None:
        self.ready[file.ino] = file
        self.ready_bytes += more_bytes

    def unready(self, file: DirtyFile) -> None:
        """Nothing of the file is worth storing early any more."""
        self.ready.pop(file.ino, None)
        if not self.ready:
            self.ready_bytes = 0

    # ------------------------------------------------------------ reading

    def has(self, ino: int, offset: int, length: int) -> bool:
        """Whether any byte of the range may be dirty."""
        file = self.files.get(ino)
        if file is None or offset >= file.end:
            return False
        slots = file.slots
        return any(number in slots for number in range(offset // SLOT_BYTES, (offset + length - 1) // SLOT_BYTES + 1))

    def view(self, ino: int, offset: int, length: int) -> Buffer | None:
        """The range, where one buffer of the topmost layer holds it whole."""
        number, start = divmod(offset, SLOT_BYTES)
        slot = self.files[ino].slots.get(number)
        if slot is None or start + length > SLOT_BYTES:
            return None
        layer = slot.active or slot.frozen
        return layer.view(start, length) if layer is not None else None

    def covers(self, ino: int, number: int, start: int, length: int) -> bool:
        """Whether one layer of a slot has every byte of a range, so that nothing stored shows through."""
        slot = self.files[ino].slots.get(number)
        if slot is None:
            return False
        return any(layer is not None and layer.covers(start, length) for layer in (slot.active, slot.frozen))

    def overlay(self, ino: int, offset: int, out: bytearray) -> None:
        """Puts what is dirty over the stored bytes of a range."""
        slots = self.files[ino].slots
        for number, start, length, at in slot_range(offset, len(out)):
            slot = slots.get(number)
            if slot is not None:
                for layer in (slot.frozen, slot.active):
                    if layer is not None:
                        layer.read_into(out, at - offset, start, length)

    # ------------------------------------------------------------ cutting, dropping

    def cut(self, ino: int, size: int) -> None:
        """Forgets active data behind `size`. Frozen data there must have been waited for."""
        file = self.files.get(ino)
        if file is None:
            return
        number, rest = divmod(size, SLOT_BYTES)
        for n in [n for n in file.slots if n > number or (n == number and not rest)]:
            assert file.slots[n].frozen is None, "a flush is waited for before its file is cut"
            self._drop_active(file, file.slots[n])
            del file.slots[n]
        slot = file.slots.get(number)
        if slot is not None and slot.active is not None:
            layer = slot.active
            charge, was_full = layer.charge, layer.bytes == SLOT_BYTES
            layer.cut(rest)
            self.charged_bytes += layer.charge - charge
            if was_full and layer.bytes < SLOT_BYTES:
                file.full -= 1
            if not layer.bytes:
                slot.active = None
                if slot.frozen is None:
                    del file.slots[number]
        file.end = min(file.end, size)
        self.forget_if_clean(file)

    def drop(self, ino: int) -> None:
        """The inode is gone, and its dirty data with it."""
        file = self.files.get(ino)
        if file is None:
            return
        file.orphaned = True
        for number, slot in list(file.slots.items()):
            self._drop_active(file, slot)
            if slot.frozen is None:
                del file.slots[number]
        self.forget_if_clean(file)

    def _drop_active(self, file: DirtyFile, slot: DirtySlot) -> None:
        layer = slot.active
        if layer is not None:
            self.charged_bytes -= layer.charge
            if layer.bytes == SLOT_BYTES:
                file.full -= 1
            slot.active = None

    def forget_if_clean(self, file: DirtyFile) -> None:
        """Takes the file out where nothing of it is dirty any more."""
        if not file.slots and self.files.get(file.ino) is file:
            del self.files[file.ino]
            self.unready(file)
            self.charged_bytes -= FILE_OVERHEAD_BYTES

    # ------------------------------------------------------------ flushing

    def freeze(self, file: DirtyFile, number: int, now_s: float) -> Layer:
        """Begins the flush of a slot's active layer."""
        slot = file.slots[number]
        layer = slot.active
        assert layer is not None
        assert slot.frozen is None, "one flush of a slot at a time"
        slot.active, slot.frozen = None, layer
        if layer.bytes == SLOT_BYTES:
            file.full -= 1
        if file.ino in self.ready:
            self.ready_bytes = max(0, self.ready_bytes - layer.bytes)
        file.since_s = now_s
        return layer

    def recorded(self, file: DirtyFile, number: int) -> None:
        """The frozen layer of a slot is recorded. Its bytes stay charged until the commit is acknowledged."""
        slot = file.slots[number]
        slot.frozen = None
        if slot.active is None:
            del file.slots[number]

    def returned(self, file: DirtyFile, number: int) -> None:
        """The flush of a slot failed: its frozen layer is active again, under what was written since."""
        slot = file.slots[number]
        frozen, newer = slot.frozen, slot.active
        assert frozen is not None
        slot.frozen = None
        if file.orphaned:
            self.charged_bytes -= frozen.charge
            self._drop_active(file, slot)
            del file.slots[number]
            return
        before = frozen.charge + (newer.charge if newer is not None else 0)
        if newer is not None and newer.bytes == SLOT_BYTES:
            file.full -= 1
        merged = Layer(frozen.tick)
        merged.under(frozen)
        merged.under(newer)
        slot.active = merged
        self.charged_bytes += merged.charge - before
        if merged.bytes == SLOT_BYTES:
            file.full += 1
            self._ready(file, SLOT_BYTES)

    def dirty_inodes(self) -> Iterator[int]:
        """The inodes with data that is not recorded."""
        return iter(list(self.files))
