"""What a mount in shared mode remembers of names, attributes and slots, while the coordinator says that it may.

The coordinator takes it back before anybody changes it (order DropRemembered), and it is over by itself after a third
of the session's lease, counted from when the look was sent: long before the coordinator takes a mount that is cut off
for one that shows nothing any more. What this host changes itself is dropped before the change is sent, and not learned
anew before it is answered.

An answer may be older than an order or a change that was seen here before it: what is learned names the moment in which
it was asked for (`mark`), and counts only where nothing has happened to the inode since.

Plain state of one event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from redfs.core.endings import Endings
from redfs.core.records import Inode, Slot

MAX_INODES = 1 << 15
"""Some 16 MiB. Beyond it everything is forgotten, and learned anew."""
MAX_NAMES = 1 << 16
"""Likewise."""
MAX_SLOTS = 1 << 16
"""Likewise; of 8 GiB of data."""
NOTHING = 0
"""In place of an inode: there is no such name."""


class Mark(NamedTuple):
    """A moment."""

    cleared: int
    endings: int
    at_s: float


class Remembered:
    """See the module. `lasts_s`: for how long from the mark on."""

    def __init__(self, clock: Callable[[], float], lasts_s: Callable[[], float]) -> None:
        self._clock = clock
        self._lasts_s = lasts_s
        self._inodes: dict[int, tuple[Inode, float]] = {}
        """inode -> its record, and until when."""
        self._names: dict[int, dict[bytes, tuple[int, float]]] = {}
        """folder -> name -> inode, and until when."""
        self._names_count = 0
        self._slots: dict[int, dict[int, tuple[Slot, float]]] = {}
        """inode -> number -> slot (a hole: empty), and until when."""
        self._slots_count = 0
        self._changing: dict[int, int] = {}
        """Inodes that this host changes -> by how many operations."""
        self._ended = Endings()
        """Of what was remembered of inodes."""
        self._cleared = 0

    def mark(self) -> Mark:
        """The present; to be taken before a look is sent."""
        return Mark(self._cleared, self._ended.mark(), self._clock())

    # ------------------------------------------------------------ what is known

    def inode(self, ino: int) -> Inode | None:
        """Its record; None: not known."""
        found = self._inodes.get(ino)
        return None if found is None or found[1] <= self._clock() else found[0]

    def name(self, folder: int, name: bytes) -> int | None:
        """The inode of a name; NOTHING: there is none; None: not known."""
        names = self._names.get(folder)
        found = None if names is None else names.get(name)
        return None if found is None or found[1] <= self._clock() else found[0]

    def content(self, ino: int, first: int, last: int) -> tuple[Inode, dict[int, Slot]] | None:
        """Its record and its slots from `first` to `last`; None: not all is known."""
        inode, known = self.inode(ino), self._slots.get(ino)
        if inode is None or known is None:
            return None
        found: dict[int, Slot] = {}
        now_s = self._clock()
        for number in range(first, last + 1):
            slot = known.get(number)
            if slot is None or slot[1] <= now_s:
                return None
            found[number] = slot[0]
        return inode, found

    # ------------------------------------------------------------ learning

    def learn_inode(self, mark: Mark, ino: int, inode: Inode) -> None:
        """What a look said that may be remembered."""
        if self._may_learn(mark, ino):
            if len(self._inodes) >= MAX_INODES:
                self.clear()
            self._inodes[ino] = inode, mark.at_s + self._lasts_s()

    def learn_content(self, mark: Mark, ino: int, inode: Inode, slots: Mapping[int, Slot]) -> None:
        """Likewise. `slots`: with the holes."""
        if not self._may_learn(mark, ino):
            return
        if self._slots_count + len(slots) > MAX_SLOTS:
            self.clear()
            return
        self.learn_inode(mark, ino, inode)
        known, until_s = self._slots.setdefault(ino, {}), mark.at_s + self._lasts_s()
        self._slots_count -= len(known)
        known.update((number, (slot, until_s)) for number, slot in slots.items())
        self._slots_count += len(known)

    def learn_name(self, mark: Mark, folder: int, name: bytes, ino: int) -> None:
        """Likewise; `ino` may be NOTHING."""
        if self._may_learn(mark, folder):
            if self._names_count >= MAX_NAMES:
                self.clear()
            names = self._names.setdefault(folder, {})
            self._names_count += name not in names
            names[name] = ino, mark.at_s + self._lasts_s()

    def _may_learn(self, mark: Mark, ino: int) -> bool:
        if mark.cleared != self._cleared or ino in self._changing:
            return False
        return not self._ended.any_since(mark.endings, (ino,))

    # ------------------------------------------------------------ dropping

    def drop(self, inodes: Iterable[int]) -> None:
        """Nothing is remembered of these, of names in them neither."""
        for ino in inodes:
            self._drop_inode(ino)
            self._names_count -= len(self._names.pop(ino, ()))

    def clear(self) -> None:
        """Nothing is remembered of anything."""
        self._cleared += 1
        self._inodes.clear()
        self._names.clear()
        self._names_count = 0
        self._slots.clear()
        self._slots_count = 0

    def _drop_inode(self, ino: int) -> None:
        self._inodes.pop(ino, None)
        self._slots_count -= len(self._slots.pop(ino, ()))
        self._ended.note(ino)

    @contextmanager
    def changing(self, inodes: Iterable[int], names: Iterable[tuple[int, bytes]] = ()) -> Iterator[list[int]]:
        """While this host changes these inodes, and what these names name; all of those are given.

        Other names in a folder stay: nobody else may change them.
        """
        touched = list(dict.fromkeys(inodes))
        for folder, name in names:
            ino = self.name(folder, name)
            if ino:
                touched.append(ino)
            if self._names.get(folder, {}).pop(name, None) is not None:
                self._names_count -= 1
        for ino in touched:
            self._changing[ino] = self._changing.get(ino, 0) + 1
            self._drop_inode(ino)
        try:
            yield touched
        finally:
            for ino in touched:
                self._changing[ino] -= 1
                if not self._changing[ino]:
                    del self._changing[ino]
                self._ended.note(ino)
