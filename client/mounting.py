"""Starting and ending mounts from the command line and from Python, without the mount itself.

A mount is a process of its own (`client/mount_process.py`). While it lives, a record in the runtime folder, keyed by
the mount point, says which process that is. `unmount` returns only when that process has gone, which it does once
everything is durable; what it could not save it leaves in the record's place as a message, which is raised here.

Fails with InvalidArgument (a mount point that cannot be one), Busy (already mounted, in use), NotFound (nothing is
mounted there), and whatever error kept the mount process from starting, as it reported it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from redfs.core.errors import BY_CODE, Busy, InternalError, InvalidArgument, NotFound, RedfsError, Unavailable

MNT_FORCE, MNT_DETACH, UMOUNT_NOFOLLOW = 1, 2, 8
FUSE_TYPE = "fuse.redfs"
"""File system type in /proc/mounts."""
RECORD_VERSION = 1
UNMOUNT_TIMEOUT_S = 60.0
"""For the umount command itself; the wait for the mount process has no bound but that process's own."""
BUSY_AGAIN_S = 0.5
"""A mount that is in use is tried again for so long: its own look at a folder (`fs/own_mount.py`) takes some ms."""
BUSY_PAUSE_S = 0.02
START_TIMEOUT_S = 60.0
"""For a mount process to answer: longer than its own waits for the coordinator."""


@dataclass(frozen=True)
class MountRecord:
    """Who serves a mount point."""

    pid: int
    started: str
    """The process's start time in /proc/PID/stat, so that another one with the same number is not mistaken for it."""
    mountpoint: str
    volume: str
    log_file: str


def runtime_folder(env: Mapping[str, str] = os.environ) -> Path:
    """Where records of running mounts are kept; gone after a restart of the machine, as the mounts are."""
    if named := env.get("REDFS_RUNTIME"):
        return Path(named)
    if os.geteuid() == 0:
        return Path("/run/redfs")
    if base := env.get("XDG_RUNTIME_DIR"):
        return Path(base) / "redfs"
    return Path(f"/tmp/redfs-{os.geteuid()}")


def _key(mountpoint: Path) -> str:
    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:24]


def record_path(mountpoint: Path) -> Path:
    return runtime_folder() / f"{_key(mountpoint)}.json"


def loss_path(mountpoint: Path) -> Path:
    """Where a mount process leaves a message about what it could not save."""
    return runtime_folder() / f"{_key(mountpoint)}.lost"


def process_started(pid: int) -> str | None:
    """The start time of a process as /proc tells it; None where it is not running."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[19]


def write_record(mountpoint: Path, volume: str, log_file: str) -> None:
    """Says that this process serves the mount point."""
    folder = runtime_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    loss_path(mountpoint).unlink(missing_ok=True)
    pid = os.getpid()
    record = MountRecord(pid, process_started(pid) or "", str(mountpoint), volume, log_file)
    beside = folder / f".{_key(mountpoint)}.{pid}"
    beside.write_text(json.dumps({"version": RECORD_VERSION, **asdict(record)}))
    beside.rename(record_path(mountpoint))


def remove_record(mountpoint: Path, lost: str | None) -> None:
    """This process ends; `lost` says what could not be saved."""
    if lost is not None:
        with contextlib.suppress(OSError):
            loss_path(mountpoint).write_text(lost)
    record = find_record(mountpoint)
    if record is None or record.pid == os.getpid():
        record_path(mountpoint).unlink(missing_ok=True)


def find_record(mountpoint: Path) -> MountRecord | None:
    """The process that serves a mount point, if it lives."""
    try:
        raw = json.loads(record_path(mountpoint).read_text())
        if raw.pop("version") != RECORD_VERSION:
            return None
        record = MountRecord(**raw)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return record if process_started(record.pid) == record.started else None


@dataclass(frozen=True)
class MountedAt:
    """A line of /proc/self/mountinfo."""

    device: str
    """MAJOR:MINOR."""
    fs_type: str
    source: str


def mounted_at(mountpoint: Path) -> MountedAt | None:
    """What is mounted exactly there (the topmost), without touching the mount itself."""
    wanted = str(mountpoint)
    found = None
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        where = fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape", "surrogateescape")
        with contextlib.suppress(UnicodeError):
            where = where.encode("latin-1").decode("utf-8", "surrogateescape")
        if where == wanted:
            rest = fields[fields.index("-") + 1 :]
            found = MountedAt(fields[2], rest[0], rest[1])
    return found


def check_mountpoint(mountpoint: Path) -> Path:
    """The real path of a folder that can be mounted on; makes it where it does not exist.

    Raises InvalidArgument and Busy. A stale mount (its process has died) is told apart: `redfs umount` cleans it up.
    """
    path = Path(os.path.abspath(mountpoint))
    mounted = mounted_at(path)
    if mounted is not None:
        if mounted.fs_type == FUSE_TYPE and _is_stale(path):
            raise Busy(f"the mount process of {path} has died: run `redfs umount {path}`, then mount again")
        raise Busy(f"{mounted.source} is mounted on {path} already: unmount it first, or choose another folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
        path = path.resolve(strict=True)
        with os.scandir(path) as entries:
            occupied = next(entries, None) is not None
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidArgument(f"{path} is not a folder: choose a folder to mount on") from error
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise Busy(f"the mount process of {path} has died: run `redfs umount {path}`") from error
        raise InvalidArgument(f"cannot mount on {path}: {error.strerror}") from error
    if occupied:
        raise InvalidArgument(f"{path} is not empty: mount on an empty folder")
    if mounted_at(path) is not None:
        raise Busy(f"something is mounted on {path} already: unmount it first, or choose another folder")
    return path


def _is_stale(path: Path) -> bool:
    """Whether a mount of ours has no process any more. Asks the kernel, which knows at once."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def mount(
    pool: str,
    volume: str,
    mountpoint: Path,
    *,
    foreground: bool = False,
    read_only: bool = False,
    relatime: bool = False,
    shared: bool = False,
    kernel_options: Sequence[str] = (),
    log_file: Path | None = None,
    give_up_s: float | None = None,
) -> None:
    """Mounts VOLUME or VOLUME@SNAPSHOT and returns when the mount answers.

    `foreground` returns when it was unmounted. `shared`: together with others that say so, also to write.
    `kernel_options`: flags like `noexec`. Raises the error that
    kept it from starting.
    """
    path = check_mountpoint(mountpoint)
    command = [sys.executable, "-m", "redfs.client.mount_process"]
    command += ["--pool", pool, "--volume", volume, "--mountpoint", str(path)]
    if read_only:
        command.append("--read-only")
    if relatime:
        command.append("--relatime")
    if shared:
        command.append("--shared")
    for option in kernel_options:
        command += ["--kernel-option", option]
    if log_file is not None:
        command += ["--log-file", str(log_file)]
    if give_up_s is not None:
        command += ["--give-up-s", str(give_up_s)]
    if foreground:
        code = subprocess.run([*command, "--foreground"], check=False).returncode
        if code:
            raise _reported(code, "the mount ended with an error, told above")
        return
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        message = lines[-1] if lines else f"the mount process ended with code {done.returncode}"
        raise _reported(done.returncode, message.removeprefix("redfs mount: "))


