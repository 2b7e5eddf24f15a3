"""Frames of the data plane: how clients and storage nodes put messages on a TCP connection.

A frame is a fixed prefix (magic, version, lengths), a small msgpack header and a payload of raw bytes. Payloads go from
and to the caller's buffers; nothing is copied in between. The first frame in each direction is a hello that settles
versions, features, and which node of which pool this is. All sockets are blocking; the kernel's own send and receive
timeouts bound every wait. This module is the one place that opens (`connect`, `greet`) and accepts (`listen`,
`accept_hello`) data-plane connections.

A connection on which anything went wrong half-way through a frame is out of step and must be closed: `Unavailable`
for the network, `WrongFormat` for a peer that does not speak this protocol. Which requests exist is left to
`data_plane.py`. Byte table: docs/formats/frames.md.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgpack
import xxhash

from redfs.core.errors import BY_CODE, FsError, InternalError, NotAllowed, RedfsError, Unavailable, WrongFormat

Buffer = bytes | bytearray | memoryview
Header = dict[str, Any]
"""Short string keys; values are what msgpack can carry."""

MAGIC: Final = b"RedF"
VERSION: Final = 1
PREFIX: Final = struct.Struct(">4sHHIIQ")
"""magic, version, reserved (0), header bytes, xxh32 of the header, payload bytes."""

MAX_HEADER_BYTES: Final = 64 * 1024
"""The largest header is a DELETE or VERIFY of 4096 shards; most are under 100 bytes."""
MAX_PAYLOAD_BYTES: Final = 16 * 1024 * 1024
"""Twice the largest segment: no shard is larger than a segment's 8 MiB."""
CONNECT_TIMEOUT_S: Final = 5.0
"""A node in the same network answers in milliseconds; a dead host must not hold up a write for long."""
IO_TIMEOUT_S: Final = 30.0
"""Without a byte moving. A disk's slow fdatasync stays well below; a vanished peer is noticed within it."""
LISTEN_BACKLOG: Final = 128
"""Connections waiting to be accepted: a pool's clients all coming back after a restart."""

COMPATIBLE_FEATURES: Final = 0
READ_ONLY_FEATURES: Final = 0
INCOMPATIBLE_FEATURES: Final = 0


class Frame(NamedTuple):
    """One received frame. The payload is a view of the buffer that was given, or of a fresh one."""

    header: Header
    payload: memoryview


@dataclass(frozen=True)
class Hello:
    """What each side says first. A client's pool and node are what it expects; empty and 0 mean any."""

    pool_id: str = ""
    node_id: int = 0
    generation: int = 0
    """The node's: raised at each of its starts. 0 in a client's hello."""
    background: bool = False
    """A client's: it works for the pool and not for a program that waits, so what it asks gives way to others."""
    version: int = VERSION
    compatible_features: int = COMPATIBLE_FEATURES
    read_only_features: int = READ_ONLY_FEATURES
    incompatible_features: int = INCOMPATIBLE_FEATURES

    def to_header(self) -> Header:
        header: Header = {
            "hello": self.version,
            "fc": self.compatible_features,
            "fr": self.read_only_features,
            "fi": self.incompatible_features,
            "pool": self.pool_id,
            "node": self.node_id,
            "gen": self.generation,
        }
        if self.background:
            header["bg"] = True
        return header

    @classmethod
    def from_header(cls, header: Header) -> Hello:
        """Raises WrongFormat where the header is no hello."""
        try:
            version, pool_id, node_id = header["hello"], header["pool"], header["node"]
            features = (header["fc"], header["fr"], header["fi"])
            generation = header.get("gen", 0)
        except KeyError as error:
            raise WrongFormat(f"the peer's first message lacks {error}: is this a RedFS data port?") from error
        if not isinstance(pool_id, str) or not all(
            isinstance(n, int) for n in (version, node_id, generation, *features)
        ):
            raise WrongFormat("the peer's first message has fields of a wrong type: is this a RedFS data port?")
        return cls(pool_id, node_id, generation, header.get("bg") is True, version, *features)


class Accepted(NamedTuple):
    """What a node has learnt of a client that it accepted."""

    read_only: bool
    background: bool


def negotiate(peer: Hello) -> bool:
    """Whether writing is refused on this connection. Raises WrongFormat where the two cannot talk at all."""
    if peer.version != VERSION:
        raise WrongFormat(
            f"the peer speaks data-plane version {peer.version}, this program {VERSION}: upgrade the older"
        )
    unknown = peer.incompatible_features & ~INCOMPATIBLE_FEATURES
    if unknown:
        raise WrongFormat(f"the peer needs features {unknown:#x} that this program does not know: upgrade it")
    return bool(peer.read_only_features & ~READ_ONLY_FEATURES)


