"""The command line as tests call it: each command a process of its own, without the time that Python takes to begin.

A process that has loaded the modules (and does nothing else, so that it has one thread, and no connections) forks one
for each command. That such a process starts from nothing too is shown by `tests/client/cli/test_startup.py`, the
README's commands, the demo, and all tests that begin `python -m redfs.client.cli.main` themselves.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

MODULES = (
    "redfs.client.cli.main",
    "redfs.client.api",
    "redfs.client.check",
    "redfs.client.local_pool",
    "redfs.client.mounting",
    "redfs.client.receive",
    "redfs.client.restoring",
    "redfs.client.send",
)
REQUEST_BYTES = 1 << 20


def run(words: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """One command, whatever it ends with. Raises TimeoutExpired after it was killed, as `subprocess.run` does."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        near, far = socket.socketpair()
        with near:
            with far:
                request = json.dumps({"words": list(words), "env": dict(os.environ)}).encode()
                assert len(request) < REQUEST_BYTES
                socket.send_fds(_server(), [request], [out.fileno(), err.fileno(), far.fileno()])
            pid = int(_answer(near))
            near.settimeout(timeout_s)
            try:
                code = int(_answer(near))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                near.settimeout(None)
                _answer(near)
                raise subprocess.TimeoutExpired(list(words), timeout_s, _text(out), _text(err)) from None
        return subprocess.CompletedProcess(list(words), code, _text(out).decode(), _text(err).decode())


def _answer(near: socket.socket) -> bytes:
    answer = near.recv(100)
    assert answer, "the process that begins commands is gone"
    return answer


def _text(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


@functools.cache
def _server() -> socket.socket:
    """The connection to this process's own; it ends with the connection."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, REQUEST_BYTES)
    with far:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(far.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[far.fileno()],
            cwd=Path(__file__).resolve().parents[2],
        )
    atexit.register(near.close)
    process.returncode = 0  # it ends by itself: no warning when the object goes
    return near


def _serve(requests: socket.socket) -> None:
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()  # so that no process copies pages only to mark what is in them
    assert len(os.listdir("/proc/self/task")) == 1, "what forks must have one thread"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, fds, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 3)
        if not request:
            return
        if os.fork() == 0:
            requests.close()
            _begin(json.loads(request), *fds)
        for fd in fds:
            os.close(fd)


def _begin(request: dict[str, Any], out: int, err: int, answers: int) -> None:
    """In a process that waits for the command and tells how it ended; returns in the command's."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid:
        with socket.socket(fileno=answers) as near:
            near.send(b"%d" % pid)
            _, status = os.waitpid(pid, 0)
            near.send(b"%d" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for fd in (out, err, answers):
        os.close(fd)
    os.chdir("/")
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["redfs", *request["words"]]
    sys.exit(importlib.import_module("redfs.client.cli.main").main())


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as told:
        _serve(told)
