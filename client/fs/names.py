"""Under which name each inode was last seen: for messages, read-ahead of neighbours, and what a roll-back moves.

A bounded memory; plain state, nothing fails.
"""

from __future__ import annotations

from redfs.core.ids import ROOT_INO

MAX_DEPTH = 256
"""Folders above a file that a message names."""


class RememberedNames:
    """Inode -> the folder and name that it was last seen under."""

    def __init__(self, limit: int) -> None:
        self.places: dict[int, tuple[int, bytes]] = {}
        self._limit = limit

    def saw(self, ino: int, parent: int, name: bytes) -> None:
        """The inode was found under that name just now."""
        places = self.places
        if ino not in places and len(places) >= self._limit:
            del places[next(iter(places))]
        places[ino] = (parent, name)

    def forget(self, ino: int) -> None:
        """The inode is gone."""
        self.places.pop(ino, None)

    def folder_of(self, ino: int) -> int:
        """The folder that it was seen in; 0 where that is not known."""
        return self.places.get(ino, (0, b""))[0]

    def path_of(self, ino: int) -> str:
        """Where the inode was last seen, from the top of the volume; its number where that is not known."""
        parts: list[str] = []
        at = ino
        while at != ROOT_INO:
            if at not in self.places or len(parts) > MAX_DEPTH:
                return f"<inode {ino}>"
            at, name = self.places[at]
            parts.append(name.decode("utf-8", "backslashreplace"))
        return "/" + "/".join(reversed(parts))
