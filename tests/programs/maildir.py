"""A Maildir under a storm: several processes deliver, others move what is new to cur, others read it and delete it.

Nothing may be lost, and nothing be had twice. The processes run over all views of the folder: with two mounts half of
them are on each. As a program (`maildir.py ROLE FOLDER NUMBER COUNT`) this file is one of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

MESSAGES = 250
"""Of each who delivers."""
DELIVERERS = MOVERS = READERS = 2
WAIT_S = 120.0
"""Without any message turning up, before something is wrong."""


def deliver(folder: str, number: int, count: int) -> None:
    """Each message is written in tmp, synced, and then appears in new: by rename, or by link and unlink."""
    for message in range(count):
        name = f"{number}.{message}"
        temporary = f"{folder}/tmp/{name}"
        with open(temporary, "x") as file:
            file.write(f"{name}\n" * (1 + message % 400))
            file.flush()
            if message % 4 == 0:
                os.fsync(file.fileno())
        if message % 2:
            os.rename(temporary, f"{folder}/new/{name}")
        else:
            os.link(temporary, f"{folder}/new/{name}")
            os.unlink(temporary)


def move(folder: str) -> None:
    """Moves what is in new to cur until told to stop."""
    while not os.path.exists(f"{folder}/stop"):
        for name in os.listdir(f"{folder}/new"):
            try:
                os.rename(f"{folder}/new/{name}", f"{folder}/cur/{name}:2,S")
            except FileNotFoundError:
                continue  # another one was quicker
            print("moved", name, flush=True)


def read(folder: str) -> None:
    """Reads what is in cur and deletes it, until told to stop."""
    while not os.path.exists(f"{folder}/stop"):
        for name in os.listdir(f"{folder}/cur"):
            path = f"{folder}/cur/{name}"
            try:
                with open(path) as file:
                    text = file.read()
                os.unlink(path)
            except FileNotFoundError:
                continue
            message = name.removesuffix(":2,S")
            whole = f"{message}\n" * (1 + int(message.split(".")[1]) % 400)
            print("read" if text == whole else "damaged", message, flush=True)


def main(role: str, folder: str, number: int, count: int) -> None:
    if role == "deliver":
        deliver(folder, number, count)
    else:
        {"move": move, "read": read}[role](folder)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    sys.exit(0)

from tests.programs.place import Place, kill


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
    wanted = sorted(f"{number}.{message}" for number in range(DELIVERERS) for message in range(count))
    assert not [line for line in _lines(logs, "read") if line[0] == "damaged"]
    assert sorted(name for _, name in _lines(logs, "read")) == wanted, "messages were lost, or deleted twice"
    assert sorted(name for _, name in _lines(logs, "move")) == wanted, "messages were moved twice"
    for view in place.views:
        left = {name: os.listdir(view / name) for name in ("tmp", "new", "cur")}
        assert not any(left.values()), f"left behind: {left}"


def _start(place: Place, logs: Path, role: str, number: int, count: int) -> subprocess.Popen[str]:
    folder = place.views[number % len(place.views)]
    with open(logs / f"{role}.{number}", "x") as out:
        return subprocess.Popen(
            [sys.executable, __file__, role, str(folder), str(number), str(count)], stdout=out, text=True
        )


def _lines(logs: Path, role: str) -> list[list[str]]:
    """What all of a role printed, in whole lines."""
    return [
        line.split() for log in logs.glob(f"{role}.*") for line in log.read_text().splitlines(True) if line[-1] == "\n"
    ]
