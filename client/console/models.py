"""What goes over the API, as schemas: replies made from the messages of cluster.proto, bodies written here.

A reply is a message of the coordinator as plain data, the same as `redfs --json` prints; its schema is derived from the
message's descriptor and the comments of cluster.proto, so it can neither lag behind nor differ. Bodies are strict: a
field that is not known, or of another type, is refused.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, Field, create_model

from redfs import proto
from redfs.client.cli.output import message_data
from redfs.client.console import paths
from redfs.core.records import MAX_FILE_BYTES
from redfs.proto.gen import cluster_pb2 as pb

PROTO_FILE = "cluster.proto"
MESSAGES_PER_TURN = 500
"""Some ten milliseconds of work on the event loop."""
MAX_NAMES = 1000
"""Nodes in one question of what deleting them would free."""

# ---------------------------------------------------------------- replies

_UNSIGNED = (
    FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_FIXED64,
)  # fmt: skip
_INTEGERS = (
    *_UNSIGNED,
    FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_SFIXED32, FieldDescriptor.TYPE_SFIXED64,
)  # fmt: skip
_NAME = re.compile(r"message (\w+) \{")
_FIELD = re.compile(r"\s+(?:optional |repeated )?[\w.]+ (\w+) = \d+;\s*(?://\s*(.*\S))?\s*$")
_COMMENT = re.compile(r"\s*//\s?(.*)$")


@functools.cache
def _comments() -> dict[tuple[str, str], str]:
    """(message, field) -> what cluster.proto says of it; field "" for the message itself."""
    file = Path(next(iter(proto.__path__))) / PROTO_FILE
    found: dict[tuple[str, str], str] = {}
    message, field, above = "", "", ""
    for line in file.read_text(encoding="utf-8").splitlines():
        if opened := _NAME.match(line):
            message, field = opened[1], ""
            found[message, ""] = above
            above = ""
        elif named := _FIELD.match(line):
            field = named[1]
            found[message, field] = " ".join(filter(None, (above, named[2])))
            above = ""
        elif comment := _COMMENT.match(line):
            above = f"{above} {comment[1]}".strip()
        else:
            above = ""
    return found


@functools.cache
def model_of(message: type[Message]) -> type[BaseModel]:
    """The schema of a message as `data_of` shows it."""
    return _model(message.DESCRIPTOR)


@functools.cache
def _model(descriptor: Any) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for field in descriptor.fields:
        kind = _kind(field)
        if field.is_repeated:
            kind = list[kind]  # type: ignore[valid-type]
        fields[field.name] = (kind, Field(description=_comments().get((descriptor.name, field.name)) or None))
    made: type[BaseModel] = create_model(
        descriptor.name,
        __config__=ConfigDict(extra="forbid", strict=True),
        __doc__=_comments().get((descriptor.name, "")) or None,
        **fields,
    )
    return made


def _kind(field: FieldDescriptor) -> Any:
    if field.message_type is not None:
        return _model(field.message_type)
    if field.type in _UNSIGNED:
        return Annotated[int, Field(ge=0)]
    if field.type in _INTEGERS:
        return int
    if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return float
    return bool if field.type == FieldDescriptor.TYPE_BOOL else str


def data_of(message: Message) -> dict[str, Any]:
    """A message as plain data; bytes, which are paths, percent-encoded."""
    data = message_data(message)
    if not _holds_bytes(message.DESCRIPTOR):
        return data
    return {key: _plain(value) for key, value in data.items()}


async def list_data(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Messages as plain data. Ten thousand take a while, so others get their turn in between."""
    found = []
    for message in messages:
        found.append(data_of(message))
        if not len(found) % MESSAGES_PER_TURN:
            await asyncio.sleep(0)
    return found


