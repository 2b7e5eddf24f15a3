"""Overlays and the in-memory map against a plain dict."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from redfs.core.kv import Kv, MemoryKv, Overlay

TABLES = ("a", "b")
KEYS = st.binary(max_size=2).map(lambda raw: bytes(byte % 4 for byte in raw))
BOUNDS = st.one_of(KEYS, st.just(b"\xff"))
VALUES = st.binary(max_size=3)


class KvMachine(RuleBasedStateMachine):
    """A map with up to three overlays on it must be what a dict is, whichever of them is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.base = MemoryKv()
        self.overlays: list[Overlay] = []
        self.models: dict[str, list[dict[bytes, bytes]]] = {}

    @initialize(rows=st.dictionaries(KEYS, VALUES))
    def fill(self, rows: dict[bytes, bytes]) -> None:
        self.models = {table: [dict(rows)] for table in TABLES}
        for table in TABLES:
            for key, value in rows.items():
                self.base.put(table, key, value)

    def kvs(self) -> list[Kv]:
        return [self.base, *self.overlays]

    @rule(table=st.sampled_from(TABLES), key=KEYS, value=VALUES)
    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.kvs()[-1].put(table, key, value)
        self.models[table][-1][key] = value

    @rule(table=st.sampled_from(TABLES), key=KEYS)
    def delete(self, table: str, key: bytes) -> None:
        self.kvs()[-1].delete(table, key)
        self.models[table][-1].pop(key, None)

    @rule()
    def cover(self) -> None:
        if len(self.overlays) < 3:
            self.overlays.append(Overlay(self.kvs()[-1]))
            for layers in self.models.values():
                layers.append(dict(layers[-1]))

    @rule(keep=st.booleans())
    def uncover(self, keep: bool) -> None:
        if not self.overlays:
            return
        changes = self.overlays.pop().changes()
        assert len({(table, key) for table, key, _ in changes}) == len(changes)
        below = self.kvs()[-1]
        for table, key, value in changes if keep else ():
            if value is None:
                below.delete(table, key)
            else:
                below.put(table, key, value)
        for layers in self.models.values():
            top = layers.pop()
            if keep:
                layers[-1] = top

    @rule(table=st.sampled_from(TABLES), start=BOUNDS, end=BOUNDS)
    def look_at_range(self, table: str, start: bytes, end: bytes) -> None:
        for kv, model in zip(self.kvs(), self.models[table], strict=True):
            wanted = sorted((key, value) for key, value in model.items() if start <= key < end)
            assert list(kv.scan(table, start, end)) == wanted
            assert kv.first(table, start, end) == (wanted[0] if wanted else None)
            assert kv.last(table, start, end) == (wanted[-1] if wanted else None)

    @invariant()
    def all_rows(self) -> None:
        for table, models in self.models.items():
            for kv, model in zip(self.kvs(), models, strict=True):
                assert dict(kv.scan(table, b"", b"\xff")) == model
                for key in [b"", b"\0", *model]:
                    assert kv.get(table, key) == model.get(key)


TestKv = KvMachine.TestCase
TestKv.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_apply_sets_and_deletes_in_order() -> None:
    kv = MemoryKv()
    kv.put("a", b"1", b"old")
    kv.apply([("a", b"1", None), ("a", b"2", b"x"), ("b", b"2", b"y"), ("a", b"2", b"z")])
    assert list(kv.scan("a", b"", b"9")) == [(b"2", b"z")]
    assert list(kv.scan("b", b"", b"9")) == [(b"2", b"y")]


def test_a_dropped_overlay_leaves_nothing_behind() -> None:
    kv = MemoryKv()
    kv.put("a", b"1", b"kept")
    overlay = Overlay(kv)
    overlay.delete("a", b"1")
    overlay.put("a", b"2", b"x")
    assert overlay.changes() == [("a", b"1", None), ("a", b"2", b"x")]
    assert list(kv.scan("a", b"", b"9")) == [(b"1", b"kept")]
