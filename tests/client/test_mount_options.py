"""The options that mount(8) passes, and the helper's call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from redfs.client.cli import mount_helper
from redfs.client.mount_options import MountOptions, parse_options
from redfs.core.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", MountOptions()),
        ("defaults,rw", MountOptions()),
        ("ro", MountOptions(read_only=True)),
        ("ro,rw", MountOptions()),
        ("rw,ro", MountOptions(read_only=True)),
        ("noexec,nosuid,nodev,sync", MountOptions(kernel=("nodev", "noexec", "nosuid", "sync"))),
        ("noexec,exec,sync,async", MountOptions()),
        ("suid,dev,nosuid", MountOptions(kernel=("dev", "nosuid"))),
        ("relatime", MountOptions(relatime=True)),
        ("relatime,noatime", MountOptions()),
        ("shared", MountOptions(shared=True)),
        ("ro,shared,noshared", MountOptions(read_only=True)),
        ("pool=host:7400,give_up_s=30,log_file=/l", MountOptions(pool="host:7400", give_up_s=30.0, log_file="/l")),
        ("_netdev,noauto,nofail,users,x-systemd.automount,X-mount.mkdir,comment=a,user=me", MountOptions()),
    ],
)
def test_what_options_come_to(text: str, options: MountOptions) -> None:
    assert parse_options(text) == options


def test_a_mount_of_root_obeys_set_user_id_and_devices_unless_told_otherwise() -> None:
    assert parse_options("rw", trusted=True).kernel == ("dev", "suid")
    assert parse_options("nosuid", trusted=True).kernel == ("dev", "nosuid")
    assert parse_options("nodev,nosuid", trusted=True).kernel == ("nodev", "nosuid")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rw,reltime", "unknown mount option 'reltime': did you mean 'relatime'"),
        ("share", "unknown mount option 'share': did you mean 'shared'"),
        ("pol=x", "unknown mount option 'pol=x': did you mean 'pool'"),
        ("ro=1", "unknown mount option 'ro=1'"),
        ("pool=", "'pool' needs a value"),
        ("pool", "unknown mount option 'pool'"),
        ("give_up_s=soon", "a number of seconds, not 'soon'"),
        ("give_up_s=-1", "a number of seconds"),
        ("remount,ro", "unmount it, then mount it again"),
        ("strictatime", "use relatime or noatime"),
    ],
)
def test_what_is_wrong_is_told(text: str, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        parse_options(text)


def test_a_sloppy_call_ignores_what_it_does_not_know() -> None:
    assert parse_options("ro,nonsense", sloppy=True) == MountOptions(read_only=True)
    with pytest.raises(InvalidArgument):
        parse_options("remount", sloppy=True)


def helper(*words: str, module: str = "mount_helper") -> tuple[int, str]:
    """A call of mount.fuse.redfs: exit code and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", f"redfs.client.cli.{module}", *words], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def test_a_wrong_call_is_one_line_and_code_1(tmp_path: Path) -> None:
    code, said = helper("photos", str(tmp_path), "-o", "rw,nosense")
    assert code == 1
    assert said.startswith("mount.fuse.redfs: unknown mount option 'nosense'")
    assert said.count("\n") == 1
    code, said = helper("photos")
    assert code == 1
    assert "required: DIR" in said
    assert said.count("\n") == 1


def test_a_mount_that_fails_is_one_line_and_code_32(tmp_path: Path) -> None:
    code, said = helper("photos", str(tmp_path / "there"), "-o", f"rw,pool={tmp_path / 'nothing'}")
    assert code == 32
    assert said.startswith("mount.fuse.redfs: no pool in ")
    assert said.count("\n") == 1


def test_a_fake_call_mounts_nothing(tmp_path: Path) -> None:
    words = ["redfs:photos", str(tmp_path), "-f", "-n", "-v", "-t", "fuse.redfs", "-o", "rw,_netdev"]
    assert mount_helper.main(words) == 0
    assert mount_helper.main([*words, "-o", "nosense"]) == 1
    assert mount_helper.main([*words, "-s", "-o", "nosense"]) == 0


def test_umounts_helper_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    code, said = helper(str(tmp_path), "--nonsense", module="umount_helper")
    assert (code, said) == (1, "umount.fuse.redfs: unrecognized arguments: --nonsense\n")
    code, said = helper(str(tmp_path), "-n", "-v", "-t", "fuse.redfs", module="umount_helper")
    assert code == 32
    assert said.startswith(f"umount.fuse.redfs: no volume is mounted on {tmp_path}")
    assert said.count("\n") == 1
