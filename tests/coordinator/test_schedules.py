"""Schedules: made when due, pruned exactly, whatever happens to the volume, its snapshots and the clock meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from redfs.coordinator import schedules, sessions, volumes
from redfs.coordinator.coordinator import Command
from redfs.coordinator.scheduler import MAX_AT_ONCE, Scheduler
from redfs.coordinator.schedules import MAX_PRUNED, MAX_SHOWN_PROBLEMS, Schedule
from redfs.coordinator.status import pool_status
from redfs.coordinator.txn import Txn
from redfs.core.errors import Busy, InvalidArgument, NoSpace, NotAllowed, NotFound, Unavailable
from redfs.core.schedules import MAX_KEPT, MAX_SCHEDULES_PER_VOLUME
from redfs.core.tables import SCHEDULES, VolumeKind, VolumeState, encode_schedule, schedule_key
from redfs.core.volume_tree import ReadTree
from tests.coordinator.harness import Client, Pool
from tests.lengths import examples

HOUR_S = 3600


class Scheduled:
    """A pool whose schedules are looked after when a test says so."""

    def __init__(self, **config: Any) -> None:
        self.pool = Pool(**{"node_down_s": 1e9, "down_out_s": 2e9, **config})
        self.flushed: list[int] = []
        self.full = False
        self.restart()

    def restart(self) -> None:
        self.scheduler = Scheduler(self.pool.coordinator, self._run, self._flush)

    async def _run(self, command: Command[Any]) -> Any:
        if self.full:
            raise NoSpace("the coordinator's disk is full")
        return self.pool.coordinator.execute(command)

    async def _flush(self, volume_id: int) -> bool:
        self.flushed.append(volume_id)
        return True

    def look(self, later_s: float = 0.0) -> None:
        """Time goes by, then one look."""
        self.pool.clock.now_s += later_s
        asyncio.run(self.scheduler.look())

    def set(self, name: str, every_s: int = HOUR_S, keep: int = 3, label: str = "") -> Schedule:
        return self.pool.coordinator.execute(lambda txn: schedules.set_schedule(txn, name, label, every_s, keep))

    def remove(self, name: str, label: str = "") -> Schedule:
        return self.pool.coordinator.execute(lambda txn: schedules.remove_schedule(txn, name, label))

    def all(self) -> list[Schedule]:
        with self.pool.coordinator.read() as kv:
            unwritten = self.pool.coordinator.env.unwritten_schedule_errors
            return list(schedules.all_schedules(kv, 0, unwritten))

    def snapshots(self) -> list[str]:
        """All names, oldest first."""
        with self.pool.coordinator.read() as kv:
            rows = [r for r in ReadTree(kv).all() if r.kind == VolumeKind.SNAPSHOT and r.state == VolumeState.OK]
        return [row.name for row in rows]

    def problems(self) -> list[str]:
        return pool_status(self.pool.coordinator).problems


def times(names: list[str]) -> list[str]:
    return [name.rpartition("-")[2] for name in names]


def at(hours: float) -> str:
    """The time of day that many hours after the tests' clock begins."""
    second = (22 * 3600 + 13 * 60 + 20 + 1000 + round(hours * HOUR_S)) % 86400
    return f"{second // 3600:02}{second // 60 % 60:02}{second % 60:02}"


def test_snapshots_are_made_when_due_and_the_newest_stay() -> None:
    s = Scheduled()
    volume = s.pool.create("v")
    made = s.set("v", keep=3)
    assert (made.label, made.row.next_ns) == ("hourly", s.pool.clock.time_ns() + HOUR_S * 10**9)
    s.look()
    s.look(HOUR_S - 1)
    assert s.snapshots() == []
    s.look(1)
    assert times(s.snapshots()) == [at(1)]
    assert s.snapshots()[0] == f"v@hourly-20231114-{at(1)}"
    assert s.flushed == [volume.volume_id], "the mount was asked"
    s.look()
    s.look(1)
    assert len(s.snapshots()) == 1
    for _ in range(5):
        s.look(HOUR_S)
    assert times(s.snapshots()) == [at(hours + 1 / 3600) for hours in (4, 5, 6)]
    assert s.pool.volume(s.snapshots()[0]).schedule_id == made.row.schedule_id
    s.pool.run_jobs()
    assert s.pool.problems() == []
    assert s.problems() == []


