"""Comparing two points of a family: against a slow diff of two full listings, and what it reads."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from redfs.core import diff as diff_module
from redfs.core import namespace as ns
from redfs.core.diff import Diff, Entry
from redfs.core.errors import Corrupt, FsError, InvalidArgument
from redfs.core.ids import ROOT_INO, Lineage
from redfs.core.kv import MemoryKv
from redfs.core.records import SLOT_BYTES, Kind, inode_key
from redfs.core.versions import Holder, Pin, changes, verify
from tests.core.family import FAMILY, Family, Listed
from tests.lengths import examples

EXAMPLES = examples(80)
STEPS = 50


def run(family: Family, before: Pin, after: Pin, between: Callable[[], None] = lambda: None) -> list[Entry]:
    work = Diff(before, after)
    found: list[Entry] = []
    while (page := work.step(family.kv)) is not None:
        found += page
        between()
    return found


@dataclass
class Names:
    """The names of one inode in two listings."""

    before: dict[bytes, Listed] = field(default_factory=dict)
    after: dict[bytes, Listed] = field(default_factory=dict)

    def split(self) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """(paths lost, paths gained, paths kept as they are after), each in order."""
        was = {listed.place: path for path, listed in self.before.items()}
        now = {listed.place: path for path, listed in self.after.items()}
        lost = sorted(path for place, path in was.items() if place not in now)
        gained = sorted(path for place, path in now.items() if place not in was)
        return lost, gained, sorted(path for place, path in now.items() if place in was)


def check_against_listings(family: Family, before: Pin, after: Pin, entries: list[Entry]) -> None:
    """Every entry is due and every entry that is due is there."""
    names: defaultdict[int, Names] = defaultdict(Names)
    for path, listed in family.listing(before).items():
        names[listed.ino].before[path] = listed
    for path, listed in family.listing(after).items():
        names[listed.ino].after[path] = listed
    left = sorted(entries)
    for known in names.values():
        old = next(iter(known.before.values()), None)
        new = next(iter(known.after.values()), None)
        lost, gained, kept = known.split()
        content = bool(old and new and old.content != new.content)
        attributes = bool(old and new and old.attributes != new.attributes)
        one = new or old
        assert one is not None
        kind = {4: "folder", 8: "file", 10: "symlink"}.get(one.inode.mode >> 12, "special")
        old_bytes = old.inode.size if old and kind != "folder" else 0
        new_bytes = new.inode.size if new and kind != "folder" else 0
        pairs = list(zip(lost, gained, strict=False)) if old and new else []
        due = [Entry("renamed", a, b, kind, content, attributes, old_bytes, new_bytes) for a, b in pairs]
        due += [Entry("deleted", path, b"", kind, False, False, old_bytes, 0) for path in lost[len(pairs) :]]
        due += [Entry("created", path, b"", kind, False, False, 0, new_bytes) for path in gained[len(pairs) :]]
        for entry in due:
            assert entry in left, entry
            left.remove(entry)
        if content or attributes:
            told = [
                entry
                for path in kept
                for entry in left
                if entry == Entry("modified", path, b"", kind, content, attributes, old_bytes, new_bytes)
            ]
            assert told or pairs or not kept, (kept, content, attributes, entries)
            for entry in told:
                left.remove(entry)
    assert left == []


WORDS = st.sampled_from(["", "red", "blue", "green"])
NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff\n"])
PICK = st.integers(0, 1 << 16)


@dataclass
class Frozen:
    pin: Pin
    holder: Holder


class DiffMachine(RuleBasedStateMachine):
    """Live volumes of one family, and frozen points of them."""

    def __init__(self) -> None:
        super().__init__()
        self.family = Family()
        self.live = [FAMILY]
        self.frozen: list[Frozen] = []
        self.freeze(FAMILY)

    def freeze(self, lineage: int) -> None:
        self.frozen.append(Frozen(*self.family.pin(lineage)))

    def head(self, pick: int) -> int:
        return self.live[pick % len(self.live)]

    def listing(self, lineage: int) -> list[tuple[bytes, Listed]]:
        pin = Pin(Lineage(lineage), self.family.store.head_epoch(lineage))
        return sorted(self.family.listing(pin).items())

    def folder(self, lineage: int, pick: int) -> int:
        folders = [listed.ino for _, listed in self.listing(lineage) if listed.inode.mode >> 12 == 4]
        return folders[pick % len(folders)]

    def name(self, lineage: int, pick: int, kind: int | None = None) -> Listed | None:
        found = [
            listed
            for path, listed in self.listing(lineage)
            if path and (kind is None or listed.inode.mode >> 12 == kind)
        ]
        return found[pick % len(found)] if found else None

    def attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except FsError:
            return

    @rule(volume=PICK, folder=PICK, name=NAMES, kind=st.sampled_from(["file", "folder", "folder", "symlink", "fifo"]))
    def make(self, volume: int, folder: int, name: bytes, kind: str) -> None:
        lineage = self.head(volume)
        into = self.folder(lineage, folder)
        make = self.family.make
        match kind:
            case "file":
                self.attempt(lambda: make(lineage, ns.create, into, name, 0o644))
            case "folder":
                self.attempt(lambda: make(lineage, ns.mkdir, into, name, 0o755))
            case "symlink":
                self.attempt(lambda: make(lineage, ns.symlink, into, name, b"target"))
            case _:
                self.attempt(lambda: make(lineage, ns.mknod, into, name, 0o010600, 0))

    @rule(volume=PICK, pick=PICK, words=st.dictionaries(st.integers(0, 3), WORDS, min_size=1))
    def put_slots(self, volume: int, pick: int, words: dict[int, str]) -> None:
        lineage = self.head(volume)
        file = self.name(lineage, pick, 8)
        if file is not None:
            self.family.put_slots(lineage, file.ino, words)

    @rule(volume=PICK, pick=PICK, size=st.sampled_from([0, 1, SLOT_BYTES, 80 * SLOT_BYTES, 81 * SLOT_BYTES]))
    def cut_or_grow(self, volume: int, pick: int, size: int) -> None:
        lineage = self.head(volume)
        file = self.name(lineage, pick, 8)
        if file is not None:
            self.family.do(lineage, ns.setattr, file.ino, size=size)

    @rule(volume=PICK, pick=PICK, mode=st.sampled_from([0o644, 0o600]), keep_time=st.booleans())
    def chmod(self, volume: int, pick: int, mode: int, keep_time: bool) -> None:
        lineage = self.head(volume)
        name = self.name(lineage, pick)
        if name is not None:
            self.family.do(lineage, ns.setattr, name.ino, mode=mode, mtime_ns=None if keep_time else self.family.now)

    @rule(volume=PICK, pick=PICK, value=st.sampled_from([b"1", b"2"]))
    def set_attribute(self, volume: int, pick: int, value: bytes) -> None:
        lineage = self.head(volume)
        name = self.name(lineage, pick)
        if name is not None:
            self.attempt(lambda: self.family.do(lineage, ns.setxattr, name.ino, b"user.x", value, 0))

    @rule(volume=PICK, pick=PICK, folder=PICK, name=NAMES)
    def link(self, volume: int, pick: int, folder: int, name: bytes) -> None:
        lineage = self.head(volume)
        file = self.name(lineage, pick, 8)
        if file is not None:
            into = self.folder(lineage, folder)
            self.attempt(lambda: self.family.do(lineage, ns.link, file.ino, into, name))

    @rule(volume=PICK, pick=PICK)
    def remove(self, volume: int, pick: int) -> None:
        lineage = self.head(volume)
        name = self.name(lineage, pick)
        if name is not None:
            op = ns.rmdir if name.inode.mode >> 12 == 4 else ns.unlink
            self.attempt(lambda: self.family.do(lineage, op, *name.place))

    @rule(volume=PICK, pick=PICK, folder=PICK, name=NAMES, flags=st.sampled_from([0, 0, ns.RENAME_EXCHANGE]))
    def rename(self, volume: int, pick: int, folder: int, name: bytes, flags: int) -> None:
        lineage = self.head(volume)
        old = self.name(lineage, pick)
        if old is not None:
            into = self.folder(lineage, folder)
            self.attempt(lambda: self.family.do(lineage, ns.rename, *old.place, into, name, flags))

    @rule(volume=PICK)
    def snapshot(self, volume: int) -> None:
        self.freeze(self.head(volume))

    @precondition(lambda self: len(self.live) < 4)
    @rule(pick=PICK, of_live=st.booleans())
    def clone(self, pick: int, of_live: bool) -> None:
        if of_live:
            self.live.append(self.family.clone(self.head(pick)))
        else:
            self.live.append(self.family.fork(self.frozen[pick % len(self.frozen)].pin))

    @rule(volume=PICK, pick=PICK, keep=st.booleans())
    def roll_back(self, volume: int, pick: int, keep: bool) -> None:
        lineage = self.head(volume)
        if keep:
            self.freeze(lineage)
        self.live.remove(lineage)
        self.live.append(self.family.fork(self.frozen[pick % len(self.frozen)].pin))
        self.family.drop_head(lineage)

    @precondition(lambda self: len(self.frozen) > 1)
    @rule(pick=PICK)
    def drop_snapshot(self, pick: int) -> None:
        frozen = self.frozen.pop(pick % len(self.frozen))
        self.family.release(frozen.pin, frozen.holder)

    @rule(steps=st.integers(1, 30))
    def reclaim(self, steps: int) -> None:
        self.family.reclaim(steps)

    def _meddle(self, pick: int) -> None:
        """What goes on while a diff is under way."""
        lineage = self.head(pick)
        file = self.name(lineage, pick, 8)
        if file is not None:
            self.family.put_slots(lineage, file.ino, {0: "meddled"})
        self.family.reclaim(2)

    @rule(first=PICK, second=PICK, live=st.booleans(), meddle=st.booleans())
    def compare(self, first: int, second: int, live: bool, meddle: bool) -> None:
        points = [self.frozen[first % len(self.frozen)], self.frozen[second % len(self.frozen)]]
        held: list[Frozen] = []
        if live:
            held.append(Frozen(*self.family.pin(self.head(second))))
            points[1] = held[0]
        before, after = points[0].pin, points[1].pin
        for old, new in ((before, after), (after, before)):
            entries = run(self.family, old, new, (lambda: self._meddle(second)) if meddle else (lambda: None))
            check_against_listings(self.family, old, new, entries)
        for frozen in held:
            self.family.release(frozen.pin, frozen.holder)

    def teardown(self) -> None:
        assert list(verify(self.family.kv)) == []


@pytest.mark.parametrize("small", [False, True], ids=["roomy", "in small steps"])
def test_against_two_full_listings(small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if small:
        for module, limits in (
            (diff_module, {"STEP_ROWS": 4, "STEP_ENTRIES": 2, "CANDIDATES": 2, "PAGE": 2, "MAX_ASIDE": 2}),
            (diff_module, {"CACHED_FOLDERS": 1}),
            (changes, {"EXAMINED_MAX": 2}),
        ):
            for name, value in limits.items():
                monkeypatch.setattr(module, name, value)
    run_state_machine_as_test(
        DiffMachine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
    )


# ---------------------------------------------------------------- by hand


@pytest.fixture
def family() -> Family:
    return Family()


def shown(entries: list[Entry]) -> list[tuple[str, bytes, bytes, bool, bool]]:
    return sorted((e.change, e.path, e.new_path, e.content, e.attributes) for e in entries)


def test_what_a_person_expects(family: Family) -> None:
    docs = family.make(FAMILY, ns.mkdir, ROOT_INO, b"docs", 0o755)
    kept = family.make(FAMILY, ns.create, docs, b"kept", 0o644)
    text = family.make(FAMILY, ns.create, docs, b"text", 0o644)
    gone = family.make(FAMILY, ns.mkdir, ROOT_INO, b"gone", 0o755)
    family.make(FAMILY, ns.create, gone, b"with", 0o644)
    family.put_slots(FAMILY, kept, {0: "same"})
    before, _ = family.pin(FAMILY)
    family.do(FAMILY, ns.rename, ROOT_INO, b"docs", ROOT_INO, b"papers")
    family.put_slots(FAMILY, text, {0: "more"})
    new = family.make(FAMILY, ns.mkdir, docs, b"new", 0o755)
    family.make(FAMILY, ns.create, new, b"inside", 0o644)
    family.do(FAMILY, ns.unlink, gone, b"with")
    family.do(FAMILY, ns.rmdir, ROOT_INO, b"gone")
    family.do(FAMILY, ns.rename, docs, b"kept", new, b"moved")
    after, _ = family.pin(FAMILY)
    assert shown(run(family, before, after)) == [
        ("created", b"papers/new", b"", False, False),
        ("created", b"papers/new/inside", b"", False, False),
        ("deleted", b"gone", b"", False, False),
        ("deleted", b"gone/with", b"", False, False),
        ("modified", b"papers/text", b"", True, True),
        ("renamed", b"docs", b"papers", False, False),
        ("renamed", b"docs/kept", b"papers/new/moved", False, False),
    ]


def test_equal_data_written_again_is_no_content(family: Family) -> None:
    ino = family.make(FAMILY, ns.create, ROOT_INO, b"f", 0o644)
    family.put_slots(FAMILY, ino, {0: "word", 1: "other"})
    family.do(FAMILY, ns.setattr, ino, mtime_ns=99)
    before, _ = family.pin(FAMILY)
    family.put_slots(FAMILY, ino, {0: "word", 1: "other"})
    after, _ = family.pin(FAMILY)
    assert shown(run(family, before, after)) == [("modified", b"f", b"", False, True)]
    family.do(FAMILY, ns.setattr, ino, mtime_ns=99)
    again, _ = family.pin(FAMILY)
    assert run(family, before, again) == []


def test_a_file_that_was_cut_and_written_again_is_compared_slot_by_slot(family: Family) -> None:
    ino = family.make(FAMILY, ns.create, ROOT_INO, b"f", 0o644)
    words = {slot: f"{slot}" for slot in range(0, 300, 3)}
    family.put_slots(FAMILY, ino, words, 300 * SLOT_BYTES)
    before, _ = family.pin(FAMILY)
    family.do(FAMILY, ns.setattr, ino, size=20 * SLOT_BYTES)
    family.do(FAMILY, ns.setattr, ino, size=300 * SLOT_BYTES)
    holes, _ = family.pin(FAMILY)
    family.put_slots(FAMILY, ino, {slot: word for slot, word in words.items() if slot >= 20}, 300 * SLOT_BYTES)
    same, _ = family.pin(FAMILY)
    family.put_slots(FAMILY, ino, {297: "other"})
    other, _ = family.pin(FAMILY)
    assert shown(run(family, before, holes)) == [("modified", b"f", b"", True, True)]
    assert shown(run(family, before, same)) == [("modified", b"f", b"", False, True)]
    assert shown(run(family, before, other)) == [("modified", b"f", b"", True, True)]


def test_a_file_whose_hint_was_removed_is_found_in_all_entries(family: Family) -> None:
    folder = family.make(FAMILY, ns.mkdir, ROOT_INO, b"d", 0o755)
    ino = family.make(FAMILY, ns.create, folder, b"first", 0o644)
    family.do(FAMILY, ns.link, ino, ROOT_INO, b"second")
    family.do(FAMILY, ns.unlink, ROOT_INO, b"second")
    before, _ = family.pin(FAMILY)
    family.put_slots(FAMILY, ino, {0: "word"})
    after, _ = family.pin(FAMILY)
    assert shown(run(family, before, after)) == [("modified", b"d/first", b"", True, True)]


def test_another_family_has_nothing_in_common(family: Family) -> None:
    family.store.create_lineage(100, 100)
    family.write(100, ns.make_root(1, hash_seed=1, family=100))
    before, _ = family.pin(FAMILY)
    after, _ = family.pin(100)
    with pytest.raises(InvalidArgument, match="no common ancestor but the zero volume"):
        run(family, before, after)


def test_a_folder_that_leads_nowhere_is_damage(family: Family) -> None:
    folder = family.make(FAMILY, ns.mkdir, ROOT_INO, b"d", 0o755)
    before, _ = family.pin(FAMILY)
    family.make(FAMILY, ns.create, folder, b"f", 0o644)
    family.store.delete(FAMILY, *inode_key(folder))
    after, _ = family.pin(FAMILY)
    with pytest.raises(Corrupt, match="redfs check"):
        run(family, before, after)


def test_names_beyond_those_held_are_told_without_pairing(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff_module, "MAX_NAMES_HELD", 2)
    ino = family.make(FAMILY, ns.create, ROOT_INO, b"f", 0o644)
    before, _ = family.pin(FAMILY)
    for name in (b"g", b"h", b"i", b"j"):
        family.do(FAMILY, ns.link, ino, ROOT_INO, name)
    family.do(FAMILY, ns.unlink, ROOT_INO, b"f")
    after, _ = family.pin(FAMILY)
    entries = run(family, before, after)
    told = sorted(e.path for e in entries) + sorted(e.new_path for e in entries if e.new_path)
    assert sorted(told) == [b"f", b"g", b"h", b"i", b"j"]


# ---------------------------------------------------------------- what it costs


def rows_of_one_change(others: int, big: int, change: Callable[[Family, int, int], None]) -> int:
    """Rows read for one change in a volume with other files, some in the same folder, and one big file."""
    family = Family(MemoryKv())
    folder = family.make(FAMILY, ns.mkdir, ROOT_INO, b"d", 0o755)
    for number in range(others):
        into = folder if number % 2 else ROOT_INO
        ino = family.make(FAMILY, ns.create, into, b"f%d" % number, 0o644)
        family.put_slots(FAMILY, ino, {0: f"{number}"})
    ino = family.make(FAMILY, ns.create, folder, b"big", 0o644)
    family.put_slots(FAMILY, ino, {slot: f"{slot}" for slot in range(big)})
    before, _ = family.pin(FAMILY)
    clone = family.fork(before)
    change(family, clone, ino)
    after, _ = family.pin(clone)
    work = Diff(before, after)
    found: list[Entry] = []
    while (page := work.step(family.kv)) is not None:
        found += page
    assert len(found) == 1, found
    return work.rows


CHANGES: dict[str, Callable[[Family, int, int], None]] = {
    "create": lambda f, lineage, _: void(f.make(lineage, ns.create, ROOT_INO, b"new", 0o644)),
    "chmod": lambda f, lineage, ino: void(f.do(lineage, ns.setattr, ino, mode=0o600)),
    "rename": lambda f, lineage, _: void(f.do(lineage, ns.rename, ROOT_INO, b"f0", ROOT_INO, b"g")),
    "write": lambda f, lineage, ino: f.put_slots(lineage, ino, {0: "new"}),
    "unlink": lambda f, lineage, _: void(f.do(lineage, ns.unlink, ROOT_INO, b"f0")),
    "link": lambda f, lineage, ino: void(f.do(lineage, ns.link, ino, ROOT_INO, b"g")),
}


def void(_: object) -> None:
    return None


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_the_cost_does_not_grow_with_what_stays(change: Callable[[Family, int, int], None]) -> None:
    small = rows_of_one_change(4, 2, change)
    assert rows_of_one_change(400, 300, change) <= small
    assert small < 60


def test_the_same_lineage_is_not_searched_for_what_did_not_change() -> None:
    """Between two snapshots of one volume the versions of an inode lie beside those that did not change."""
    family = Family(MemoryKv())
    ino = family.make(FAMILY, ns.create, ROOT_INO, b"big", 0o644)
    for number in range(300):
        family.make(FAMILY, ns.create, ROOT_INO, b"f%d" % number, 0o644)
    family.put_slots(FAMILY, ino, {slot: f"{slot}" for slot in range(1000)})
    before, _ = family.pin(FAMILY)
    family.do(FAMILY, ns.setattr, ino, mode=0o600)
    family.make(FAMILY, ns.create, ROOT_INO, b"new", 0o644)
    after, _ = family.pin(FAMILY)
    work = Diff(before, after)
    pages = iter(lambda: work.step(family.kv), None)
    entries = [entry for page in pages for entry in page or []]
    assert shown(entries) == [("created", b"new", b"", False, False), ("modified", b"big", b"", False, True)]
    assert work.rows < 60


def born(family: Family, before: Pin, after: Pin, limit: int) -> Iterator[tuple[int, int]]:
    windows = changes.windows_between(family.store, before, after)
    at, complete = 0, False
    while not complete:
        page, complete = changes.candidates(family.kv, windows, at, limit)
        assert len(page) <= limit
        for candidate in page:
            yield candidate.ino, candidate.births
        at = page[-1].ino if page else at


@pytest.mark.parametrize("seed", range(20))
def test_candidates_come_in_order_whatever_the_page(seed: int) -> None:
    rng = random.Random(seed)
    family = Family()
    lineage = FAMILY
    points = [family.pin(lineage)[0]]
    for _ in range(12):
        for _ in range(rng.randrange(6)):
            family.store.put(lineage, *inode_key(rng.randrange(2, 30)), b"x")
        points.append(family.pin(lineage)[0])
        if not rng.randrange(4):
            lineage = family.fork(rng.choice(points))
    before, after = rng.choice(points), points[-1]
    whole = list(born(family, before, after, 1000))
    assert whole == sorted(set(whole))
    for limit in (1, 2, 3, 7):
        assert list(born(family, before, after, limit)) == whole
    assert {ino for ino, _ in whole} >= {
        ino
        for ino in range(2, 30)
        if family.store.get(*before, Kind.INODE, inode_key(ino).obj)
        != family.store.get(*after, Kind.INODE, inode_key(ino).obj)
    }
