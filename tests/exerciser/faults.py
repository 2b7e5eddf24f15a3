"""What happens to the pool during a run, drawn from the run's seed.

While programs work: a storage node is killed, or those that were are started again; the coordinator is killed and
started again. Never are more nodes away than the volume tolerates. Between rounds: the volume is unmounted and mounted
(on one of several hosts), kept in a snapshot, rolled back to it; or everything is synced, and the process of a mount
killed. Everything goes through the command line, as users do it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from redfs.client.local_pool import LocalPool, process_is_alive, running_pid
from tests.exerciser.crew import Crew

COMMAND_S = 180.0
NODES_AWAY = 1
DURING = {"nothing": 10, "kill a node": 5, "start the nodes": 4, "kill the coordinator": 1}
BETWEEN = {"nothing": 6, "remount": 3, "snapshot": 3, "roll back": 2, "kill the mount": 1}


class Faults:
    """Makes faults in a pool of `redfs up`, for a volume that is mounted on one folder, or shared by several."""

    def __init__(self, pool: Path, volume: str, mounts: Sequence[Path], seed: int) -> None:
        self._local = LocalPool(pool)
        self._volume = volume
        self._mounts = mounts
        self._random = random.Random(seed)
        self._away: list[int] = []
        self._snapshots = 0
        self.made: list[str] = []

    def during(self) -> None:
        """One fault while programs work, or none."""
        what = self._draw(DURING)
        if what == "kill a node" and len(self._away) < NODES_AWAY:
            number = self._random.choice(self._local.node_numbers())
            self._kill(f"node-{number}")
            self._away.append(number)
        elif what == "start the nodes":
            for number in self._away:
                self._redfs("node", "start", str(number))
            self._away.clear()
        elif what == "kill the coordinator":
            self._kill("coordinator")
            self._redfs("up", "--no-console")
            self._away.clear()
        else:
            return
        self.made.append(what)

    def between(self, crew: Crew) -> None:
        """One thing while all stand still with nothing open."""
        what = self._draw(BETWEEN)
        if what == "roll back" and not self._snapshots:
            what = "snapshot"
        if what != "nothing":
            self.made.append(what)
        if what == "remount":
            self.remount(self._random.choice(self._mounts))
        elif what == "snapshot":
            self._snapshots += 1
            self._redfs("snapshot", "create", self._snapshot())
            if self._snapshots > 2:
                self._redfs("snapshot", "rm", self._snapshot(2), "--yes")
            crew.all("save")
        elif what == "roll back":
            self._redfs("rollback", self._snapshot(), "--discard", "--yes")
            crew.all("restore")
        elif what == "kill the mount":
            crew.all("sync")
            crew.all("close_all")
            mount = self._random.choice(self._mounts)
            self._kill_mount(mount)
            self.mount(mount)

    def mount(self, mount: Path) -> None:
        """Mounts, with others where there are several."""
        self._redfs("mount", self._volume, str(mount), *(["--shared"] if len(self._mounts) > 1 else []))

    def remount(self, mount: Path) -> None:
        """Unmounts and mounts."""
        self._redfs("umount", str(mount))
        self.mount(mount)

    def end(self) -> None:
        """Everything up again, mounted anew, and proved."""
        self._redfs("up", "--no-console")
        self._away.clear()
        for mount in self._mounts:
            self.remount(mount)

    def check(self) -> None:
        """`redfs check --data` finds nothing."""
        self._redfs("check", "--data")

    def _snapshot(self, back: int = 0) -> str:
        return f"{self._volume}@exercised-{os.getpid()}-{self._snapshots - back}"

    def _draw(self, weights: dict[str, int]) -> str:
        return self._random.choices(list(weights), list(weights.values()))[0]

    def _kill(self, name: str) -> None:
        member = next(member for member in self._local.members() if member.name == name)
        pid = running_pid(member)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self._wait_for_end(pid)

    def _wait_for_end(self, pid: int) -> None:
        deadline = time.monotonic() + COMMAND_S
        while process_is_alive(pid):
            assert time.monotonic() < deadline, f"process {pid} does not end"
            time.sleep(0.01)

    def _kill_mount(self, mount: Path) -> None:
        """kill -9: what was synced must be there after it."""
        pid = next(mounted.pid for mounted in self._local.mounts() if Path(mounted.mountpoint) == mount)
        os.kill(pid, signal.SIGKILL)
        self._wait_for_end(pid)
        subprocess.run(["umount", "--lazy", str(mount)], check=True, timeout=COMMAND_S)

    def _redfs(self, *words: str) -> None:
        command = [sys.executable, "-m", "redfs.client.cli.main", "--pool", str(self._local.folder), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
        if done.returncode:
            raise RuntimeError(f"redfs {' '.join(words)}: {done.returncode}: {done.stderr or done.stdout}")