# ------------------------------------------------------------------------------------------ frames


def encode_head(header: Header, payload_bytes: int) -> bytes:
    """The bytes of a frame before its payload. Raises InternalError where it is over the limits."""
    packed = msgpack.packb(header)
    if len(packed) > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise InternalError(f"a frame of {len(packed)} + {payload_bytes} bytes is over the limit")
    head: bytes = PREFIX.pack(MAGIC, VERSION, 0, len(packed), xxhash.xxh32_intdigest(packed), payload_bytes) + packed
    return head


def parse_prefix(prefix: Buffer) -> tuple[int, int, int]:
    """(header bytes, checksum of the header, payload bytes) of a frame. Raises WrongFormat."""
    magic, version, _, header_bytes, checksum, payload_bytes = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise WrongFormat("the peer does not speak RedFS's data protocol: is the port right?")
    if version != VERSION:
        raise WrongFormat(f"the peer speaks data-plane version {version}, this program {VERSION}: upgrade the older")
    if header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise WrongFormat(f"the peer sent a frame of {header_bytes} + {payload_bytes} bytes, over the limit")
    return header_bytes, checksum, payload_bytes


def parse_header(packed: Buffer, checksum: int) -> Header:
    """A frame's header from its bytes. Raises WrongFormat."""
    if xxhash.xxh32_intdigest(packed) != checksum:
        raise WrongFormat("a frame's header arrived damaged")
    try:
        header = msgpack.unpackb(packed)
    except (ValueError, msgpack.UnpackException) as error:
        raise WrongFormat("a frame's header is not msgpack") from error
    if not isinstance(header, dict):
        raise WrongFormat("a frame's header is not a map")
    return header


def send_frame(sock: socket.socket, header: Header, payload: Sequence[Buffer] = (), payload_bytes: int = -1) -> None:
    """Sends one frame. `payload_bytes` announces bytes that the caller sends itself afterwards (by sendfile).

    Raises Unavailable when the connection broke or a send timed out; it is dead then.
    """
    views = [view for view in map(_bytes_view, payload) if len(view)]
    total = sum(len(view) for view in views) if payload_bytes < 0 else payload_bytes
    head = encode_head(header, total)
    try:
        flags = socket.MSG_MORE if payload_bytes > 0 else 0
        sent = sock.sendmsg([head, *views], (), flags)
        expected = len(head) + (total if payload_bytes < 0 else 0)
        if sent < expected:
            _send_rest(sock, [memoryview(head), *views], sent)
    except OSError as error:
        raise _network_error(error) from error


def _send_rest(sock: socket.socket, views: list[memoryview], sent: int) -> None:
    while True:
        while views and sent >= len(views[0]):
            sent -= len(views.pop(0))
        if not views:
            return
        views[0] = views[0][sent:]
        sent = sock.sendmsg(views)


def recv_frame(
    sock: socket.socket, into: memoryview | list[memoryview] | Callable[[Header, int], memoryview] | None = None
) -> Frame | None:
    """Receives one frame; None when the peer closed the connection between two frames.

    The payload goes to `into`: a buffer at least as long, a list of buffers that it fills exactly (the frame then names
    the last one), or a function of (header, payload bytes) that provides a buffer; a fresh bytearray by default. Raises
    Unavailable, WrongFormat; the connection is dead then. TimeoutError when nothing at all came within the receive
    timeout: the connection is still good.
    """
    prefix = bytearray(PREFIX.size)
    try:
        got = sock.recv_into(prefix, PREFIX.size, socket.MSG_WAITALL)
    except BlockingIOError as error:
        raise TimeoutError("nothing received") from error
    except OSError as error:
        raise _network_error(error) from error
    if got == 0:
        return None
    if got < PREFIX.size:
        _recv_exactly(sock, memoryview(prefix)[got:])
    header_bytes, checksum, payload_bytes = parse_prefix(prefix)
    packed = bytearray(header_bytes)
    _recv_exactly(sock, memoryview(packed))
    header = parse_header(packed, checksum)
    if not payload_bytes:
        return Frame(header, memoryview(b""))
    target = into(header, payload_bytes) if callable(into) else into
    if target is None:
        target = memoryview(bytearray(payload_bytes))
    if isinstance(target, list):
        if sum(map(len, target)) != payload_bytes:
            raise WrongFormat(f"the peer sent {payload_bytes} bytes, another length than was asked for")
        for part in target:
            _recv_exactly(sock, part)
        return Frame(header, target[-1])
    if len(target) < payload_bytes:
        raise WrongFormat(f"the peer sent {payload_bytes} bytes where at most {len(target)} were asked for")
    target = target[:payload_bytes]
    _recv_exactly(sock, target)
    return Frame(header, target)


