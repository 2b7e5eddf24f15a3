"""Under which name each inode was last seen: for messages, read-ahead of neighbours, and what a roll-back moves.

A bounded memory; plain state, nothing fails.
"""

from __future__ import annotations

from stat import S_ISDIR
from typing import NamedTuple

from redfs.core.ids import ROOT_INO

MAX_DEPTH = 256
"""Folders above a file that a message names."""


class Place(NamedTuple):
    """A name in a folder."""

    parent: int
    name: bytes
    is_folder: bool


class RememberedNames:
    """Inode -> the folder and name that it was last seen under."""

    def __init__(self, limit: int) -> None:
        self.places: dict[int, Place] = {}
        self._limit = limit

    def saw(self, ino: int, parent: int, name: bytes, mode: int) -> None:
        """The inode was found under that name just now."""
        places = self.places
        if ino not in places and len(places) >= self._limit:
            del places[next(iter(places))]
        places[ino] = Place(parent, name, S_ISDIR(mode))

    def forget(self, ino: int) -> None:
        """The inode is gone."""
        self.places.pop(ino, None)

    def keep_folders(self) -> None:
        """Forgets all but folders, of which the kernel remembers where they were."""
        self.places = {ino: place for ino, place in self.places.items() if place.is_folder}

    def folder_of(self, ino: int) -> int:
        """The folder that it was seen in; 0 where that is not known."""
        place = self.places.get(ino)
        return 0 if place is None else place.parent

    def names_to(self, ino: int) -> list[bytes] | None:
        """The names that led to the inode from the top of the volume; None where they are not known."""
        names: list[bytes] = []
        at = ino
        while at != ROOT_INO:
            if at not in self.places or len(names) > MAX_DEPTH:
                return None
            at, name, _ = self.places[at]
            names.append(name)
        return names[::-1]

    def path_of(self, ino: int) -> str:
        """Where the inode was last seen, from the top of the volume; its number where that is not known."""
        names = self.names_to(ino)
        if names is None:
            return f"<inode {ino}>"
        return "/" + "/".join([name.decode("utf-8", "backslashreplace") for name in names])
