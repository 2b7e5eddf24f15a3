"""The whole volume tree against a plain dictionary: every operation in any order, with files written in between.

Contents of every node, tree, settings and accounts are compared as it goes, and `redfs check` must find nothing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.tree.driver import OPERATIONS, Tree

T = TypeVar("T")
LONG_STEPS = int(os.environ.get("REDFS_TREE_STEPS", "600"))
"""Operations of one long history; set it to thousands to look longer."""
COMPARE_EVERY = 12
pytestmark = pytest.mark.slow


class Drawn:
    """Choices by Hypothesis."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def pick(self, choices: Sequence[T]) -> T:
        return self._data.draw(st.sampled_from(choices))

    def number(self, low: int, high: int) -> int:
        return self._data.draw(st.integers(low, high))


class Seeded:
    """Choices by a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def pick(self, choices: Sequence[T]) -> T:
        return self._random.choice(choices)

    def number(self, low: int, high: int) -> int:
        return self._random.randint(low, high)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tree = Tree()

    @initialize(data=st.data())
    def first_volume(self, data: st.DataObject) -> None:
        self.tree.create(Drawn(data))

    @rule()
    def compare(self) -> None:
        self.tree.compare()

    def teardown(self) -> None:
        self.tree.close()


def _add_rule(name: str) -> None:
    operation, possible, _ = OPERATIONS[name]

    def step(self: Machine, data: st.DataObject) -> None:
        operation(self.tree, Drawn(data))

    step.__name__ = name
    made: Any = precondition(lambda self: possible(self.tree))(rule(data=st.data())(step))
    setattr(Machine, name, made)


for _name in OPERATIONS:
    _add_rule(_name)

TestTree = Machine.TestCase
TestTree.settings = settings(
    max_examples=12,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # Each example is a pool: making a failing one shorter takes longer than reading it.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


@pytest.mark.timeout(LONG_STEPS * 3)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_long_history(seed: int) -> None:
    dice = Seeded(seed)
    tree = Tree()
    try:
        names = [name for name, (_, _, often) in OPERATIONS.items() for _ in range(often)]
        for turn in range(LONG_STEPS):
            operation, possible, _ = OPERATIONS[dice.pick(names)]
            if possible(tree):
                operation(tree, dice)
            if turn % COMPARE_EVERY == 0:
                tree.compare()
        tree.compare()
    finally:
        tree.close()