def test_an_outage_makes_one_snapshot_and_the_rhythm_goes_on() -> None:
    s = Scheduled()
    s.pool.create("v")
    first = s.set("v").row.next_ns
    s.look(HOUR_S)
    s.pool.clock.now_s += 10.5 * HOUR_S
    s.pool.restart()
    s.restart()
    s.look()
    s.look()
    assert times(s.snapshots()) == [at(1), at(11.5)]
    assert s.all()[0].row.next_ns == first + 11 * HOUR_S * 10**9
    s.look(HOUR_S / 2)
    assert times(s.snapshots()) == [at(1), at(11.5), at(12)]


def test_a_clock_that_jumps_makes_no_storm_and_no_gap() -> None:
    s = Scheduled()
    s.pool.create("v")
    s.set("v", keep=100)
    s.look(HOUR_S)
    s.look(1000 * HOUR_S)
    for _ in range(5):
        s.look()
    assert len(s.snapshots()) == 2, "forward: one"
    s.pool.clock.now_s -= 990 * HOUR_S + 60
    for _ in range(5):
        s.look()
    assert len(s.snapshots()) == 2, "back: none"
    now_ns = s.pool.clock.time_ns()
    assert now_ns < s.all()[0].row.next_ns <= now_ns + HOUR_S * 10**9
    for _ in range(60):
        s.look(60)
    assert len(s.snapshots()) == 3, "one in each interval again"


def test_the_newest_are_those_made_last_also_by_a_clock_that_went_back() -> None:
    s = Scheduled()
    s.pool.create("v")
    s.set("v", keep=2)
    for _ in range(3):
        s.look(HOUR_S)
    s.pool.clock.now_s -= 100 * HOUR_S + 7
    s.look()
    for _ in range(2):
        s.look(HOUR_S)
    made_ns = [s.pool.volume(name).created_ns for name in s.snapshots()]
    assert len(made_ns) == 2
    assert max(made_ns) < s.pool.clock.time_ns() + 1, "those from the future were made before"


def test_only_its_own_snapshots_are_ever_deleted() -> None:
    s = Scheduled()
    s.pool.create("v")
    s.pool.snapshot("v@hourly-20000101-000000")
    s.set("v", keep=1)
    s.set("v", keep=1, label="other")
    s.look(HOUR_S)
    s.pool.snapshot("v@mine")
    kept = s.pool.roll_back("v@mine").kept
    assert kept is not None
    s.pool.clone(s.snapshots()[1], "w")
    assert s.pool.volume("w").schedule_id == 0, "a clone belongs to no schedule"
    s.set("w", keep=1, label="hourly")
    for _ in range(3):
        s.look(HOUR_S)
    names = s.snapshots()
    assert {"v@hourly-20000101-000000", "v@mine", kept.name} < set(names)
    rest = sorted(set(names) - {"v@hourly-20000101-000000", "v@mine", kept.name})
    assert [name.partition("-")[0] for name in rest] == ["v@hourly", "v@other", "w@hourly"]
    s.pool.run_jobs()
    assert s.pool.problems() == []


def test_a_mounted_snapshot_is_passed_over_until_the_next_run() -> None:
    s = Scheduled()
    s.pool.create("v")
    s.set("v", keep=1)
    s.look(HOUR_S)
    (first,) = s.snapshots()
    execute = s.pool.coordinator.execute
    session = execute(lambda txn: sessions.open_session(txn, "test")).session_id
    row, _, _ = execute(lambda txn: sessions.attach(txn, session, first, True))
    for _ in range(2):
        s.look(HOUR_S)
        assert s.pool.coordinator.leases.renew(session)
    s.pool.coordinator.leases.renew(session)
    s.look(HOUR_S)
    assert len(s.snapshots()) == 1, "its lease has lapsed meanwhile"
    assert first not in s.snapshots()
    assert row.volume_id


