"""Real pools for tests: processes, mounts and the command line, in a temporary folder, gone afterwards.

Everything is done the way a user does it, through `redfs` in a process of its own. Every wait has a bound. Cleaning up
ends processes by the ids that this pool's own files and mounts name, also after a failure half way.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from redfs.client.api import Pool
from redfs.client.check import CheckReport, run_check
from redfs.client.local_pool import LocalPool, Member, port_is_free, process_is_alive, running_pid
from tests.integration import command_line

JOURNAL_FOLDER = "journal"
COMMAND_TIMEOUT_S = 120.0
COORDINATOR_SETTINGS = """
lease_s = 6.0
delete_grace_s = 0.5
"""
WAIT_S = 120.0
"""For a condition that takes milliseconds on an idle machine."""
POLL_S = 0.05
PORTS = range(20_000, 32_000)
"""Below those that the kernel gives away by itself."""
PORTS_OF_ONE = 200
"""More than the pools that one process of the tests has at a time: a port comes around again long after its pool."""


@functools.cache
def _ports() -> tuple[socket.socket, Iterator[int]]:
    """Ports for this process of the tests alone, beside others of this run and of other runs: while a coordinator is
    down, the pool of another test must not take its port. Whoever listens on the first of a range has the range."""
    for first in PORTS[::PORTS_OF_ONE]:
        owner = socket.socket()
        try:
            owner.bind(("127.0.0.1", first))
            owner.listen()
        except OSError:
            owner.close()
            continue
        atexit.register(owner.close)
        return owner, itertools.cycle(range(first + 1, first + PORTS_OF_ONE))
    raise AssertionError("all ports for tests are taken")


def new_port() -> int:
    """A port that no other pool of a test has or comes back to."""
    _, ports = _ports()
    return next(port for port in itertools.islice(ports, PORTS_OF_ONE) if port_is_free(port))


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Returns when the condition holds; fails with `what` when it does not come to hold."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(POLL_S)


def mountpoints_below(folder: Path) -> list[Path]:
    """What is mounted in the folder, deepest first. Never touches the mounts themselves: a dead one would hang."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        path = line.split()[4].encode().decode("unicode_escape")
        if path.startswith(f"{folder}/"):
            found.append(Path(path))
    return sorted(found, reverse=True)


class RunningPool:
    """A pool of one test or module, with everything that tests do to it."""

    def __init__(self, folder: Path, nodes: int, settings: str = "") -> None:
        self.folder = folder
        self.settings = COORDINATOR_SETTINGS + settings
        self.nodes = nodes
        self.local = LocalPool(folder / "pool")
        self._mounted = 0

    # ------------------------------------------------------------ the command line

    def run(self, *words: str, timeout_s: float = COMMAND_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """One `redfs` command in a process of its own, whatever it ends with."""
        return command_line.run(["--pool", str(self.local.folder), *words], timeout_s)

    def redfs(self, *words: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """One command that must work; returns what it printed."""
        done = self.run(*words, timeout_s=timeout_s)
        assert done.returncode == 0, f"redfs {' '.join(words)}: {done.returncode}: {done.stderr or done.stdout}"
        return done.stdout

    def data(self, *words: str) -> Any:
        """A command's --json."""
        return json.loads(self.redfs(*words, "--json"))

    def refused(self, *words: str) -> tuple[int, str]:
        """A command that must fail the way failures look: its exit code and its one line."""
        done = self.run(*words)
        assert done.returncode != 0, f"redfs {' '.join(words)} worked: {done.stdout}"
        assert done.stderr.startswith("redfs: "), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    # ------------------------------------------------------------ processes

    def up(self) -> None:
        """Starts what does not run; with short waits, so that tests do not wait for what users never notice."""
        self.local.folder.mkdir(exist_ok=True)
        (self.local.folder / "coordinator.toml").write_text(self.settings)
        where = () if self.local.exists else ("--port", str(new_port()))
        self.redfs("up", "--no-console", "--nodes", str(self.nodes), *where)

    def api(self) -> Pool:
        """A connection to the coordinator."""
        return Pool.connect(str(self.local.folder))

    def member(self, name: str) -> Member:
        """`coordinator` or `node-N`."""
        return next(member for member in self.local.members() if member.name == name)

    def kill(self, *names: str) -> None:
        """kill -9, all at once, and waits until they are gone."""
        pids = [pid for name in names if (pid := running_pid(self.member(name))) is not None]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(process_is_alive(pid) for pid in pids), f"{names} gone")

    def kill_everything(self) -> None:
        """Coordinator, nodes and mount processes at once, as a power cut does; dead mounts are cleared away."""
        pids = [pid for member in self.local.members() if (pid := running_pid(member)) is not None]
        pids += self.mount_pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(process_is_alive(pid) for pid in pids), "everything gone")
        self.clear_dead_mounts()

    def wait_for_nodes(self, up: int) -> None:
        """Until the coordinator knows that so many nodes are up."""
        with self.api() as pool:
            wait_for(lambda: sum(n.state == "up" for n in pool.nodes()) == up, f"{up} nodes up")

    # ------------------------------------------------------------ mounts

    def mount(self, volume: str, *options: str) -> Path:
        """Mounts on a new folder."""
        where = self.mount_folder()
        self.redfs("mount", volume, str(where), *options)
        return where

    def mount_folder(self) -> Path:
        """A new folder to mount on."""
        self._mounted += 1
        return self.folder / f"mount-{self._mounted}"

    def umount(self, where: Path) -> None:
        """Unmounts, with everything written."""
        self.redfs("umount", str(where))

    def mount_pids(self) -> list[int]:
        """The processes behind the mounts of this pool."""
        return [mounted.pid for mounted in self.local.mounts()] if self.local.exists else []

    def clear_dead_mounts(self) -> None:
        """Takes mounts away whose process is gone or hangs."""
        for where in mountpoints_below(self.folder):
            self.clear_dead_mount(where)

    def clear_dead_mount(self, where: Path) -> None:
        """Takes one such mount away."""
        subprocess.run(["umount", "--lazy", str(where)], check=False, capture_output=True, timeout=WAIT_S)

    # ------------------------------------------------------------ what is stored

    def check(self, *, verify_data: bool = True) -> CheckReport:
        """The checker's report."""
        with self.api() as pool:
            return run_check(pool, verify_data=verify_data, progress=None)

    def assert_clean(self, *, verify_data: bool = True) -> None:
        """`redfs check` finds nothing."""
        report = self.check(verify_data=verify_data)
        assert report.clean, report.data()

    def disk_bytes(self) -> int:
        """What the nodes' folders take on the disk, really, but for the journal of the metadata."""
        total = 0
        for number in self.local.node_numbers():
            for path in self.local.node(number).folder.rglob("*"):
                if path.parent.name == JOURNAL_FOLDER:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    total += path.stat().st_blocks * 512
        return total

    def wait_for_idle(self) -> None:
        """Until no job runs and no shard waits for its deletion."""
        with self.api() as pool:

            def idle() -> bool:
                status = pool.status()
                return not status.jobs and not status.shards_to_delete

            wait_for(idle, "jobs done and shards deleted")

    # ------------------------------------------------------------ the end

    def destroy(self) -> None:
        """Ends all of it, whatever state it is in."""
        members = self.local.members() if self.local.exists or self.local.folder.is_dir() else []
        pids = [pid for member in members if (pid := running_pid(member)) is not None] + self.mount_pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.clear_dead_mounts()
        wait_for(lambda: not any(process_is_alive(pid) for pid in pids), "processes gone")
