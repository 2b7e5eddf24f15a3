"""The book of what sessions have open."""

from __future__ import annotations

from redfs.coordinator.open_book import OpenBook


def test_an_inode_is_open_until_the_last_session_has_closed_it() -> None:
    book = OpenBook()
    book.enter(1, 10, 7)
    book.enter(1, 11, 7)
    book.enter(1, 11, 7)
    book.leave(1, 10, 7)
    assert book.is_open(1, 7)
    assert 7 in book.container(1)
    book.leave(1, 11, 7)
    assert not book.is_open(1, 7)
    assert book.open_inodes(1) == frozenset()


def test_opening_something_is_no_declaration() -> None:
    book = OpenBook()
    book.enter(1, 10, 7)
    assert not book.has_declared(1, 10), "what else it has open is not known yet"


def test_a_declaration_takes_nothing_away_that_is_being_opened_meanwhile() -> None:
    book = OpenBook()
    book.enter(1, 10, 7)
    book.declare(1, 10, [8])
    assert book.has_declared(1, 10)
    assert book.open_inodes(1) == {7, 8}


def test_the_end_of_a_session_takes_all_that_it_had() -> None:
    book = OpenBook()
    book.declare(1, 10, [7, 8])
    book.declare(2, 10, [7])
    book.end(1, 10)
    assert not book.has_declared(1, 10)
    assert book.open_inodes(1) == frozenset()
    assert book.sessions_with(2, 7) == {10}
