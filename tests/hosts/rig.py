"""A pool, several hosts with mounts of one volume, and programs on them; and everything that can happen to these.

The pool's processes run in the root namespace and listen on the bridge; each host's mount process runs in the host's
namespace, its mount is visible everywhere. Nobody here touches a mount but the programs (`worker.py`) and the commands
that mount and unmount, each with a bound: a mount of a host that is cut off hangs.

Everything lies in one temporary folder that names this process. What a killed run left (processes that name its folder,
mounts in it, the folder) is cleared away when the next rig starts, and only when its process is dead.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from redfs.client.api import Pool
from redfs.client.local_pool import last_log_line, process_is_alive
from redfs.client.mounting import mounted_at
from redfs.core.errors import RedfsError
from tests.hosts.network import Network, clear_leftovers
from tests.hosts.schedule import HOSTS, LEASE_S, WORKERS_PER_HOST
from tests.hosts.worker import Control
from tests.settled import settled_report

FOLDER_PREFIX = "redfs-hosts-"
PORT = 7400
"""On an address that only this run has."""
NODES = 4
POLICY = "ec:2+1"
"""Writes go on while any one node is away."""
VOLUME = "shared"
SETTINGS = f"""
lease_s = {LEASE_S}
delete_grace_s = 0.5
node_down_s = 3.0
inventory_interval_s = 5.0
"""
WAIT_S = 90.0
"""For what takes a second on an idle machine, or a lease where it takes one."""
BUSY_S = 2.0
"""A mount may be in use by its own look at a folder: `redfs umount` tries again as well."""
POLL_S = 0.02
GIVE_UP_S = 120.0
"""A mount's own patience with an absent coordinator: longer than any fault."""
ROOT = Path(__file__).resolve().parents[2]


class RigFailed(Exception):
    """Something of the rig, or of what it drives, did not come to its end in time."""


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Returns when the condition holds. Raises RigFailed when it does not come to hold."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise RigFailed(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(POLL_S)


def _mountpoints_below(folder: Path) -> list[Path]:
    """Read from the kernel's list, without touching the mounts."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        path = line.split()[4].encode().decode("unicode_escape")
        if path.startswith(f"{folder}/"):
            found.append(Path(path))
    return sorted(found, reverse=True)


def _umount(where: Path, *options: str) -> str | None:
    """Unmounts; returns why it could not, or None."""
    try:
        done = subprocess.run(
            ["umount", *options, str(where)], capture_output=True, text=True, timeout=WAIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "it does not come to an end"
    return done.stderr.strip() if done.returncode else None


def _processes_that_name(folder: Path) -> list[int]:
    """Processes with the folder, or something in it, among the words of their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word == os.fsencode(folder) or word.startswith(os.fsencode(folder) + b"/") for word in words):
            found.append(int(entry.name))
    return found


def clear_folder(folder: Path) -> None:
    """Ends what works in the folder, unmounts what is mounted there, removes it."""
    pids = _processes_that_name(folder)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for where in _mountpoints_below(folder):
        _umount(where, "--lazy")
    wait_for(lambda: not any(process_is_alive(pid) for pid in pids), "processes gone")
    shutil.rmtree(folder, ignore_errors=True)


