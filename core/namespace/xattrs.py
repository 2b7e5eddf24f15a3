"""Extended attributes, and the two inode flags that spare most questions about them.

The kernel asks for security.capability before every write to a file; INODE_HAS_CAPABILITY answers without a record.
Which attribute namespaces a user may use is the kernel's to check; a caller's buffer that is too small the adapter's.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import E2BIG, EACCES, EEXIST, EINVAL, ENODATA, ENOSPC, EOPNOTSUPP, ERANGE
from stat import S_ISDIR, S_ISGID, S_ISLNK
from typing import Any

from redfs.core.errors import FsError
from redfs.core.namespace.acls import ACCESS, DEFAULT, Acl, decode_acl, encode_acl, mode_of, with_mode
from redfs.core.namespace.inodes import need_inode
from redfs.core.namespace.names import hash_seed
from redfs.core.namespace.view import Context, Outcome, View, WriteSet
from redfs.core.records import (
    INODE_HAS_CAPABILITY,
    INODE_HAS_XATTRS,
    MAX_BUCKET_ENTRIES,
    MAX_NAME_BYTES,
    MAX_XATTR_VALUE_BYTES,
    Inode,
    Xattr,
    XattrBucket,
    inode_key,
    name_hash,
    xattr_key,
)

XATTR_CREATE = 1
XATTR_REPLACE = 2
CAPABILITY = b"security.capability"
MAX_XATTR_LIST_BYTES = 64 * 1024
"""All names of one inode, each with its NUL: what listxattr can hand over."""
MAX_XATTRS_BYTES = 1024 * 1024
"""All names and values of one inode: they are fetched together, in one message."""

Buckets = list[tuple[int, XattrBucket]]


def getxattr(view: View, ino: int, name: bytes) -> Outcome[bytes]:
    """The value. ENODATA where there is none, ERANGE for a name that none can have."""
    _check_name(name)
    key = inode_key(ino)
    record: Any = view.peek(key)
    if record is not None and not record.flags & xattr_flag(name):
        raise FsError(ENODATA)
    attr_hash = name_hash(hash_seed(view, key), name)
    records: list[Any] = view.get_many((key, xattr_key(ino, attr_hash)))
    need_inode(view, ino)
    for attr_name, value in records[1] or ():
        if attr_name == name:
            return Outcome(value, {})
    raise FsError(ENODATA)


def listxattr(view: View, ino: int) -> Outcome[list[bytes]]:
    """The names."""
    return Outcome([attr.name for _, bucket in _all(view, ino, need_inode(view, ino)) for attr in bucket], {})


def setxattr(view: View, ctx: Context, ino: int, name: bytes, value: bytes, flags: int = 0) -> Outcome[Inode]:
    """Sets an attribute.

    EEXIST and ENODATA as XATTR_CREATE and XATTR_REPLACE demand; ERANGE for an empty name or one above 255 bytes,
    E2BIG for a value above 64 KiB, ENOSPC where the inode has too many. POSIX ACLs: EINVAL for what is none, EACCES for
    a default ACL of what is no folder; an access ACL changes the mode with it.
    """
    _check_name(name)
    if name == ACCESS:
        return _set_access_acl(view, ctx, ino, value, flags)
    if name == DEFAULT:
        value = encode_acl(decode_acl(value))
        if not S_ISDIR(need_inode(view, ino).mode):
            raise FsError(EACCES)
    return _set(view, ctx, ino, name, value, flags)


def _set(view: View, ctx: Context, ino: int, name: bytes, value: bytes, flags: int) -> Outcome[Inode]:
    if len(value) > MAX_XATTR_VALUE_BYTES:
        raise FsError(E2BIG)
    if flags not in (0, XATTR_CREATE, XATTR_REPLACE):
        raise FsError(EINVAL)
    attr_hash = name_hash(hash_seed(view, inode_key(ino)), name)
    inode = need_inode(view, ino)
    buckets = _all(view, ino, inode)
    bucket = next((b for h, b in buckets if h == attr_hash), ())
    others = tuple([attr for attr in bucket if attr.name != name])
    existed = len(others) < len(bucket)
    if existed and flags == XATTR_CREATE:
        raise FsError(EEXIST)
    if not existed and flags == XATTR_REPLACE:
        raise FsError(ENODATA)
    if len(others) >= MAX_BUCKET_ENTRIES:
        raise FsError(ENOSPC, "too many attributes of this file share a hash")
    names_bytes, values_bytes = len(name) + 1, len(value)
    for _, some in buckets:
        for attr in some:
            if attr.name != name:
                names_bytes += len(attr.name) + 1
                values_bytes += len(attr.value)
    if names_bytes > MAX_XATTR_LIST_BYTES or names_bytes + values_bytes > MAX_XATTRS_BYTES:
        raise FsError(ENOSPC, "the extended attributes of one file are limited to 64 KiB of names and 1 MiB in all")
    changed = inode._replace(flags=inode.flags | INODE_HAS_XATTRS | xattr_flag(name), ctime_ns=ctx.now_ns)
    return Outcome(changed, {xattr_key(ino, attr_hash): (*others, Xattr(name, value)), inode_key(ino): changed})


def removexattr(view: View, ctx: Context, ino: int, name: bytes) -> Outcome[Inode]:
    """Removes an attribute. ENODATA where there is none, but for ACLs."""
    _check_name(name)
    inode = need_inode(view, ino)
    writes: WriteSet = {}
    flags = _without(view, ino, inode, name, writes)
    if not writes:
        if name in (ACCESS, DEFAULT):
            return Outcome(inode, {})
        raise FsError(ENODATA)
    changed = inode._replace(flags=flags, ctime_ns=ctx.now_ns)
    writes[inode_key(ino)] = changed
    return Outcome(changed, writes)


def drop_capability(view: View, ino: int, inode: Inode, writes: WriteSet) -> int:
    """Adds the removal of security.capability; returns the inode's flags without it."""
    return _without(view, ino, inode, CAPABILITY, writes)


