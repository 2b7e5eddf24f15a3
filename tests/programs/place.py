"""Where a check works: a folder of the file system that is judged, an ordinary one beside it, and what may be done to
the mount meanwhile. A check is a function of a place; it fails with an AssertionError that says what is wrong.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAM_TIMEOUT_S = 600.0
"""For one call of a program; at scale 1 each takes seconds."""


class Missing(Exception):
    """A program is not installed; the text names it and Debian's package."""


@dataclass(frozen=True)
class Place:
    """See the module."""

    views: tuple[Path, ...]
    """One folder, empty at first: once for each mount through which it is reached."""
    reference: Path
    """An empty folder of a local file system."""
    scale: float = 1.0
    """How much to do: 1 is some seconds for each check."""
    remount: Callable[[], None] | None = None
    """Unmounts the volume and mounts it again, on the same folder; None where that cannot be done from here."""
    kill_mount: Callable[[], None] | None = None
    """kill -9 of the mount's process. After it `remount` brings the folder back."""
    seed: int = 1

    @property
    def folder(self) -> Path:
        return self.views[0]

    @property
    def other_view(self) -> Path:
        """The folder through another mount, where there is one."""
        return self.views[-1]

    def times(self, number: int) -> int:
        """A number of things to do, at this scale; never none."""
        return max(1, round(number * self.scale))

    def remounted(self) -> bool:
        """Remounts where that is possible; whether it was."""
        if self.remount is not None:
            self.remount()
        return self.remount is not None

    def random(self) -> random.Random:
        return random.Random(self.seed)


def needs(program: str, package: str) -> str:
    """The path of a program. Raises Missing."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"there is no {program} here (Debian's package {package})")
    return found


def run(
    *words: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    code: int | None = 0,
    user: str | None = None,
    text_in: str | None = None,
) -> str:
    """One call of a program; what it printed on stdout. `code`: what it must end with, None for whatever."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C", **(env or {})},
        capture_output=True,
        timeout=PROGRAM_TIMEOUT_S,
        check=False,
        user=user,
        group=user and group_of(user),
        extra_groups=[] if user else None,
        input=None if text_in is None else text_in.encode(),
    )
    out = done.stdout.decode(errors="replace")
    if code is not None:
        said = done.stderr.decode(errors="replace")
        assert done.returncode == code, f"{' '.join(map(str, words))}: {done.returncode}: {said}{out}"
    return out


def group_of(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def kill(processes: Sequence[subprocess.Popen[str]]) -> None:
    """kill -9 of all of them, and waits for each."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    for process in processes:
        process.wait()
