"""The coordinator's data folder: whose it is, and that only one process has it.

`identity` holds a magic, the format's version, the pool's id and a checksum; the byte table is in
docs/formats/coordinator.md. `lock` is locked while a process runs. Raises Busy, WrongFormat, NoSpace.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Self

import xxhash

from redfs.core.errors import Busy, InvalidArgument, NoSpace, WrongFormat

MAGIC = b"REDFSCRD"
VERSION = 1
IDENTITY_FILE = "identity"
LOCK_FILE = "lock"
POOL_ID_CHARS = 16

_BODY = struct.Struct(f">8sH{POOL_ID_CHARS}s")
_CHECKSUM = struct.Struct(">Q")


def encode_identity(pool_id: str) -> bytes:
    body = _BODY.pack(MAGIC, VERSION, pool_id.encode("ascii"))
    return body + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(body))


def decode_identity(data: bytes, path: str) -> str:
    """The pool's id. Raises WrongFormat."""
    if data[:8] != MAGIC:
        raise WrongFormat(f"{path} is not a coordinator's identity: is this another program's folder?")
    if len(data) >= 10 and int.from_bytes(data[8:10], "big") != VERSION:
        found = int.from_bytes(data[8:10], "big")
        raise WrongFormat(f"{path} has version {found}, this RedFS knows {VERSION}: use a newer RedFS")
    body = data[: _BODY.size]
    if data[_BODY.size :] != _CHECKSUM.pack(xxhash.xxh3_64_intdigest(body)) or len(body) != _BODY.size:
        raise WrongFormat(f"{path} is damaged: put it back from a backup")
    _, _, pool_id = _BODY.unpack(body)
    return str(pool_id, "ascii")


def publish(path: Path, data: bytes) -> None:
    """Puts a small file in place durably, whole or not at all: written beside, synced, renamed, folder synced."""
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"the coordinator's disk is full ({path.parent}): free some space there") from error
        raise


class DataFolder:
    """The folder, locked for this process until `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / LOCK_FILE).open("a")
        except OSError as error:
            raise InvalidArgument(f"cannot use the folder {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise Busy(f"another coordinator runs on {path}: stop that one first") from error

    def pool_id(self) -> str | None:
        """The pool that the folder belongs to; None for a fresh one."""
        path = self.path / IDENTITY_FILE
        try:
            return decode_identity(path.read_bytes(), str(path))
        except FileNotFoundError:
            return None

    def claim(self, pool_id: str) -> None:
        """Writes the identity, or raises WrongFormat where the folder belongs to another pool."""
        found = self.pool_id()
        if found is None:
            publish(self.path / IDENTITY_FILE, encode_identity(pool_id))
        elif found != pool_id:
            raise WrongFormat(
                f"{self.path} belongs to pool {found}, its metadata to pool {pool_id}: files of two pools were mixed"
            )

    def close(self) -> None:
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
