"""The Docker engine of the tests: the one that runs, else one that is started for them and stopped after them.

`why_none` says what is missing where there is none; `scripts/setup --containers` installs it. An engine that was
started here is this machine's ordinary one, with the images that it has, so that what was built once stays.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from docker import DockerClient

from redfs.client.container_pool import IMAGE, connect_to_engine
from redfs.client.local_pool import last_log_line
from redfs.core.errors import Unavailable
from tests.conftest import why_no_mounts

ROOT = Path(__file__).resolve().parents[2]
ENGINE_START_S = 60.0
ENGINE_STOP_S = 60.0
BUILD_S = 900.0
POLL_S = 0.2
PROGRAMS = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "iptables": "iptables",
}


def why_none() -> str | None:
    """What is missing here for clusters in containers, or None."""
    reason = why_no_mounts()
    if reason is not None:
        return reason
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return f"there is no program `{program}` (package {package}; scripts/setup --containers installs it)"
    return None


@contextlib.contextmanager
def running_engine() -> Iterator[DockerClient]:
    """A client of the engine. Raises Unavailable, with the engine's last words, where it cannot run here."""
    try:
        engine = connect_to_engine()
    except Unavailable:
        with _started() as engine:
            yield engine
        return
    try:
        yield engine
    finally:
        engine.close()


@contextlib.contextmanager
def _started() -> Iterator[DockerClient]:
    with tempfile.TemporaryDirectory(prefix="redfs-engine-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        try:
            engine = _wait_for(process, log)
            try:
                yield engine
            finally:
                engine.close()
        finally:
            process.terminate()
            try:
                process.wait(ENGINE_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(process: subprocess.Popen[bytes], log: Path) -> DockerClient:
    deadline = time.monotonic() + ENGINE_START_S
    while True:
        try:
            return connect_to_engine()
        except Unavailable:
            if process.poll() is not None:
                raise Unavailable(f"the Docker engine cannot run here: {last_log_line(log)}") from None
            if time.monotonic() > deadline:
                raise Unavailable(f"the Docker engine does not come up: {last_log_line(log)}") from None
        time.sleep(POLL_S)


def ensure_image() -> str:
    """Builds the image of this checkout where it is not up to date; returns its name.

    With REDFS_TEST_IMAGE_AS_IS in the environment, the image that is there counts: for work on the tests themselves.
    """
    if os.environ.get("REDFS_TEST_IMAGE_AS_IS"):
        return IMAGE
    done = subprocess.run(
        [str(ROOT / "deploy" / "build")],
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
        env={**os.environ, "HOME": os.environ.get("HOME", "/root")},
    )
    assert done.returncode == 0, f"deploy/build: {done.stdout}{done.stderr}"
    return IMAGE
