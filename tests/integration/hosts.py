"""Hosts of a pool's tests: each is the process behind one mount, which can be frozen, as a host is that was cut off.

A frozen process hears nothing and says nothing, its clock goes on, and its kernel serves what it remembers: just so it
is with a host whose network is down, or that slept.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from ast import literal_eval
from pathlib import Path
from typing import Any, Self

from tests.integration.pools import WAIT_S, RunningPool, wait_for


class Host:
    """One mount of a volume. Made by `mount_on`."""

    def __init__(self, pool: RunningPool, volume: str, place: Path) -> None:
        self.pool = pool
        self.volume = volume
        self.place = place
        (mounted,) = [mounted for mounted in pool.local.mounts() if Path(mounted.mountpoint) == place]
        self.pid = mounted.pid
        self._log = Path(mounted.log_file)
        self._log_from = 0

    def freeze(self) -> None:
        """Returns when its process stands still."""
        self._log_from = len(self._log.read_bytes())
        os.kill(self.pid, signal.SIGSTOP)
        wait_for(lambda: Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "frozen")

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def told(self) -> str:
        """What its log says since it was frozen."""
        return self._log.read_bytes()[self._log_from :].decode()

    def umount(self) -> None:
        self.pool.umount(self.place)


def mount_on(pool: RunningPool, volume: str, *options: str) -> Host:
    """Mounts on a host of its own."""
    log = pool.folder / f"host-{volume}-{len(list(pool.folder.glob('host-*')))}.log"
    return Host(pool, volume, pool.mount(volume, "-o", f"log_file={log}", *options))


def mount_when_free(pool: RunningPool, volume: str, *options: str) -> Host:
    """Mounts as soon as whoever has the volume lost it."""
    found: list[Host] = []

    def free() -> bool:
        try:
            found.append(mount_on(pool, volume, *options))
        except AssertionError as error:
            if "is mounted by" not in str(error):
                raise
        return bool(found)

    wait_for(free, f"{volume} is free")
    return found[0]


PROGRAM = """
import os, sys, threading
from ast import literal_eval

lock = threading.Lock()

def carry_out(number, name, arguments):
    try:
        answer = (number, getattr(os, name)(*arguments), None)
    except OSError as error:
        answer = (number, None, error.errno)
    with lock:
        print(repr(answer), flush=True)

for line in sys.stdin:
    threading.Thread(target=carry_out, args=literal_eval(line), daemon=True).start()
"""


class Call:
    """One call of a `Program`, under way or answered."""

    def __init__(self) -> None:
        self._answered = threading.Event()
        self._result: Any = None
        self._errno: int | None = None

    def answer(self, result: Any, errno: int | None) -> None:
        self._result, self._errno = result, errno
        self._answered.set()

    @property
    def is_answered(self) -> bool:
        return self._answered.is_set()

    def outcome(self) -> tuple[Any, int | None]:
        """(result, errno), once there is one."""
        assert self._answered.wait(WAIT_S), "no answer"
        return self._result, self._errno


class Program:
    """A process of its own that has files of a host open: who has, begins no other process while the host is frozen.

    Calls functions of `os`; one that waits holds no other up.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
        )
        self._calls: dict[int, Call] = {}
        self._next = 1
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            number, result, errno = literal_eval(line)
            self._calls.pop(number).answer(result, errno)

    def begin(self, name: str, *arguments: Any) -> Call:
        """Begins a call."""
        call = self._calls[self._next] = Call()
        assert self._process.stdin is not None
        plain = tuple(str(a) if isinstance(a, Path) else a for a in arguments)
        self._process.stdin.write(f"{(self._next, name, plain)!r}\n")
        self._process.stdin.flush()
        self._next += 1
        return call

    def do(self, name: str, *arguments: Any) -> Any:
        """A call that must work; its result."""
        result, errno = self.begin(name, *arguments).outcome()
        assert errno is None, f"{name}{arguments}: {os.strerror(errno)}"
        return result

    def error(self, name: str, *arguments: Any) -> int | None:
        """The errno that a call ends with; None where it works."""
        outcome: tuple[Any, int | None] = self.begin(name, *arguments).outcome()
        return outcome[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
