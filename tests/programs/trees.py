"""A tree with everything that copies must carry, and a description of a tree to compare copies by."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from redfs.core.namespace.acls import (
    ACCESS,
    DEFAULT,
    GROUP_OBJ,
    MASK,
    OTHER,
    USER,
    USER_OBJ,
    AclEntry,
    encode_acl,
)
from tests.programs.place import Place

NO_ID = 0xFFFFFFFF
SHARED_ACL = encode_acl((
    AclEntry(USER_OBJ, 6, NO_ID), AclEntry(USER, 4, 4321), AclEntry(GROUP_OBJ, 4, NO_ID), AclEntry(MASK, 4, NO_ID),
    AclEntry(OTHER, 0, NO_ID),
))  # fmt: skip
INHERITED_ACL = encode_acl((
    AclEntry(USER_OBJ, 7, NO_ID), AclEntry(USER, 5, 4321), AclEntry(GROUP_OBJ, 5, NO_ID), AclEntry(MASK, 5, NO_ID),
    AclEntry(OTHER, 0, NO_ID),
))  # fmt: skip
HASH_BYTES = 1 << 20


@dataclass(frozen=True)
class Described:
    """One name, as a program sees it. Folders have no size and no link count: file systems differ there."""

    kind: int
    mode: int
    owner: tuple[int, int]
    size: int
    mtime_ns: int
    links: int
    same_as: str
    """The first name of the same inode."""
    content: str
    xattrs: tuple[tuple[str, bytes], ...]


def describe(top: Path, without: Collection[str] = ()) -> dict[str, Described]:
    """Everything below a folder, by path from there; `without` some attributes of `Described`."""
    found: dict[str, Described] = {}
    first: dict[int, str] = {}
    pending = [os.fsencode(top)]
    base = len(pending[0]) + 1
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                name = os.fsdecode(entry.path[base:])
                seen = os.lstat(entry.path)
                is_folder = stat.S_ISDIR(seen.st_mode)
                if is_folder:
                    pending.append(entry.path)
                first[seen.st_ino] = min(name, first.get(seen.st_ino, name))
                found[name] = Described(
                    stat.S_IFMT(seen.st_mode),
                    stat.S_IMODE(seen.st_mode),
                    (seen.st_uid, seen.st_gid),
                    0 if is_folder else seen.st_size,
                    seen.st_mtime_ns,
                    1 if is_folder else seen.st_nlink,
                    str(seen.st_ino),
                    _content(entry.path, seen.st_mode),
                    tuple(
                        (key, os.getxattr(entry.path, key, follow_symlinks=False))
                        for key in sorted(os.listxattr(entry.path, follow_symlinks=False))
                    ),
                )
    blank: dict[str, object] = {"links": 0, "same_as": "", "xattrs": (), "mtime_ns": 0}
    chosen = {attribute: blank[attribute] for attribute in without}
    return {
        name: replace(one, **{"same_as": first[int(one.same_as)], **chosen})  # type: ignore[arg-type]
        for name, one in sorted(found.items())
    }


def _content(path: bytes, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return os.fsdecode(os.readlink(path))
    if not stat.S_ISREG(mode):
        return ""
    digest = hashlib.blake2b()
    with open(path, "rb", buffering=0) as file:
        while data := file.read(HASH_BYTES):
            digest.update(data)
    return digest.hexdigest()


def assert_same(got: dict[str, Described], wanted: dict[str, Described], what: str) -> None:
    """Fails with the first few names that differ."""
    different = [name for name in sorted({*got, *wanted}) if got.get(name) != wanted.get(name)]
    lines = [f"{name!r}: {got.get(name)} instead of {wanted.get(name)}" for name in different[:5]]
    assert not different, f"{what}: {len(different)} names differ\n" + "\n".join(lines)


def takes_attributes(folder: Path) -> bool:
    """Whether a file system has user attributes and ACLs."""
    probe = folder / ".probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.probe", b"x")
        os.setxattr(probe, os.fsdecode(ACCESS), SHARED_ACL)
    except OSError:
        return False
    finally:
        probe.unlink()
    return True


def make_tree(place: Place, top: Path, files: int, attributes: bool) -> None:
    """Files of many sizes, links, sparse ones, a pipe, odd names; with `attributes` also xattrs and ACLs."""
    chance = place.random()
    top.mkdir()
    folders = [top]
    for number in range(max(3, files // 25)):
        folder = chance.choice(folders[-20:]) / f"folder {number}"
        folder.mkdir(mode=chance.choice((0o755, 0o700, 0o2775)))
        folders.append(folder)
    made: list[Path] = []
    for number in range(files):
        name = os.fsencode(chance.choice(folders)) + b"/" + chance.choice(
            (b"plain", b"sp ace", "ümläut".encode(), b"\xff\xfe", b"new\nline", b"-dash", b"long" * 50)
        )  # fmt: skip
        path = Path(os.fsdecode(name + b".%d" % number))
        path.write_bytes(chance.randbytes(chance.choice((0, 1, 17, 4096, 4097, 70_000, 131_072, 300_001))))
        made.append(path)
    for number in range(max(3, files // 10)):
        symbolic = chance.choice(folders) / f"symbolic {number}"
        symbolic.symlink_to(os.path.relpath(chance.choice(made), symbolic.parent) if number else "nowhere")
        os.utime(symbolic, ns=(10**18 + number, 10**18 + number), follow_symlinks=False)
        os.link(chance.choice(made), chance.choice(folders) / f"hard {number}")
    for number in range(3):
        sparse = chance.choice(folders) / f"sparse {number}"
        with open(sparse, "wb") as file:
            for _ in range(number):
                file.seek(chance.randrange(1 << 24))
                file.write(chance.randbytes(5000))
            file.truncate((1 << 24) + number)
        made.append(sparse)
    os.mkfifo(folders[-1] / "pipe")
    os.utime(folders[-1] / "pipe", ns=(10**18, 10**18))
    if attributes:
        for path in chance.sample(made, max(2, files // 5)):
            os.setxattr(path, "user.one", chance.randbytes(20))
            os.setxattr(path, "user.empty", b"")
            os.setxattr(path, os.fsdecode(ACCESS), SHARED_ACL)
        for folder in folders[:: max(1, len(folders) // 3)]:
            os.setxattr(folder, os.fsdecode(DEFAULT), INHERITED_ACL)
    for path in made:
        if os.geteuid() == 0 and chance.random() < 0.3:
            os.chown(path, chance.randrange(1, 5000), chance.randrange(1, 5000))
        if chance.random() < 0.3:
            path.chmod(chance.choice((0o600, 0o444, 0o755, 0o4755, 0o2711, 0o1644)))
        at_ns = chance.randrange(10**18, 17 * 10**17)
        os.utime(path, ns=(at_ns, at_ns))
    for folder in reversed(folders):
        at_ns = chance.randrange(10**18, 17 * 10**17)
        os.utime(folder, ns=(at_ns, at_ns))