def clear_left_folders() -> None:
    """Of runs whose process is dead."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        owner = folder.name.removeprefix(FOLDER_PREFIX)
        if owner.isdigit() and not process_is_alive(int(owner)):
            clear_folder(folder)


class Hand:
    """A worker's process, and the conversation with it."""

    def __init__(self, control: Path, number: int, host: int, log: Path) -> None:
        self.number = number
        self.host = host
        self._control = control
        self._log = log
        self._process = self._start()
        self._asked = False

    def _start(self) -> subprocess.Popen[str]:
        with self._log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.hosts.worker", str(self._control), str(self.number), str(self.host)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C is for the rig, which ends it in its turn
                bufsize=1,
            )

    def ask(self, order: dict[str, Any]) -> None:
        """Sends an order."""
        assert self._process.stdin is not None
        self._asked = True
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def answer(self, timeout_s: float) -> dict[str, Any] | None:
        """Its answer; None where there is none yet."""
        out: IO[str] | None = self._process.stdout
        assert out is not None
        if not select.select([out], [], [], max(0.0, timeout_s))[0]:
            return None
        line = out.readline()
        if not line:
            raise RigFailed(f"worker {self.number} has ended: {last_log_line(self._log)}")
        self._asked = False
        answer: dict[str, Any] = json.loads(line)
        return answer

    def do(self, order: dict[str, Any], timeout_s: float = WAIT_S) -> dict[str, Any]:
        """Has it carried out. Raises RigFailed where it does not end, or says that it did not work."""
        self.ask(order)
        answer = self.answer(timeout_s)
        if answer is None:
            raise RigFailed(f"worker {self.number} on host {self.host} hangs in {order['order']}")
        if "error" in answer:
            raise RigFailed(f"host {self.host}: {answer['error']}")
        return answer

    def kill(self) -> None:
        """Ends it, in the midst of whatever it does. One that hangs in a mount ends only with that."""
        self._process.kill()
        self._process.wait(WAIT_S)
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def renew(self) -> None:
        """A new process in its place."""
        self.kill()
        self._process = self._start()


