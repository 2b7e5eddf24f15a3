"""The disk that loses what was not synced, by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.power import take_back
from tests.cluster.rig import HERE

PROGRAM = """
import os, signal, sys
folder = sys.argv[1]
synced = os.open(f"{folder}/file", os.O_RDWR | os.O_CREAT)
os.pwrite(synced, b"0123456789", 0)
os.fsync(synced)
os.pwritev(synced, [b"AB", b"C"], 2)
os.fdatasync(synced)
open(sys.argv[2], "w").close()  # from here on
os.pwrite(synced, b"de", 4)
os.fdatasync(synced)
os.pwrite(synced, b"lost", 8)
os.pwritev(synced, [b"lost"], 0)
os.ftruncate(synced, 3)
os.pwrite(synced, b"lost", 20)
never = os.open(f"{folder}/never", os.O_WRONLY | os.O_CREAT)
os.write(never, b"lost")
by_itself = os.open(f"{folder}/by-itself", os.O_WRONLY | os.O_CREAT | os.O_DSYNC)
os.write(by_itself, b"kept")
moved = os.open(f"{folder}/beside", os.O_WRONLY | os.O_CREAT)
os.write(moved, b"kept")
os.fsync(moved)
os.write(moved, b"lost")
os.rename(f"{folder}/beside", f"{folder}/moved")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
def test_what_was_not_synced_is_gone_and_the_rest_is_not(tmp_path: Path) -> None:
    disk, undo, power, library = tmp_path / "disk", tmp_path / "log", tmp_path / "power", tmp_path / "power.so"
    disk.mkdir()
    places = [f'-DDATA="{disk}"', f'-DUNDO="{undo}"', f'-DPOWER="{power}"']
    words = ["gcc", "-Wall", "-Werror", "-shared", "-fPIC", *places, "-o", str(library), str(HERE / "power.c"), "-ldl"]
    subprocess.run(words, check=True)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(disk), str(power)],
        env={**os.environ, "LD_PRELOAD": str(library)},
        check=False,
    )
    assert done.returncode == -9
    assert take_back(undo, disk) == 6
    found = {path.name: path.read_bytes() for path in disk.iterdir()}
    assert found == {"file": b"01ABde6789", "never": b"", "by-itself": b"kept", "moved": b"kept"}
    assert take_back(undo, disk) == 0
