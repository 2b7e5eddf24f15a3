"""What docs/posix.md promises to programs, through the kernel, and how mount(8) mounts."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redfs.client import mounting
from redfs.core.namespace.acls import GROUP_OBJ, MASK, OTHER, USER, USER_OBJ, AclEntry, decode_acl, encode_acl
from tests.integration.pools import RunningPool, wait_for

pytestmark = [pytest.mark.mount, pytest.mark.slow]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def pool() -> Iterator[RunningPool]:
    """Three nodes for the tests of this module."""
    with tempfile.TemporaryDirectory(prefix="redfs-posix-test-") as folder:
        os.chmod(folder, 0o755)  # for the tests that are other users
        running = RunningPool(Path(folder), nodes=3)
        try:
            running.up()
            yield running
        finally:
            running.destroy()


@pytest.fixture(scope="module")
def place(pool: RunningPool) -> Path:
    """A mounted volume that everyone may write to."""
    pool.redfs("volume", "create", "shared", "--protect", "ec:2+1")
    where = pool.mount("shared")
    where.chmod(0o777)
    return where


def error_of(call: Callable[[], object]) -> int:
    """The errno that a call fails with, 0 where it works."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def as_user(uid: int, groups: list[int], call: Callable[[], object]) -> str:
    """What a call returns in a process of another user, which ends after it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups(groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.umask(0o022)
            answer = repr(call())
        except BaseException as error:  # noqa: BLE001  # told to the parent, whatever it is
            answer = repr(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


# ---------------------------------------------------------------- mount(8)


ROOT = Path(__file__).resolve().parents[2]
HELPERS = {
    "mount.fuse.redfs": "mount_helper", "mount.redfs": "mount_helper",
    "umount.fuse.redfs": "umount_helper", "umount.fuse": "umount_helper",
}  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As much of a checkout as `scripts/setup --sbin` needs, installed, and a copy of /sbin for it to fill."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare")
    top = tmp_path_factory.mktemp("checkout")
    for name in ("scripts/setup", "pyproject.toml"):
        (top / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, top / name)
    programs = top / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    (top / ".venv" / "redfs-installed").write_text(f"run {wanted}\n")
    path = ":".join(path for path in sys.path if path)
    for name, module in HELPERS.items():
        text = f'#!/bin/sh\nPYTHONPATH={path} exec {sys.executable} -m redfs.client.cli.{module} "$@"\n'
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)
    shutil.copytree("/sbin", top / "sbin", symlinks=True)
    return top


@pytest.fixture
def mount8(checkout: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a script after `scripts/setup --sbin`, in a mount namespace with an /sbin of its own."""

    def run(script: str) -> subprocess.CompletedProcess[str]:
        prepared = f"set -e; mount --bind {checkout}/sbin /sbin; {checkout}/scripts/setup run --sbin >&2; {script}"
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", prepared], capture_output=True, text=True, check=False, timeout=120
        )

    return run


