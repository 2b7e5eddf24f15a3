"""One contract for every index."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from redfs.core.errors import NoSpace
from redfs.storage_node import index as module
from redfs.storage_node.index import Entry, FileRow, Index, LmdbIndex, MemoryIndex


@pytest.fixture(params=["lmdb", "memory"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Index]:
    made = LmdbIndex(tmp_path / "index") if request.param == "lmdb" else MemoryIndex()
    yield made
    made.close()


def key(number: int) -> bytes:
    return number.to_bytes(10, "big")


def entry(number: int) -> Entry:
    return Entry(number % 2**32, number * 4096, number % 2**24, (number * 0x9E3779B97F4A7C15) % 2**64, number % 5 == 0)


def test_it_is_an_ordered_map(index: Index) -> None:
    rng = random.Random(1)
    model: dict[bytes, Entry] = {}
    for _ in range(300):
        number = rng.randrange(100)
        if rng.random() < 0.6:
            index.put(key(number), entry(number))
            model[key(number)] = entry(number)
        else:
            gone = [key(number), key(number + 1)]
            index.delete(gone)
            for name in gone:
                model.pop(name, None)
    assert index.count() == len(model)
    assert all(index.get(key(number)) == model.get(key(number)) for number in range(102))
    assert index.page(b"", 1000) == sorted(model.items())
    for after in range(0, 102, 7):
        expected = [(k, v) for k, v in sorted(model.items()) if k > key(after)][:5]
        assert index.page(key(after), 5) == expected
    index.clear()
    assert (index.count(), index.page(b"", 10)) == (0, [])


FILES = {1: FileRow(8192, 8192, 1, 8192, 0, True, b""), 700: FileRow(9000, 12288, 2, 3, 4, False, b"packed" * 100)}


def test_what_is_saved_is_loaded_once_and_only_under_its_generation(index: Index) -> None:
    assert index.load(0) is None
    index.put(key(1), entry(1))
    index.save(7, FILES)
    assert index.load(8) is None
    index.save(7, FILES)
    assert index.load(7) == FILES
    assert index.load(7) is None
    assert index.get(key(1)) == entry(1)
    index.save(9, {})
    assert index.load(9) == {}


def test_lmdb_keeps_what_is_saved_and_can_be_discarded(tmp_path: Path) -> None:
    index = LmdbIndex(tmp_path / "index")
    index.put(key(1), entry(1))
    index.save(3, FILES)
    index.close()
    index = LmdbIndex(tmp_path / "index")
    assert index.load(3) == FILES
    assert index.get(key(1)) == entry(1)
    index.close()
    LmdbIndex.discard(tmp_path / "index")
    LmdbIndex.discard(tmp_path / "index")
    index = LmdbIndex(tmp_path / "index")
    assert index.count() == 0
    index.close()


def test_a_full_map_is_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAP_BYTES", 256 * 1024)
    index = LmdbIndex(tmp_path / "index")
    with pytest.raises(NoSpace):
        _put_many(index)
    index.close()


def _put_many(index: Index) -> None:
    for number in range(100_000):
        index.put(key(number), entry(number))
