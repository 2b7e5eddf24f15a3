"""The options of a mount as mount(8) and /etc/fstab write them: `ro,pool=host:7400,noexec`.

Told apart are those that this program acts on, those that go to the kernel, those that are for mount(8), systemd and
the like and mean nothing here, and all others, which are an error that names the nearest known one. The last of two
that contradict each other counts.

Fails with InvalidArgument.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from redfs.core.errors import InvalidArgument

SOURCE_PREFIX = "redfs:"
"""A mounted volume is shown as `redfs:VOLUME`; fstab may name it so, and `mount -a` then sees that it is mounted."""

_KERNEL = {
    "suid": "suid", "nosuid": "suid", "dev": "dev", "nodev": "dev", "exec": "exec", "noexec": "exec",
    "sync": "sync", "async": "sync", "dirsync": "dirsync",
}  # fmt: skip
"""Option -> what it decides; the one that counts goes to the kernel."""
_KERNEL_DEFAULTS = frozenset(("exec", "async"))
"""What libfuse does anyway."""
_TIMES = {"noatime": False, "relatime": True}
_NOT_OURS = frozenset((
    "defaults", "auto", "noauto", "user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup",
    "_netdev", "nofail", "allow_other", "default_permissions", "nodiratime", "diratime", "norelatime",
    "nostrictatime", "acl", "user_xattr", "loud", "silent", "iversion", "noiversion", "mand", "nomand",
))  # fmt: skip
"""For mount(8) and systemd, or true of every mount here."""
_NOT_OURS_PREFIXES = ("x-", "X-", "comment=", "user=", "helper=", "uhelper=", "subtype=", "fsname=")
_REFUSED = {
    "remount": "a mount cannot be changed: unmount it, then mount it again",
    "bind": "mount(8) makes bind mounts of a mounted volume itself: `mount --bind`",
    "strictatime": "reading does not change the access time at each time: use relatime or noatime",
    "lazytime": "reading does not change the access time at each time: use relatime or noatime",
    "noacl": "POSIX ACLs cannot be switched off",
}
_SHARED = {"shared": True, "noshared": False}
_VALUED = ("pool", "log_file", "give_up_s")
_KNOWN = ("ro", "rw", *_KERNEL, *_TIMES, *_SHARED, *_NOT_OURS, *_VALUED)


@dataclass(frozen=True)
class MountOptions:
    """What the options come to."""

    read_only: bool = False
    kernel: tuple[str, ...] = ()
    """Flags for the kernel, by their names there. Without `suid` and `dev` set-user-id and devices are not obeyed."""
    relatime: bool = False
    """Whether reading changes access times (by the rule of relatime)."""
    pool: str | None = None
    log_file: str | None = None
    give_up_s: float | None = None
    shared: bool = False
    """Whether other mounts that say so too may have the volume at the same time, and write."""


def parse_options(text: str, *, trusted: bool = False, sloppy: bool = False) -> MountOptions:
    """The options in a comma-separated list.

    `trusted`: `suid` and `dev` hold where the list does not say otherwise, as mount(8) has it. `sloppy`: unknown ones
    are ignored. Raises InvalidArgument.
    """
    read_only = relatime = shared = False
    kernel = {"suid": "suid", "dev": "dev"} if trusted else {}
    values: dict[str, str] = {}
    for option in text.split(","):
        name, equals, value = option.partition("=")
        if not option or option in _NOT_OURS or option.startswith(_NOT_OURS_PREFIXES):
            continue
        if option in ("ro", "rw"):
            read_only = option == "ro"
        elif option in _KERNEL:
            kernel[_KERNEL[option]] = option
        elif option in _TIMES:
            relatime = _TIMES[option]
        elif option in _SHARED:
            shared = _SHARED[option]
        elif name in _VALUED and equals:
            if not value:
                raise InvalidArgument(f"the mount option '{name}' needs a value, as {name}=...")
            values[name] = value
        elif name in _REFUSED:
            raise InvalidArgument(f"the mount option '{name}' does not work here: {_REFUSED[name]}")
        elif not sloppy:
            near = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.0)[0]
            raise InvalidArgument(f"unknown mount option '{option}': did you mean '{near}'?")
    return MountOptions(
        read_only,
        tuple(sorted(flag for flag in kernel.values() if flag not in _KERNEL_DEFAULTS)),
        relatime,
        values.get("pool"),
        values.get("log_file"),
        _seconds(values.get("give_up_s")),
        shared,
    )


def _seconds(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InvalidArgument(f"the mount option 'give_up_s' needs a number of seconds, not '{value}'")
    return seconds