def _without(view: View, ino: int, inode: Inode, name: bytes, writes: WriteSet) -> int:
    """Adds the removal of an attribute, if there is one of that name; returns the inode's flags after it."""
    buckets = _all(view, ino, inode)
    flags = inode.flags
    for attr_hash, bucket in buckets:
        left = tuple([attr for attr in bucket if attr.name != name])
        if len(left) < len(bucket):
            writes[xattr_key(ino, attr_hash)] = left or None
            if name == CAPABILITY:
                flags &= ~INODE_HAS_CAPABILITY
            if not left and len(buckets) == 1:
                flags &= ~INODE_HAS_XATTRS
    return flags


def add_xattrs(view: View, ino: int, xattrs: Sequence[Xattr], writes: WriteSet) -> int:
    """Adds all attributes of a new inode; returns its flags."""
    if not xattrs:
        return 0
    seed = hash_seed(view)
    flags = INODE_HAS_XATTRS
    buckets: dict[int, XattrBucket] = {}
    for attr in xattrs:
        attr_hash = name_hash(seed, attr.name)
        buckets[attr_hash] = (*buckets.get(attr_hash, ()), attr)
        if attr.name == CAPABILITY:
            flags |= INODE_HAS_CAPABILITY
    for attr_hash, bucket in buckets.items():
        if len(bucket) > MAX_BUCKET_ENTRIES:
            raise FsError(ENOSPC, "too many attributes of one file share a hash")
        writes[xattr_key(ino, attr_hash)] = bucket
    return flags


def default_acl(view: View, ino: int, inode: Inode) -> Acl:
    """The ACL that what is made in a folder inherits; empty where it has none."""
    return decode_acl(_value(view, ino, inode, DEFAULT) or encode_acl(()))


def keep_acl(view: View, ino: int, inode: Inode, mode: int, writes: WriteSet) -> None:
    """Adds what a chmod to `mode` changes in the access ACL, where there is one."""
    value = _value(view, ino, inode, ACCESS)
    if value is None:
        return
    attr_hash = name_hash(hash_seed(view), ACCESS)
    kept = Xattr(ACCESS, encode_acl(with_mode(decode_acl(value), mode)))
    bucket = next(bucket for at, bucket in _all(view, ino, inode) if at == attr_hash)
    writes[xattr_key(ino, attr_hash)] = tuple([kept if attr.name == ACCESS else attr for attr in bucket])


def _set_access_acl(view: View, ctx: Context, ino: int, value: bytes, flags: int) -> Outcome[Inode]:
    """Sets the access ACL, and the mode that shows it; one that a mode says all of becomes that mode.

    As with chmod, set-group-id goes where the caller is no member of the group.
    """
    acl = decode_acl(value)
    inode = need_inode(view, ino)
    if S_ISLNK(inode.mode):
        raise FsError(EOPNOTSUPP)
    bits, is_plain = mode_of(acl)
    mode = inode.mode & ~0o777 | bits
    if ctx.uid and inode.gid not in (ctx.gid, *ctx.groups):
        mode &= ~S_ISGID
    if is_plain:
        writes: WriteSet = {}
        left = _without(view, ino, inode, ACCESS, writes)
        changed = inode._replace(mode=mode if acl else inode.mode, flags=left, ctime_ns=ctx.now_ns)
    else:
        stored = _set(view, ctx, ino, ACCESS, encode_acl(acl), flags)
        writes, changed = stored.writes, stored.value._replace(mode=mode)
    writes[inode_key(ino)] = changed
    return Outcome(changed, writes)


def _value(view: View, ino: int, inode: Inode, name: bytes) -> bytes | None:
    for _, bucket in _all(view, ino, inode):
        for attr in bucket:
            if attr.name == name:
                return attr.value
    return None


def _all(view: View, ino: int, inode: Inode) -> Buckets:
    return view.xattrs(ino) if inode.flags & INODE_HAS_XATTRS else []


def xattr_flag(name: bytes) -> int:
    """The inode flag that is set whenever the attribute exists."""
    return INODE_HAS_CAPABILITY if name == CAPABILITY else INODE_HAS_XATTRS


def _check_name(name: bytes) -> None:
    if not 0 < len(name) <= MAX_NAME_BYTES:
        raise FsError(ERANGE)
    if b"\0" in name:
        raise FsError(EINVAL)