def test_a_snapshot_that_is_in_use_stays_while_it_is() -> None:
    s = Scheduled(lease_s=10.0 * HOUR_S)
    s.pool.create("v")
    s.set("v", keep=1)
    s.look(HOUR_S)
    (first,) = s.snapshots()
    execute = s.pool.coordinator.execute
    session = execute(lambda txn: sessions.open_session(txn, "test")).session_id
    row, _, _ = execute(lambda txn: sessions.attach(txn, session, first, True))
    s.look(HOUR_S)
    s.look(HOUR_S)
    assert [first] == s.snapshots()[:-1]
    execute(lambda txn: sessions.detach(txn, session, row.volume_id))
    assert len(s.snapshots()) == 2, "not at once"
    s.look(HOUR_S)
    assert len(s.snapshots()) == 1


def test_one_that_a_clone_descends_from_is_deleted_like_any_other() -> None:
    s = Scheduled()
    s.pool.create("v")
    s.set("v", keep=1)
    s.look(HOUR_S)
    (first,) = s.snapshots()
    number = s.pool.volume(first).volume_id
    s.pool.clone(first, "w")
    s.look(HOUR_S)
    assert first not in s.snapshots()
    s.pool.run_jobs()
    with s.pool.coordinator.read() as kv:
        assert ReadTree(kv).require(number).state == VolumeState.DELETED
    assert s.pool.problems() == []


def test_a_lower_number_prunes_at_the_next_run_all_of_it() -> None:
    s = Scheduled()
    s.pool.create("v")
    s.set("v", keep=100)
    count = 2 * MAX_PRUNED + 5
    for _ in range(count):
        s.look(HOUR_S)
    assert len(s.snapshots()) == count
    newest = s.snapshots()[-1]
    assert s.set("v", keep=2).row.next_ns == s.all()[0].row.next_ns, "the rhythm is kept"
    assert len(s.snapshots()) == count
    s.look(HOUR_S)
    assert len(s.snapshots()) == 2
    assert s.snapshots()[0] == newest


def test_another_interval_begins_anew() -> None:
    s = Scheduled()
    s.pool.create("v")
    first = s.set("v", every_s=86400, label="x")
    s.look(HOUR_S)
    changed = s.set("v", every_s=7200, label="x")
    assert changed.row.schedule_id == first.row.schedule_id
    assert changed.row.next_ns == s.pool.clock.time_ns() + 7200 * 10**9
    assert len(s.all()) == 1


def test_a_schedule_follows_its_volume() -> None:
    s = Scheduled()
    s.pool.create("v")
    s.pool.create("other")
    s.set("v", keep=2)
    s.set("other", keep=2)
    s.look(HOUR_S)
    s.pool.coordinator.execute(lambda txn: volumes.rename_volume(txn, "v", "renamed"))
    s.look(HOUR_S)
    assert sorted(name.partition("@")[0] for name in s.snapshots()) == ["other"] * 2 + ["renamed"] * 2
    s.pool.roll_back(next(name for name in s.snapshots() if name.startswith("renamed@")), discard=True)
    s.look(HOUR_S)
    assert len([name for name in s.snapshots() if name.startswith("renamed@")]) == 2
    s.pool.delete("renamed")
    assert [schedule.volume for schedule in s.all()] == ["other"]
    s.look(HOUR_S)
    assert len([name for name in s.snapshots() if name.startswith("renamed@")]) == 2, "made ones stay"
    assert s.pool.problems() == []


def test_an_ended_schedule_leaves_its_snapshots_for_good() -> None:
    s = Scheduled()
    s.pool.create("v")
    before = s.set("v", keep=1)
    s.look(HOUR_S)
    (old,) = s.snapshots()
    assert s.remove("v").row.schedule_id == before.row.schedule_id
    with pytest.raises(NotFound, match="redfs snapshot schedules"):
        s.remove("v")
    assert s.set("v", keep=1).row.schedule_id > before.row.schedule_id
    for _ in range(3):
        s.look(HOUR_S)
    assert len(s.snapshots()) == 2
    assert s.snapshots()[0] == old


