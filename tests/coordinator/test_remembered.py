"""What sessions may remember in shared mode, and that nothing of it is changed before they have dropped it."""

import stat
from collections.abc import Sequence
from typing import Any

import pytest

from redfs.coordinator import remembered as module
from redfs.coordinator.remembered import CONTENDED_S, Remembered, RememberedBook
from redfs.core.errors import FsError
from redfs.core.ids import ROOT_INO
from tests.coordinator.shared_hosts import Host, hosts

LEASE_S = 15.0
VOLUME = 7


class Book(RememberedBook):
    def __init__(self) -> None:
        self.now_s = 100.0
        super().__init__(lambda: self.now_s, LEASE_S)

    def give(self, session: int, *inodes: int) -> bool:
        return self.grant(VOLUME, session, inodes, self.mark())

    def holders(self, session: int, *inodes: int, forgot: Sequence[int] = ()) -> dict[int, set[int]]:
        """Who has to drop what before that session changes these; nothing: the change begins and ends."""
        try:
            self.begin(VOLUME, session, inodes, forgot)
        except Remembered as error:
            return dict(error.sessions)
        self.end(VOLUME, inodes)
        return {}


def test_a_change_finds_who_remembers() -> None:
    book = Book()
    assert book.give(1, 5, 6)
    assert book.give(2, 6)
    assert book.holders(3, 5, 6, 8) == {1: {5, 6}, 2: {6}}
    assert book.holders(1, 5, forgot=[5]) == {}
    assert book.holders(1, 5, 6, forgot=[5]) == {1: {6}, 2: {6}}, "its own memory counts where it has not dropped it"
    book.dropped(VOLUME, 1, [5, 6])
    book.forget(VOLUME, 2)
    assert book.holders(3, 5, 6) == {}


def test_nothing_is_granted_while_it_is_changed_or_of_a_state_from_before() -> None:
    book = Book()
    before = book.mark()
    book.begin(VOLUME, 1, [5], ())
    during = book.mark()
    assert not book.give(2, 5, 6)
    assert book.give(2, 6)
    book.block(VOLUME, [5])
    book.end(VOLUME, [5])
    assert not book.give(2, 5), "another change of it waits"
    book.end(VOLUME, [5])
    assert not book.grant(VOLUME, 2, [5], before)
    assert not book.grant(VOLUME, 2, [5], during)
    assert book.give(2, 5)


def test_what_was_taken_away_is_not_given_for_a_while() -> None:
    book = Book()
    assert book.give(1, 5)
    book.dropped(VOLUME, 1, [5])
    assert not book.give(2, 5)
    assert book.give(2, 6)
    book.now_s += CONTENDED_S
    assert book.give(2, 5)


def test_it_lasts_longer_than_sessions_remember_and_ends_by_itself() -> None:
    book = Book()
    for _ in range(3):
        assert book.give(1, 5)
        book.now_s += LEASE_S / 3
        assert book.holders(2, 5) == {1: {5}}
    book.now_s += LEASE_S
    assert book.holders(2, 5) == {}


def test_it_does_not_grow_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 10)
    monkeypatch.setattr(module, "MAX_CONTENDED", 10)
    book = Book()
    assert sum(book.give(1, ino) for ino in range(100)) == 10
    book.dropped(VOLUME, 1, range(100))
    assert book.give(2, 89), "the oldest that were taken away are not remembered as such"
    assert not any(book.give(2, ino) for ino in range(90, 100))


# ---------------------------------------------------------------- with the coordinator's commands


def two_hosts() -> tuple[Host, Host, int]:
    """One that makes a file "f", and another that will remember it."""
    pool, (one, other) = hosts(2)
    assert pool.volume("v").volume_id == one.volume_id
    return one, other, one.create(b"f")


def waits(host: Host, operation: str, **fields: object) -> dict[int, set[int]]:
    with pytest.raises(Remembered) as raised:
        host.change(operation, **fields)
    return dict(raised.value.sessions)


def test_attributes_and_names_may_be_remembered_by_who_may_write() -> None:
    pool, (one, other) = hosts(2)
    reader = Host(pool, "host:9:/mnt", read_only=True)
    file = one.create(b"f")
    for operation, fields in (
        ("lookup", {"ino": ROOT_INO, "name": b"f"}),
        ("lookup", {"ino": ROOT_INO, "name": b"nothing"}),
        ("getattr", {"ino": file}),
        ("read", {"ino": file, "offset": 0, "size": 4096}),
        ("readdir", {"ino": ROOT_INO}),
    ):
        assert other.look_and_remember(operation, **fields).remember
        assert not reader.look_and_remember(operation, **fields).remember
    assert not other.look_and_remember("lookup", ino=ROOT_INO, name=b"..").remember
    with pytest.raises(FsError):
        other.look_and_remember("lookup", ino=file + 1000, name=b"f")


def test_a_change_waits_for_who_remembers_what_it_changes() -> None:
    one, other, file = two_hosts()
    assert other.look_and_remember("getattr", ino=file).remember
    assert waits(one, "setattr", ino=file, attributes={"mode": 0o600}) == {other.session_id: {file}}
    assert stat.S_IMODE(one.inode(file).mode) == 0o644, "nothing was done"
    assert one.create(b"g"), "it changes nothing that anybody remembers"
    assert other.look_and_remember("lookup", ino=ROOT_INO, name=b"nothing").remember
    assert waits(one, "create", ino=ROOT_INO, name=b"nothing", flags=0, mode=0o644) == {other.session_id: {ROOT_INO}}
    assert waits(one, "unlink", ino=ROOT_INO, name=b"f") == {other.session_id: {ROOT_INO, file}}


@pytest.mark.parametrize("look", [{"operation": "getattr"}, {"operation": "read", "offset": 0, "size": 4096}])
def test_a_write_waits_for_who_remembers_the_file(look: dict[str, Any]) -> None:
    one, other, file = two_hosts()
    assert other.look_and_remember(ino=file, **look).remember
    with pytest.raises(Remembered):
        one.write(file, "a", 100)
    one.pool.coordinator.env.remembered.dropped(one.volume_id, other.session_id, [file])
    one.write(file, "a", 100)
    assert other.inode(file).size == 100


def test_after_a_change_that_failed_it_may_be_remembered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, file = two_hosts()

    def refuses(*_: object) -> None:
        raise FsError(28)

    with monkeypatch.context() as patch:
        patch.setattr("redfs.coordinator.shared_operations.store_answer", refuses)
        with pytest.raises(FsError):
            one.change("setattr", ino=file, attributes={"mode": 0o600})
    assert other.look_and_remember("getattr", ino=file).remember


def test_a_session_that_ended_remembers_nothing() -> None:
    one, other, file = two_hosts()
    assert other.look_and_remember("getattr", ino=file).remember
    other.end()
    one.change("setattr", ino=file, attributes={"mode": 0o600})
    assert stat.S_IMODE(one.inode(file).mode) == 0o600
