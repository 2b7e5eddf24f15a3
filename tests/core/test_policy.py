"""Policies: words, what they shrink to, and the errors that say what would fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redfs.core.errors import InvalidArgument, TooFewNodes
from redfs.core.policy import Policy, best_fit, fits, overhead_bytes, parse_policy, require_fit, shrink, small_layout

policies = st.builds(Policy, st.integers(2, 16), st.integers(1, 8)) | st.builds(Policy, st.just(1), st.integers(0, 8))


@pytest.mark.parametrize(
    ("word", "policy"),
    [
        ("ec:4+2", (4, 2)),
        ("ec:16+8", (16, 8)),
        ("mirror:3", (1, 2)),
        ("mirror:2", (1, 1)),
        ("single", (1, 0)),
        ("raid5", (4, 1)),
        ("raid6", (4, 2)),
    ],
)
def test_words(word: str, policy: tuple[int, int]) -> None:
    assert parse_policy(word) == policy


@pytest.mark.parametrize(
    "word", ["", "ec:4", "ec:1+1", "ec:17+2", "ec:4+0", "ec:4+9", "mirror:1", "mirror:10", "raid7", "ec:4+2 "]
)
def test_words_that_mean_nothing(word: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_policy(word)


@given(policies)
def test_the_canonical_word_means_the_policy(policy: Policy) -> None:
    assert parse_policy(str(policy)) == policy


@pytest.mark.parametrize(("nodes", "layout"), [(7, (4, 2)), (6, (4, 2)), (5, (3, 2)), (4, (2, 2)), (3, (1, 2))])
def test_k_shrinks_and_m_stays(nodes: int, layout: tuple[int, int]) -> None:
    assert shrink(Policy(4, 2), nodes) == layout


def test_below_m_plus_one_nodes_writing_stops() -> None:
    with pytest.raises(TooFewNodes, match="needs 3 storage nodes"):
        shrink(Policy(4, 2), 2)


def test_a_lower_minimum_lets_m_shrink() -> None:
    assert shrink(Policy(4, 2), 2, minimum_nodes=2) == (1, 1)
    assert shrink(Policy(4, 2), 1, minimum_nodes=1) == (1, 0)
    assert shrink(Policy(4, 2), 3, minimum_nodes=1) == (1, 2)
    with pytest.raises(TooFewNodes, match="needs 2 storage nodes"):
        shrink(Policy(4, 2), 1, minimum_nodes=2)


@given(policies, st.integers(1, 30))
def test_a_layout_never_takes_more_nodes_than_there_are_nor_tolerates_less(policy: Policy, nodes: int) -> None:
    if nodes < policy.least_nodes:
        return
    layout = shrink(policy, nodes)
    assert layout.width <= nodes
    assert layout.m == policy.m
    assert small_layout(policy, nodes) == (1, policy.m)


@given(policies, st.integers(1, 30))
def test_the_best_fit_fits(policy: Policy, nodes: int) -> None:
    best = best_fit(policy, nodes)
    assert fits(best, nodes)
    assert parse_policy(str(best)) == best
    assert (best == policy) == fits(policy, nodes)


def test_too_wide_says_what_would_fit() -> None:
    with pytest.raises(TooFewNodes, match=r"ec:4\+2 needs 6 storage nodes and the pool has 2: .*--protect mirror:2"):
        require_fit(Policy(4, 2), 2)
    with pytest.raises(TooFewNodes, match=r"--protect ec:3\+2"):
        require_fit(Policy(4, 2), 5)
    with pytest.raises(TooFewNodes, match="none has joined"):
        require_fit(Policy(1, 0), 0)


def test_overhead() -> None:
    assert overhead_bytes(Policy(4, 2), 4000) == 6000
    assert overhead_bytes(Policy(1, 2), 10) == 30
    assert overhead_bytes(Policy(3, 1), 1) == 2
