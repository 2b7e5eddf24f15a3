"""What mounts report adds up to what they did, whoever comes, goes and comes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from redfs.coordinator.figures import FiguresBook, MountFigures
from tests.coordinator.harness import Client, Pool

Steps = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from(("work", "report", "again", "end")), st.integers(0, 1000)), max_size=60
)


@given(Steps)
def test_the_total_is_what_was_reported_of_all_sessions(steps: list[tuple[int, str, int]]) -> None:
    book = FiguresBook()
    total = 0
    names = iter(range(1, 1000))
    sessions = {place: next(names) for place in range(1, 5)}
    did = dict.fromkeys(sessions, 0)
    told = dict.fromkeys(sessions, 0)
    for number in sessions.values():
        book.start(number)
    for place, action, amount in steps:
        if action == "work":
            did[place] += amount
        elif action in ("report", "again"):
            changed = book.report(sessions[place], MountFigures(did[place], 0, did[place], 7))
            assert changed or did[place] == told[place]
            total += did[place] - told[place]
            told[place] = did[place]
        else:
            book.end(sessions[place])
            assert not book.report(sessions[place], MountFigures(10**9)), "it has ended"
            sessions[place] = next(names)
            book.start(sessions[place])
            did[place] = told[place] = 0
        assert (book.total().read_bytes, book.total().operations) == (total, total)


def test_sessions_from_before_the_start_count_from_their_first_report_on() -> None:
    book = FiguresBook()
    book.load([5])
    book.start(5)  # it resumes
    assert not book.report(5, MountFigures(1000, 1000, 1000, 1000))
    assert book.report(5, MountFigures(1500, 1000, 1001, 1020))
    assert book.total() == MountFigures(500, 0, 1, 20)
    assert not book.report(6, MountFigures(1)), "nobody has that session"


def test_sessions_begin_and_end_with_their_commands() -> None:
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    book = pool.coordinator.env.figures
    assert book.report(client.session_id, MountFigures(3, 4, 5, 6))
    client.close()
    assert not book.report(client.session_id, MountFigures(30, 40, 50, 60))
    assert book.total() == MountFigures(3, 4, 5, 6)
    later = Client(pool, "v")
    pool.restart()
    book = pool.coordinator.env.figures
    assert not book.report(later.session_id, MountFigures(100, 100, 100, 100))
    assert book.report(later.session_id, MountFigures(101, 100, 100, 100))
