"""Everybody is covered by a sync that began after their write; nobody syncs without need."""

from __future__ import annotations

import threading

import pytest

from redfs.storage_node.disk import DiskFailed
from redfs.storage_node.group_sync import GroupSync


class SlowSync:
    """A sync that waits until the test lets it end, and knows what was written when it began."""

    def __init__(self) -> None:
        self.written: set[int] = set()
        self.durable: set[int] = set()
        self.began = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.count = 0
        self.failure: OSError | None = None

    def __call__(self) -> None:
        covered = set(self.written)
        self.count += 1
        self.began.release()
        self.may_end.acquire()
        if self.failure is not None:
            raise self.failure
        self.durable |= covered


def test_those_who_come_during_a_sync_share_the_next_one() -> None:
    sync = SlowSync()
    group = GroupSync(sync)
    wrong: list[int] = []
    asked = threading.Semaphore(0)

    def write(number: int) -> None:
        sync.written.add(number)
        asked.release()
        group.wait()
        if number not in sync.durable:
            wrong.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    threads[0].start()
    sync.began.acquire()
    for thread in threads[1:]:
        thread.start()
    for _ in threads:
        asked.acquire()
    while group._asked < len(threads):
        pass
    for _ in range(2):
        sync.may_end.release()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sync.count == 2


def test_after_a_failure_everybody_fails_and_nobody_tries_again() -> None:
    sync = SlowSync()
    sync.failure = OSError("broken")
    group = GroupSync(sync)
    failed: list[int] = []

    def write(number: int) -> None:
        try:
            group.wait()
        except DiskFailed:
            failed.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    threads[0].start()
    sync.began.acquire()
    for thread in threads[1:]:
        thread.start()
    sync.may_end.release()
    for thread in threads:
        thread.join()
    assert sorted(failed) == [0, 1, 2, 3]
    sync.failure = None
    with pytest.raises(DiskFailed):
        group.wait()
    assert sync.count == 1


def test_an_error_of_another_kind_does_not_leave_the_others_waiting() -> None:
    def breaks() -> None:
        raise KeyError("unexpected")

    group = GroupSync(breaks)
    with pytest.raises(KeyError):
        group.wait()
    with pytest.raises(DiskFailed):
        group.wait()
