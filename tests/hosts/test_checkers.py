"""The checkers say yes to histories that can be explained, and no to those that cannot."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from tests.hosts.appends import check_appends, digest, record
from tests.hosts.history import Op, begin_line, end_line, read_history
from tests.hosts.linear import DONE, Step, explain
from tests.hosts.names import check_names
from tests.hosts.registers import check_registers

ENOENT, EEXIST, EIO, EISDIR, ENOTDIR = errno.ENOENT, errno.EEXIST, errno.EIO, errno.EISDIR, errno.ENOTDIR


def op(worker: int, start: int, end: int | None, kind: str, *arguments: Any, value: Any = None, error: int = 0) -> Op:
    """An operation; its number is its start."""
    return Op(worker, start, kind, arguments, start, end, error, value)


# ---------------------------------------------------------------- registers


def write(worker: int, start: int, end: int | None, value: int, error: int = 0) -> Op:
    return op(worker, start, end, "write", "r", value, error=error)


def read(worker: int, start: int, end: int, value: Any) -> Op:
    return op(worker, start, end, "read", "r", value=value)


def registers(ops: list[Op], hosts: dict[int, int] | None = None) -> list[str]:
    """Checks them; each program is on a host of its own where nothing else is said."""
    return check_registers(ops, hosts or {worker: worker for worker in range(10)})


def test_a_read_beside_a_write_may_return_the_old_or_the_new_value() -> None:
    assert registers([write(0, 1, 5, 7), read(1, 2, 3, 0), read(2, 4, 6, 7)]) == []
    assert registers([write(0, 1, 5, 7), read(1, 2, 3, 7), read(2, 4, 6, 7)]) == []


def test_a_read_after_a_write_must_not_return_the_old_value() -> None:
    assert registers([write(0, 1, 2, 7), read(1, 3, 4, 0)])


def test_what_one_reader_has_seen_is_not_gone_for_the_next() -> None:
    assert registers([write(0, 1, 9, 7), read(1, 2, 3, 7), read(2, 4, 5, 0)])


def test_the_writers_own_host_may_see_a_value_before_others_do() -> None:
    ops = [write(0, 1, 9, 7), read(1, 2, 3, 7), read(2, 4, 5, 0)]
    assert registers(ops, {0: 0, 1: 0, 2: 2}) == []
    assert registers(ops, {0: 0, 1: 1, 2: 0})
    # Not once the write has returned, nor can it be undone.
    assert registers([write(0, 1, 3, 7), read(1, 2, 5, 7), read(2, 6, 7, 0)], {0: 0, 1: 0, 2: 2})


def test_two_writes_at_once_have_one_order_for_all() -> None:
    writes = [write(0, 1, 4, 7), write(1, 1, 4, 8)]
    assert registers([*writes, read(2, 5, 6, 7), read(3, 7, 8, 7)]) == []
    assert registers([*writes, read(2, 5, 6, 7), read(3, 7, 8, 8)])


def test_an_unknown_write_may_take_place_late_or_never_but_not_be_undone() -> None:
    failed = write(0, 1, 2, 7, error=EIO)
    assert registers([failed, read(1, 3, 4, 0)]) == []
    assert registers([failed, read(1, 3, 4, 0), read(1, 8, 9, 7)]) == []
    assert registers([write(0, 1, None, 7), read(1, 3, 4, 0), read(1, 8, 9, 7)]) == []
    assert registers([failed, read(1, 3, 4, 7), read(1, 8, 9, 0)])


def test_torn_and_invented_values_and_refusals_are_told() -> None:
    assert "several values" in registers([read(1, 1, 2, "4096 bytes with [0, 7]")])[0]
    assert "nobody wrote" in registers([read(1, 1, 2, 7)])[0]
    assert "refused" in registers([write(1, 1, 2, 7, error=errno.ENOSPC)])[0]


def test_a_search_that_takes_too_long_says_so() -> None:
    def any_order(state: Any, one: Op, progress: int) -> list[Any]:
        return [] if one.kind == "never" else [Step((*state, one.worker), DONE, False)]

    ops = [op(worker, 0, 9, "any") for worker in range(9)] + [op(9, 0, 9, "never")]
    verdict = explain(ops, any_order, (), max_visited=100)
    assert not verdict.explained
    assert not verdict.decided


# ---------------------------------------------------------------- names


def test_of_two_exclusive_creates_one_succeeds() -> None:
    first = op(0, 1, 5, "create", "a", value=100)
    assert check_names([first, op(1, 1, 5, "create", "a", error=EEXIST)]) == []
    assert check_names([first, op(1, 1, 5, "create", "a", value=101)])
    assert check_names([op(0, 1, 5, "create", "a", error=EEXIST), op(1, 1, 5, "create", "a", error=EEXIST)])


def test_with_an_unlink_between_both_may() -> None:
    both = [op(0, 1, 5, "create", "a", value=100), op(1, 1, 9, "create", "a", value=101)]
    assert check_names([*both, op(2, 3, 8, "unlink", "a")]) == []
    assert check_names([*both, op(2, 10, 11, "unlink", "a")])


def test_a_renamed_file_is_never_under_both_names_nor_under_none() -> None:
    made, moved = op(0, 1, 2, "create", "a", value=100), op(0, 3, 9, "rename", "a", "b")
    assert (
        check_names(
            [made, moved, op(1, 4, 5, "stat", "b", value=("file", 100)), op(1, 6, 7, "stat", "a", error=ENOENT)]
        )
        == []
    )
    assert check_names(
        [made, moved, op(1, 4, 5, "stat", "b", value=("file", 100)), op(1, 6, 7, "stat", "a", value=("file", 100))]
    )
    assert check_names([made, moved, op(1, 4, 5, "stat", "a", error=ENOENT), op(1, 6, 7, "stat", "b", error=ENOENT)])


def test_stat_after_a_rename_over_a_name_shows_the_new_file() -> None:
    made = [op(0, 1, 2, "create", "a", value=100), op(0, 3, 4, "create", "b", value=101)]
    moved = op(0, 5, 6, "rename", "a", "b")
    assert check_names([*made, moved, op(1, 7, 8, "stat", "b", value=("file", 100))]) == []
    assert check_names([*made, moved, op(1, 7, 8, "stat", "b", value=("file", 101))])


def test_a_name_that_is_replaced_is_never_absent() -> None:
    made = [op(0, 1, 2, "create", "a", value=100), op(0, 3, 4, "create", "b", value=101)]
    assert check_names([*made, op(0, 5, 9, "rename", "a", "b"), op(1, 6, 7, "stat", "b", error=ENOENT)])


def test_folders_and_files_are_told_apart() -> None:
    made = [op(0, 1, 2, "mkdir", "a"), op(0, 3, 4, "create", "b", value=101)]
    assert check_names([*made, op(0, 5, 6, "rename", "a", "b", error=ENOTDIR)]) == []
    assert check_names([*made, op(0, 5, 6, "rename", "b", "a", error=EISDIR)]) == []
    assert check_names([*made, op(0, 5, 6, "rename", "b", "a")])
    assert check_names([*made, op(0, 5, 6, "unlink", "a")])
    assert check_names([*made, op(0, 5, 6, "rmdir", "a", error=ENOTDIR)])


def test_the_number_of_a_folder_is_learned_once() -> None:
    made = op(0, 1, 2, "mkdir", "a")
    seen = op(1, 3, 4, "stat", "a", value=("folder", 50))
    assert check_names([made, seen, op(1, 5, 6, "stat", "a", value=("folder", 50))]) == []
    assert check_names([made, seen, op(1, 5, 6, "stat", "a", value=("folder", 51))])


def test_an_unknown_create_may_have_made_the_name() -> None:
    failed = op(0, 1, 2, "create", "a", error=EIO)
    assert check_names([failed, op(1, 5, 6, "stat", "a", value=("file", 100))]) == []
    assert check_names([failed, op(1, 5, 6, "stat", "a", error=ENOENT)]) == []
    gone = op(1, 7, 8, "stat", "a", error=ENOENT)
    assert check_names([failed, op(1, 5, 6, "stat", "a", value=("file", 100)), gone])


def test_exchange_and_noreplace() -> None:
    made = [op(0, 1, 2, "create", "a", value=100), op(0, 3, 4, "create", "b", value=101)]
    swapped = op(0, 5, 6, "exchange", "a", "b")
    assert check_names([*made, swapped, op(1, 7, 8, "stat", "a", value=("file", 101))]) == []
    assert check_names([*made, swapped, op(1, 7, 8, "stat", "a", value=("file", 100))])
    assert check_names([*made, op(0, 5, 6, "noreplace", "a", "b", error=EEXIST)]) == []
    assert check_names([*made, op(0, 5, 6, "noreplace", "a", "b")])


def test_links_are_one_file() -> None:
    made = [op(0, 1, 2, "create", "a", value=100), op(0, 3, 4, "link", "a", "b")]
    assert check_names([*made, op(1, 5, 6, "stat", "b", value=("file", 100))]) == []
    assert check_names([*made, op(1, 5, 6, "stat", "b", value=("file", 101))])
    # Renaming one name of a file over another does nothing.
    assert check_names([*made, op(0, 5, 6, "rename", "a", "b"), op(0, 7, 8, "stat", "a", value=("file", 100))]) == []


def test_what_the_kernel_finds_in_two_look_ups_need_not_be_of_one_instant() -> None:
    made = op(0, 1, 2, "create", "a", value=100)
    # Both find the file under a; one renames it; the other then finds it under b, and takes both for names of it.
    raced = [op(0, 3, 9, "rename", "a", "b"), op(1, 3, 9, "rename", "a", "b")]
    assert check_names([made, *raced]) == []
    one_by_one = [op(0, 3, 4, "rename", "a", "b"), op(1, 5, 6, "rename", "a", "b")]
    assert check_names([made, *one_by_one])


def test_a_listing_shows_what_was_there_all_the_time() -> None:
    made = op(0, 1, 2, "create", "a", value=100)
    moved = op(1, 4, 8, "rename", "a", "b")
    for listed in (("a",), ("b",), ("a", "b"), ()):
        assert check_names([made, moved, op(2, 5, 7, "list", value=listed)]) == []
    assert check_names([made, moved, op(2, 9, 10, "list", value=("a",))])
    assert check_names([made, moved, op(2, 5, 7, "list", value=("a", "c"))])
    assert check_names([made, op(2, 5, 7, "list", value=())])


def test_errors_that_no_file_system_gives_are_told() -> None:
    assert check_names([op(0, 1, 2, "create", "a", error=errno.EPERM)])


# ---------------------------------------------------------------- appends


def append(worker: int, number: int, start: int, end: int | None, error: int = 0) -> tuple[Op, bytes]:
    content = record(worker, number, 20)
    return Op(worker, number, "append", ("log", 20), start, end, error, None if error else len(content)), content


def log_read(start: int, end: int, content: bytes) -> Op:
    return op(9, start, end, "read_log", "log", value=(len(content), digest(content)))


ONE, ONE_BYTES = append(0, 1, 1, 2)
TWO, TWO_BYTES = append(0, 2, 3, 4)
OTHER, OTHER_BYTES = append(1, 1, 1, 4)


def test_every_record_is_there_once_and_in_order() -> None:
    assert check_appends([ONE, TWO, OTHER], ONE_BYTES + OTHER_BYTES + TWO_BYTES) == []
    assert "lost" in check_appends([ONE, TWO, OTHER], ONE_BYTES + TWO_BYTES)[0]
    assert "2 times" in check_appends([ONE], ONE_BYTES + ONE_BYTES)[0]
    assert "comes after" in check_appends([ONE, TWO], TWO_BYTES + ONE_BYTES)[0]
    assert "never written" in check_appends([ONE], ONE_BYTES + TWO_BYTES)[0]


def test_a_cut_or_mixed_record_is_told() -> None:
    assert "whole record" in check_appends([ONE], ONE_BYTES[:-3])[0]
    mixed = ONE_BYTES[:10] + OTHER_BYTES + ONE_BYTES[10:]
    assert "whole record" in check_appends([ONE, OTHER], mixed)[0]
    assert "whole record" in check_appends([ONE], ONE_BYTES[:10] + b"\0" + ONE_BYTES[11:])[0]


def test_an_unknown_record_is_there_once_or_not_at_all() -> None:
    failed, content = append(2, 1, 1, 2, EIO)
    assert check_appends([ONE, failed], ONE_BYTES) == []
    assert check_appends([ONE, failed], content + ONE_BYTES) == []
    assert check_appends([ONE, failed], content + ONE_BYTES + content)


def test_a_reader_sees_what_was_appended_before_and_nothing_from_later() -> None:
    final = ONE_BYTES + OTHER_BYTES + TWO_BYTES
    ops = [ONE, TWO, OTHER]
    assert check_appends([*ops, log_read(2, 3, ONE_BYTES)], final) == []
    assert check_appends([*ops, log_read(3, 3, ONE_BYTES + OTHER_BYTES)], final) == []
    assert "misses" in check_appends([*ops, log_read(5, 6, ONE_BYTES)], final)[0]
    assert "later" in check_appends([*ops, log_read(2, 2, final)], final)[0]
    assert "beginning" in check_appends([*ops, log_read(5, 6, OTHER_BYTES + ONE_BYTES)], final)[0]
    assert "a part" in check_appends([*ops, log_read(2, 3, final[:35])], final)[0]


# ---------------------------------------------------------------- histories


def test_a_history_of_a_killed_program_ends_in_a_beginning(tmp_path: Path) -> None:
    path = tmp_path / "history"
    lines = begin_line(0, "create", ["a"], 5) + end_line(0, 6, 0, 100)
    lines += begin_line(1, "stat", ["a"], 7) + end_line(1, 8, 0, ["file", 100])
    lines += begin_line(2, "unlink", ["a"], 9) + end_line(2, 10, errno.ENOTCONN, None)
    lines += begin_line(3, "unlink", ["a"], 11) + "[3, 1"
    path.write_text(lines)
    ops = read_history(4, path)
    assert ops == [
        Op(4, 0, "create", ("a",), 5, 6, 0, 100),
        Op(4, 1, "stat", ("a",), 7, 8, 0, ("file", 100)),
        Op(4, 3, "unlink", ("a",), 11, None, 0, None),
    ]
    assert check_names(ops) == []
