"""What a mount in shared mode may show again, and what takes that away."""

import pytest

from redfs.client.fs import remembered as module
from redfs.client.fs.remembered import NOTHING, Remembered
from redfs.core.records import Inode

FOLDER, FILE, OTHER = 2, 3, 4
INODE = Inode(0o100644, 1, 0, 0, 0, 1, 2, 3, 4)
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