@functools.cache
def _holds_bytes(descriptor: Any) -> bool:
    return any(
        field.type == FieldDescriptor.TYPE_BYTES
        or (field.message_type is not None and _holds_bytes(field.message_type))
        for field in descriptor.fields
    )


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return paths.encode(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ErrorDetail(_Reply):
    """What is wrong."""

    code: str = Field(description="stable, for programs: `invalid`, `not_found`, `exists`, `busy`, ...")
    message: str = Field(description="one line for people, says what to do where something can be done")


class Error(_Reply):
    """How every refusal looks."""

    error: ErrorDetail


class DiffItem(_Reply):
    """One path that differs."""

    change: Literal["created", "deleted", "modified", "renamed"]
    path: str = Field(description="percent-encoded, from the top; of a renamed one, where it was")
    name: str = Field(description="the same for people")
    new_path: str = Field(description="renamed: where it is now, percent-encoded; else empty")
    new_name: str = Field(description="the same for people")
    kind: str = Field(description="file, folder, symlink or special")
    content: bool = Field(description="modified, renamed: data or link target differ")
    attributes: bool = Field(description="modified, renamed: mode, owner, times or extended attributes differ")
    before_bytes: int
    after_bytes: int


class Diff(_Reply):
    """The first differences between two nodes."""

    entries: list[DiffItem]
    complete: bool = Field(description="false: there are more than `limit`")


class FolderEntry(_Reply):
    """What a folder holds."""

    name: str = Field(description="for people: bytes that are no UTF-8 are shown as U+FFFD")
    path: str = Field(description="the whole path, percent-encoded: put it behind `?path=` as it is")
    kind: Literal["file", "folder", "symlink", "special"]
    size: int = Field(description="bytes; of a folder the number of its entries")
    mtime_ns: int
    mode: int = Field(description="permission bits")
    uid: int
    gid: int
    target: str | None = Field(description="where a symbolic link points, for people; null for others")


class FolderPage(_Reply):
    """A page of a folder, in the folder's own order."""

    node: str
    path: str = Field(description="percent-encoded")
    entries: list[FolderEntry]
    next: str | None = Field(description="give it as `after` for the next page; null at the end")


class PathVersion(_Reply):
    """What a path is in one node."""

    node: str
    volume_id: int
    created_ns: int
    exists: bool
    kind: Literal["file", "folder", "symlink", "special"] | None
    size: int
    mtime_ns: int | None
    same_as_previous: bool | None = Field(
        description="whether it shows the same data as in the version before; null where it does not exist, for the "
        "first, and where too much would have to be compared to know"
    )


# ---------------------------------------------------------------- bodies

Name = Annotated[str, Field(min_length=1, max_length=127)]
OwnName = Annotated[str, Field(max_length=63)]
Text = Annotated[str, Field(max_length=1024)]
EncodedPath = Annotated[str, Field(max_length=32_768, description="percent-encoded, from the top of the volume")]
Protection = Annotated[str, Field(max_length=32, description="mirror:N, ec:K+M, raid5, raid6 or single")]
Bytes = Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Settings(_Body):
    """Settings of a volume; those that are left out stay as they are."""

    protection: Protection | None = None
    description: Text | None = None
    color: Annotated[str, Field(max_length=32)] | None = None
    compression: Annotated[str, Field(max_length=32, description="zstd or none")] | None = None
    minimum_nodes: Annotated[int, Field(ge=0, le=1 << 16)] | None = None
    quota_bytes: Annotated[Bytes, Field(description="logical bytes that it may hold; 0: no limit")] | None = None

    shared: Annotated[bool, Field(description="several hosts may mount it and write, without `--shared`")] | None = None

    def given(self) -> dict[str, Any]:
        """The settings that are set, by name."""
        return {
            name: value
            for name in Settings.model_fields
            if (value := getattr(self, name)) is not None
        }  # fmt: skip


class VolumeNew(Settings):
    """A new volume; what is left out is the pool's default."""

    name: Name


class VolumeNewName(_Body):
    """Another name."""

    new_name: Annotated[str, Field(min_length=1, max_length=127, description="a snapshot's is VOLUME@SNAPSHOT")]


class SnapshotNew(_Body):
    """A new snapshot of the volume."""

    snapshot: Annotated[str, Field(min_length=1, max_length=63, description="its own name, without VOLUME@")]


class CloneNew(Settings):
    """A writable copy; settings that are left out are those of the source."""

    name: Name
    backed: Annotated[bool, Field(description="first a snapshot of the live source, then a clone of that")] = False
    snapshot: Annotated[OwnName, Field(description="with `backed`: the snapshot's own name; empty: the clone's")] = ""


class Rollback(_Body):
    """Rolling a volume back to the snapshot."""

    confirm: Annotated[str, Field(description="the volume's name: what it holds now is replaced")]
    keep: Annotated[OwnName, Field(description="what it held is kept as VOLUME@keep; empty: named by the time")] = ""
    discard: Annotated[bool, Field(description="what it held is deleted")] = False


class Names(_Body):
    """Nodes of the tree."""

    names: Annotated[list[Name], Field(max_length=MAX_NAMES)]


class JobNew(_Body):
    """A job to be started."""

    kind: Annotated[str, Field(min_length=1, max_length=32, description="rebalance, scrub or clean")]


class CopyNew(_Body):
    """Copying a file or folder without moving data."""

    source: Annotated[str, Field(max_length=127, description="VOLUME or VOLUME@SNAPSHOT")]
    source_path: EncodedPath
    target: Annotated[str, Field(max_length=127, description="a live volume")]
    target_path: Annotated[EncodedPath, Field(description="where it is to be; an existing folder: into it")]
    replace: Annotated[bool, Field(description="an existing file gives way")] = False


class ScheduleNew(_Body):
    """When snapshots are made, and how many stay."""

    every_s: Annotated[int, Field(ge=1, le=10 * 366 * 86400)]
    keep: Annotated[int, Field(ge=1, le=4096)]


def diff_item(entry: pb.DiffEntry) -> dict[str, Any]:
    """A difference as plain data."""
    old, new = _from_top(entry.path), _from_top(entry.new_path)
    return data_of(entry) | {
        "path": paths.encode(old),
        "name": paths.shown(old),
        "new_path": paths.encode(new),
        "new_name": paths.shown(new),
    }


def _from_top(path: bytes) -> bytes:
    return b"/" + path if path else b""
