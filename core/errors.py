"""The error family of RedFS: one class for each thing that the caller can do about it.

Every error's text is one line that says what is wrong and, where the user can act, what to do. The classes are
mapped once to gRPC status (`proto/rpc_errors.py`), once to errno (`client/fuse_adapter.py`) and once to an exit
code (`exit_code` here, used by the command line). The file system's own errors (ENOENT and the like) are
`FsError`, raised by the namespace engine.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Iterable
from typing import ClassVar


class RedfsError(Exception):
    """Base of all errors that RedFS raises on purpose. `code` is stable and goes over the wire."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1


class InvalidArgument(RedfsError):
    """The request itself is wrong (a bad name, an unknown policy): correct it and call again."""

    code = "invalid"
    exit_code = 2


class NotFound(RedfsError):
    """What the request names does not exist."""

    code = "not_found"
    exit_code = 3


class AlreadyExists(RedfsError):
    """The name is taken."""

    code = "exists"
    exit_code = 4


class Busy(RedfsError):
    """Something in use stands in the way (a mounted volume, a running process): end that use first."""

    code = "busy"
    exit_code = 5


class NotAllowed(RedfsError):
    """The operation is never allowed on this object (the zero volume, a snapshot)."""

    code = "not_allowed"
    exit_code = 6


class Unavailable(RedfsError):
    """A process does not answer or cannot serve now: the same call may succeed later, a retry is safe."""

    code = "unavailable"
    exit_code = 7


class NoSpace(RedfsError):
    """The pool, a disk or a quota is full."""

    code = "no_space"
    exit_code = 8


class TooFewNodes(RedfsError):
    """Fewer storage nodes are up than the protection policy needs."""

    code = "too_few_nodes"
    exit_code = 9


class Corrupt(RedfsError):
    """Stored bytes are damaged: report it, never serve them."""

    code = "corrupt"
    exit_code = 10


class WrongFormat(RedfsError):
    """A disk, file or peer speaks a version or belongs to a pool that this program does not know."""

    code = "wrong_format"
    exit_code = 11


class LeaseLapsed(RedfsError):
    """The session has ended at the coordinator: nothing it sends can become visible any more."""

    code = "lease_lapsed"
    exit_code = 12


class CommitRefused(RedfsError):
    """A commit counted on blocks that are gone: send their data again. `missing_blocks` names them."""

    code = "commit_refused"
    exit_code = 13

    def __init__(self, message: str, missing_blocks: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.missing_blocks: tuple[int, ...] = tuple(missing_blocks)


class RolledBack(RedfsError):
    """The volume was rolled back since: what this was made for is no more. Learn the volume anew."""

    code = "rolled_back"
    exit_code = 14


class Fenced(RedfsError):
    """Another coordinator has taken over since: this one's metadata is out of date, and it must stop."""

    code = "fenced"
    exit_code = 15


class InternalError(RedfsError):
    """An invariant does not hold: a bug in RedFS. Please report it with the log."""

    code = "internal"
    exit_code = 70


class FsError(RedfsError):
    """A POSIX error of a file-system operation; `errno` is what the program gets."""

    code = "fs"

    def __init__(self, errno: int, message: str = "") -> None:
        super().__init__(message or _errno.errorcode.get(errno, str(errno)))
        self.errno = errno


def _family(cls: type[RedfsError]) -> dict[str, type[RedfsError]]:
    found = {cls.code: cls}
    for sub in cls.__subclasses__():
        found.update(_family(sub))
    return found


BY_CODE: dict[str, type[RedfsError]] = _family(RedfsError)
"""Wire code -> class, for rebuilding an error on the other side."""
