"""`redfs console`: what it says, and what it refuses."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request

import pytest

from tests.client.cli.conftest import CommandLine
from tests.client.cli.fake_coordinator import FakeCoordinator


def test_a_taken_port_and_a_wrong_address(redfs: CommandLine, coordinator: FakeCoordinator) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = redfs("console", "--listen", f"127.0.0.1:{port}")
    assert taken.code == 5
    assert str(port) in taken.err
    assert "--listen" in taken.err
    assert taken.err.count("\n") == 1
    for wrong in ("7480", "127.0.0.1", "127.0.0.1:99999", "no.such.host.invalid:1"):
        refused = redfs("console", "--listen", wrong)
        assert refused.code == 2, refused.err
        assert "Traceback" not in refused.err


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_it_says_where_it_is_and_ends_with_ctrl_c(coordinator: FakeCoordinator, words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "redfs.client.cli.main", "console", "--listen", "127.0.0.1:0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        url = json.loads(line)["console"] if words else line.removeprefix("Console at ").strip()
        with urllib.request.urlopen(f"{url}/api/v1/status", timeout=20) as answer:
            assert json.load(answer)["pool_id"] == "fake"
        running.send_signal(2)
        _, errors = running.communicate(timeout=20)
    assert "Traceback" not in errors
    assert running.returncode in (0, 130)
