"""A Maildir under a storm: several processes deliver, others move what is new to cur, others read it and delete it.

Nothing may be lost, and nothing be had twice. The processes (`maildir_process.py`) run over all views of the folder:
with two mounts half of them are on each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.programs import maildir_process
from tests.programs.place import Place, kill

MESSAGES = 250
"""Of each who delivers."""
DELIVERERS = MOVERS = READERS = 2
WAIT_S = 120.0
"""Without any message turning up, before something is wrong."""


def check_maildir(place: Place) -> None:
    """Several processes deliver into one Maildir, move and delete: nothing is lost, nothing is there twice."""
    for name in ("tmp", "new", "cur"):
        (place.folder / name).mkdir()
    count = place.times(MESSAGES)
    logs = place.reference
    deliverers = [_start(place, logs, "deliver", n, count) for n in range(DELIVERERS)]
    others = [_start(place, logs, "move", n, 0) for n in range(MOVERS)]
    others += [_start(place, logs, "read", n, 0) for n in range(READERS)]
    try:
        seen, since = 0, time.monotonic()
        while seen < count * DELIVERERS:
            now = len(_lines(logs, "read"))
            if now > seen:
                seen, since = now, time.monotonic()
            ended = [p.args for p in others if p.poll() is not None] + [p.args for p in deliverers if p.poll()]
            assert not ended, f"a process ended by itself: {ended}"
            assert time.monotonic() < since + WAIT_S, f"only {seen} of {count * DELIVERERS} messages were read"
            time.sleep(0.05)
        (place.other_view / "stop").touch()
        for process in (*deliverers, *others):
            assert process.wait(timeout=WAIT_S) == 0, process.args
    finally:
        kill([*deliverers, *others])
    wanted = {f"{number}.{message}" for number in range(DELIVERERS) for message in range(count)}
    assert not [line for line in _lines(logs, "read") if line[0] == "damaged"]
    # Two hosts may both be told that they have moved a message: see docs/posix.md.
    for role in ("read", "move") if len(place.views) == 1 else ("read",):
        counted = Counter(name for _, name in _lines(logs, role))
        wrong = {name: counted[name] for name in {*wanted, *counted} if counted[name] != 1}
        assert not wrong, f"{role}: not once each, but {wrong}"
    for view in place.views:
        left = {name: os.listdir(view / name) for name in ("tmp", "new", "cur")}
        assert not any(left.values()), f"left behind: {left}"


def _start(place: Place, logs: Path, role: str, number: int, count: int) -> subprocess.Popen[str]:
    folder = place.views[number % len(place.views)]
    with open(logs / f"{role}.{number}", "x") as out:
        return subprocess.Popen(
            [sys.executable, maildir_process.__file__, role, str(folder), str(number), str(count)],
            stdout=out,
            text=True,
        )


def _lines(logs: Path, role: str) -> list[list[str]]:
    """What all of a role printed, in whole lines."""
    return [
        line.split() for log in logs.glob(f"{role}.*") for line in log.read_text().splitlines(True) if line[-1] == "\n"
    ]
