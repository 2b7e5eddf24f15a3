"""The process that looks at a mount (`own_mount.py`): answers the process behind it, until that one is gone.

Each mount starts one: it loads nothing but what it needs, so that it is there at once.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import json
import os
import sys
import time
from collections.abc import Sequence

LOOK_S = 0.25
"""For looking at a moved folder while programs rename others: between two of these there is a moment for it."""
LOOK_PAUSE_S = 0.0003


def serve(mountpoint: str) -> None:
    """Answers requests until the end of the input."""
    for line in sys.stdin:
        request = json.loads(line)
        seen: list[int] = []
        with contextlib.suppress(OSError):
            if request["do"] == "stat":
                os.stat(mountpoint)
            elif request["do"] == "sync":
                _sync(mountpoint)
            else:
                seen = [_look(mountpoint, [base64.b64decode(name) for name in path]) for path in request["paths"]]
        print(json.dumps(seen), flush=True)


def _sync(mountpoint: str) -> None:
    folder = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        ctypes.CDLL(None, use_errno=True).syncfs(folder)
    finally:
        os.close(folder)


def _look(mountpoint: str, path: Sequence[bytes]) -> int:
    """The inode at the end of the path; 0 where there is none, or where programs rename things all the time."""
    until_s = time.monotonic() + LOOK_S
    while True:
        try:
            return _walk(mountpoint, path)
        except OSError as error:
            if error.errno != errno.ESTALE or time.monotonic() > until_s:
                return 0
        time.sleep(LOOK_PAUSE_S)


def _walk(mountpoint: str, path: Sequence[bytes]) -> int:
    """Step by step, as a path may be too long for one call."""
    folder = os.open(mountpoint, os.O_PATH | os.O_DIRECTORY)
    try:
        for name in path:
            below = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.fstat(folder).st_ino
    finally:
        os.close(folder)


if __name__ == "__main__":
    serve(sys.argv[1])
