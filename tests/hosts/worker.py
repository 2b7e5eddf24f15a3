"""A program on a host: carries out the operations of schedules and writes down what happened.

`python -m tests.hosts.worker CONTROL NUMBER HOST`: orders come as lines of JSON on the standard input, and one line
answers each. It is a process of its own so that it can be killed when a mount hangs.

CONTROL is a small file mapped by all (`Control`): before a host is unmounted its programs are asked to stand still,
with nothing open there. They look at it before each operation, and say that they are at work before they look.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import mmap
import os
import stat
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hosts.appends import digest, record
from tests.hosts.history import NEVER, OK, UNKNOWN, begin_line, end_line
from tests.hosts.names import NAMES
from tests.hosts.schedule import REGISTERS

CONTROL_BYTES = 4096
_STILL = 2048
"""Bytes from here on: which programs stand still."""
POLL_S = 0.005
PROBE_S = 0.05
AGAIN_S = 60.0
"""After an operation that may or may not have happened the program waits until its host works again, at most so
long. Else a host that is cut off would leave hundreds of these, which prove nothing and take for ever to check."""
READ_BYTES = 1 << 20
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
AT_FDCWD = -100
_CHANGES = frozenset(
    ("create", "mkdir", "link", "rename", "noreplace", "exchange", "unlink", "rmdir", "write", "resize", "append")
)
_libc = ctypes.CDLL(None, use_errno=True)


class Control:
    """Which hosts' programs are to stand still, and which programs do."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(CONTROL_BYTES))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), CONTROL_BYTES)

    def ask(self, host: int, still: bool) -> None:
        """The host's programs are to stand still, or to go on."""
        self._bytes[host] = still

    def is_asked(self, host: int) -> bool:
        """Whether they are to."""
        return bool(self._bytes[host])

    def say(self, worker: int, still: bool) -> None:
        """The program does, or goes on."""
        self._bytes[_STILL + worker] = still

    def is_still(self, worker: int) -> bool:
        """Whether it does."""
        return bool(self._bytes[_STILL + worker])


def _rename2(old: str, new: str, flags: int) -> None:
    if _libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _kind(mode: int) -> str:
    return "folder" if stat.S_ISDIR(mode) else "file"


