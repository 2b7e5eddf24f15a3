"""Who this disk is, and how its node stopped last: two small files beside the backing files.

`node.json` names the disk, and the pool and node it belongs to once it has joined one. `state.json` holds what changes
with every start and stop: the generation, whether the stop was a clean one, the port. Both carry magic, version and
checksum and are replaced as a whole, so they are the old or the new one after any crash.

Raises WrongFormat for a file that is damaged or of an unknown version, and for a folder that has backing files but no
identity; nothing is overwritten then. Byte tables: docs/formats/storage-node.md.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import xxhash

from redfs.core.errors import WrongFormat
from redfs.storage_node.backing_file import file_numbers
from redfs.storage_node.disk import Disk

IDENTITY_FILE: Final = "node.json"
IDENTITY_FORMAT: Final = "redfs-node"
STATE_FILE: Final = "state.json"
STATE_FORMAT: Final = "redfs-node-state"
VERSION: Final = 1


@dataclass(frozen=True)
class Identity:
    """The disk, and where it belongs."""

    disk_uuid: str
    """32 hexadecimal digits, made at the first start."""
    pool_id: str = ""
    """Empty until the disk has joined a pool."""
    node_id: int = 0

    @property
    def joined(self) -> bool:
        return bool(self.pool_id)


@dataclass(frozen=True)
class NodeState:
    """What a start leaves for the next one."""

    generation: int = 0
    clean: bool = True
    """The last stop saved the index; False from every start to the next clean stop."""
    port: int = 0


def _checksum(content: dict[str, Any]) -> str:
    packed = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return xxhash.xxh3_64_hexdigest(packed)


def pack(name: str, content: dict[str, Any]) -> bytes:
    """A small file: magic, version, content, checksum, as JSON that people can read."""
    whole = {"format": name, "version": VERSION, **content}
    return (json.dumps({**whole, "checksum": _checksum(whole)}, indent=2) + "\n").encode()


def unpack(name: str, packed: bytes, file: str) -> dict[str, Any]:
    """The content of a small file. Raises WrongFormat."""
    try:
        whole = json.loads(packed)
    except ValueError as error:
        raise WrongFormat(f"{file} is damaged: restore it, or give the node an empty folder") from error
    if not isinstance(whole, dict) or whole.get("format") != name:
        raise WrongFormat(f"{file} is not a file of a RedFS storage node: is the folder right?")
    if whole.get("version") != VERSION:
        raise WrongFormat(
            f"{file} has version {whole.get('version')}, this program knows {VERSION}: use the newer program"
        )
    checksum = whole.pop("checksum", None)
    if checksum != _checksum(whole):
        raise WrongFormat(f"{file} is damaged: restore it, or give the node an empty folder")
    del whole["format"], whole["version"]
    return whole


def load_identity(disk: Disk, fresh_uuid: str) -> Identity:
    """The disk's identity; a fresh disk gets `fresh_uuid`. Raises WrongFormat."""
    packed = disk.read(IDENTITY_FILE)
    if packed is not None:
        content = unpack(IDENTITY_FORMAT, packed, IDENTITY_FILE)
        try:
            identity = Identity(str(content["disk_uuid"]), str(content["pool_id"]), int(content["node_id"]))
            if len(bytes.fromhex(identity.disk_uuid)) != 16:
                raise ValueError("not 16 bytes")
        except (KeyError, ValueError, TypeError) as error:
            raise WrongFormat(f"{IDENTITY_FILE} is damaged: restore it, or give the node an empty folder") from error
        return identity
    if file_numbers(disk):
        raise WrongFormat(f"the folder holds backing files but no {IDENTITY_FILE}: restore it, or use an empty folder")
    identity = Identity(fresh_uuid)
    save_identity(disk, identity)
    return identity


def save_identity(disk: Disk, identity: Identity) -> None:
    """Durable when it returns."""
    disk.publish(IDENTITY_FILE, pack(IDENTITY_FORMAT, asdict(identity)))


def join(disk: Disk, identity: Identity, pool_id: str, node_id: int) -> Identity:
    """The identity of the disk as a member of a pool. Raises WrongFormat where it belongs elsewhere already."""
    if not pool_id or node_id <= 0:
        raise WrongFormat("the coordinator named no pool or node")
    if identity.joined:
        if (identity.pool_id, identity.node_id) != (pool_id, node_id):
            raise WrongFormat(
                f"this disk is node {identity.node_id} of pool {identity.pool_id}, the coordinator takes it for node "
                f"{node_id} of pool {pool_id}: start it with its own coordinator, or on an empty folder"
            )
        return identity
    joined = replace(identity, pool_id=pool_id, node_id=node_id)
    save_identity(disk, joined)
    return joined


def load_state(disk: Disk) -> NodeState:
    """The state that the last start or stop left. A missing one counts as unclean unless the disk is fresh."""
    packed = disk.read(STATE_FILE)
    if packed is None:
        return NodeState(clean=not file_numbers(disk))
    content = unpack(STATE_FORMAT, packed, STATE_FILE)
    try:
        return NodeState(int(content["generation"]), bool(content["clean"]), int(content["port"]))
    except (KeyError, ValueError, TypeError) as error:
        raise WrongFormat(
            f"{STATE_FILE} is damaged: remove it, and the node reads its files at the next start"
        ) from error


def save_state(disk: Disk, state: NodeState) -> None:
    """Durable when it returns."""
    disk.publish(STATE_FILE, pack(STATE_FORMAT, asdict(state)))
