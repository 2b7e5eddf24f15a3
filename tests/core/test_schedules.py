"""Times and names of schedules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redfs.core.errors import InvalidArgument
from redfs.core.schedules import (
    MAX_EVERY_S,
    MAX_KEPT,
    MAX_LABEL_CHARS,
    check_schedule,
    default_label,
    every_text,
    is_too_far,
    next_due_ns,
    snapshot_name,
)
from redfs.core.volume_tree import MAX_NAME_CHARS, split_snapshot_name

S = 10**9


@given(st.integers(0, 10**19), st.integers(60, MAX_EVERY_S), st.integers(0, 10**19))
def test_the_next_time_is_the_first_on_the_grid_after_now(due_ns: int, every_s: int, now_ns: int) -> None:
    found = next_due_ns(due_ns, every_s, now_ns)
    assert now_ns < found <= now_ns + every_s * S
    assert (found - due_ns) % (every_s * S) == 0
    assert not is_too_far(found, every_s, now_ns)
    assert is_too_far(found + every_s * S, every_s, now_ns)


def test_labels() -> None:
    labels = {60: "every-1m", 5400: "every-90m", 3600: "hourly", 7200: "every-2h", 86400: "daily", 604800: "weekly"}
    assert {seconds: default_label(seconds) for seconds in labels} == labels
    assert (every_text(61), every_text(172_800), every_text(1_209_600)) == ("61s", "2d", "2w")


def test_names_are_in_utc_and_never_too_long() -> None:
    name = snapshot_name("v", "hourly", 1_700_000_000 * S + 999)
    assert name == "v@hourly-20231114-221320"
    longest = snapshot_name("v" * MAX_NAME_CHARS, "x" * MAX_LABEL_CHARS, 1_700_000_000 * S)
    assert len(split_snapshot_name(longest)[1]) == MAX_NAME_CHARS


@pytest.mark.parametrize(
    ("label", "every_s", "keep"),
    [
        ("hourly", 59, 24), ("hourly", MAX_EVERY_S + 1, 24), ("hourly", 3600, 0), ("hourly", 3600, MAX_KEPT + 1),
        ("a@b", 3600, 24), (".x", 3600, 24), ("", 3600, 24), ("x" * (MAX_LABEL_CHARS + 1), 3600, 24),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(label: str, every_s: int, keep: int) -> None:
    check_schedule("hourly", 60, 1, 60.0)
    check_schedule("x" * MAX_LABEL_CHARS, MAX_EVERY_S, MAX_KEPT, 60.0)
    with pytest.raises(InvalidArgument):
        check_schedule(label, every_s, keep, 60.0)
