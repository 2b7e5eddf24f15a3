"""The state thread: order, batches, refusals, a full queue, and the end when something unforeseen happens."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from redfs.coordinator import state as state_module
from redfs.coordinator import volumes
from redfs.coordinator.coordinator import Outcome
from redfs.coordinator.state import StateThread
from redfs.coordinator.txn import Txn
from redfs.core.errors import NotFound, Unavailable
from redfs.core.tables import META
from tests.coordinator.harness import Pool

WAIT_S = 60.0


class Answers:
    """Collects outcomes and waits for them."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self._more = threading.Condition()

    def __call__(self, outcome: Outcome) -> None:
        with self._more:
            self.outcomes.append(outcome)
            self._more.notify_all()

    def wait(self, count: int) -> list[Outcome]:
        with self._more:
            assert self._more.wait_for(lambda: len(self.outcomes) >= count, WAIT_S)
            return self.outcomes


def test_commands_run_in_order_and_see_one_another() -> None:
    pool = Pool()
    thread = StateThread(pool.coordinator)
    answers = Answers()

    def add(txn: Txn) -> int:
        number = int(txn.kv.get(META, b"test") or b"0") + 1
        txn.kv.put(META, b"test", str(number).encode())
        return number

    def refuse(txn: Txn) -> None:
        txn.kv.put(META, b"test", b"1000")
        raise NotFound("no")

    for _ in range(50):
        thread.submit(add, answers)
        thread.submit(refuse, answers)
    before = pool.coordinator.transactions
    thread.start()
    outcomes = answers.wait(100)
    assert [o.value for o in outcomes[::2]] == list(range(1, 51))
    assert all(isinstance(o.error, NotFound) for o in outcomes[1::2])
    assert pool.coordinator.transactions - before < 100, "many commands share a transaction"
    thread.stop()
    with pytest.raises(Unavailable):
        thread.submit(add, answers)


def test_jobs_run_when_nobody_waits() -> None:
    pool = Pool(reclaim_budget_rows=1)
    thread = StateThread(pool.coordinator)
    thread.start()
    answers = Answers()
    thread.submit(lambda txn: volumes.create_volume(txn, "v"), answers)
    thread.submit(lambda txn: volumes.delete_volume(txn, "v"), answers)
    answers.wait(2)
    deadline = threading.Event()
    for _ in range(int(WAIT_S / 0.01)):
        if not pool.coordinator.has_jobs:
            break
        deadline.wait(0.01)
    thread.stop()
    assert not pool.coordinator.has_jobs
    assert pool.problems() == []


def test_a_full_queue_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "MAX_QUEUE", 3)
    thread = StateThread(Pool().coordinator)
    answers = Answers()
    for _ in range(3):
        thread.submit(lambda txn: None, answers)
    with pytest.raises(Unavailable, match="too much to do"):
        thread.submit(lambda txn: None, answers)
    thread.start()
    thread.stop()
    assert len(answers.wait(3)) == 3


def test_a_bug_stops_the_thread_and_answers_everybody(caplog: pytest.LogCaptureFixture) -> None:
    thread = StateThread(Pool().coordinator)
    answers = Answers()
    told = threading.Event()
    thread.on_fatal = told.set

    def broken(txn: Txn) -> Any:
        raise ZeroDivisionError

    thread.submit(lambda txn: 1, answers)
    thread.submit(broken, answers)
    thread.start()
    assert told.wait(WAIT_S)
    assert all(isinstance(o.error, Unavailable) for o in answers.wait(2)), "nothing of that batch is durable"
    assert isinstance(thread.fatal, ZeroDivisionError)
    assert "the state thread stops" in caplog.text
    with pytest.raises(Unavailable):
        thread.submit(lambda txn: 1, answers)