def test_a_failed_run_says_why_and_is_tried_at_the_next_time() -> None:
    s = Scheduled()
    s.pool.create("v")
    s.set("v", keep=1)
    s.look(HOUR_S)
    s.pool.snapshot(f"v@hourly-20231115-{at(2)}")
    s.look(HOUR_S)
    assert len(s.snapshots()) == 2
    assert s.problems() == [
        f"the schedule 'hourly' of 'v' made no snapshot: 'v@hourly-20231115-{at(2)}' exists already: "
        "choose another name, or delete it first"
    ]
    s.look(HOUR_S - 1)
    assert s.problems()
    s.look(1)
    assert s.problems() == []
    assert len(s.snapshots()) == 2


def test_a_run_that_fails_prunes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    s = Scheduled()
    s.pool.create("v")
    s.set("v", keep=5)
    for _ in range(5):
        s.look(HOUR_S)
    s.set("v", keep=2)
    monkeypatch.setattr(volumes, "MAX_SNAPSHOTS_PER_VOLUME", 5)
    s.look(HOUR_S)
    assert len(s.snapshots()) == 2
    assert "5 snapshots already" in s.problems()[0]
    monkeypatch.undo()
    s.look(HOUR_S)
    assert s.problems() == []


def test_a_full_disk_is_told_and_tried_again_at_the_next_time() -> None:
    s = Scheduled()
    s.pool.create("v")
    s.set("v", keep=5)
    s.full = True
    s.look(HOUR_S)
    tries = len(s.flushed)
    for _ in range(5):
        s.look(1)
    assert len(s.flushed) == tries, "the run itself is not repeated"
    assert "the coordinator's disk is full" in s.problems()[0]
    assert "disk is full" in s.all()[0].row.last_error
    s.full = False
    s.look(1)
    assert s.snapshots() == []
    assert "disk is full" in s.problems()[0], "written now"
    assert not s.pool.coordinator.env.unwritten_schedule_errors
    s.look(HOUR_S)
    assert len(s.snapshots()) == 1
    assert s.problems() == []


def test_a_busy_coordinator_is_asked_again_at_once() -> None:
    s = Scheduled()
    s.pool.create("v")
    s.set("v")
    calls = 0
    run = s._run

    async def busy(command: Command[Any]) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Unavailable("too much to do")
        return await run(command)

    s.scheduler = Scheduler(s.pool.coordinator, busy, s._flush)
    s.look(HOUR_S)
    assert s.snapshots() == []
    s.look(1)
    assert len(s.snapshots()) == 1
    assert s.problems() == []


def test_what_changes_while_a_mount_flushes_is_respected() -> None:
    s = Scheduled()
    s.pool.create("v")
    s.pool.create("w")
    s.pool.create("x")
    for name in ("v", "w", "x"):
        s.set(name, label="l")

    async def meddle(volume_id: int) -> bool:
        if volume_id == s.pool.volume("v").volume_id:
            s.remove("v")
        elif volume_id == s.pool.volume("x").volume_id:
            s.set("x", 2 * HOUR_S, label="l")
        else:
            s.pool.coordinator.execute(lambda txn: volumes.rename_volume(txn, "w", "renamed"))
        return False

    s.scheduler = Scheduler(s.pool.coordinator, s._run, meddle)
    s.look(HOUR_S)
    assert [name.partition("@")[0] for name in s.snapshots()] == ["renamed"]


def test_a_check_finds_schedules_that_belong_to_nothing() -> None:
    s = Scheduled()
    s.pool.create("v")
    s.pool.create("w")
    made = s.set("v")
    s.set("w")
    assert s.pool.problems() == []

    def spoil(txn: Txn) -> None:
        txn.kv.put(SCHEDULES, schedule_key(77, "l"), encode_schedule(made.row))

    s.pool.coordinator.execute(spoil)
    assert sorted(s.pool.problems()) == [
        "the schedule 'l' belongs to volume 77, which is no live volume",
        f"volumes {made.volume_id} and 77 have schedules of the same number {made.row.schedule_id}",
    ]


