"""Layers of dirty data against a plain array of bytes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from redfs.client.fs.write_buffer import FILE_OVERHEAD_BYTES, Layer, WriteBuffer
from redfs.core.records import SLOT_BYTES

WRITES = st.lists(
    st.tuples(st.integers(0, 400), st.integers(1, 120), st.sampled_from([bytes, bytearray, memoryview])), max_size=30
)


def filled(index: int, length: int, kind: type) -> bytes:
    data = bytes((index * 37 + i) % 255 + 1 for i in range(length))
    return kind(data)  # type: ignore[no-any-return]


@settings(max_examples=300, deadline=None)
@given(WRITES, st.integers(0, 520), st.integers(1, 200), st.integers(0, 520))
def test_a_layer_is_what_was_written_last(writes: list[tuple[int, int, type]], at: int, length: int, cut: int) -> None:
    layer, model = Layer(1), [0] * 520
    for index, (start, count, kind) in enumerate(writes):
        data = filled(index, count, kind)
        layer.write(start, data)
        model[start : start + count] = list(data)
    layer.cut(cut)
    model[cut:] = [0] * (520 - cut)
    assert layer.bytes == sum(1 for b in model if b)
    offsets = [start for start, _ in layer.chunks]
    assert offsets == sorted(offsets)
    assert all(len(data) for _, data in layer.chunks)
    length = min(length, 520 - at)
    out = bytearray(length)
    layer.read_into(out, 0, at, length)
    assert list(out) == model[at : at + length]
    assert layer.covers(at, length) == all(model[at : at + length])
    view = layer.view(at, length) if length else None
    if view is not None:
        assert list(view) == model[at : at + length]
    joined, pieces = bytes(layer.joined()) if layer.chunks else b"", layer.ranges()
    assert list(joined) == [b for b in model if b]
    assert sum(n for _, n in pieces) == len(joined)
    assert layer.end == max((i + 1 for i, b in enumerate(model) if b), default=0)


def test_full_slots_are_kept_without_a_copy() -> None:
    buffer = WriteBuffer()
    data = bytes(range(256)) * 4096
    assert buffer.write(5, 0, data, 1, 0.0) == 8
    slot = buffer.files[5].slots[3]
    assert slot.active is not None
    joined = slot.active.joined()
    assert isinstance(joined, memoryview)
    assert joined.obj is data


def test_small_appends_are_gathered() -> None:
    buffer = WriteBuffer()
    for index in range(1000):
        buffer.write(5, index * 100, b"x" * 100, 1, 0.0)
    slot = buffer.files[5].slots[0]
    assert slot.active is not None
    assert len(slot.active.chunks) == 1


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_everything_charged_is_given_back(data: st.DataObject) -> None:
    buffer = WriteBuffer()
    released = 0
    for step in range(data.draw(st.integers(1, 25))):
        ino = data.draw(st.integers(1, 3))
        file = buffer.files.get(ino)
        action = data.draw(st.sampled_from(["write", "write", "freeze", "record", "return", "cut", "drop", "close"]))
        if action == "write":
            size = data.draw(st.sampled_from([1, 1000, SLOT_BYTES, 300_000]))
            buffer.write(ino, data.draw(st.integers(0, 400_000)), bytes(size), step, 0.0)
        elif file is None:
            continue
        elif action == "freeze":
            for number, slot in file.slots.items():
                if slot.active is not None and slot.frozen is None:
                    buffer.freeze(file, number, 0.0)
        elif action in ("record", "return"):
            for number, slot in list(file.slots.items()):
                if slot.frozen is not None:
                    if action == "record":
                        released += slot.frozen.charge
                        buffer.charged_bytes -= slot.frozen.charge
                        buffer.recorded(file, number)
                    else:
                        buffer.returned(file, number)
            buffer.forget_if_clean(file)
        elif action == "cut" and not file.is_frozen:
            buffer.cut(ino, data.draw(st.integers(0, 500_000)))
        elif action == "drop":
            buffer.drop(ino)
        else:
            buffer.closed(ino)
        expected = sum(
            FILE_OVERHEAD_BYTES
            + sum(layer.charge for slot in f.slots.values() for layer in (slot.active, slot.frozen) if layer)
            for f in buffer.files.values()
        )
        assert buffer.charged_bytes == expected
        for f in buffer.files.values():
            assert f.full == sum(1 for s in f.slots.values() if s.active and s.active.bytes == SLOT_BYTES)
