"""Some schedules on a real pool with real mounts in network namespaces. By hand: `python -m tests.hosts`."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import networks_stay
from tests.hosts import network
from tests.hosts.network import Network, clear_leftovers, command, why_no_network
from tests.hosts.rig import NODES, Rig
from tests.hosts.run import Runner
from tests.hosts.schedule import draw

pytestmark = [pytest.mark.mount, pytest.mark.slow]

SEEDS = range(1, 6)
CONNECT_S = 1.0
SLOW_CONNECT_S = 30.0


@pytest.fixture(autouse=True)
def _namespaces() -> Iterator[None]:
    with networks_stay(but_for_mine=True):
        reason = why_no_network()
        if reason is not None:
            pytest.skip(reason)
        yield


@pytest.fixture
def hosts() -> Iterator[Network]:
    made = Network(2)
    try:
        yield made
    finally:
        made.close()


def reaches(hosts: Network, host: int, port: int, timeout_s: float) -> bool:
    """Whether the host can open a connection to the pool's address."""
    program = f"import socket; socket.create_connection(({hosts.address!r}, {port}), {timeout_s}).close()"
    done = subprocess.run([*hosts.inside(host), sys.executable, "-c", program], capture_output=True, check=False)
    return done.returncode == 0


def test_hosts_are_cut_off_and_slowed_down_one_by_one(hosts: Network) -> None:
    with socket.create_server((hosts.address, 0)) as server:
        port = server.getsockname()[1]
        assert reaches(hosts, 0, port, SLOW_CONNECT_S)
        hosts.cut(0)
        assert not reaches(hosts, 0, port, CONNECT_S)
        assert reaches(hosts, 1, port, SLOW_CONNECT_S)
        hosts.join(0)
        assert reaches(hosts, 0, port, SLOW_CONNECT_S)
        hosts.mute(0)
        assert not reaches(hosts, 0, port, CONNECT_S)
        hosts.unmute(0)
        hosts.slow_down(0, 0.01, 0.0, seed=1)
        assert reaches(hosts, 0, port, SLOW_CONNECT_S)
        hosts.slow_down(0, 0.01, 1.0, seed=1)
        assert not reaches(hosts, 0, port, CONNECT_S)
        assert reaches(hosts, 1, port, SLOW_CONNECT_S)
        hosts.heal()
        assert reaches(hosts, 0, port, SLOW_CONNECT_S)


def test_connections_of_one_host_end(hosts: Network) -> None:
    program = (
        "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); s.send(b'x'); s.recv(1)"
    )
    with socket.create_server((hosts.address, 0)) as server:
        words = [sys.executable, "-c", program, hosts.address, str(server.getsockname()[1])]
        with subprocess.Popen([*hosts.inside(0), *words], stderr=subprocess.DEVNULL) as connected:
            connection, _ = server.accept()
            with connection:
                assert connection.recv(1) == b"x"
                hosts.reset(1)
                connection.send(b"")
                hosts.reset(0)
                with pytest.raises(ConnectionError):
                    connection.recv(1)
        assert connected.returncode


def test_only_what_dead_runs_left_is_cleared_away(hosts: Network) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    left = f"{network.PREFIX}{ended.pid}"
    command("ip", "netns", "add", f"{left}n0")
    command("ip", "link", "add", f"{left}b", "type", "bridge")
    clear_leftovers()
    assert f"{left}n0" not in command("ip", "netns")
    assert f"{left}b" not in command("ip", "link")
    assert hosts.namespace(0) in command("ip", "netns")


@pytest.mark.timeout(900)
def test_programs_on_several_hosts_see_one_file_system_whatever_happens(tmp_path: Path) -> None:
    with Rig() as rig:
        runner = Runner(rig, tmp_path / "failures")
        for seed in SEEDS:
            outcome = runner.run(seed)
            assert not outcome.problems, (seed, draw(seed, NODES).describe(), outcome.problems)
            assert outcome.operations
        assert runner.check() == []
