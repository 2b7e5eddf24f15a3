"""What clients ask of a storage node: the requests' shapes and the synchronous connection that sends them.

Requests on one connection are answered in order, so several may be under way (`put_send`, `get_send`, then
`recv_reply` for each). A `NodeConnection` is used by one thread at a time; one thread sending while another receives is
fine. Every network failure or timeout raises `Unavailable` and leaves the connection dead (`alive` is False): open
another. Every request may be repeated safely: a PUT of what is held already, or a DELETE of what is gone, is
acknowledged.

The frames themselves are `frames.py`'s, what the node does with a request is its `shard_store.py`'s.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, NamedTuple

import msgpack
import xxhash

from redfs.core.errors import Corrupt, InternalError, InvalidArgument, RedfsError, Unavailable, WrongFormat
from redfs.proto import frames
from redfs.proto.frames import CONNECT_TIMEOUT_S, IO_TIMEOUT_S, Buffer, Frame, Header, Hello

SHARD_KEY: Final = struct.Struct(">QH")
"""segment u64, shard index u16: sorts as (segment, shard)."""
SHARD_INFO: Final = struct.Struct(">QHIQ")
"""segment u64, shard u16, payload bytes u32, xxh3_64 of the payload u64."""
MAX_KEYS: Final = 4096
"""Shards in one DELETE or VERIFY: 40 KiB, which stays below the header limit; a longer list is cut by the caller."""
MAX_PAGE: Final = 65536
"""Shards in one LIST page: 1.4 MiB."""
MAX_PIPELINED: Final = 64
"""Requests sent and not answered on one connection: their answers fit into the sockets' buffers."""

ShardKey = tuple[int, int]
"""(segment, shard index)."""


class ShardInfo(NamedTuple):
    """A shard that a node holds."""

    segment: int
    shard: int
    payload_bytes: int
    checksum: int
    """xxh3_64 of the payload."""


class NodeStat(NamedTuple):
    """How a node is doing."""

    capacity_bytes: int
    used_bytes: int
    free_bytes: int
    """What can still be written by PUTs; the held-back reserve is not in it."""
    shards: int
    backing_files: int
    generation: int
    """Raised at each start of the node."""
    failed: bool
    """The disk failed: nothing is written to it any more."""


def pack_keys(keys: Iterable[ShardKey]) -> bytes:
    """Shard keys one after another."""
    return b"".join(SHARD_KEY.pack(segment, shard) for segment, shard in keys)


def unpack_keys(packed: Buffer) -> list[ShardKey]:
    """Raises WrongFormat where the bytes are no list of keys."""
    if len(packed) % SHARD_KEY.size:
        raise WrongFormat(f"{len(packed)} bytes are no list of shards")
    return [(segment, shard) for segment, shard in SHARD_KEY.iter_unpack(packed)]


Finding = tuple[int, int, str, str]
"""A shard that VERIFY found not well: (segment, shard, error code, message)."""


def pack_findings(findings: Sequence[Finding]) -> bytes:
    """The payload of VERIFY's answer."""
    packed: bytes = msgpack.packb(findings)
    return packed


def unpack_findings(packed: Buffer) -> list[Finding]:
    """Raises WrongFormat where the bytes are no list of findings."""
    try:
        return [(int(s), int(i), str(code), str(message)) for s, i, code, message in msgpack.unpackb(packed)]
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WrongFormat("the answer to VERIFY is not understood") from error


def payload_checksum(buffers: Sequence[Buffer]) -> int:
    """xxh3_64 of the buffers one after another."""
    if len(buffers) == 1:
        return xxhash.xxh3_64_intdigest(buffers[0])
    digest = xxhash.xxh3_64()
    for buffer in buffers:
        digest.update(buffer)
    return digest.intdigest()


def put_header(segment: int, shard: int, payload_bytes: int, checksum: int) -> Header:
    """A PUT's header; the payload follows it."""
    return {"op": "put", "s": segment, "i": shard, "n": payload_bytes, "c": checksum}


def get_header(segment: int, shard: int, offset: int, length: int) -> Header:
    """A GET's header; the answer's payload is the bytes."""
    return {"op": "get", "s": segment, "i": shard, "o": offset, "n": length}


def digest_header(segment: int, shard: int, length: int) -> Header:
    """A GET of a whole shard whose answer names the shard's length and checksum, as its record has them."""
    return {**get_header(segment, shard, 0, length), "d": True}


