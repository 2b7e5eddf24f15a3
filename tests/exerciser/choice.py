"""Which operation comes next: drawn from the seed, and from what the model has, so that most operations find something.

Names are few, so that they meet: what is made is soon renamed over, linked, removed and made again. Some are long, some
are bytes that are no text.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

from tests.exerciser.operations import RENAME_EXCHANGE, RENAME_NOREPLACE, SLOTS, Operation
from tests.exerciser.tree_model import Node, TreeModel

NAMES = (*(bytes([letter]) for letter in b"abcdefghijkl"), b"\xff\xfe not text", b"long" * 60, b".hidden", b"x" * 255)
MAX_NODES = 150
"""More than this, and the next operations remove rather than make."""
MAX_DEPTH = 5
LENGTHS = (0, 1, 10, 511, 4096, 5000, 20_000, 70_000, 140_000)
SIZES = (0, 0, 1, 100, 4095, 4096, 4097, 60_000, 131_072, 200_000)
# Of what is made: only modes that the usual umask leaves alone.
MODES = (0o644, 0o600, 0o755, 0o4755, 0o2755, 0o2644, 0o1777, 0o6711, 0o000)
IDS = (-1, 0, 1, 1000, 65534)
XATTRS = ("user.a", "user.b", "user.some longer name", "trusted.t")
VALUES = (b"", b"v", b"value" * 20, bytes(range(256)))
TIMES_NS = (0, 1, 999_999_999, 10**18 + 7, 1_700_000_000_123_456_789)
ACCESS = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_APPEND)
WEIGHTS = {
    "open": 14, "close": 8, "read": 12, "write": 16, "ftruncate": 3, "fsync": 2, "fstat": 4, "fchmod": 1,
    "mkdir": 7, "mkfifo": 1, "symlink": 4, "link": 5, "unlink": 6, "rmdir": 4, "rename": 12, "readlink": 2,
    "readdir": 5, "stat": 5, "lstat": 6, "statfs": 1, "chmod": 3, "chown": 3, "utimens": 3, "truncate": 3,
    "setxattr": 4, "getxattr": 3, "listxattr": 2, "removexattr": 2, "fsync_folder": 1,
    "readdir_open": 3, "mkdir_at": 3, "unlink_at": 2, "stat_at": 3,
}  # fmt: skip
ON_SLOTS = frozenset(
    (
        "close",
        "read",
        "write",
        "ftruncate",
        "fsync",
        "fstat",
        "fchmod",
        "readdir_open",
        "mkdir_at",
        "unlink_at",
        "stat_at",
    )
)


class Choice:
    """Draws operations for one program with some hands."""

    def __init__(self, seed: int, model: TreeModel, hands: int) -> None:
        self.model = model
        self._random = random.Random(seed)
        self._hands = hands

    def next(self) -> Operation:
        """The next operation."""
        rng = self._random
        paths = list(self.model.walk())
        while True:
            name = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            if name in ("open", "mkdir_at", "mkdir", "symlink", "mkfifo", "link") and len(paths) > MAX_NODES:
                name = rng.choice(("unlink", "rmdir", "rename"))
            hand = rng.randrange(self._hands)
            arguments = self._arguments(name, paths, hand)
            if arguments is not None:
                return Operation(name, arguments, hand)

    def _arguments(self, name: str, paths: list[tuple[bytes, Node]], hand: int) -> tuple[object, ...] | None:
        """The operation's arguments; None where it cannot be done now."""
        rng = self._random
        if name in ON_SLOTS:
            slots = [slot for at, slot in self.model.opened if at == hand]
            return self._on_slot(name, rng.choice(slots), hand) if slots else None
        if name == "open":
            return self._open(paths, hand)
        old, new = self._path(paths), self._new_path(paths)
        follow = rng.random() < 0.6
        draws: dict[str, Callable[[], tuple[object, ...]]] = {
            "mkdir": lambda: (new, rng.choice((0o755, 0o700, 0o1755))),
            "mkfifo": lambda: (new, rng.choice((0o600, 0o644))),
            "symlink": lambda: (self._target(paths), new),
            "link": lambda: (old, new),
            "rename": lambda: (old, new, rng.choice((0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE))),
            "chmod": lambda: (old, rng.choice(MODES)),
            "chown": lambda: (old, rng.choice(IDS), rng.choice(IDS), follow),
            "utimens": lambda: (old, rng.choice(TIMES_NS), rng.choice(TIMES_NS), follow),
            "truncate": lambda: (old, rng.choice(SIZES)),
            "setxattr": lambda: (old, rng.choice(XATTRS), rng.choice(VALUES), rng.choice((0, 0, 0, 1, 2)), follow),
            "getxattr": lambda: (old, rng.choice(XATTRS), follow),
            "removexattr": lambda: (old, rng.choice(XATTRS), follow),
            "listxattr": lambda: (old, follow),
            "readdir": lambda: (self._folder(paths) if rng.random() < 0.8 else old,),
            "fsync_folder": lambda: (self._folder(paths),),
        }
        return draws.get(name, lambda: (old,))()

    def _on_slot(self, name: str, slot: int, hand: int) -> tuple[object, ...] | None:
        rng = self._random
        node, flags = self.model.opened[hand, slot]
        size = len(node.data)
        if name in ("write", "ftruncate") and node.kind == "folder":
            return None
        if name == "readdir_open":
            # Of what is no folder, listing would close the descriptor (Python 3.11).
            return (slot,) if node.kind == "folder" else None
        if name in ("mkdir_at", "unlink_at", "stat_at"):
            return slot, rng.choice(NAMES)
        if name == "read":
            return slot, rng.randrange(size + 100), rng.choice(LENGTHS)
        if name == "write":
            # With O_APPEND the offset says nothing.
            at = rng.choice((0, size, rng.randrange(size + 1), rng.randrange(size + 1), size + rng.randrange(50_000)))
            return slot, 0 if flags & os.O_APPEND else at, rng.randrange(1 << 30), rng.choice(LENGTHS)
        if name == "ftruncate":
            return slot, rng.choice((*SIZES, size // 2, size, size + 5000))
        return (slot, rng.choice(MODES)) if name == "fchmod" else (slot,)

    def _open(self, paths: list[tuple[bytes, Node]], hand: int) -> tuple[object, ...] | None:
        rng = self._random
        free = [slot for slot in range(SLOTS) if (hand, slot) not in self.model.opened]
        if not free:
            return None
        flags = rng.choice(ACCESS)
        creates = rng.random() < 0.6
        if creates:
            flags |= os.O_CREAT | (os.O_EXCL if rng.random() < 0.3 else 0)
        if flags & os.O_ACCMODE != os.O_RDONLY and rng.random() < 0.2:
            flags |= os.O_TRUNC
        if rng.random() < 0.1:
            flags |= os.O_NOFOLLOW
        path = self._new_path(paths) if creates else self._path(paths)
        if rng.random() < 0.12:
            path, flags = self._folder(paths), os.O_RDONLY
        if self.model.kind_at(path) == "fifo":
            return None  # opening one waits, or not, for another program: pipes are the kernel's
        return free[0], path, flags, rng.choice((0o644, 0o600, 0o755))

    # ------------------------------------------------------------ paths

    def _path(self, paths: list[tuple[bytes, Node]]) -> bytes:
        """Mostly one that is there."""
        rng = self._random
        there = paths[1:]
        if not there or rng.random() < 0.1:
            return self._new_path(paths)
        path, node = rng.choice(there)
        if node.kind != "folder" and rng.random() < 0.03:
            return path + b"/below"
        return path

    def _new_path(self, paths: list[tuple[bytes, Node]]) -> bytes:
        """A name in a folder, or behind a link, that may be taken."""
        rng = self._random
        links = [path for path, node in paths if node.kind == "link"]
        folder = rng.choice(links) if links and rng.random() < 0.08 else self._folder(paths)
        name = rng.choice(NAMES) if rng.random() > 0.01 else b"y" * 256
        return folder + b"/" + name if folder else name

    def _folder(self, paths: list[tuple[bytes, Node]]) -> bytes:
        folders = [path for path, node in paths if node.kind == "folder" and path.count(b"/") < MAX_DEPTH]
        return self._random.choice(folders)

    def _target(self, paths: list[tuple[bytes, Node]]) -> bytes:
        """Of a link: relative, often to nothing or to itself."""
        rng = self._random
        name = rng.choice(NAMES)
        return name if rng.random() < 0.7 else name + b"/" + rng.choice(NAMES)
