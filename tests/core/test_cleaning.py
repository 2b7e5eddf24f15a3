"""The plan of cleaning: what it chooses, that it frees what it says, and that it comes to rest."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from redfs.core import cleaning
from redfs.core.cleaning import EAGER, Plan, Source, Thresholds, disk_bytes, full_layout, is_candidate, plans
from redfs.core.policy import Layout
from redfs.core.segments import MAX_PAYLOAD_BYTES, plan_layout
from redfs.core.tables import Domain

MIB = 1 << 20
FULL = Layout(4, 2)
DOMAIN = Domain(4, 2)
PATIENT = Thresholds(60.0, 600.0)


def written(
    segment_id: int, payload_bytes: int, live_bytes: int, layout: Layout = FULL, age_s: float = 1000.0
) -> Source:
    """A segment that was written with that payload, and of which so much is live."""
    shard_bytes = plan_layout(payload_bytes, *layout).shard_bytes
    return Source(segment_id, layout, Domain(4, layout.m), shard_bytes, live_bytes, age_s)


def chosen(sources: list[Source], full: Layout = FULL, thresholds: Thresholds = EAGER) -> list[Plan]:
    return plans([s for s in sources if is_candidate(s, full, thresholds)], full, thresholds)


def test_half_dead_segments_are_packed_and_full_ones_stay() -> None:
    dead = [written(n, 8 * MIB, 3 * MIB) for n in range(1, 5)]
    alive = [written(n, 8 * MIB, 7 * MIB) for n in range(11, 15)]
    made = chosen(dead + alive, thresholds=PATIENT)
    assert [[s.segment_id for s in plan.sources] for plan in made] == [[1, 2], [3, 4]]
    assert all(plan.layout == FULL and plan.live_bytes == 6 * MIB for plan in made)
    assert made[0].freed_bytes == 2 * disk_bytes(FULL, 2 * MIB) - disk_bytes(FULL, 3 * MIB // 2)


def test_small_mirrored_segments_become_one_of_the_full_layout() -> None:
    small = [written(n, 60 * 1024, 60 * 1024, Layout(1, 2)) for n in range(1, 140)]
    (best, *_) = chosen(small, thresholds=PATIENT)
    assert best.layout == FULL
    assert best.live_bytes > cleaning.FULL_BYTES
    raw = disk_bytes(FULL, plan_layout(best.live_bytes, 4, 2).shard_bytes)
    assert raw < 1.51 * best.live_bytes
    assert best.freed_bytes == sum(s.disk_bytes for s in best.sources) - raw


def test_a_few_small_ones_wait_for_more_until_they_are_old() -> None:
    few = [written(n, 60 * 1024, 60 * 1024, Layout(1, 2), age_s=599.0) for n in range(1, 4)]
    assert chosen(few, thresholds=PATIENT) == []
    aged = [few[0]._replace(age_s=600.0), *few[1:]]
    (plan,) = chosen(aged, thresholds=PATIENT)
    assert plan.sources == tuple(aged)
    (now,) = chosen(few, thresholds=EAGER)
    assert now.sources == tuple(few)


def test_young_segments_are_left_alone() -> None:
    assert chosen([written(n, 8 * MIB, MIB, age_s=59.0) for n in range(9)], thresholds=PATIENT) == []


def test_a_single_small_file_stays_as_it_is() -> None:
    assert chosen([written(1, 1000, 1000, Layout(1, 2))]) == []


def test_narrow_segments_are_widened_once_all_nodes_are_there() -> None:
    narrow = [written(n, 8 * MIB, 8 * MIB, Layout(3, 2)) for n in (1, 2)]
    assert full_layout(DOMAIN, 6, 5) is None, "one is away for the moment"
    assert full_layout(DOMAIN, 5, 5) == Layout(3, 2)
    assert full_layout(DOMAIN, 2, 2) is None
    assert chosen(narrow, Layout(3, 2)) == []
    full = full_layout(DOMAIN, 6, 6)
    assert full == FULL
    made = chosen(narrow, full, PATIENT)
    assert [len(plan.sources) for plan in made] == [1, 1]
    assert all(plan.freed_bytes > 0 and not plan.strengthens for plan in made)


def test_lacking_redundancy_comes_first_and_is_not_waited_for() -> None:
    weak = Source(7, Layout(1, 0), DOMAIN, 4096, 4096, 1.0)
    dead = [written(n, 8 * MIB, MIB) for n in range(10, 18)]
    first, *_ = chosen([*dead, weak], thresholds=PATIENT)
    assert weak in first.sources
    assert first.strengthens
    assert first.layout.m == 2


def test_what_was_written_together_stays_together() -> None:
    sources = [written(n, 8 * MIB, 2 * MIB) for n in range(1, 9)]
    assert [[s.segment_id for s in plan.sources] for plan in chosen(sources[::-1])] == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_a_plan_has_a_bound_on_its_sources() -> None:
    tiny = [Source(n, Layout(1, 2), DOMAIN, 4096, 1000, 1000.0) for n in range(1, 3000)]
    made = chosen(tiny)
    assert max(len(plan.sources) for plan in made) == cleaning.MAX_SOURCES


segments_of_any_kind = st.builds(
    lambda k, lack, payload, share, age: (k, lack, payload, share, age),
    st.integers(1, 6),
    st.integers(0, 1),
    st.one_of(st.integers(1, 70_000), st.integers(1, MAX_PAYLOAD_BYTES)),
    st.floats(0.001, 1.0),
    st.floats(0.0, 5000.0),
)


@pytest.mark.parametrize("thresholds", [EAGER, PATIENT], ids=["eager", "patient"])
@settings(max_examples=60, deadline=None)
@given(
    full=st.sampled_from([Layout(4, 2), Layout(2, 1), Layout(1, 2), Layout(1, 0), Layout(16, 8), Layout(6, 3)]),
    rows=st.lists(segments_of_any_kind, max_size=60),
)
def test_cleaning_comes_to_rest_and_every_step_pays(
    thresholds: Thresholds, full: Layout, rows: list[tuple[int, int, int, float, float]]
) -> None:
    domain = Domain(full.k, full.m)
    pool: dict[int, Source] = {}
    for number, (k, lack, payload, share, age_s) in enumerate(rows, start=1):
        layout = Layout(min(k, full.k), max(0, full.m - lack))
        shard_bytes = plan_layout(payload, *layout).shard_bytes
        pool[number] = Source(number, layout, domain, shard_bytes, max(1, int(payload * share)), age_s)
    next_id = 1000
    live_bytes = sum(s.live_bytes for s in pool.values())

    def measure() -> tuple[int, int]:
        return sum(s.layout.m < full.m for s in pool.values()), sum(s.disk_bytes for s in pool.values())

    rounds = 0
    while made := plans([s for s in pool.values() if is_candidate(s, full, thresholds)], full, thresholds):
        rounds += 1
        assert rounds <= 8, "it never ends"
        sources = [s.segment_id for plan in made for s in plan.sources]
        assert len(sources) == len(set(sources))
        for plan in made:
            before = measure()
            assert 0 < plan.live_bytes <= MAX_PAYLOAD_BYTES
            assert plan.live_bytes == sum(pool.pop(s.segment_id).live_bytes for s in plan.sources)
            shard_bytes = plan_layout(plan.live_bytes, *plan.layout).shard_bytes
            pool[next_id] = Source(next_id, plan.layout, domain, shard_bytes, plan.live_bytes, 1e6)
            next_id += 1
            after = measure()
            assert after[0] < before[0] if plan.strengthens else after < before
            assert before[1] - after[1] == plan.freed_bytes
            assert plan.layout.m == full.m
    assert sum(s.live_bytes for s in pool.values()) == live_bytes
    if thresholds == EAGER:
        assert all(s.layout.m == full.m for s in pool.values())