def test_many_schedules_run_side_by_side_with_a_bound() -> None:
    s = Scheduled()
    for number in range(3 * MAX_AT_ONCE):
        s.pool.create(f"v{number}")
        s.set(f"v{number}")
    now = most = 0

    async def slow(_: int) -> bool:
        nonlocal now, most
        now += 1
        most = max(most, now)
        for _ in range(3):
            await asyncio.sleep(0)
        now -= 1
        return True

    s.scheduler = Scheduler(s.pool.coordinator, s._run, slow)
    s.look(HOUR_S)
    assert most == MAX_AT_ONCE
    assert len(s.snapshots()) == 3 * MAX_AT_ONCE


def test_what_cannot_be_scheduled(monkeypatch: pytest.MonkeyPatch) -> None:
    s = Scheduled()
    s.pool.create("v")
    s.pool.snapshot("v@a")
    for name, error in (("v@a", NotAllowed), ("zero", NotAllowed), ("nothing", NotFound)):
        with pytest.raises(error):
            s.set(name)
    for wrong in ({"every_s": 59}, {"every_s": 0}, {"keep": 0}, {"label": "a b"}):
        with pytest.raises(InvalidArgument):
            s.set("v", **wrong)
    s.set("v", keep=MAX_KEPT)
    with pytest.raises(InvalidArgument, match="together"):
        s.set("v", keep=1, label="more")
    s.set("v", keep=1)
    for number in range(MAX_SCHEDULES_PER_VOLUME - 1):
        s.set("v", keep=1, label=f"l{number}")
    with pytest.raises(NotAllowed, match="remove one first"):
        s.set("v", keep=1, label="one-more")
    s.set("v", keep=2, label="l0")
    with pytest.raises(InvalidArgument, match="hourly"):
        s.remove("v")
    assert s.remove("v", "l0").label == "l0"
    s.pool.create("w")
    monkeypatch.setattr(schedules, "MAX_SCHEDULES", MAX_SCHEDULES_PER_VOLUME - 1)
    with pytest.raises(NotAllowed, match="the pool has"):
        s.set("w")


def test_a_shorter_interval_is_a_setting() -> None:
    s = Scheduled(schedule_min_s=1.0)
    s.pool.create("v")
    assert s.set("v", every_s=1).label == "every-1s"


def test_a_status_names_some_failures_and_counts_the_rest() -> None:
    s = Scheduled()
    for number in range(MAX_SHOWN_PROBLEMS + 3):
        name = f"v{number:02}"
        s.pool.create(name)
        s.set(name)
        s.pool.snapshot(f"{name}@hourly-20231114-{at(1)}")
    s.look(HOUR_S)
    lines = s.problems()
    assert len(lines) == MAX_SHOWN_PROBLEMS + 1
    assert lines[-1].startswith("3 more schedules fail")


# ---------------------------------------------------------------- against a list