def _recv_exactly(sock: socket.socket, view: memoryview) -> None:
    done = 0
    while done < len(view):
        try:
            got = sock.recv_into(view[done:], 0, socket.MSG_WAITALL)
        except OSError as error:
            raise _network_error(error) from error
        if got == 0:
            raise Unavailable("the connection broke in the middle of a message")
        done += got


def _bytes_view(buffer: Buffer) -> memoryview:
    view = memoryview(buffer)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _network_error(error: OSError) -> Unavailable:
    if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.ETIMEDOUT):
        return Unavailable("the peer did not answer in time")
    return Unavailable(f"the connection broke: {error.strerror or error}")


# ------------------------------------------------------------------------------------------ errors


def error_header(error: RedfsError) -> Header:
    """The header that carries an error to the other side."""
    return {"error": error.code, "message": str(error)}


def raise_error(header: Header) -> None:
    """Raises the error that the header carries, rebuilt as its class; returns where it carries none."""
    code = header.get("error")
    if code is None:
        return
    message = str(header.get("message", ""))
    cls = BY_CODE.get(str(code), RedfsError)
    raise RedfsError(message) if issubclass(cls, FsError) else cls(message)


# ------------------------------------------------------------------------------------------ connections


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT, with [HOST]:PORT for IPv6. ValueError where it is not that."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def set_timeouts(sock: socket.socket, io_timeout_s: float) -> None:
    """Makes the socket blocking with the kernel's send and receive timeouts, and sends small frames at once."""
    sock.settimeout(None)
    seconds = int(io_timeout_s)
    timeval = struct.pack("@ll", seconds, int((io_timeout_s - seconds) * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def connect(
    address: str,
    *,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    io_timeout_s: float = IO_TIMEOUT_S,
) -> socket.socket:
    """Opens a connection to a node's data port. Raises Unavailable; a retry is safe."""
    try:
        sock = socket.create_connection(split_address(address), timeout=connect_timeout_s)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unavailable(f"cannot reach the storage node at {address}: {reason}") from error
    try:
        set_timeouts(sock, io_timeout_s)
    except OSError as error:
        sock.close()
        raise _network_error(error) from error
    return sock


def greet(sock: socket.socket, hello: Hello) -> tuple[Hello, bool]:
    """The client's half of the hello exchange: (the node's hello, whether only reading is allowed).

    Raises WrongFormat (other pool, node or version), Unavailable.
    """
    send_frame(sock, hello.to_header())
    try:
        frame = recv_frame(sock)
    except TimeoutError as error:
        raise Unavailable("the storage node did not answer the first message in time") from error
    if frame is None:
        raise Unavailable("the storage node closed the connection")
    raise_error(frame.header)
    peer = Hello.from_header(frame.header)
    return peer, negotiate(peer)


def listen(address: str) -> socket.socket:
    """A listening socket; port 0 lets the system choose. Raises OSError."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(LISTEN_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def accept_hello(sock: socket.socket, own: Hello) -> Accepted:
    """The node's half of the hello exchange: whether only reading is allowed on this connection, and whether its
    requests give way to those of others.

    A client that expects another pool or node, or speaks what this program does not, is told so and refused with the
    same error here: WrongFormat. Raises Unavailable where the network failed, NotAllowed where no hello came.
    """
    try:
        frame = recv_frame(sock)
    except TimeoutError as error:
        raise Unavailable("the client said nothing") from error
    if frame is None:
        raise Unavailable("the client closed the connection")
    try:
        peer = Hello.from_header(frame.header)
        read_only = negotiate(peer)
        if peer.pool_id and peer.pool_id != own.pool_id:
            belongs = f"pool {own.pool_id}" if own.pool_id else "no pool yet"
            raise WrongFormat(f"this storage node belongs to {belongs}, not to pool {peer.pool_id}")
        if peer.node_id and peer.node_id != own.node_id:
            raise WrongFormat(f"this is storage node {own.node_id}, not {peer.node_id}: ask the coordinator again")
    except WrongFormat as error:
        with contextlib.suppress(Unavailable):
            send_frame(sock, error_header(error))
        raise
    send_frame(sock, own.to_header())
    return Accepted(read_only, peer.background)


def refuse_write() -> NotAllowed:
    """The error for a write on a connection that may only read."""
    return NotAllowed("this connection may only read: the client does not know all of the node's features")
