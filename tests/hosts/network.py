"""Hosts as network namespaces on one bridge: made, cut off, slowed down, and taken away again.

The root namespace is the place of the pool: it has the bridge's address, and each host one interface to the bridge.
All names begin with `rh` and this process's id, so that what a killed run left is known by its dead owner: it is
cleared away before the next network is made. Needs root and the `ip` command; `why_no_network` says what is missing.

Packets are delayed and lost by netem where the kernel has it, else by a process between host and bridge (`relay.py`).
Fails with NetworkFailed, which names the command.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from redfs.client.local_pool import process_is_alive

COMMAND_S = 30.0
PREFIX = "rh"
_OURS = re.compile(rf"{PREFIX}(\d+)[bhrsn]\d*$")
MAX_HOSTS = 9
BRIDGE_MAC = "02:72:65:64:66:73"
_TRIAL = 99
"""The number of a namespace that is made to see whether it can be."""
NETWORKS = 200
"""Tried, one after the other, for one that no interface of the machine has."""


class NetworkFailed(Exception):
    """A command did not work."""


def command(*words: str) -> str:
    """Runs it and returns what it printed. Raises NetworkFailed."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkFailed(f"{' '.join(words)}: {error}") from error
    if done.returncode:
        raise NetworkFailed(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@functools.cache
def why_no_network() -> str | None:
    """What is missing for namespaces of hosts, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "ss", "tc", "nsenter"):
        if shutil.which(program) is None:
            return f"there is no program `{program}` (packages iproute2 and util-linux)"
    name, cable = f"{PREFIX}{os.getpid()}n{_TRIAL}", f"{PREFIX}{os.getpid()}h{_TRIAL}"
    try:
        command("ip", "netns", "add", name)
        command("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
    except NetworkFailed as error:
        return f"network namespaces are not allowed here ({error})"
    finally:
        # The cable by itself: with its namespace it would go some time later.
        _try_all([("ip", "link", "del", cable), ("ip", "netns", "del", name)])
    return None


def clear_leftovers() -> None:
    """Takes away interfaces and namespaces of runs whose process is dead."""
    for name in _interfaces():
        if _is_left_over(name):
            with contextlib.suppress(NetworkFailed):
                command("ip", "link", "del", name)
    for name in _namespaces():
        if _is_left_over(name):
            with contextlib.suppress(NetworkFailed):
                command("ip", "netns", "del", name)


def _interfaces() -> list[str]:
    return os.listdir("/sys/class/net")


def _namespaces() -> list[str]:
    folder = Path("/run/netns")
    return os.listdir(folder) if folder.is_dir() else []


def _is_left_over(name: str) -> bool:
    match = _OURS.match(name)
    return match is not None and not process_is_alive(int(match[1]))


def _free_network() -> str:
    """The first three bytes of addresses that nothing here uses."""
    taken = command("ip", "-4", "-o", "addr") + command("ip", "-4", "route")
    for number in range(NETWORKS):
        third = (os.getpid() + number) % NETWORKS + 20
        if f"10.83.{third}." not in taken:
            return f"10.83.{third}"
    raise NetworkFailed("all private networks are taken")


class Network:
    """A bridge and so many hosts, numbered from 0. `close` takes all of it away."""

    def __init__(self, hosts: int) -> None:
        if not 1 <= hosts <= MAX_HOSTS:
            raise ValueError(f"1 to {MAX_HOSTS} hosts, not {hosts}")
        self.hosts = hosts
        self._base = f"{PREFIX}{os.getpid()}"
        self._relays: dict[int, subprocess.Popen[str]] = {}
        self._slowed: set[int] = set()
        self._muted: set[int] = set()
        clear_leftovers()
        self._network = _free_network()
        self.address = f"{self._network}.1"
        """Of the pool."""
        try:
            self._make()
            self.has_netem = self._try_netem()
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        command("ip", "link", "add", f"{self._base}b", "type", "bridge")
        # One of its own: else it is that of some port, and changes when ports come and go.
        command("ip", "link", "set", f"{self._base}b", "address", BRIDGE_MAC)
        command("ip", "addr", "add", f"{self.address}/24", "dev", f"{self._base}b")
        command("ip", "link", "set", f"{self._base}b", "up")
        for host in range(self.hosts):
            outer, space = self._outer(host), self.namespace(host)
            command("ip", "netns", "add", space)
            command("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
            command("ip", "link", "set", outer, "master", f"{self._base}b")
            self._silence(outer)
            inside = ("ip", "-n", space)
            command(*inside, "addr", "add", f"{self._inner(host)}/24", "dev", "eth0")
            command(*inside, "link", "set", "eth0", "up")
            command(*inside, "link", "set", "lo", "up")

    @staticmethod
    def _silence(interface: str) -> None:
        """Up, and only a cable: it has no address, and does not answer for those of this machine."""
        command("ip", "link", "set", interface, "arp", "off", "addrgenmode", "none")
        command("ip", "link", "set", interface, "up")

    def _try_netem(self) -> bool:
        try:
            command("tc", "qdisc", "add", "dev", self._outer(0), "root", "netem", "delay", "1ms")
            command("tc", "qdisc", "del", "dev", self._outer(0), "root")
        except NetworkFailed:
            return False
        return True

    def namespace(self, host: int) -> str:
        """Its name under /run/netns."""
        return f"{self._base}n{host}"

    def inside(self, host: int) -> list[str]:
        """What a command begins with that is to run on the host."""
        return ["nsenter", f"--net=/run/netns/{self.namespace(host)}"]

    def _inner(self, host: int) -> str:
        """The host's address."""
        return f"{self._network}.{10 + host}"

    def _outer(self, host: int) -> str:
        return f"{self._base}h{host}"

    # ------------------------------------------------------------ faults

    def cut(self, host: int) -> None:
        """Pulls the host's cable."""
        command("ip", "link", "set", self._outer(host), "down")

    def join(self, host: int) -> None:
        """Plugs it in again."""
        command("ip", "link", "set", self._outer(host), "up")

    def mute(self, host: int) -> None:
        """Loses everything that the pool sends to the host, and nothing of what the host sends."""
        command("tc", "qdisc", "replace", "dev", self._outer(host), "root", "pfifo", "limit", "0")
        self._muted.add(host)

    def unmute(self, host: int) -> None:
        """Ends `mute`; nothing where it never began."""
        if host in self._muted:
            self._muted.discard(host)
            _try_all([("tc", "qdisc", "del", "dev", self._outer(host), "root")])

    def reset(self, host: int) -> None:
        """Ends all connections between the host and the pool. What was sent and has not arrived is lost, also what a
        process that was killed left to the kernel to send."""
        command("ss", "--kill", "--tcp", "--no-header", "src", self.address, "dst", self._inner(host))

    def slow_down(self, host: int, delay_s: float, loss: float, seed: int) -> None:
        """Delays and loses the host's packets, in both directions, until `speed_up`."""
        self.speed_up(host)
        self._slowed.add(host)
        if self.has_netem:
            how = ("root", "netem", "delay", f"{delay_s * 1000:.1f}ms", f"{delay_s * 500:.1f}ms", "loss", f"{loss:.1%}")
            command("tc", "qdisc", "replace", "dev", self._outer(host), *how)  # a host that is mute is so no longer
            command(*self.inside(host), "tc", "qdisc", "add", "dev", "eth0", *how)
            return
        near, far = f"{self._base}r{host}", f"{self._base}s{host}"
        command("ip", "link", "add", near, "type", "veth", "peer", "name", far)
        self._silence(near)
        self._silence(far)
        words = [self._outer(host), near, str(delay_s), str(loss), str(seed)]
        relay = subprocess.Popen(
            [sys.executable, "-m", "tests.hosts.relay", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
            start_new_session=True,
        )
        self._relays[host] = relay
        assert relay.stdout is not None
        if relay.stdout.readline() != "ready\n":
            raise NetworkFailed(f"the relay of host {host} does not start")
        command("ip", "link", "set", self._outer(host), "nomaster")
        command("ip", "link", "set", far, "master", f"{self._base}b")

    def speed_up(self, host: int) -> None:
        """Ends `slow_down`; nothing where it never began."""
        if host not in self._slowed:
            return
        self._slowed.discard(host)
        if self.has_netem:
            for where in ((), self.inside(host)):
                device = "eth0" if where else self._outer(host)
                with contextlib.suppress(NetworkFailed):
                    command(*where, "tc", "qdisc", "del", "dev", device, "root")
            return
        with contextlib.suppress(NetworkFailed):
            command("ip", "link", "del", f"{self._base}r{host}")
        relay = self._relays.pop(host, None)
        if relay is not None:
            _end(relay)
        command("ip", "link", "set", self._outer(host), "master", f"{self._base}b")

    def heal(self) -> None:
        """Every host is connected, and as fast as it can be."""
        for host in range(self.hosts):
            self.unmute(host)
            self.speed_up(host)
            self.join(host)

    # ------------------------------------------------------------ the end

    def close(self) -> None:
        """Takes everything away, however much of it is there."""
        for relay in self._relays.values():
            _end(relay)
        self._relays.clear()
        names = [name for name in _interfaces() if (match := _OURS.match(name)) and int(match[1]) == os.getpid()]
        _try_all([("ip", "link", "del", name) for name in names])
        spaces = [name for name in _namespaces() if (match := _OURS.match(name)) and int(match[1]) == os.getpid()]
        _try_all([("ip", "netns", "del", name) for name in spaces])


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _try_all(commands: Sequence[tuple[str, ...]]) -> None:
    """One end of a pair takes the other with it, so some are gone already."""
    for words in commands:
        with contextlib.suppress(NetworkFailed):
            command(*words)