class Pruning(RuleBasedStateMachine):
    """Any sequence of runs and of what people do, against a list of (name, schedule's label or None)."""

    def __init__(self) -> None:
        super().__init__()
        self.s = Scheduled(lease_s=1e9)
        self.volume = "v"
        self.s.pool.create(self.volume)
        self.names = iter(range(10**6))
        self.snapshots: list[list[Any]] = []
        """[own name, generation of the schedule that made it or None, session that has it mounted or None]."""
        self.schedules: dict[str, list[int]] = {}
        """label -> [generation, every_s, keep, next time in seconds]."""
        self.generation = 0
        self.clones: list[str] = []

    @property
    def now_s(self) -> int:
        return round(self.s.pool.clock.now_s)

    @rule(label=st.sampled_from("ab"), every_s=st.sampled_from((60, 90, 200)), keep=st.integers(1, 4))
    def set(self, label: str, every_s: int, keep: int) -> None:
        self.s.set(self.volume, every_s, keep, label)
        old = self.schedules.get(label)
        if old is None:
            self.generation += 1
            self.schedules[label] = [self.generation, every_s, keep, self.now_s + every_s]
        else:
            old[3] = old[3] if old[1] == every_s else self.now_s + every_s
            old[1:3] = every_s, keep

    @rule(label=st.sampled_from("ab"))
    def unset(self, label: str) -> None:
        if self.schedules.pop(label, None) is None:
            with pytest.raises(NotFound):
                self.s.remove(self.volume, label)
        else:
            self.s.remove(self.volume, label)

    @rule(later_s=st.integers(1, 400))
    def look(self, later_s: int) -> None:
        self.s.look(later_s)
        for label, schedule in sorted(self.schedules.items()):
            generation, every_s, keep, next_s = schedule
            if self.now_s < next_s:
                continue
            schedule[3] = next_s + ((self.now_s - next_s) // every_s + 1) * every_s
            own = next(name for name in reversed(self.s.snapshots()) if name.partition("@")[2].startswith(f"{label}-"))
            self.snapshots.append([own.partition("@")[2], generation, None])
            mine = [snapshot for snapshot in self.snapshots if snapshot[1] == generation]
            for snapshot in mine[:-keep]:
                if snapshot[2] is None:
                    self.snapshots.remove(snapshot)

    @rule()
    def snapshot(self) -> None:
        own = f"m{next(self.names)}"
        self.s.pool.snapshot(f"{self.volume}@{own}")
        self.snapshots.append([own, None, None])

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.snapshots))
        if chosen[2] is not None:
            with pytest.raises(Busy):
                self.s.pool.delete(f"{self.volume}@{chosen[0]}")
            return
        self.s.pool.delete(f"{self.volume}@{chosen[0]}")
        self.snapshots.remove(chosen)

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def rename_snapshot(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.snapshots))
        own = f"r{next(self.names)}"
        old, new = f"{self.volume}@{chosen[0]}", f"{self.volume}@{own}"
        self.s.pool.coordinator.execute(lambda txn: volumes.rename_volume(txn, old, new))
        chosen[0] = own

    @rule()
    def rename_volume(self) -> None:
        old, self.volume = self.volume, f"v{next(self.names)}"
        self.s.pool.coordinator.execute(lambda txn: volumes.rename_volume(txn, old, self.volume))

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def mount_or_unmount(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.snapshots))
        execute = self.s.pool.coordinator.execute
        if chosen[2] is not None:
            execute(lambda txn: sessions.end_session(txn, chosen[2]))
            chosen[2] = None
            return
        session = execute(lambda txn: sessions.open_session(txn, "test")).session_id
        execute(lambda txn: sessions.attach(txn, session, f"{self.volume}@{chosen[0]}", True))
        chosen[2] = session

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def clone(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.snapshots))
        self.clones.append(f"c{next(self.names)}")
        self.s.pool.clone(f"{self.volume}@{chosen[0]}", self.clones[-1])

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.snapshots))
        own = f"k{next(self.names)}"
        self.s.pool.roll_back(f"{self.volume}@{chosen[0]}", own)
        self.snapshots.append([own, None, None])

    @rule()
    def restart(self) -> None:
        self.s.pool.restart()
        self.s.restart()

    @rule()
    def free(self) -> None:
        self.s.pool.run_jobs()

    @invariant()
    def the_same(self) -> None:
        assert self.s.snapshots() == [f"{self.volume}@{own}" for own, _, _ in self.snapshots]
        assert {x.label: (x.row.every_s, x.row.keep) for x in self.s.all()} == {
            label: (every_s, keep) for label, (_, every_s, keep, _) in self.schedules.items()
        }
        assert self.s.problems() == []

    def teardown(self) -> None:
        self.s.pool.run_jobs()
        assert self.s.pool.problems() == []


TestPruning = Pruning.TestCase
TestPruning.settings = settings(max_examples=examples(100), stateful_step_count=40, deadline=None)


def test_a_session_of_the_volume_itself_changes_nothing() -> None:
    s = Scheduled()
    s.pool.create("v")
    client = Client(s.pool, "v")
    client.create_file("f", 10, 1)
    s.set("v", keep=1)
    client.write({(10, 0): "one"})
    s.look(HOUR_S)
    (name,) = s.snapshots()
    frozen = s.pool.volume(name)
    assert client.renew()
    client.write({(10, 0): "two"})
    assert s.pool.read_slot(frozen, 10, 0) != s.pool.read_slot(s.pool.volume("v"), 10, 0)