class Rig:
    """See the module. Use as a context manager."""

    def __init__(self, *, hosts: int = HOSTS, shared: bool = True) -> None:
        self.hosts = hosts
        self.shared = shared
        self.folder = Path(tempfile.gettempdir()) / f"{FOLDER_PREFIX}{os.getpid()}"
        self.mounts = [self.folder / f"host-{host}" for host in range(hosts)]
        self._pool: dict[str, subprocess.Popen[bytes]] = {}
        self._mounted: dict[int, subprocess.Popen[bytes]] = {}
        self.hands: list[Hand] = []

    # ------------------------------------------------------------ beginning and end

    def __enter__(self) -> Self:
        clear_leftovers()
        clear_left_folders()
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "log").mkdir(parents=True)
        (self.folder / "coordinator.toml").write_text(SETTINGS)
        self.network = Network(self.hosts)
        try:
            self.address = f"{self.network.address}:{PORT}"
            self.start_coordinator()
            for node in range(NODES):
                self.start_node(node)
            with self.pool() as pool:
                wait_for(lambda: sum(node.state == "up" for node in pool.nodes()) == NODES, "all nodes up")
                pool.create_volume(VOLUME, POLICY)
            self.control = Control(self.folder / "control")
            for number in range(self.hosts * WORKERS_PER_HOST):
                host = number // WORKERS_PER_HOST
                log = self.folder / "log" / f"worker-{number}.log"
                self.hands.append(Hand(self.folder / "control", number, host, log))
            for host in range(self.hosts if self.shared else 1):
                self.mount(host)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in (*self._mounted.values(), *self._pool.values()):
            process.kill()
        for hand in self.hands:
            hand.kill()
        for process in (*self._mounted.values(), *self._pool.values()):
            process.wait(WAIT_S)
        clear_folder(self.folder)
        self.network.close()

    def pool(self) -> Pool:
        """A connection to the coordinator."""
        return Pool.connect(self.address)

    def log_of(self, name: str) -> Path:
        """The log of `coordinator`, `node-N` or `host-N`."""
        return self.folder / "log" / f"{name}.log"

    def hand(self, host: int, slot: int = 0) -> Hand:
        """A worker."""
        return self.hands[host * WORKERS_PER_HOST + slot]

    # ------------------------------------------------------------ the pool's processes

    def _start(self, name: str, module: str, *words: str) -> None:
        data = self.folder / name
        data.mkdir(exist_ok=True)
        with self.log_of(name).open("ab") as log:
            self._pool[name] = subprocess.Popen(
                [sys.executable, "-m", module, "--data", str(data), "--log-file", str(self.log_of(name)), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C is for the rig, which ends it in its turn
            )

    def start_coordinator(self) -> None:
        """Returns when it answers."""
        settings = str(self.folder / "coordinator.toml")
        self._start("coordinator", "redfs.coordinator", "--listen", self.address, "--config", settings)
        with self.pool() as pool:

            def answers() -> bool:
                if self._pool["coordinator"].poll() is not None:
                    raise RigFailed(f"the coordinator has ended: {last_log_line(self.log_of('coordinator'))}")
                try:
                    pool.status()
                except RedfsError:
                    return False
                return True

            wait_for(answers, "the coordinator answers")

    def start_node(self, node: int) -> None:
        """Returns at once."""
        listen = f"{self.network.address}:0"
        self._start(f"node-{node}", "redfs.storage_node", "--coordinator", self.address, "--listen", listen)

    def kill(self, name: str) -> None:
        """kill -9 of the coordinator or a node."""
        self._pool[name].kill()
        self._pool[name].wait(WAIT_S)

    # ------------------------------------------------------------ mounts

    def mount(self, host: int) -> None:
        """Mounts; tries again while the mount before it still has the volume. Returns when the mount answers."""
        deadline = time.monotonic() + WAIT_S
        where = self.mounts[host]
        where.mkdir(exist_ok=True)
        log = self.log_of(f"host-{host}")
        words = ["--pool", self.address, "--volume", VOLUME, "--mountpoint", str(where), "--log-file", str(log)]
        words += ["--give-up-s", str(GIVE_UP_S), *(["--shared"] if self.shared else [])]
        command = [*self.network.inside(host), sys.executable, "-m", "redfs.client.mount_process", "--foreground"]
        command += words
        while True:
            with log.open("ab") as out:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    cwd=ROOT,
                    start_new_session=True,
                    env={**os.environ, "REDFS_RUNTIME": str(self.folder / "run")},
                )
            self._mounted[host] = process
            while process.poll() is None and mounted_at(where) is None and time.monotonic() < deadline:
                time.sleep(POLL_S)
            if process.poll() is None and mounted_at(where) is not None:
                return
            if time.monotonic() > deadline:
                raise RigFailed(f"host {host} cannot mount: {last_log_line(log)}")
            time.sleep(POLL_S)

    def unmount(self, host: int) -> None:
        """Unmounts; returns when everything is written and the process has ended. Its programs must stand still."""
        process = self._mounted[host]
        deadline = time.monotonic() + BUSY_S
        said = _umount(self.mounts[host])
        while said is not None and "busy" in said and time.monotonic() < deadline:
            time.sleep(POLL_S)
            said = _umount(self.mounts[host])
        if said is not None:
            raise RigFailed(f"host {host} cannot unmount: {said}")
        try:
            process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            raise RigFailed(f"the mount process of host {host} does not end") from None

    def kill_mount(self, host: int) -> None:
        """kill -9 of the host's mount process. What hangs in the mount fails then."""
        self._mounted[host].kill()
        self._mounted[host].wait(WAIT_S)

    def clear_mount(self, host: int) -> None:
        """Takes a dead mount away."""
        _umount(self.mounts[host], "--lazy")

    def signal_mount(self, host: int, number: signal.Signals) -> None:
        """Freezes (SIGSTOP) or wakes (SIGCONT) the host's mount process."""
        if self._mounted[host].poll() is None:
            self._mounted[host].send_signal(number)

    def is_mounted(self, host: int) -> bool:
        """Whether its mount process runs."""
        process = self._mounted.get(host)
        return process is not None and process.poll() is None and mounted_at(self.mounts[host]) is not None

    def stand_still(self, host: int) -> None:
        """Returns when the host's programs stand still, with nothing open."""
        self.control.ask(host, True)
        numbers = [hand.number for hand in self.hands if hand.host == host]
        wait_for(lambda: all(self.control.is_still(number) for number in numbers), f"programs of host {host} stand")

    def go_on(self, host: int) -> None:
        """Ends `stand_still`."""
        self.control.ask(host, False)

    # ------------------------------------------------------------ checks

    def check(self) -> list[str]:
        """What `redfs check` finds."""
        with self.pool() as pool:
            report = settled_report(pool, verify_data=False, timeout_s=WAIT_S)
        return [] if report.clean else [*report.problems, *report.unchecked]
