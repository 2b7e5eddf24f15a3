"""What a program knows of its volume: every state that it went through, and which of them the volume may be in.

A mount that dies leaves its volume's names and attributes as they were after some operation, not before the last one
that a barrier made durable; each file with the bytes that it had at some moment since its last fsync; and a file that
was renamed onto a name with at least what it had then (invariant 5). `recovered` checks what is found against that, and
goes on from there.
"""

from __future__ import annotations

from typing import NamedTuple

SLOT_BYTES = 128 * 1024


class Known(NamedTuple):
    """A name's inode and attributes."""

    ino: int
    mode: int


Tree = dict[bytes, Known]
"""Path -> what it names."""


class Found(NamedTuple):
    """A volume as it was read."""

    tree: Tree
    content: dict[int, bytes]
    """Of files, by inode."""


class Durable(NamedTuple):
    """How far a barrier reaches."""

    operations: int
    versions: dict[int, int]


class VolumeModel:
    """See the module."""

    def __init__(self, name: str, base: Found | None = None) -> None:
        self.name = name
        self._go_on_from(base or Found({}, {}))

    def _go_on_from(self, found: Found) -> None:
        self.history: list[Tree] = [dict(found.tree)]
        """The last one is what the program sees."""
        self.versions: dict[int, list[bytes]] = {ino: [content] for ino, content in found.content.items()}
        self._durable_operations = 0
        self._durable_versions: dict[int, int] = {}
        self.making: bytes | None = None
        """A path where a file or folder is being made, whose number is not known yet."""
        self._moved_onto: list[tuple[int, int, int]] = []
        """(operation, inode, version that must be there when it is)."""

    # ------------------------------------------------------------ what the program does

    @property
    def tree(self) -> Tree:
        return self.history[-1]

    def content(self, ino: int) -> bytes:
        return self.versions[ino][-1]

    def now(self) -> Found:
        """A copy of what the program sees."""
        return Found(
            dict(self.tree), {k.ino: self.content(k.ino) for k in self.tree.values() if k.ino in self.versions}
        )

    def operation(self, tree: Tree, *, moved_onto: int = 0) -> None:
        """The names are so from here on. To be called before the operation is run: it may take effect at any moment."""
        self.history.append(tree)
        if moved_onto:
            self._moved_onto.append((len(self.history) - 1, moved_onto, len(self.versions[moved_onto]) - 1))

    def written(self, ino: int, content: bytes) -> None:
        self.versions.setdefault(ino, []).append(content)

    def cut(self, ino: int, size: int) -> None:
        """The file was cut or extended: that may be there without the data that was written before, not the other way
        round."""
        self.versions[ino] += [content[:size].ljust(size, b"\0") for content in self.versions[ino]]

    def point(self, ino: int = 0) -> Durable:
        """What a barrier that begins now makes durable: all operations, and the data of one file, or of all (0)."""
        inodes = [ino] if ino else list(self.versions)
        return Durable(len(self.history) - 1, {i: len(self.versions[i]) - 1 for i in inodes})

    def durable(self, point: Durable) -> None:
        """The barrier returned."""
        self._durable_operations = max(self._durable_operations, point.operations)
        for ino, version in point.versions.items():
            self._durable_versions[ino] = max(self._durable_versions.get(ino, 0), version)

    # ------------------------------------------------------------ what is found after it died

    def recovered(self, found: Found) -> None:
        """The volume's state after the mount died. AssertionError where it may not be so."""
        problem = self._problem(found)
        assert problem is None, f"{self.name}: {problem}"
        self._go_on_from(found)

    def _problem(self, found: Found) -> str | None:
        made = found.tree.get(self.making) if self.making is not None else None
        if made is not None and made.ino not in self.versions and made not in self.tree.values():
            if found.content.get(made.ino):
                return f"{self.making!r} has data that was not written yet"
            found = Found({path: known for path, known in found.tree.items() if path != self.making}, found.content)
        matching = [
            index for index in range(self._durable_operations, len(self.history)) if self.history[index] == found.tree
        ]
        if not matching:
            lost = [index for index, tree in enumerate(self.history) if tree == found.tree]
            return (
                f"names {found.tree} are those after operation {lost}, the last durable is {self._durable_operations}"
                if lost
                else f"names {found.tree} never were; last ones {self.history[self._durable_operations :]}"
            )
        at_least = dict(self._durable_versions)
        for operation, ino, version in self._moved_onto:
            if operation <= matching[0]:
                at_least[ino] = max(at_least.get(ino, 0), version)
        for known in found.tree.values():
            if known.ino in found.content:
                allowed = self.versions[known.ino][at_least.get(known.ino, 0) :]
                if not _is_one_of(found.content[known.ino], allowed):
                    return (
                        f"inode {known.ino} has {_show(found.content[known.ino])}, allowed are "
                        f"{[_show(content) for content in allowed]}"
                    )
        return None


def _is_one_of(content: bytes, versions: list[bytes]) -> bool:
    """Whether a file is as it was at some time; one of several slots may have each of them from another time."""
    if content in versions:
        return True
    if max(map(len, versions)) <= SLOT_BYTES or len(content) > max(map(len, versions)):
        return False
    for start in range(0, len(content), SLOT_BYTES):
        part = content[start : start + SLOT_BYTES]
        if not any(version[start : start + len(part)].ljust(len(part), b"\0") == part for version in versions):
            return False
    return True


def _show(content: bytes) -> str:
    return f"{len(content)} bytes {content[:4].hex()}..{content[-4:].hex()}"
