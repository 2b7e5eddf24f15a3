"""POSIX ACLs: what they mean for a mode, and a mode for them. The kernel checks permissions by them.

They are the extended attributes system.posix_acl_access and system.posix_acl_default, in the kernel's form: a version,
then (tag, permissions, id) for each entry (linux/posix_acl_xattr.h). The rules are those of the kernel's
fs/posix_acl.c. An access ACL that says no more than a mode does is not kept: the mode is.
"""

from __future__ import annotations

import struct
from errno import EINVAL, EOPNOTSUPP
from typing import NamedTuple

from redfs.core.errors import FsError

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
_VERSION = 2
_HEAD = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")


class AclEntry(NamedTuple):
    """Whom it is about, what they may, and the id of a named user or group."""

    tag: int
    permissions: int
    id: int


Acl = tuple[AclEntry, ...]


def decode_acl(value: bytes) -> Acl:
    """The entries. EINVAL for what is no ACL, EOPNOTSUPP for one of another version."""
    if len(value) < _HEAD.size or (len(value) - _HEAD.size) % _ENTRY.size:
        raise FsError(EINVAL)
    if _HEAD.unpack_from(value)[0] != _VERSION:
        raise FsError(EOPNOTSUPP)
    acl = tuple([AclEntry(*fields) for fields in _ENTRY.iter_unpack(value[_HEAD.size :])])
    tags = [entry.tag for entry in acl]
    single = (USER_OBJ, GROUP_OBJ, OTHER)
    if acl and (
        any(tags.count(tag) != 1 for tag in single)
        or tags.count(MASK) > 1
        or (MASK not in tags and (USER in tags or GROUP in tags))
        or any(tag not in (*single, USER, GROUP, MASK) for tag in tags)
        or any(entry.permissions > 7 for entry in acl)
    ):
        raise FsError(EINVAL)
    return acl


def encode_acl(acl: Acl) -> bytes:
    """The attribute's value."""
    return _HEAD.pack(_VERSION) + b"".join([_ENTRY.pack(*entry) for entry in acl])


def mode_of(acl: Acl) -> tuple[int, bool]:
    """The nine permission bits that show an ACL, and whether they say all of it."""
    by_tag = {entry.tag: entry.permissions for entry in acl}
    group = by_tag.get(MASK, by_tag.get(GROUP_OBJ, 0))
    bits = by_tag.get(USER_OBJ, 0) << 6 | group << 3 | by_tag.get(OTHER, 0)
    return bits, not by_tag.keys() & {USER, GROUP, MASK}


def with_mode(acl: Acl, mode: int) -> Acl:
    """The ACL after a chmod: the mode's group bits go to the mask, or to the group where there is none."""
    permissions = {USER_OBJ: mode >> 6 & 7, _group_class(acl): mode >> 3 & 7, OTHER: mode & 7}
    return tuple([entry._replace(permissions=permissions.get(entry.tag, entry.permissions)) for entry in acl])


def inherited(default: Acl, mode: int) -> tuple[Acl, int]:
    """The access ACL of what is made in a folder with this default ACL, and its mode: what both of them allow."""
    allowed = mode_of(default)[0] & mode
    return with_mode(default, allowed), mode & ~0o777 | allowed


def _group_class(acl: Acl) -> int:
    return MASK if any(entry.tag == MASK for entry in acl) else GROUP_OBJ
