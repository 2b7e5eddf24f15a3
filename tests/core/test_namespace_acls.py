"""POSIX ACLs in the engine: what they do to modes, what a chmod does to them, what is inherited."""

from __future__ import annotations

import errno
import stat

import pytest

from redfs.core import namespace as ns
from redfs.core.errors import FsError
from redfs.core.namespace.acls import (
    ACCESS,
    DEFAULT,
    GROUP,
    GROUP_OBJ,
    MASK,
    OTHER,
    USER,
    USER_OBJ,
    Acl,
    AclEntry,
    decode_acl,
    encode_acl,
)

ROOT = 1
CTX = ns.Context(0, 0, 5)
NOBODY = 0xFFFF_FFFF


def acl(user: int, group: int, other: int, *, named: tuple[tuple[int, int, int], ...] = (), mask: int = -1) -> Acl:
    """An ACL in the kernel's order; `named`: (tag, permissions, id)."""
    users = [AclEntry(*entry) for entry in named if entry[0] == USER]
    groups = [AclEntry(*entry) for entry in named if entry[0] == GROUP]
    masks = [AclEntry(MASK, mask, NOBODY)] if mask >= 0 else []
    own = [AclEntry(tag, permissions, NOBODY) for tag, permissions in ((USER_OBJ, user), (GROUP_OBJ, group))]
    return (own[0], *users, own[1], *groups, *masks, AclEntry(OTHER, other, NOBODY))


RICH = acl(6, 4, 0, named=((USER, 6, 1000), (GROUP, 7, 2000)), mask=6)


@pytest.fixture
def view() -> ns.MemoryView:
    """A file (2) and a folder (3)."""
    view = ns.MemoryView(ns.make_root(1, hash_seed=9, family=1))
    view.apply(ns.create(view, CTX, ROOT, b"file", 0o640, 2).writes)
    view.apply(ns.mkdir(view, CTX, ROOT, b"folder", 0o755, 3).writes)
    return view


def set_acl(view: ns.MemoryView, ino: int, name: bytes, value: Acl, who: ns.Context = CTX) -> None:
    view.apply(ns.setxattr(view, who, ino, name, encode_acl(value)).writes)


def acl_of(view: ns.MemoryView, ino: int, name: bytes = ACCESS) -> Acl | None:
    if name not in ns.listxattr(view, ino).value:
        return None
    return decode_acl(ns.getxattr(view, ino, name).value)


def mode_of(view: ns.MemoryView, ino: int) -> int:
    return stat.S_IMODE(ns.getattr(view, ino).value.mode)


def test_an_access_acl_shows_in_the_mode(view: ns.MemoryView) -> None:
    set_acl(view, 2, ACCESS, RICH)
    assert mode_of(view, 2) == 0o660, "the mask stands for the group"
    assert acl_of(view, 2) == RICH


def test_an_acl_that_a_mode_says_all_of_is_that_mode(view: ns.MemoryView) -> None:
    set_acl(view, 2, ACCESS, RICH)
    set_acl(view, 2, ACCESS, acl(7, 5, 1))
    assert mode_of(view, 2) == 0o751
    assert acl_of(view, 2) is None
    assert ns.listxattr(view, 2).value == []


def test_a_chmod_changes_owner_mask_and_others(view: ns.MemoryView) -> None:
    set_acl(view, 2, ACCESS, RICH)
    view.apply(ns.setxattr(view, CTX, 2, b"user.other", b"kept").writes)
    view.apply(ns.setattr(view, CTX, 2, mode=0o715).writes)
    assert acl_of(view, 2) == acl(7, 4, 5, named=((USER, 6, 1000), (GROUP, 7, 2000)), mask=1)
    assert mode_of(view, 2) == 0o715
    assert ns.getxattr(view, 2, b"user.other").value == b"kept"


