"""Starting and stopping processes: what is refused, and whose process ids are believed."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from redfs.client.local_pool import HOST, LocalPool, last_log_line, process_is_alive, running_pid
from redfs.core.errors import Busy, InvalidArgument, NotFound, Unavailable


def failing_python(folder: Path, words: str) -> str:
    """A program in the place of Python that says something and ends."""
    path = folder / "failing-python"
    path.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1\n")
    path.chmod(0o755)
    return str(path)


def test_what_ends_at_its_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    local = LocalPool(tmp_path / "pool", python=failing_python(tmp_path, "the disk is on fire"))
    with pytest.raises(Unavailable, match="coordinator ended at its start: the disk is on fire") as caught:
        local.start(nodes=1)
    assert str(local.coordinator().log_file) in str(caught.value)
    assert not local.exists


def test_a_process_id_of_somebody_else_is_not_believed(tmp_path: Path) -> None:
    local = LocalPool(tmp_path)
    member = local.coordinator()
    member.pid_file.parent.mkdir()
    assert running_pid(member) is None
    for content in (str(os.getpid()), "not a number", "", "999999999"):
        member.pid_file.write_text(content)
        assert running_pid(member) is None


def test_our_own_process_is_found_and_a_dead_one_is_not(tmp_path: Path) -> None:
    local = LocalPool(tmp_path)
    member = local.coordinator()
    member.pid_file.parent.mkdir()
    program = "import signal; print('there', flush=True); signal.pause()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, member.module, str(member.folder)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        member.pid_file.write_text(str(process.pid))
        assert running_pid(member) == process.pid
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not process_is_alive(process.pid), "a zombie runs no more"
        assert running_pid(member) is None


def test_stopping_ends_the_process(tmp_path: Path) -> None:
    local = LocalPool(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "node-0").mkdir()
    member = local.node(0)
    process = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.pause()", member.module, str(member.folder)]
    )
    with process:
        member.pid_file.write_text(str(process.pid))
        assert local.stop_node(0)
        assert not local.stop_node(0)
    assert process.returncode == -signal.SIGTERM


def test_a_removed_node_is_not_started_again(tmp_path: Path) -> None:
    local = LocalPool(tmp_path)
    for name in ("run", "node-0", "node-1", "removed-node-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "node-1" / "left").touch()
    assert local.retire_node(tmp_path / "node-2") is None
    assert local.node_numbers() == [0, 1]
    assert local.retire_node(tmp_path / "node-1") == tmp_path / "removed-node-1.1"
    assert (tmp_path / "removed-node-1.1" / "left").exists()
    assert local.node_numbers() == [0]


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Busy, match=str(port)):
            LocalPool(tmp_path / "pool").start(nodes=1, port=port)


def test_one_command_at_a_time(tmp_path: Path) -> None:
    local = LocalPool(tmp_path)
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="another redfs command"):
            local.start()


def test_wrong_wishes(tmp_path: Path) -> None:
    local = LocalPool(tmp_path / "pool")
    for nodes in (0, -1, 65):
        with pytest.raises(InvalidArgument, match="--nodes"):
            local.start(nodes=nodes)
    with pytest.raises(InvalidArgument, match="--port"):
        local.start(port=70000)
    with pytest.raises(InvalidArgument, match="--console-port"):
        local.start(console=True, console_port=0)
    with pytest.raises(NotFound, match="redfs up"):
        local.stop()
    with pytest.raises(NotFound):
        local.start_node(0)
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="cannot make"):
        LocalPool(tmp_path / "file").start()


def test_last_words(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert last_log_line(path) == ""
    path.write_bytes(b"x" * 10_000 + b"\nfirst\nlast \n\n")
    assert last_log_line(path) == "last"