class Worker:
    """One program."""

    def __init__(self, control: Control, number: int, host: int) -> None:
        self._control = control
        self._number = number
        self._host = host
        self._open: dict[str, int] = {}
        self._folder = ""
        self._careful = False
        self._worker = 0
        self._step = 0
        self._kinds: dict[str, Callable[..., Any]] = {
            "create": self._create, "mkdir": lambda name: os.mkdir(self._name(name)),
            "link": lambda old, new: os.link(self._name(old), self._name(new)),
            "rename": lambda old, new: os.rename(self._name(old), self._name(new)),
            "noreplace": lambda old, new: _rename2(self._name(old), self._name(new), RENAME_NOREPLACE),
            "exchange": lambda old, new: _rename2(self._name(old), self._name(new), RENAME_EXCHANGE),
            "unlink": lambda name: os.unlink(self._name(name)), "rmdir": lambda name: os.rmdir(self._name(name)),
            "stat": self._stat, "list": lambda: sorted(os.listdir(self._name(""))),
            "write": self._write, "read": self._read, "resize": self._resize, "size": self._size,
            "append": self._append, "read_log": self._read_log,
        }  # fmt: skip

    # ------------------------------------------------------------ operations

    def _name(self, name: str) -> str:
        return f"{self._folder}/names/{name}"

    def _create(self, name: str) -> int:
        fd = os.open(self._name(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            return os.fstat(fd).st_ino
        finally:
            _close(fd)

    def _stat(self, name: str) -> tuple[str, int]:
        found = os.lstat(self._name(name))
        return _kind(found.st_mode), found.st_ino

    def _file(self, name: str, flags: int) -> int:
        """The program's descriptor of a file, opened where it has none."""
        key = f"{name} {flags}"
        if key not in self._open:
            self._open[key] = os.open(f"{self._folder}/{name}", flags)
        return self._open[key]

    def _write(self, register: str, value: int) -> None:
        offset, length = REGISTERS[register]
        fd = self._file("registers", os.O_RDWR)
        written = os.pwrite(fd, struct.pack("<Q", value) * (length // 8), offset)
        if written != length:
            raise OSError(errno.EPROTO, f"{written} of {length} bytes were written")
        self._sync(fd)

    def _read(self, register: str) -> int | str:
        offset, length = REGISTERS[register]
        data = os.pread(self._file("registers", os.O_RDWR), length, offset)
        values: list[int] = [value for (value,) in struct.iter_unpack("<Q", data[: len(data) // 8 * 8])]
        if len(data) == length and len(set(values)) == 1:
            return values[0]
        return f"{len(data)} bytes with {sorted(set(values))}"

    def _resize(self, name: str, size: int) -> None:
        fd = self._file(name, os.O_RDWR)
        os.ftruncate(fd, size)
        self._sync(fd)

    def _size(self, name: str) -> int:
        # By name or through the descriptor, as the program has it.
        fd = self._open.get(f"{name} {os.O_RDWR}")
        return os.stat(f"{self._folder}/{name}" if fd is None else fd).st_size

    def _append(self, name: str, length: int) -> int:
        fd = self._file(name, os.O_WRONLY | os.O_APPEND)
        written = os.write(fd, record(self._worker, self._step, length))
        self._sync(fd)
        return written

    def _read_log(self, name: str) -> tuple[int, str]:
        content = _content(self._file(name, os.O_RDONLY))
        return len(content), digest(content)

    def _sync(self, fd: int) -> None:
        if self._careful:
            os.fsync(fd)

    # ------------------------------------------------------------ orders

    def run(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carries out a program. How many operations may or may not have happened."""
        self._folder, self._careful, self._worker = order["folder"], order["careful"], order["worker"]
        unknown = 0
        with open(order["history"], "a", buffering=1) as history:
            for step, (pause_s, kind, arguments, fresh) in enumerate(order["actions"], order["first"]):
                time.sleep(pause_s)
                self._wait_turn()
                self._step = step
                if fresh:
                    self.close_all()
                history.write(begin_line(step, kind, arguments, time.monotonic_ns()))
                error, value = self._carry_out(kind, arguments)
                history.write(end_line(step, time.monotonic_ns(), error, value))
                if error in UNKNOWN or error in NEVER:
                    unknown += 1
                    self.close_all()
                    self._wait_until_it_works()
        self.close_all()
        self._control.say(self._number, True)
        return {"unknown": unknown}

    def _carry_out(self, kind: str, arguments: list[Any]) -> tuple[int, Any]:
        try:
            value = self._kinds[kind](*arguments)
            if self._careful and kind in _CHANGES and kind not in ("write", "resize", "append"):
                _sync_folder(self._name(""))
        except OSError as error:
            return error.errno or errno.EIO, None
        return OK, value

    def _wait_turn(self) -> None:
        self._control.say(self._number, False)
        while self._control.is_asked(self._host):
            self.close_all()
            self._control.say(self._number, True)
            time.sleep(POLL_S)
            self._control.say(self._number, False)

    def _wait_until_it_works(self) -> None:
        deadline = time.monotonic() + AGAIN_S
        while time.monotonic() < deadline:
            self._wait_turn()
            try:
                os.stat(self._name(""))
                return
            except OSError:
                time.sleep(PROBE_S)

    def close_all(self) -> None:
        """Closes what it has open."""
        for fd in self._open.values():
            _close(fd)
        self._open.clear()

    def prepare(self, order: dict[str, Any]) -> dict[str, Any]:
        """Makes the folder that a schedule works in, for good."""
        folder = order["folder"]
        os.makedirs(f"{folder}/names")
        last = max(offset + length for offset, length in REGISTERS.values())
        for name, size in (("registers", last), ("sized", 0), ("log", 0)):
            with open(f"{folder}/{name}", "wb") as file:
                file.write(bytes(size))
                file.flush()
                os.fsync(file.fileno())
        for path in (f"{folder}/names", folder, os.path.dirname(folder)):
            _sync_folder(path)
        return {}

    def look(self, order: dict[str, Any]) -> dict[str, Any]:
        """Everything in a folder: path -> kind, inode number, links, and of files size and digest."""
        folder = order["folder"]
        seen = {}
        for where, folders, files in os.walk(folder, onerror=_raise):
            for name in (*folders, *files):
                path = os.path.join(where, name)
                found = os.lstat(path)
                content = None
                if stat.S_ISREG(found.st_mode):
                    with open(path, "rb") as file:
                        content = hashlib.sha256(file.read()).hexdigest()
                its = [_kind(found.st_mode), found.st_ino, found.st_nlink, found.st_size, content, found.st_mtime_ns]
                seen[os.path.relpath(path, folder)] = its
        log = Path(order["log"])
        log.write_bytes(Path(f"{folder}/log").read_bytes())
        return {"seen": seen}

    def remove(self, order: dict[str, Any]) -> dict[str, Any]:
        """Removes what a schedule left."""
        folder = order["folder"]
        for name in os.listdir(f"{folder}/names"):
            path = f"{folder}/names/{name}"
            if name in NAMES and os.path.isdir(path):
                os.rmdir(path)
            else:
                os.unlink(path)
        for name in os.listdir(folder):
            if name != "names":
                os.unlink(f"{folder}/{name}")
        os.rmdir(f"{folder}/names")
        os.rmdir(folder)
        return {}


def _content(fd: int) -> bytes:
    parts: list[bytes] = []
    offset = 0
    while part := os.pread(fd, READ_BYTES, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def _close(fd: int) -> None:
    """What matters was said by the operations before."""
    try:
        os.close(fd)
    except OSError:
        return


def _raise(error: OSError) -> None:
    raise error


def main() -> None:
    """Serves orders until there are none."""
    number, host = int(sys.argv[2]), int(sys.argv[3])
    control = Control(Path(sys.argv[1]))
    worker = Worker(control, number, host)
    orders = {"run": worker.run, "prepare": worker.prepare, "look": worker.look, "remove": worker.remove}
    control.say(number, True)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = orders[order["order"]](order)
        except OSError as error:
            worker.close_all()
            answer = {"error": f"{order['order']}: {error}"}
        control.say(number, True)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
