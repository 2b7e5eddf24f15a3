"""What a mount in shared mode may show again, and what takes that away."""

from collections.abc import Callable

import pytest

from redfs.client.fs import remembered as module
from redfs.client.fs.remembered import NOTHING, Remembered
from redfs.core.records import Inode, Piece

FOLDER, FILE, OTHER = 2, 3, 4
INODE = Inode(0o100644, 1, 0, 0, 0, 1, 2, 3, 4)
SLOT = (Piece(0, 7, 0, 4096),)
LASTS_S = 5.0


class Memory(Remembered):
    """With a clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0
        super().__init__(lambda: self.now_s, lambda: LASTS_S)

    def learn(self) -> None:
        self.learn_name(self.mark(), FOLDER, b"f", FILE)
        self.learn_inode(self.mark(), FILE, INODE)

    def knows(self) -> tuple[bool, bool]:
        """Whether the name is known, and the inode."""
        return self.name(FOLDER, b"f") is not None, self.inode(FILE) is not None


def test_it_is_known_until_its_time_is_over() -> None:
    memory = Memory()
    asked = memory.mark()
    memory.now_s += 2
    memory.learn_name(asked, FOLDER, b"f", FILE)
    memory.learn_name(asked, FOLDER, b"none", NOTHING)
    memory.learn_inode(asked, FILE, INODE)
    memory.now_s = asked.at_s + LASTS_S - 0.01
    assert memory.name(FOLDER, b"f") == FILE
    assert memory.name(FOLDER, b"none") == NOTHING
    assert memory.inode(FILE) == INODE
    memory.now_s = asked.at_s + LASTS_S
    assert memory.knows() == (False, False)
    assert memory.name(FOLDER, b"none") is None


@pytest.mark.parametrize(("dropped", "left"), [(FOLDER, (False, True)), (FILE, (True, False)), (OTHER, (True, True))])
def test_what_others_are_about_to_change_is_dropped(dropped: int, left: tuple[bool, bool]) -> None:
    memory = Memory()
    memory.learn()
    memory.drop([dropped])
    assert memory.knows() == left


def test_an_answer_from_before_an_order_is_not_learned() -> None:
    memory = Memory()
    asked = memory.mark()
    memory.drop([FOLDER, FILE])
    memory.learn_name(asked, FOLDER, b"f", FILE)
    memory.learn_inode(asked, FILE, INODE)
    assert memory.knows() == (False, False)
    memory.learn()
    assert memory.knows() == (True, True)


def test_an_answer_from_before_everything_was_forgotten_is_not_learned() -> None:
    memory = Memory()
    asked = memory.mark()
    memory.learn()
    memory.clear()
    assert memory.knows() == (False, False)
    memory.learn_name(asked, FOLDER, b"f", FILE)
    memory.learn_inode(asked, FILE, INODE)
    assert memory.knows() == (False, False)


def test_what_this_host_changes_is_not_known_meanwhile() -> None:
    memory = Memory()
    memory.learn()
    memory.learn_name(memory.mark(), FOLDER, b"g", OTHER)
    before = memory.mark()
    with memory.changing([FOLDER], [(FOLDER, b"f")]) as touched:
        assert touched == [FOLDER, FILE], "what the name names is changed as well"
        assert memory.knows() == (False, False)
        memory.learn()
        assert memory.knows() == (False, False)
        during = memory.mark()
    assert memory.name(FOLDER, b"g") == OTHER, "other names are as they were"
    for asked in (before, during):
        memory.learn_inode(asked, FILE, INODE)
        memory.learn_name(asked, FOLDER, b"f", FILE)
        assert memory.knows() == (False, False)
    memory.learn()
    assert memory.knows() == (True, True)


def test_content_is_known_where_all_of_it_is() -> None:
    memory = Memory()
    asked = memory.mark()
    memory.learn_content(asked, FILE, INODE, {0: SLOT, 1: ()})
    memory.now_s += 2
    memory.learn_content(memory.mark(), FILE, INODE, {2: SLOT})
    assert memory.content(FILE, 0, 2) == (INODE, {0: SLOT, 1: (), 2: SLOT})
    assert memory.content(FILE, 1, 1) == (INODE, {1: ()})
    assert memory.content(FILE, 2, 3) is None
    assert memory.content(OTHER, 0, 0) is None
    memory.now_s = asked.at_s + LASTS_S
    assert memory.content(FILE, 0, 0) is None, "what was asked for first is over first"
    assert memory.content(FILE, 2, 2) == (INODE, {2: SLOT})


def test_content_is_dropped_with_its_inode() -> None:
    memory = Memory()
    asked = memory.mark()
    drops: list[Callable[[], None]] = [lambda: memory.drop([FILE]), memory.clear]
    for drop in drops:
        memory.learn_content(memory.mark(), FILE, INODE, {0: SLOT})
        assert memory.content(FILE, 0, 0)
        drop()
        assert memory.content(FILE, 0, 0) is None
        memory.learn_content(asked, FILE, INODE, {0: SLOT})
        assert memory.content(FILE, 0, 0) is None, "asked for before"
    memory.learn_content(memory.mark(), FILE, INODE, {0: SLOT})
    with memory.changing([FILE]):
        memory.learn_inode(memory.mark(), FILE, INODE)
        assert memory.content(FILE, 0, 0) is None
    assert memory.content(FILE, 0, 0) is None


def test_two_changes_of_one_inode_end_with_the_second() -> None:
    memory = Memory()
    with memory.changing([FILE]):
        with memory.changing([FILE]):
            pass
        memory.learn_inode(memory.mark(), FILE, INODE)
        assert memory.inode(FILE) is None
    memory.learn_inode(memory.mark(), FILE, INODE)
    assert memory.inode(FILE) == INODE


def test_it_does_not_grow_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_INODES", 10)
    monkeypatch.setattr(module, "MAX_NAMES", 10)
    memory = Memory()
    for number in range(100):
        memory.learn_inode(memory.mark(), number, INODE)
        memory.learn_name(memory.mark(), FOLDER, b"%d" % number, 7)
    assert sum(memory.inode(number) is not None for number in range(100)) <= 10
    assert sum(memory.name(FOLDER, b"%d" % number) is not None for number in range(100)) <= 10
    assert memory.inode(99) == INODE
    monkeypatch.setattr(module, "MAX_SLOTS", 10)
    for number in range(100):
        memory.learn_content(memory.mark(), number % 7, INODE, {number: SLOT, number + 1: SLOT})
    assert 0 < sum(memory.content(ino, n, n) is not None for ino in range(7) for n in range(102)) <= 10
