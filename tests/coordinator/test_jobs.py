"""Background jobs: turns, pausing, what they say of themselves, and that pausing never changes what comes out."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redfs.coordinator import jobs, reclaim
from redfs.coordinator.coordinator import Outcome
from redfs.coordinator.jobs import ShownJob
from redfs.coordinator.progress import MAX_MEASURED_JOBS, RECENT_S, WINDOW_S, JobProgress
from redfs.coordinator.state import StateThread
from redfs.coordinator.status import pool_status
from redfs.coordinator.txn import Txn
from redfs.core.errors import InternalError, InvalidArgument, NotAllowed, NotFound
from redfs.core.records import SLOT_BYTES
from redfs.core.tables import JobKind, JobRow, StatsRow
from tests.coordinator.harness import Client, Clock, Pool

WAIT_S = 60.0
SLOTS = 40


def filled(pool: Pool, name: str, slots: int = SLOTS) -> Client:
    """A volume with one file of so many full slots, each with a word of its own."""
    pool.create(name)
    client = Client(pool, name)
    client.create_file("f", 10, slots)
    client.write({(10, slot): f"{name} {slot}" for slot in range(slots)})
    return client


def shown(pool: Pool) -> list[ShownJob]:
    return pool_status(pool.coordinator).jobs


def control(pool: Pool, job_id: int, action: str) -> JobRow:
    return pool.coordinator.execute(lambda txn: jobs.control_job(txn, job_id, action))[1]


def deleted(pool: Pool, *names: str) -> list[ShownJob]:
    """Volumes with data, deleted: the jobs that free them."""
    for name in names:
        filled(pool, name).close()
    pool.run_jobs()
    for name in names:
        pool.delete(name)
    return shown(pool)


def test_a_job_says_how_far_it_is() -> None:
    pool = Pool(reclaim_budget_rows=4)
    (job,) = deleted(pool, "v")
    assert (job.kind, job.state, job.subject, job.done_bytes) == ("reclaim", "waiting", "v", 0)
    assert (job.rate, job.left_s, job.allowed) == (0.0, -1.0, ("pause",))
    assert job.total_bytes == SLOTS * SLOT_BYTES
    assert job.started_ns == pool.clock.time_ns()
    assert job.volume_id
    seen = [0]
    while pool.coordinator.background_step() and shown(pool):
        (now,) = shown(pool)
        assert now.state == "running"
        assert now.started_ns == job.started_ns
        seen.append(now.done_bytes)
        pool.clock.now_s += 0.5
    assert seen == sorted(seen)
    assert SLOTS * SLOT_BYTES * 0.8 < seen[-1] <= SLOTS * SLOT_BYTES
    assert pool.problems() == []


def test_the_time_left_follows_from_the_total_and_the_rate() -> None:
    pool = Pool(reclaim_budget_rows=4)
    (job,) = deleted(pool, "v")
    total = SLOTS * SLOT_BYTES
    progress = pool.coordinator.env.progress
    row = JobRow(job.job_id, 0, 0, b"", "v", total_bytes=total)
    key = bytes([JobKind.RECLAIM_HEAD]) + bytes(16)
    done = 0
    for _ in range(5):
        pool.clock.now_s += 1
        progress.stepped(job.job_id, done, done + SLOT_BYTES)
        done += SLOT_BYTES
    told = jobs.show_job(key, row._replace(done_bytes=done), progress)
    assert told.total_bytes == total
    assert told.rate == pytest.approx(SLOT_BYTES * 5 / 4), "five steps in four seconds"
    assert told.left_s == pytest.approx((total - done) / told.rate)
    more = jobs.show_job(key, row._replace(done_bytes=total + 1), progress)
    assert (more.total_bytes, more.left_s) == (total + 1, 0.0), "more was freed than anybody knew"
    assert jobs.show_job(key, row._replace(total_bytes=0), progress).left_s < 0


def test_a_rate_is_an_average_over_the_last_seconds_and_never_infinite() -> None:
    clock = Clock()
    progress = JobProgress(clock)
    assert progress.rate(1) == 0
    progress.stepped(1, 1000, 2000)
    progress.stepped(1, 2000, 3000)
    assert progress.rate(1) == 0, "all at one instant"
    assert progress.is_running(1)
    done = 3000
    for _ in range(1000):
        clock.now_s += 0.1
        done += 10
        progress.stepped(1, done - 10, done)
    assert progress.rate(1) == pytest.approx(100, rel=0.1), "what came at the beginning is forgotten"
    clock.now_s += RECENT_S
    assert not progress.is_running(1)
    assert progress.rate(1) < 60, "it stands still"
    clock.now_s += WINDOW_S
    assert progress.rate(1) == 0
    progress.forget(1)
    assert progress.rate(1) == 0
    for number in range(2 * MAX_MEASURED_JOBS):
        progress.stepped(number, 0, 1)
    assert not progress.is_running(0)
    assert progress.is_running(2 * MAX_MEASURED_JOBS - 1)


def test_a_paused_job_stands_still_also_over_a_restart() -> None:
    pool = Pool(reclaim_budget_rows=4)
    first, second = deleted(pool, "a", "b")
    pool.coordinator.background_step()
    pool.coordinator.background_step()
    control(pool, first.job_id, "pause")
    control(pool, first.job_id, "pause")
    (held, _) = shown(pool)
    assert (held.state, held.allowed, held.rate, held.left_s) == ("paused", ("resume",), 0.0, -1.0)
    pool.run_jobs()
    assert shown(pool) == [held], "the other one is done"
    assert not pool.coordinator.has_jobs, "nothing to do: the state thread sleeps"
    pool.restart()
    assert not pool.coordinator.has_jobs
    assert not pool.coordinator.background_step()
    assert shown(pool) == [held]
    assert pool.totals().logical_bytes == SLOTS * SLOT_BYTES - held.done_bytes
    assert control(pool, first.job_id, "resume").done_bytes == held.done_bytes
    assert pool.coordinator.has_jobs
    pool.run_jobs()
    assert shown(pool) == []
    assert pool.totals().logical_bytes == 0
    assert pool.problems() == []
    assert second.job_id != first.job_id


def test_the_total_is_what_nothing_else_holds() -> None:
    pool = Pool()
    client = filled(pool, "v")
    pool.snapshot("v@a")
    client.write({(10, slot): f"again {slot}" for slot in range(7)})
    pool.snapshot("v@b")
    client.write({(10, slot): f"and again {slot}" for slot in range(3)})
    for name, slots in (("v@b", 3), ("v@a", 7)):
        pool.delete(name)
        (job,) = [job for job in shown(pool) if job.kind == "reclaim"]
        assert job.total_bytes == slots * SLOT_BYTES
        before = pool.totals().logical_bytes
        pool.run_jobs()
        assert before - pool.totals().logical_bytes == job.total_bytes
    pool.snapshot("v@c")
    client.write({(10, 0): "last"})
    client.close()
    pool.roll_back("v@c", discard=True)
    (job,) = [job for job in shown(pool) if job.kind == "reclaim"]
    assert job.total_bytes == SLOT_BYTES


def test_jobs_take_turns() -> None:
    pool = Pool(reclaim_budget_rows=4)
    deleted(pool, "a", "b", "c")
    for _ in range(9):
        pool.coordinator.background_step()
    assert len({job.done for job in shown(pool)}) == 1
    assert len(shown(pool)) == 3


def test_a_job_that_fails_does_not_keep_the_others_from_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(reclaim_budget_rows=4)
    first, _ = deleted(pool, "a", "b")
    run_step = reclaim.run_step

    def broken(txn: Txn, key: bytes) -> bool:
        row = dict(jobs.all_jobs(txn.kv)).get(key)
        if row is not None and row.job_id == first.job_id:
            raise InternalError("broken")
        return run_step(txn, key)

    monkeypatch.setattr(reclaim, "run_step", broken)
    for _ in range(200):
        try:
            pool.coordinator.background_step()
        except InternalError:
            continue
    assert [job.job_id for job in shown(pool)] == [first.job_id]


def test_what_frees_space_cannot_be_cancelled() -> None:
    pool = Pool()
    (job,) = deleted(pool, "v")
    with pytest.raises(NotAllowed, match="pause it instead"):
        control(pool, job.job_id, "cancel")
    with pytest.raises(InvalidArgument, match="pause, resume or cancel"):
        control(pool, job.job_id, "stop")
    with pytest.raises(NotFound, match="redfs jobs"):
        control(pool, job.job_id + 1, "pause")
    assert shown(pool) == [job]


def test_a_kind_that_may_be_cancelled_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    (job,) = deleted(pool, "v")
    monkeypatch.setattr(jobs, "CANCELLABLE", frozenset({JobKind.RECLAIM_HEAD}))
    assert shown(pool)[0].allowed == ("pause", "cancel")
    assert control(pool, job.job_id, "cancel").job_id == job.job_id
    assert shown(pool) == []


def test_a_paused_reaping_goes_with_its_volume() -> None:
    pool = Pool()
    filled(pool, "v").close()
    (reaping,) = shown(pool)
    assert reaping.kind == "reap"
    control(pool, reaping.job_id, "pause")
    pool.delete("v")
    assert [job.kind for job in shown(pool)] == ["reclaim"]
    pool.run_jobs()
    assert shown(pool) == []
    assert pool.problems() == []


def test_only_paused_jobs_let_the_state_thread_sleep() -> None:
    pool = Pool(reclaim_budget_rows=1)
    (job,) = deleted(pool, "v")
    control(pool, job.job_id, "pause")
    thread = StateThread(pool.coordinator)
    steps = 0
    step = pool.coordinator.background_step

    def counted() -> bool:
        nonlocal steps
        steps += 1
        return step()

    pool.coordinator.background_step = counted  # type: ignore[method-assign]
    answers: list[Outcome] = []
    answered = threading.Event()

    def answer(outcome: Outcome) -> None:
        answers.append(outcome)
        answered.set()

    thread.start()
    for _ in range(50):
        answered.clear()
        thread.submit(lambda txn: None, answer)
        assert answered.wait(WAIT_S)
    assert steps <= 1, "looked once"
    answered.clear()
    thread.submit(lambda txn: jobs.control_job(txn, job.job_id, "resume"), answer)
    assert answered.wait(WAIT_S)
    pause = threading.Event()
    for _ in range(int(WAIT_S / 0.01)):
        if not pool.coordinator.has_jobs:
            break
        pause.wait(0.01)
    thread.stop()
    assert shown(pool) == []


Names = ("v@a", "v@b", "v@c", "w", "x")


@settings(max_examples=60, deadline=None)
@given(
    st.permutations(Names),
    st.lists(st.tuples(st.sampled_from(("pause", "resume", "step", "restart")), st.integers(0, 9)), max_size=40),
)
def test_pausing_in_any_order_frees_the_same(order: list[str], acts: list[tuple[str, int]]) -> None:
    pool = Pool(reclaim_budget_rows=3)
    client = filled(pool, "v", 6)
    for at, name in enumerate(("a", "b", "c")):
        client.write({(10, slot): f"{name} {slot}" for slot in range(at, 6, 2)})
        pool.snapshot(f"v@{name}")
    pool.clone("v@b", "w")
    pool.clone("v", "x")
    client.close()
    pool.run_jobs()
    left = list(order)
    for action, number in acts:
        there = shown(pool)
        if action == "step":
            pool.coordinator.background_step()
            if left and number < 5:
                pool.delete(left.pop())
        elif action == "restart":
            pool.restart()
        elif there:
            control(pool, there[number % len(there)].job_id, action)
    for name in left:
        pool.delete(name)
    while there := shown(pool):
        for job in there:
            control(pool, job.job_id, "resume")
        pool.run_jobs()
    assert pool.problems() == []
    assert pool.totals().logical_bytes == 6 * SLOT_BYTES, "what v holds"
    pool.delete("v")
    pool.run_jobs()
    assert pool.totals() == StatsRow()