def test_mount8_mounts_with_its_options(
    pool: RunningPool, tmp_path: Path, mount8: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    pool.redfs("volume", "create", "eight", "--protect", "ec:2+1")
    where = tmp_path / "eight"
    where.mkdir()
    options = f"rw,noauto,_netdev,x-systemd.automount,noexec,relatime,pool={pool.local.folder}"
    done = mount8(
        f"mount -t fuse.redfs redfs:eight {where} -o {options}; grep ' {where} ' /proc/self/mounts;"
        f" echo hello > {where}/file; {sys.executable} -m redfs.client.cli.main umount {where}"
    )
    assert done.returncode == 0, done.stderr
    source, _, kind, shown, *_ = done.stdout.split()
    assert (source, kind) == ("redfs:eight", "fuse.redfs")
    assert {"rw", "noexec", "relatime"} <= set(shown.split(","))
    assert not {"nosuid", "nodev", "noatime"} & set(shown.split(","))
    assert mounting.mounted_at(where) is None
    assert (pool.mount("eight") / "file").read_text() == "hello\n"


def test_fstab(pool: RunningPool, tmp_path: Path, mount8: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    pool.redfs("volume", "create", "listed", "--protect", "ec:2+1")
    where = tmp_path / "listed"
    where.mkdir()
    table = tmp_path / "fstab"
    table.write_text(f"redfs:listed {where} fuse.redfs ro,nofail,_netdev,pool={pool.local.folder} 0 0\n")
    done = mount8(
        f"mount --fstab {table} -a; mount --fstab {table} -a; grep -c ' {where} ' /proc/self/mounts;"
        f" touch {where}/x 2>&1 || true; {sys.executable} -m redfs.client.cli.main umount {where}"
    )
    assert done.returncode == 0, done.stderr
    mounted, refused, *_ = done.stdout.splitlines()
    assert mounted == "1", "the second `mount -a` sees that it is mounted"
    assert "Read-only file system" in refused


def test_mount8_says_what_is_wrong(
    pool: RunningPool, tmp_path: Path, mount8: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    done = mount8(f"mount -t fuse.redfs shared {tmp_path} -o pool={pool.local.folder},reltime")
    assert done.returncode == 1
    assert done.stderr == "mount.fuse.redfs: unknown mount option 'reltime': did you mean 'relatime'?\n"
    empty = tmp_path / "empty"
    done = mount8(f"mkdir {empty}; mount -t fuse.redfs nowhere {empty} -o pool={pool.local.folder}")
    assert done.returncode == 32
    assert "nowhere" in done.stderr


def test_setup_links_the_helpers_once(mount8: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    done = mount8(f"cd /sbin; for name in {' '.join(HELPERS)}; do test -x $name; readlink $name; done")
    assert done.returncode == 0, done.stderr
    assert [Path(line).name for line in done.stdout.split()] == list(HELPERS)
    assert mount8("true").stderr == "", "the second time there is nothing to do"


def test_umount8_returns_when_all_is_safe(
    pool: RunningPool, tmp_path: Path, mount8: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    pool.redfs("volume", "create", "leaving", "--protect", "ec:2+1")
    where = tmp_path / "leaving"
    where.mkdir()
    path = ":".join(path for path in sys.path if path)
    record = f'PYTHONPATH={path} {sys.executable} -c "from redfs.client.mounting import *; print({{}})"'
    pid = record.format(f"find_record(Path('{where}')).pid")
    left = record.format("process_started($pid)")
    done = mount8(
        f"mount -t fuse.redfs redfs:leaving {where} -o pool={pool.local.folder}; pid=$({pid});"
        f" head -c 50000000 /dev/urandom | tee {where}/file | sha256sum;"
        f" sh -c 'cd {where} && umount {where}' 2>&1 || echo $?;"
        f" umount {where}; {left}; umount {where} 2>&1 || echo $?"
    )
    assert done.returncode == 0, done.stderr
    digest, busy, code, still_there, again, last = done.stdout.splitlines()
    assert (code, last) == ("32", "32")
    assert f"umount.fuse.redfs: {where} is in use" in busy
    assert still_there == "None", "umount returned before the mount's process had stored everything"
    assert "not mounted" in again
    stored = hashlib.sha256((pool.mount("leaving") / "file").read_bytes()).hexdigest()
    assert digest.split()[0] == stored


def test_a_lazy_umount8_returns_at_once_and_what_is_written_later_is_stored(
    pool: RunningPool, tmp_path: Path, mount8: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    pool.redfs("volume", "create", "lazy", "--protect", "ec:2+1")
    where = tmp_path / "lazy"
    where.mkdir()
    done = mount8(
        f"mount -t fuse.redfs redfs:lazy {where} -o pool={pool.local.folder}; exec 3>{where}/late;"
        f" umount -l {where}; cat {mounting.record_path(where)}; echo later >&3"
    )
    assert done.returncode == 0, done.stderr
    pid = json.loads(done.stdout)["pid"]
    wait_for(lambda: mounting.process_started(pid) is None, "the mount's process is gone")
    assert (pool.mount("lazy") / "late").read_text() == "later\n"


def test_the_helper_gives_other_mounts_back_to_umount8(
    tmp_path: Path, mount8: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    done = mount8(
        f"mount -t tmpfs other {tmp_path}; umount.fuse {tmp_path}; grep -c ' {tmp_path} ' /proc/mounts || true"
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


@as_root
def test_only_a_mount_that_says_so_obeys_set_user_id_and_devices(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "programs", "--protect", "ec:2+1")
    for options, uid, opens in (((), "0", False), (("-o", "suid,dev"), "1234", True)):
        where = pool.mount("programs", *options)
        program, device = where / "id", where / "null"
        if not program.exists():
            shutil.copy("/usr/bin/id", program)
            os.chown(program, 1234, 0)
            program.chmod(0o4755)
            os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))
        assert subprocess.run([program, "-u"], capture_output=True, text=True, check=True).stdout.strip() == uid
        assert error_of(lambda: device.write_bytes(b"x")) == (0 if opens else errno.EACCES)  # noqa: B023  # called here
        pool.umount(where)


# ---------------------------------------------------------------- times


def test_reading_changes_no_access_time_unless_asked_for(pool: RunningPool) -> None:
    pool.redfs("volume", "create", "times", "--protect", "ec:2+1")
    where = pool.mount("times")
    (where / "file").write_text("x")
    (where / "folder").mkdir()
    (where / "link").symlink_to("file")
    names = ("file", "folder", "link")
    for name in names:
        os.utime(where / name, (1, 1), follow_symlinks=False)

    def read_all() -> list[int]:
        (where / "file").read_text()
        os.listdir(where / "folder")
        os.readlink(where / "link")
        return [os.lstat(where / name).st_atime_ns for name in names]

    assert read_all() == [1_000_000_000] * 3
    pool.umount(where)
    where = pool.mount("times", "-o", "relatime")
    changed = {name: os.lstat(where / name).st_ctime_ns for name in names}
    first = read_all()
    assert min(first) > max(changed.values())
    assert {name: os.lstat(where / name).st_ctime_ns for name in names} == changed, "reading is no change"
    assert read_all() == first, "once is enough while nothing changes"
    os.close(os.open(where / "file", os.O_RDONLY | os.O_NOATIME))
    (where / "file").write_text("new")
    os.close(os.open(where / "file", os.O_RDONLY | os.O_NOATIME))
    assert os.stat(where / "file").st_atime_ns == first[0]
    assert read_all()[0] > os.stat(where / "file").st_mtime_ns


def test_times_keep_their_nanoseconds_and_reach_far(place: Path) -> None:
    path = place / "times"
    path.write_text("x")
    for seconds in (-(1 << 33), -1, 0, (1 << 31), (1 << 33)):
        os.utime(path, ns=(seconds * 10**9 + 123_456_789, seconds * 10**9 + 987_654_321))
        shown = path.stat()
        assert (shown.st_atime_ns, shown.st_mtime_ns) == (
            seconds * 10**9 + 123_456_789,
            seconds * 10**9 + 987_654_321,
        )
    for far in (1 << 35, -(1 << 35), 1 << 40):
        os.utime(path, (far, far))
        assert abs(path.stat().st_mtime) == 9_223_372_036, "the farthest that is kept"
    with open(path, "a") as file:
        os.fsync(file.fileno())


# ---------------------------------------------------------------- attributes and modes


def test_extended_attributes_have_the_kinds_that_there_are(place: Path) -> None:
    path = place / "attributes"
    path.write_text("x")
    for name in ("foo", "system.thing"):
        assert error_of(lambda: os.setxattr(path, name, b"1")) == errno.EOPNOTSUPP  # noqa: B023
        assert error_of(lambda: os.getxattr(path, name)) == errno.EOPNOTSUPP  # noqa: B023
        assert error_of(lambda: os.removexattr(path, name)) == errno.EOPNOTSUPP  # noqa: B023
    assert error_of(lambda: os.setxattr(path, "user.", b"1")) == errno.EINVAL
    os.setxattr(path, "user.a", b"")
    os.setxattr(path, "user.big", bytes(65536))
    assert error_of(lambda: os.setxattr(path, "user.big", bytes(65537))) == errno.E2BIG
    assert sorted(os.listxattr(path)) == ["user.a", "user.big"]


@as_root
def test_only_root_sees_trusted_attributes(place: Path) -> None:
    path = place / "trusted"
    path.write_text("x")
    os.setxattr(path, "trusted.a", b"1")
    os.setxattr(path, "user.a", b"1")
    assert sorted(os.listxattr(path)) == ["trusted.a", "user.a"]
    assert as_user(1000, [], lambda: os.listxattr(path)) == "['user.a']"


@as_root
def test_acls_decide_who_may_and_are_inherited(place: Path) -> None:
    folder = place / "acls"
    folder.mkdir()
    named = AclEntry(USER, 7, 1000)
    own = [AclEntry(tag, 7 if tag == USER_OBJ else 0, 0xFFFF_FFFF) for tag in (USER_OBJ, GROUP_OBJ, OTHER)]
    acl = (own[0], named, own[1], AclEntry(MASK, 7, 0xFFFF_FFFF), own[2])
    for name in ("access", "default"):
        os.setxattr(folder, f"system.posix_acl_{name}", encode_acl(acl))
    (folder / "file").write_text("secret")
    (folder / "below").mkdir()
    assert folder.stat().st_mode & 0o777 == 0o770
    assert decode_acl(os.getxattr(folder / "below", "system.posix_acl_default")) == acl
    assert "system.posix_acl_access" in os.listxattr(folder / "file")
    assert as_user(1000, [], lambda: (folder / "file").read_text()) == "'secret'"
    assert as_user(1001, [], lambda: error_of(lambda: os.listdir(folder))) == str(errno.EACCES)
    (folder / "file").chmod(0o600)
    assert as_user(1000, [], lambda: error_of((folder / "file").read_text)) == str(errno.EACCES), "by the mask"
    os.removexattr(folder, "system.posix_acl_default")
    os.removexattr(folder, "system.posix_acl_default")
    (folder / "plain").write_text("x")
    assert os.listxattr(folder / "plain") == []


@as_root
def test_set_group_id_programs_are_made_only_by_members_of_the_group(place: Path) -> None:
    folder = place / "group"
    folder.mkdir()
    os.chown(folder, 0, 2000)
    folder.chmod(0o2777)
    for groups, mode in (([], 0o755), ([2000], 0o2755)):
        path = folder / f"of-{len(groups)}"
        made = as_user(1000, groups, lambda: os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o2775)))  # noqa: B023
        assert made == "None"
        assert (path.stat().st_mode & 0o7777, path.stat().st_gid) == (mode, 2000)
        path.with_suffix(".d").mkdir()
        assert path.with_suffix(".d").stat().st_mode & 0o7777 == 0o2755


# ---------------------------------------------------------------- data


def test_a_sparse_file_of_a_tebibyte(place: Path) -> None:
    with open(place / "sparse", "wb+") as file:
        file.seek(1 << 40)
        file.write(b"end")
        file.flush()
        os.fsync(file.fileno())
        assert os.fstat(file.fileno()).st_size == (1 << 40) + 3
        assert os.pread(file.fileno(), 5, 1 << 39) == bytes(5)
        assert os.pread(file.fileno(), 5, (1 << 40) - 1) == b"\0end"
        assert error_of(lambda: os.ftruncate(file.fileno(), 1 << 62)) == errno.EFBIG
        # Holes are not told apart: all of the file is one run of data.
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == (1 << 40) + 3


def test_space_cannot_be_set_aside_but_posix_fallocate_makes_the_file_longer(place: Path) -> None:
    descriptor = os.open(place / "allocated", os.O_CREAT | os.O_RDWR)
    os.write(descriptor, b"kept")
    os.posix_fallocate(descriptor, 0, 100_000)
    assert os.fstat(descriptor).st_size == 100_000
    assert os.pread(descriptor, 6, 0) == b"kept\0\0"
    os.close(descriptor)
    done = subprocess.run(
        ["fallocate", "--punch-hole", "-l", "4096", place / "allocated"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "unsupported" in done.stderr or "not supported" in done.stderr


def test_copy_file_range_copies(place: Path) -> None:
    (place / "source").write_bytes(os.urandom(300_000))
    with open(place / "source", "rb") as source, open(place / "target", "wb") as target:
        left = 300_000
        while left:
            left -= os.copy_file_range(source.fileno(), target.fileno(), left)
    assert (place / "target").read_bytes() == (place / "source").read_bytes()


def test_direct_io_and_cached_io_see_each_other(place: Path) -> None:
    path = place / "direct"
    memory = mmap.mmap(-1, 8192)
    memory[:] = b"d" * 8192
    direct = os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    cached = os.open(path, os.O_RDWR)
    assert os.pwritev(direct, [memory], 0) == 8192
    assert os.pread(cached, 3, 8189) == b"ddd"
    os.pwrite(cached, b"Q", 0)
    assert os.preadv(direct, [memory], 0) == 8192
    assert memory[:2] == b"Qd"
    os.pwritev(direct, [memory], 4096)
    assert os.pread(cached, 2, 4096) == b"Qd"
    os.close(direct)
    os.close(cached)


def test_a_map_shows_writes_and_what_a_cut_took_away(place: Path) -> None:
    with open(place / "mapped", "wb+") as file:
        file.truncate(10_000)
        one, two = mmap.mmap(file.fileno(), 10_000), mmap.mmap(file.fileno(), 10_000)
        one[5000:5003] = b"abc"
        assert two[5000:5003] == b"abc" == os.pread(file.fileno(), 3, 5000)
        os.pwrite(file.fileno(), b"new", 100)
        assert two[100:103] == b"new"
        file.truncate(5001)
        file.truncate(10_000)
        assert two[4999:5003] == b"\0a\0\0" == os.pread(file.fileno(), 4, 4999)
        one.close()
        two.close()


def test_appends_of_several_processes_are_all_there(place: Path) -> None:
    code = (
        "import os, sys\nfd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)\n"
        "for _ in range(300): os.write(fd, sys.argv[2].encode() * 9)"
    )
    path = place / "log"
    path.touch()
    writers = [subprocess.Popen([sys.executable, "-c", code, path, letter]) for letter in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    data = path.read_bytes()
    assert len(data) == 3 * 300 * 9
    assert {data[at : at + 9] for at in range(0, len(data), 9)} == {b"a" * 9, b"b" * 9, b"c" * 9}


def test_locks_hold_among_the_programs_of_a_machine(place: Path) -> None:
    path = place / "locked"
    path.touch()
    attempt = "import fcntl,sys\nf=open(sys.argv[1],'r+')\nfcntl.{}(f,fcntl.LOCK_EX|fcntl.LOCK_NB)"
    with open(path, "r+") as file:
        for kind in ("flock", "lockf"):
            getattr(fcntl, kind)(file, fcntl.LOCK_EX)
            command = [sys.executable, "-c", attempt.format(kind), str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert "BlockingIOError" in done.stderr, kind
            getattr(fcntl, kind)(file, fcntl.LOCK_UN)
            assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize("how", ["O_SYNC", "msync", "fsync"])
def test_what_a_program_made_sure_of_survives_the_mount(pool: RunningPool, how: str) -> None:
    volume = f"sure-{how.lower().replace('_', '-')}"
    pool.redfs("volume", "create", volume, "--protect", "ec:2+1")
    where = pool.mount(volume)
    (where / "folder").mkdir()
    descriptor = os.open(where / "folder" / "file", os.O_CREAT | os.O_RDWR | (os.O_SYNC if how == "O_SYNC" else 0))
    if how == "msync":
        os.ftruncate(descriptor, 5)
        with mmap.mmap(descriptor, 5) as mapped:
            mapped[:] = b"hello"
            mapped.flush()
    else:
        os.write(descriptor, b"hello")
    if how == "fsync":
        os.fsync(descriptor)
    record = mounting.find_record(where)
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    wait_for(lambda: mounting.process_started(record.pid) is None, "the mount process is gone")
    error_of(lambda: os.close(descriptor))
    pool.redfs("umount", str(where))
    assert (pool.mount(volume) / "folder" / "file").read_bytes() == b"hello"


# ---------------------------------------------------------------- names


def test_names_of_any_bytes(place: Path) -> None:
    folder = os.fsencode(place / "names")
    os.mkdir(folder)
    names = [b"\xff\xfe", bytes(range(1, 47)), bytes(range(48, 256)), b" ", b"\n", b"...", b"n" * 255]
    for name in names:
        os.close(os.open(folder + b"/" + name, os.O_CREAT | os.O_EXCL))
    assert sorted(os.listdir(folder)) == sorted(names)
    assert error_of(lambda: os.mkdir(folder + b"/" + b"n" * 256)) == errno.ENAMETOOLONG
    assert error_of(lambda: os.symlink(b"s" * 4096, folder + b"/l")) == errno.ENAMETOOLONG
    os.symlink(b"loop", folder + b"/loop")
    assert error_of(lambda: os.stat(folder + b"/loop")) == errno.ELOOP


def test_an_unlinked_file_lives_while_it_is_open(place: Path) -> None:
    descriptor = os.open(place / "gone", os.O_CREAT | os.O_RDWR)
    os.write(descriptor, b"hello")
    os.unlink(place / "gone")
    os.fchmod(descriptor, 0o600)
    os.fsync(descriptor)
    os.ftruncate(descriptor, 2)
    assert os.fstat(descriptor).st_nlink == 0
    assert os.pread(descriptor, 9, 0) == b"he"
    assert error_of(lambda: os.open(place, os.O_TMPFILE | os.O_RDWR)) == errno.EOPNOTSUPP
    os.close(descriptor)