def test_removing_an_acl_leaves_the_mode_and_is_no_error_without_one(view: ns.MemoryView) -> None:
    set_acl(view, 2, ACCESS, RICH)
    for _ in range(2):
        view.apply(ns.removexattr(view, CTX, 2, ACCESS).writes)
        assert acl_of(view, 2) is None
        assert mode_of(view, 2) == 0o660


def test_what_is_made_inherits_as_far_as_its_mode_allows(view: ns.MemoryView) -> None:
    default = acl(7, 7, 5, named=((USER, 7, 1000),), mask=7)
    set_acl(view, 3, DEFAULT, default)
    assert mode_of(view, 3) == 0o755, "a default ACL changes no mode"
    view.apply(ns.create(view, CTX, 3, b"f", 0o640, 4).writes)
    view.apply(ns.mkdir(view, CTX, 3, b"d", 0o777, 5).writes)
    view.apply(ns.symlink(view, CTX, 3, b"l", b"f", 6).writes)
    view.apply(ns.mknod(view, CTX, 3, b"p", stat.S_IFIFO | 0o600, 0, 7).writes)
    assert acl_of(view, 4) == acl(6, 7, 0, named=((USER, 7, 1000),), mask=4)
    assert (mode_of(view, 4), acl_of(view, 4, DEFAULT)) == (0o640, None)
    assert (acl_of(view, 5), acl_of(view, 5, DEFAULT)) == (default, default)
    assert mode_of(view, 5) == 0o775
    assert ns.listxattr(view, 6).value == []
    assert acl_of(view, 7) == acl(6, 7, 0, named=((USER, 7, 1000),), mask=0)


def test_a_plain_default_acl_only_limits_modes(view: ns.MemoryView) -> None:
    set_acl(view, 3, DEFAULT, acl(7, 5, 0))
    view.apply(ns.create(view, CTX, 3, b"f", 0o666, 4).writes)
    assert (mode_of(view, 4), acl_of(view, 4)) == (0o640, None)


def test_an_acl_set_by_no_member_of_the_group_takes_set_group_id_away(view: ns.MemoryView) -> None:
    for who, mode in ((ns.Context(1, 1, 5), 0o660), (ns.Context(1, 1, 5, groups=frozenset((7,))), 0o2660)):
        view.apply(ns.setattr(view, CTX, 2, mode=0o2775, gid=7).writes)
        set_acl(view, 2, ACCESS, RICH, who)
        assert mode_of(view, 2) == mode


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b"", errno.EINVAL),
        (encode_acl(RICH)[:-1], errno.EINVAL),
        (b"\1" + encode_acl(RICH)[1:], errno.EOPNOTSUPP),
        (encode_acl(RICH[1:]), errno.EINVAL),
        (encode_acl((*RICH, RICH[0])), errno.EINVAL),
        (encode_acl(acl(7, 7, 7, named=((USER, 7, 1),))), errno.EINVAL),
        (encode_acl(acl(8, 7, 7)), errno.EINVAL),
        (encode_acl((*acl(7, 7, 7), AclEntry(64, 7, 1))), errno.EINVAL),
    ],
)
@pytest.mark.parametrize("name", [ACCESS, DEFAULT])
def test_what_is_no_acl_is_refused(view: ns.MemoryView, name: bytes, value: bytes, error: int) -> None:
    with pytest.raises(FsError) as caught:
        ns.setxattr(view, CTX, 3, name, value)
    assert caught.value.errno == error


def test_only_folders_have_a_default_acl_and_links_have_none(view: ns.MemoryView) -> None:
    view.apply(ns.symlink(view, CTX, ROOT, b"link", b"x", 8).writes)
    for ino, name, error in ((2, DEFAULT, errno.EACCES), (8, ACCESS, errno.EOPNOTSUPP)):
        with pytest.raises(FsError) as caught:
            ns.setxattr(view, CTX, ino, name, encode_acl(RICH))
        assert caught.value.errno == error