def _reported(code: int, message: str) -> RedfsError:
    for cls in BY_CODE.values():
        if cls.exit_code == code and cls.code not in ("fs", "error", "commit_refused"):
            return cls(message)
    return InternalError(message)


def unmount(mountpoint: Path, *, lazy: bool = False, force: bool = False) -> None:
    """Unmounts and returns when everything is durable and the mount's process has gone.

    `lazy` takes the mount away from its folder at once, also while it is in use, and waits for nothing: the process
    goes on until the last who uses it is done. `force` also ends requests that hang.

    Raises NotFound (nothing is mounted there), Busy (in use), Unavailable (not everything could be saved).
    """
    path = Path(os.path.abspath(mountpoint))
    mounted = mounted_at(path)
    if mounted is None:
        with contextlib.suppress(OSError):
            path = path.resolve(strict=True)
        mounted = mounted_at(path)
    record = find_record(path)
    if mounted is None or mounted.fs_type != FUSE_TYPE:
        if record is not None:
            _wait_for_end(record)  # unmounted by another command a moment ago
            _raise_loss(path)
            return
        raise NotFound(f"no volume is mounted on {path}: see the mounts with `mount -t {FUSE_TYPE}`")
    if record is None and _is_stale(path):
        _umount(path, lazy=True)
        record_path(path).unlink(missing_ok=True)
        return
    until_s = time.monotonic() + BUSY_AGAIN_S
    while True:
        try:
            _umount(path, lazy=lazy, force=force)
            break
        except Busy:
            if record is None or time.monotonic() > until_s:
                raise
        time.sleep(BUSY_PAUSE_S)
    if lazy:
        return
    if record is not None:
        _wait_for_end(record)
    _raise_loss(path)


def _umount_as_root(path: Path, *, lazy: bool, force: bool) -> None:
    """umount(8) would look at the mount first, and wait as long as one that is cut off does."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0) | (MNT_FORCE if force else 0)
    if libc.umount2(os.fsencode(path), flags):
        error = ctypes.get_errno()
        if error == errno.EBUSY:
            raise Busy(f"{path} is in use: close what uses it (`fuser -vm {path}` shows it), then unmount again")
        raise Unavailable(f"cannot unmount {path}: {os.strerror(error)}")


def _umount(path: Path, *, lazy: bool, force: bool = False) -> None:
    if os.geteuid() == 0:
        _umount_as_root(path, lazy=lazy, force=force)
        return
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), str(path)]
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=UNMOUNT_TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise Unavailable(f"the command {command[0]} is missing: install it (package fuse3 or mount)") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"unmounting {path} does not come to an end: see the mount's log") from error
    if not done.returncode:
        return
    said = done.stderr.strip().splitlines()
    if "busy" in done.stderr:
        raise Busy(f"{path} is in use: close what uses it (`fuser -vm {path}` shows it), then unmount again")
    raise Unavailable(f"cannot unmount {path}: {said[-1] if said else done.returncode}")


def _wait_for_end(record: MountRecord) -> None:
    try:
        pidfd = os.pidfd_open(record.pid)
    except OSError:
        return
    try:
        if process_started(record.pid) == record.started:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            poller.poll()
    finally:
        os.close(pidfd)


def _raise_loss(path: Path) -> None:
    try:
        lost = loss_path(path).read_text()
    except OSError:
        return
    loss_path(path).unlink(missing_ok=True)
    raise Unavailable(lost)
