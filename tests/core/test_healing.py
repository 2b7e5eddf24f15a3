"""Plans on shards: never against placement's rules, the most endangered first, and an end where everything is well."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from redfs.core.healing import (
    Balance,
    Blocked,
    Fate,
    MostUrgent,
    Need,
    NodeFacts,
    Shards,
    Step,
    Work,
    assess,
    fate_of,
    plan,
)
from redfs.core.tables import NodeState
from tests.lengths import examples

MIB = 1 << 20
GIB = 1 << 30


def node(
    number: int,
    state: int = NodeState.IN,
    *,
    attached: bool = True,
    failed: bool = False,
    steady: bool = True,
    compared: bool = True,
    domain: str = "",
    room_bytes: int = 100 * GIB,
    spare_bytes: int | None = None,
) -> NodeFacts:
    spare = room_bytes if spare_bytes is None else spare_bytes
    return NodeFacts(number, state, attached, failed, steady, compared, domain, 100 * GIB, room_bytes, spare)


def pool(*nodes: NodeFacts) -> dict[int, NodeFacts]:
    return {n.node_id: n for n in nodes}


def six(**more: NodeFacts) -> dict[int, NodeFacts]:
    return pool(*[node(n) for n in range(1, 8)], *more.values())


SEGMENT = Shards(77, 4, MIB, (1, 2, 3, 4, 5, 6))


def test_how_a_shard_stands_follows_from_its_node_and_what_is_known_of_it() -> None:
    facts = pool(
        node(1),
        node(2, NodeState.DRAINING),
        node(3, attached=False),
        node(4, NodeState.LOST),
        node(5, failed=True),
        node(6),
    )
    shards = Shards(1, 2, MIB, (1, 2, 3, 4, 5, 6, 9), frozenset((2, 5)))
    assert [fate_of(shards, shard, facts) for shard in range(7)] == [
        Fate.GOOD, Fate.LEAVING, Fate.AWAY, Fate.LOST, Fate.LOST, Fate.DAMAGED, Fate.LOST,
    ]  # fmt: skip
    found = assess(shards, facts, draining={2})
    assert (found.bad, found.spare) == (5, 0)
    assert found.readable == 4, "also on a node that was given up, and on a disk that failed and answers"
    assert found.needs == (
        Need(Work.REBUILD, 3), Need(Work.REBUILD, 4), Need(Work.REBUILD, 6), Need(Work.REPAIR, 5), Need(Work.DRAIN, 1),
    )  # fmt: skip


def test_a_node_that_is_only_away_needs_nothing() -> None:
    facts = six() | pool(node(2, attached=False))
    found = assess(SEGMENT, facts)
    assert (found.bad, found.spare, found.needs) == (1, 1, ())


def test_a_lost_shard_is_made_where_no_other_lies() -> None:
    facts = six() | pool(node(2, NodeState.LOST, attached=False))
    step = plan(SEGMENT, Need(Work.REBUILD, 1), facts)
    assert isinstance(step, Step)
    assert (step.target, step.source, step.unusable) == (7, 2, (1,))
    assert step.reads_from == (1, 3, 4, 5, 6)


def test_a_damaged_shard_is_made_again_where_it_lies_and_elsewhere_where_that_fails_or_is_full() -> None:
    shards = SEGMENT._replace(damaged=frozenset((0,)))
    need = Need(Work.REPAIR, 0)
    step = plan(shards, need, six())
    assert isinstance(step, Step)
    assert (step.target, step.source, step.unusable) == (1, 1, (0,))
    for facts, avoid in ((six(), (1,)), (six() | pool(node(1, spare_bytes=10)), ())):
        elsewhere = plan(shards, need, facts, avoid=avoid)
        assert isinstance(elsewhere, Step)
        assert elsewhere.target == 7


def test_rebuilds_use_room_that_is_held_back_and_drains_do_not() -> None:
    full = node(7, room_bytes=0, spare_bytes=2 * MIB)
    lost = six() | pool(node(2, NodeState.OUT, attached=False), full)
    assert isinstance(plan(SEGMENT, Need(Work.REBUILD, 1), lost), Step)
    draining = six() | pool(node(2, NodeState.DRAINING), full)
    assert plan(SEGMENT, Need(Work.DRAIN, 1), draining) is Blocked.NO_PLACE


def test_a_drained_shard_is_read_from_itself_while_that_can_be() -> None:
    facts = six() | pool(node(2, NodeState.DRAINING))
    step = plan(SEGMENT, Need(Work.DRAIN, 1), facts)
    assert isinstance(step, Step)
    assert (step.reads_from, step.unusable) == ((2,), ())


def test_a_failed_disk_is_read_only_where_nothing_else_helps() -> None:
    facts = six() | pool(node(1, failed=True))
    step = plan(SEGMENT, Need(Work.REBUILD, 0), facts)
    assert isinstance(step, Step)
    assert step.unusable == (0,)
    desperate = facts | pool(node(2, attached=False), node(3, attached=False))
    step = plan(SEGMENT, Need(Work.REBUILD, 0), desperate)
    assert isinstance(step, Step)
    assert step.unusable == (1, 2), "four of six: with the failed one"
    assert step.reads_from == (1,), "it is copied, while that goes"
    gone = desperate | pool(node(1, failed=True, attached=False))
    assert plan(SEGMENT, Need(Work.REBUILD, 0), gone) is Blocked.UNREADABLE


def test_busy_nodes_are_waited_for_where_their_domain_is_better() -> None:
    facts = pool(
        node(1, domain="a"), node(2, NodeState.OUT, attached=False, domain="b"), node(3, domain="b"),
        node(4, domain="a"), node(5, domain="c"),
    )  # fmt: skip
    shards = Shards(1, 1, MIB, (1, 2, 3))
    need = Need(Work.REBUILD, 1)
    step = plan(shards, need, facts)
    assert isinstance(step, Step)
    assert step.target == 5, "the domain that has none yet"
    assert plan(shards, need, facts, busy=(5,)) is Blocked.BUSY
    assert isinstance(plan(shards, need, facts, busy=(4,)), Step)
    assert plan(shards, need, facts, busy_sources=(1, 3)) is Blocked.BUSY
    assert isinstance(plan(shards, need, facts, busy_sources=(1,)), Step)


def test_who_failed_before_is_the_last_choice() -> None:
    facts = six() | pool(node(2, NodeState.LOST, attached=False), node(8))
    need = Need(Work.REBUILD, 1)
    assert [plan(SEGMENT, need, facts, avoid=(n,)).target for n in (7, 8)] == [8, 7]  # type: ignore[union-attr]


def test_where_all_have_failed_each_has_its_turn_again() -> None:
    need = Need(Work.REBUILD, 1)
    facts = six() | pool(node(2, NodeState.LOST, attached=False), node(8))
    assert [plan(SEGMENT, need, facts, avoid=avoid).target for avoid in ((7, 8), (8, 7))] == [7, 8]  # type: ignore[union-attr]
    assert plan(SEGMENT, need, facts, avoid=(7, 8), busy=(7,)) is Blocked.BUSY
    need = Need(Work.REPAIR, 0)
    facts = six()
    shards = SEGMENT._replace(damaged=frozenset((0,)))
    assert [plan(shards, need, facts, avoid=avoid).target for avoid in ((7, 1), (1, 7))] == [7, 1]  # type: ignore[union-attr]
    assert plan(shards, need, facts | pool(node(1, NodeState.DRAINING)), avoid=(1, 7)).target == 7  # type: ignore[union-attr]


def test_a_repair_that_failed_is_tried_again_where_no_other_node_can_take_the_shard() -> None:
    """A pool with just as many nodes as a segment has shards."""
    facts = pool(*[node(n) for n in range(1, 7)])
    shards = SEGMENT._replace(damaged=frozenset((0,)))
    need = Need(Work.REPAIR, 0)
    step = plan(shards, need, facts, avoid=(1,))
    assert isinstance(step, Step)
    assert (step.target, step.source) == (1, 1)
    assert plan(shards, need, facts, avoid=(1,), busy=(1,)) is Blocked.BUSY
    assert plan(shards, need, facts | pool(node(1, steady=False)), avoid=(1,)) is Blocked.BUSY
    assert plan(shards, need, facts | pool(node(1, spare_bytes=10)), avoid=(1,)) is Blocked.NO_PLACE


def test_the_most_endangered_are_kept() -> None:
    urgent = MostUrgent(3)
    facts = six()
    lost = facts | pool(*[node(n, NodeState.LOST, attached=False) for n in (1, 2)])
    one = assess(SEGMENT, facts | pool(node(1, NodeState.LOST, attached=False)))
    two = assess(SEGMENT, lost)
    well = assess(SEGMENT, facts)
    for segment, found, work in (
        (10, well, Work.REBALANCE), (11, well, Work.DRAIN), (12, one, Work.REPAIR), (13, one, Work.REBUILD),
        (14, two, Work.REBUILD),
    ):  # fmt: skip
        urgent.add(segment, found, work)
    assert urgent.segments() == [14, 13, 12]
    assert not urgent.complete


# ---------------------------------------------------------------- properties

NODES = st.lists(
    st.builds(
        lambda state, attached, failed, steady, compared, domain, room: node(
            0, state, attached=attached, failed=failed, steady=steady, compared=compared, domain=domain,
            room_bytes=room,
        ),
        st.sampled_from(list(NodeState)),
        st.booleans(),
        st.integers(0, 9).map(lambda n: n == 0),
        st.integers(0, 9).map(lambda n: n != 0),
        st.integers(0, 9).map(lambda n: n != 0),
        st.sampled_from(["", "a", "b", "c"]),
        st.sampled_from([0, MIB - 1, 10 * MIB, 100 * GIB]),
    ),
    min_size=3,
    max_size=12,
)  # fmt: skip


@settings(max_examples=examples(300), deadline=None)
@given(NODES, st.data())
def test_no_plan_breaks_the_rules(drawn: list[NodeFacts], data: st.DataObject) -> None:
    facts = {n: found._replace(node_id=n) for n, found in enumerate(drawn, 1)}
    width = data.draw(st.integers(1, min(6, len(facts))))
    k = data.draw(st.integers(1, width))
    nodes = tuple(data.draw(st.permutations(sorted(facts)))[:width])
    damaged = data.draw(st.frozensets(st.integers(0, width - 1), max_size=2))
    shards = Shards(data.draw(st.integers(1, 1 << 40)), k, MIB, nodes, damaged)
    busy = data.draw(st.frozensets(st.sampled_from(sorted(facts)), max_size=2))
    draining = {n for n, found in facts.items() if found.state == NodeState.DRAINING}
    for need in assess(shards, facts, draining).needs:
        step = plan(shards, need, facts, busy=busy)
        if isinstance(step, Blocked):
            continue
        target = facts[step.target]
        assert target.takes
        assert step.target not in busy
        assert target.spare_bytes >= MIB
        after = [*nodes[: need.shard], step.target, *nodes[need.shard + 1 :]]
        assert len(set(after)) == width, "two shards on one node"
        readable = {n for n in nodes if facts[n].attached and nodes.index(n) not in damaged}
        assert set(step.reads_from) <= readable
        assert need.shard not in damaged or need.shard in step.unusable
        if step.target == nodes[need.shard]:
            continue
        others = Counter(
            facts[n].domain
            for shard, n in enumerate(nodes)
            if shard != need.shard and facts[n].domain and not facts[n].given_up
        )
        fit = [f for f in facts.values() if f.takes and f.node_id not in nodes and f.spare_bytes >= MIB]
        assert others[target.domain] == min(others[f.domain] for f in fit) or need.work == Work.DRAIN


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(7, 12), st.integers(1, 2))
def test_healing_ends_with_every_shard_in_its_place(seed: int, count: int, gone: int) -> None:
    """Whatever was lost, all shards are made again, each once, where enough nodes are left."""
    facts = {n: node(n, domain="abcd"[n % 4] if seed % 2 else "") for n in range(1, count + 1)}
    rows: dict[int, tuple[int, ...]] = {}
    for number in range(20):
        first = (seed + number * 5) % count
        rows[number] = tuple((first + i) % count + 1 for i in range(6 if count > 7 else 5))
    for lost in range(1, gone + 1):
        facts[lost] = facts[lost]._replace(state=NodeState.LOST, attached=False)
    expected = sum(n <= gone for nodes in rows.values() for n in nodes)
    steps = 0
    while True:
        urgent = MostUrgent(4)
        for segment, nodes in rows.items():
            found = assess(Shards(segment, 3, MIB, nodes), facts)
            if found.needs:
                urgent.add(segment, found, found.needs[0].work)
        if not urgent.segments():
            break
        worst = max(sum(n <= gone for n in nodes) for nodes in rows.values())
        segment = urgent.segments()[0]
        assert sum(n <= gone for n in rows[segment]) == worst, "not the most endangered first"
        shards = Shards(segment, 3, MIB, rows[segment])
        need = assess(shards, facts).needs[0]
        step = plan(shards, need, facts)
        assert isinstance(step, Step)
        rows[segment] = (*rows[segment][: need.shard], step.target, *rows[segment][need.shard + 1 :])
        steps += 1
        assert steps <= expected
    assert steps == expected
    for nodes in rows.values():
        assert len(set(nodes)) == len(nodes)
        assert min(nodes) > gone


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([10, 50, 100]), st.sampled_from(["", "a", "b", "c"])), min_size=6, max_size=9),
    st.integers(0, 1 << 32),
)  # fmt: skip
def test_levelling_ends_and_makes_nothing_worse(disks: list[tuple[int, str]], seed: int) -> None:
    facts = {
        n: node(n, domain=domain)._replace(capacity_bytes=capacity * GIB)
        for n, (capacity, domain) in enumerate(disks, 1)
    }
    # All data on few nodes, as where nodes were added.
    rows: dict[int, tuple[int, ...]] = {
        number: ((1, 2, 3), (2, 3, 4), (1, 3, 4))[(seed >> (number % 30)) % 3] for number in range(120)
    }

    def bytes_on() -> Counter[int]:
        return Counter({n: MIB * sum(n in nodes for nodes in rows.values()) for n in facts})

    def spread(nodes: tuple[int, ...]) -> int:
        levels = Counter(facts[n].domain or str(n) for n in nodes)
        return sum(level * level for level in levels.values())

    moves = 0
    moved = True
    while moved:
        moved = False
        balance = Balance(facts, bytes_on())
        for number, nodes in rows.items():
            move = balance.move(Shards(number, 2, MIB, nodes))
            if move is None:
                continue
            shard, target = move
            after = (*nodes[:shard], target, *nodes[shard + 1 :])
            assert len(set(after)) == 3
            assert spread(after) <= spread(nodes)
            balance.moved(nodes[shard], target, MIB)
            rows[number] = after
            moves += 1
            moved = True
            assert moves < 2000, "it never ends"
    # A node holds at most one shard of each segment, so a large disk among small ones stays below its share.
    if all(domain == "" for _, domain in disks) and max(bytes_on().values()) < MIB * len(rows):
        level = Balance(facts, bytes_on())
        share = sum(bytes_on().values()) / sum(found.capacity_bytes for found in facts.values())
        for n, found in facts.items():
            assert level.over_bytes(n) <= max(0.03 * share * found.capacity_bytes, 2 * MIB) + MIB


def test_a_new_node_is_filled_and_level_ones_are_left_alone() -> None:
    facts = {n: node(n) for n in range(1, 8)}
    rows = {number: tuple((number + i) % 6 + 1 for i in range(3)) for number in range(600)}

    def bytes_on() -> Counter[int]:
        return Counter({n: MIB * sum(n in nodes for nodes in rows.values()) for n in facts})

    six_only = {n: facts[n] for n in range(1, 7)}
    level = Balance(six_only, bytes_on())
    assert all(level.move(Shards(number, 2, MIB, nodes)) is None for number, nodes in rows.items())
    balance = Balance(facts, bytes_on())
    for number, nodes in rows.items():
        move = balance.move(Shards(number, 2, MIB, nodes))
        if move is not None:
            assert move[1] == 7
            balance.moved(nodes[move[0]], 7, MIB)
            rows[number] = (*nodes[: move[0]], 7, *nodes[move[0] + 1 :])
    share = 600 * 3 / 7
    assert share * 0.95 < bytes_on()[7] / MIB <= share
    assert max(bytes_on().values()) / MIB < share * 1.05


def test_two_shards_in_one_rack_are_parted_where_another_has_room() -> None:
    facts = pool(node(1, domain="a"), node(2, domain="a"), node(3, domain="b"), node(4, domain="c"))
    shards = Shards(1, 1, MIB, (1, 2, 3))
    move = Balance(facts, Counter()).move(shards)
    assert move is not None
    assert move[1] == 4
    assert move[0] in (0, 1)
    full = facts | pool(node(4, domain="c", room_bytes=10))
    assert Balance(full, Counter()).move(shards) is None
    assert Balance(facts, Counter()).move(shards, busy=(4,)) is None