def digest_answer(payload_bytes: int, checksum: int) -> Header:
    """The header of the answer to a GET that asked for the digest."""
    return {"n": payload_bytes, "c": checksum}


class NodeConnection:
    """One data-plane connection to one storage node."""

    def __init__(self, sock: socket.socket, address: str, node: Hello, read_only: bool) -> None:
        self.address = address
        self.pool_id = node.pool_id
        self.node_id = node.node_id
        self.generation = node.generation
        self.read_only = read_only
        self.alive = True
        self._sock = sock
        self._sent = 0
        self._received = 0

    @classmethod
    def open(
        cls,
        address: str,
        *,
        pool_id: str = "",
        node_id: int = 0,
        background: bool = False,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        io_timeout_s: float = IO_TIMEOUT_S,
    ) -> NodeConnection:
        """Connects and exchanges hellos; with a pool or node id, the node must be that one. Requests on a `background`
        connection give way to others on the node.

        Raises Unavailable (a retry may help), WrongFormat (another pool, node or version).
        """
        sock = frames.connect(address, connect_timeout_s=connect_timeout_s, io_timeout_s=io_timeout_s)
        try:
            node, read_only = frames.greet(sock, Hello(pool_id=pool_id, node_id=node_id, background=background))
        except RedfsError:
            sock.close()
            raise
        return cls(sock, address, node, read_only)

    def close(self) -> None:
        """Closes the connection; a thread that waits for an answer gets Unavailable."""
        self.alive = False
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def __enter__(self) -> NodeConnection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # -------------------------------------------------------------------- pipelining

    @property
    def unanswered(self) -> int:
        """Requests sent whose answers were not received yet."""
        return self._sent - self._received

    def put_send(
        self, segment: int, shard: int, payload: Buffer | Sequence[Buffer], checksum: int | None = None
    ) -> None:
        """Sends a PUT; `recv_reply` receives its answer. `payload` is one buffer or several, 1 byte to 16 MiB together.

        `checksum` is the payload's xxh3_64 where the caller has it already.
        """
        buffers = [payload] if isinstance(payload, bytes | bytearray | memoryview) else payload
        if checksum is None:
            checksum = payload_checksum(buffers)
        payload_bytes = sum(memoryview(buffer).nbytes for buffer in buffers)
        if not 0 < payload_bytes <= frames.MAX_PAYLOAD_BYTES:
            raise InvalidArgument(f"a shard has 1 to {frames.MAX_PAYLOAD_BYTES} bytes, not {payload_bytes}")
        self._send(put_header(segment, shard, payload_bytes, checksum), buffers)

    def get_send(self, segment: int, shard: int, offset: int, length: int) -> None:
        """Sends a GET; `recv_reply` receives its answer."""
        self._send(get_header(segment, shard, offset, length))

    def recv_reply(self, into: memoryview | list[memoryview] | None = None) -> Frame:
        """The answer to the oldest request that has none yet. Raises the error that the node answered with."""
        if self.unanswered <= 0:
            raise InternalError("no request is waiting for an answer")
        try:
            frame = frames.recv_frame(self._sock, into)
        except TimeoutError as error:
            self.close()
            raise Unavailable(f"storage node {self.node_id} at {self.address} did not answer in time") from error
        except (Unavailable, WrongFormat) as error:
            self.close()
            raise Unavailable(f"storage node {self.node_id} at {self.address}: {error}") from error
        if frame is None:
            self.close()
            raise Unavailable(f"storage node {self.node_id} at {self.address} closed the connection")
        self._received += 1
        frames.raise_error(frame.header)
        return frame

    def _send(self, header: Header, payload: Sequence[Buffer] = ()) -> None:
        if not self.alive:
            raise Unavailable(f"the connection to storage node {self.node_id} at {self.address} is closed")
        if self.unanswered >= MAX_PIPELINED:
            raise InternalError(
                f"{MAX_PIPELINED} requests are under way on one connection: receive their answers first"
            )
        try:
            frames.send_frame(self._sock, header, payload)
        except Unavailable as error:
            self.close()
            raise Unavailable(f"storage node {self.node_id} at {self.address}: {error}") from error
        self._sent += 1

    def _call(self, header: Header, into: memoryview | None = None, payload: Sequence[Buffer] = ()) -> Frame:
        self._send(header, payload)
        return self.recv_reply(into)

    # -------------------------------------------------------------------- requests

    def put(self, segment: int, shard: int, payload: Buffer | Sequence[Buffer], checksum: int | None = None) -> None:
        """Stores a shard; durable when it returns. A retry is safe.

        Raises NoSpace, AlreadyExists (held with other content), Corrupt (damaged on the way), Unavailable.
        """
        self.put_send(segment, shard, payload, checksum)
        self.recv_reply()

    def get_into(self, segment: int, shard: int, offset: int, view: memoryview) -> None:
        """Fills the view with bytes of the shard from `offset` on. The caller checks what it got against its checksums.

        Raises NotFound, InvalidArgument (past the shard's end), Unavailable.
        """
        self.get_send(segment, shard, offset, len(view))
        self._check_length(self.recv_reply(view), len(view))

    def get_into_all(self, segment: int, shard: int, offset: int, views: list[memoryview]) -> None:
        """Fills the views (none of them empty), one after the other, with bytes of the shard from `offset` on. As
        `get_into` otherwise."""
        self.get_send(segment, shard, offset, sum(map(len, views)))
        self._check_length(self.recv_reply(views), len(views[-1]))

    def get(self, segment: int, shard: int, offset: int, length: int) -> memoryview:
        """Bytes of a shard in a fresh buffer. Errors as `get_into`."""
        self.get_send(segment, shard, offset, length)
        frame = self.recv_reply()
        self._check_length(frame, length)
        return frame.payload

    def get_verified_into(self, segment: int, shard: int, view: memoryview) -> None:
        """Fills the view with a whole shard of exactly its length, checked against the checksum that the shard was
        stored with: a shard that the disk damaged silently is not taken.

        Raises NotFound, Corrupt (damaged, or of another length), Unavailable (also where the node cannot read it:
        `verify` tells), WrongFormat (the node does not say what its checksums are).
        """
        self._send(digest_header(segment, shard, len(view)))
        try:
            frame = self.recv_reply(view)
        except InvalidArgument as error:
            raise Corrupt(f"shard {segment}/{shard} is shorter than {len(view)} bytes") from error
        self._check_length(frame, len(view))
        payload_bytes, checksum = frame.header.get("n"), frame.header.get("c")
        if not isinstance(payload_bytes, int) or not isinstance(checksum, int):
            raise WrongFormat(f"storage node {self.node_id} does not tell checksums of its shards: upgrade it")
        if payload_bytes != len(view):
            raise Corrupt(f"shard {segment}/{shard} has {payload_bytes} bytes instead of {len(view)}")
        if xxhash.xxh3_64_intdigest(view) != checksum:
            raise Corrupt(f"shard {segment}/{shard} is not what was stored")

    def _check_length(self, frame: Frame, length: int) -> None:
        if len(frame.payload) != length:
            self.close()
            raise Unavailable(f"storage node {self.node_id} answered {len(frame.payload)} bytes instead of {length}")

    def delete(self, keys: Sequence[ShardKey]) -> None:
        """Deletes shards, at most MAX_KEYS; durable when it returns. What is not held counts as deleted."""
        self._call({"op": "delete", "k": self._packed(keys)})

    def list_page(self, after: ShardKey | None = None, limit: int = MAX_PAGE) -> list[ShardInfo]:
        """Shards held after a key (None: from the first), in order; fewer than `limit` (<= MAX_PAGE) at the end."""
        frame = self._call({"op": "list", "a": pack_keys([after]) if after is not None else b"", "n": limit})
        return [ShardInfo(*row) for row in SHARD_INFO.iter_unpack(frame.payload)]

    def verify(self, segment: int, shard: int) -> None:
        """Reads the shard on the node and checks it. Raises NotFound, Corrupt, Unavailable."""
        frame = self._call({"op": "verify", "k": self._packed([(segment, shard)])})
        for _, _, code, message in unpack_findings(frame.payload):
            frames.raise_error({"error": code, "message": message})

    def verify_many(self, keys: Sequence[ShardKey]) -> dict[ShardKey, str]:
        """As `verify` for at most MAX_KEYS shards: the error codes ("not_found", "corrupt") of those not well."""
        frame = self._call({"op": "verify", "k": self._packed(keys)})
        return {(segment, shard): code for segment, shard, code, _ in unpack_findings(frame.payload)}

    def stat(self) -> NodeStat:
        """Capacity and state."""
        return NodeStat(*self._call({"op": "stat"}).header["stat"])

    @staticmethod
    def _packed(keys: Sequence[ShardKey]) -> bytes:
        if len(keys) > MAX_KEYS:
            raise InvalidArgument(f"at most {MAX_KEYS} shards in one request, not {len(keys)}")
        return pack_keys(keys)
