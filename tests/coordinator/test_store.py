"""One contract for every `Kv`: memory, overlay, stacked overlays, LMDB inside of a transaction."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redfs.coordinator.store import LmdbStore, MemoryStore, Writable, _LmdbKv
from redfs.core.errors import NoSpace, WrongFormat
from redfs.core.kv import Kv, MemoryKv, Overlay

TABLE = "t"
OTHER = "u"
MIB = 1 << 20

keys = st.binary(min_size=1, max_size=2)
values = st.binary(max_size=3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, values),
        st.tuples(st.just("delete"), keys, st.just(b"")),
        st.tuples(st.just("seal"), st.just(b""), st.just(b"")),
    ),
    max_size=40,
)


class _Stacked:
    """Seals what was written so far under a new overlay, so that reads merge both."""

    def __init__(self, base: Kv) -> None:
        self.kv: Kv = base

    def seal(self) -> None:
        self.kv = Overlay(self.kv)


@contextmanager
def _memory(tmp_path: Path) -> Iterator[Kv]:
    yield MemoryKv()


@contextmanager
def _overlay(tmp_path: Path) -> Iterator[Kv]:
    yield Overlay(MemoryKv())


@contextmanager
def _lmdb(tmp_path: Path) -> Iterator[Kv]:
    class Undo(Exception):
        pass

    store = LmdbStore(tmp_path, [TABLE, OTHER], MIB)
    try:
        with store._env.begin(write=True) as txn:  # the transaction is undone below, so that examples start empty
            yield _LmdbKv(txn, store._dbs)
            txn.abort()
    finally:
        store.close()


Maker = Callable[[Path], AbstractContextManager[Kv]]


@pytest.mark.parametrize("make", [_memory, _overlay, _lmdb], ids=["memory", "overlay", "lmdb"])
@pytest.mark.parametrize("stacked", [False, True], ids=["flat", "stacked"])
@given(done=steps, start=keys, end=keys)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reads_agree_with_a_sorted_dict(
    make: Maker,
    stacked: bool,
    tmp_path: Path,
    done: list[tuple[str, bytes, bytes]],
    start: bytes,
    end: bytes,
) -> None:
    model: dict[bytes, bytes] = {}
    with make(tmp_path) as base:
        stack = _Stacked(base)
        for what, key, value in done:
            if what == "put":
                stack.kv.put(TABLE, key, value)
                model[key] = value
            elif what == "delete":
                stack.kv.delete(TABLE, key)
                model.pop(key, None)
            elif stacked:
                stack.seal()
        kv = stack.kv
        wanted = sorted((k, v) for k, v in model.items() if start <= k < end)
        assert list(kv.scan(TABLE, start, end)) == wanted
        assert list(kv.scan(TABLE, b"", b"\xff" * 3)) == sorted(model.items())
        assert kv.first(TABLE, start, end) == (wanted[0] if wanted else None)
        assert kv.last(TABLE, start, end) == (wanted[-1] if wanted else None)
        for key in [start, end, *model]:
            assert kv.get(TABLE, key) == model.get(key)
            assert kv.get(OTHER, key) is None


def _fill(rows: int) -> Callable[[Writable], int]:
    def body(txn: Writable) -> int:
        for n in range(rows):
            txn.put(TABLE, n.to_bytes(8, "big"), bytes(1000))
        return rows

    return body


def test_the_map_grows_where_it_is_full(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, [TABLE], MIB)
    assert store.write(_fill(3000)) == 3000
    with store.read() as kv:
        assert sum(1 for _ in kv.scan(TABLE, b"", b"\xff" * 9)) == 3000
    store.close()
    again = LmdbStore(tmp_path, [TABLE], MIB)
    with again.read() as kv:
        assert kv.get(TABLE, (2999).to_bytes(8, "big")) == bytes(1000)
    again.close()


def test_a_reader_sees_the_state_committed_before_it(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, [TABLE], MIB)
    store.write(lambda txn: txn.put(TABLE, b"k", b"old"))
    with store.read() as kv:
        store.write(lambda txn: txn.put(TABLE, b"k", b"new"))
        assert kv.get(TABLE, b"k") == b"old"
    with store.read() as kv:
        assert kv.get(TABLE, b"k") == b"new"
    store.close()


def test_a_body_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def body(txn: Writable) -> None:
        txn.put(TABLE, b"k", b"v")
        raise ValueError

    for store in (LmdbStore(tmp_path, [TABLE], MIB), MemoryStore()):
        with pytest.raises(ValueError):
            store.write(body)
        with store.read() as kv:
            assert kv.get(TABLE, b"k") is None
        store.close()


def test_a_full_disk_is_said_so_and_leaves_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LmdbStore(tmp_path, [TABLE], MIB)
    store.write(lambda txn: txn.put(TABLE, b"k", b"old"))

    def full(txn: Writable) -> None:
        txn.put(TABLE, b"k", b"new")
        raise lmdb.DiskError("mdb_txn_commit: No space left on device")

    with pytest.raises(NoSpace, match="disk is full"):
        store.write(full)
    with store.read() as kv:
        assert kv.get(TABLE, b"k") == b"old"
    store.close()


@pytest.mark.mount
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", str(tmp_path)], check=True)
    try:
        store = LmdbStore(tmp_path, [TABLE], 1 << 28)
        store.write(_fill(100))
        with pytest.raises(NoSpace, match="disk is full"):
            store.write(_fill(5000))
        with store.read() as kv:
            assert sum(1 for _ in kv.scan(TABLE, b"", b"\xff" * 9)) == 100
        store.write(lambda txn: txn.delete(TABLE, bytes(8)))
        store.close()
        again = LmdbStore(tmp_path, [TABLE], 1 << 28)
        with again.read() as kv:
            assert sum(1 for _ in kv.scan(TABLE, b"", b"\xff" * 9)) == 99
        again.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_an_error_that_is_not_a_full_disk_is_passed_on(tmp_path: Path) -> None:
    def broken(txn: Writable) -> None:
        raise lmdb.CorruptedError("page")

    store = LmdbStore(tmp_path, [TABLE], MIB)
    with pytest.raises(lmdb.CorruptedError):
        store.write(broken)
    assert not (tmp_path / "room").exists()
    store.close()


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metadata.lmdb").write_bytes(b"something else" * 1000)
    with pytest.raises(WrongFormat):
        LmdbStore(tmp_path, [TABLE], MIB)
