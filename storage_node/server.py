"""The data plane's server: one blocking thread for each connection, requests answered in order.

It decodes, calls the store, and encodes; what a request means is the store's. A GET's bytes go from the file to the
socket inside the kernel. A payload that comes in is received into a buffer that the connection keeps, within a budget
that all of them share. An error of the request is answered; an error of the connection closes it. Requests of other
nodes' tasks give way to those of clients (`pacing.py`).

Bounded: connections (`MAX_CONNECTIONS`, further ones are told so and closed), payload memory (`PAYLOAD_BUDGET_BYTES`),
every wait for a peer (the frames' timeouts).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from redfs.core.errors import InternalError, InvalidArgument, RedfsError, Unavailable
from redfs.proto import frames
from redfs.proto.data_plane import MAX_KEYS, MAX_PAGE, SHARD_INFO, Finding, digest_answer, pack_findings, unpack_keys
from redfs.proto.frames import Accepted, Frame, Header, Hello
from redfs.storage_node.budget import Budget
from redfs.storage_node.pacing import Courtesy
from redfs.storage_node.shard_store import ShardStore

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 128
"""A client has a connection or two to each node; a thread for each costs little more than its stack."""
PAYLOAD_BUDGET_BYTES: Final = 256 << 20
"""Payloads being received or written at once: 16 of the largest, 180 of the usual 1.4 MiB."""
KEPT_BUFFER_BYTES: Final = 2 << 20
"""A connection keeps a buffer of this size, enough for a shard of ec:4+2; a larger one lives for its request."""
SENDFILE_BYTES: Final = 4 << 20
ACCEPT_PAUSE_S: Final = 0.1
"""After an accept that failed, as it does without a break when there are no file descriptors left."""
STOP_WAIT_S: Final = 10.0
"""For requests under way when the node stops; what takes longer was not acknowledged."""


class DataServer:
    """Serves a store on a listening socket."""

    def __init__(
        self, listener: socket.socket, store: ShardStore, hello: Callable[[], Hello], courtesy: Courtesy | None = None
    ) -> None:
        """`hello` is asked at each connection: the node may join its pool while it serves."""
        self._listener = listener
        self._store = store
        self._hello = hello
        self._courtesy = courtesy or Courtesy()
        self._budget = Budget(PAYLOAD_BUDGET_BYTES)
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._stopping = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name="accept", daemon=True)

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def start(self) -> None:
        self._acceptor.start()

    def stop(self) -> None:
        """Takes no more requests, and lets those under way finish."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        if self._acceptor.is_alive():
            self._acceptor.join(STOP_WAIT_S)
        with self._lock:
            under_way = dict(self._connections)
        for sock in under_way:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RD)  # the next receive ends; an answer under way is still sent
        for thread in under_way.values():
            thread.join(STOP_WAIT_S)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, peer = self._listener.accept()
            except OSError as error:
                if not self._stopping.is_set():
                    log.warning("cannot accept a connection: %s", error)
                    self._stopping.wait(ACCEPT_PAUSE_S)
                continue
            thread = threading.Thread(target=self._serve, args=(sock,), name=f"peer-{peer[1]}", daemon=True)
            with self._lock:
                room = len(self._connections) < MAX_CONNECTIONS
                if room:
                    self._connections[sock] = thread
            if room:
                thread.start()
            else:
                log.warning("refused a connection: %d are served already", MAX_CONNECTIONS)
                full = Unavailable(f"the node serves {MAX_CONNECTIONS} connections already: try again later")
                with contextlib.suppress(Unavailable):
                    frames.send_frame(sock, frames.error_header(full))
                sock.close()

    def _serve(self, sock: socket.socket) -> None:
        try:
            frames.set_timeouts(sock, frames.IO_TIMEOUT_S)
            client = frames.accept_hello(sock, self._hello())
            Connection(sock, self._store, self._budget, self._courtesy, client).serve(self._stopping.is_set)
        except (RedfsError, OSError) as error:
            log.info("connection closed: %s", error)
        finally:
            with self._lock:
                self._connections.pop(sock, None)
            sock.close()


class Connection:
    """One client's requests."""

    def __init__(
        self, sock: socket.socket, store: ShardStore, budget: Budget, courtesy: Courtesy, client: Accepted
    ) -> None:
        self._sock = sock
        self._store = store
        self._budget = budget
        self._courtesy = courtesy
        self._read_only = client.read_only
        self._background = client.background
        self._buffer = bytearray()
        self._taken_bytes = 0
        self._requests: dict[str, Callable[[Frame], None]] = {
            "put": self._put,
            "get": self._get,
            "delete": self._delete,
            "list": self._list,
            "verify": self._verify,
            "stat": self._stat,
        }

    def serve(self, stopping: Callable[[], bool]) -> None:
        """Until the client closes the connection or it breaks (Unavailable, WrongFormat)."""
        while not stopping():
            try:
                try:
                    frame = frames.recv_frame(self._sock, self._provide)
                except TimeoutError:
                    continue  # idle
                if frame is None:
                    return
                with self._in_turn(waited=bool(len(frame.payload))):
                    self._answer(frame)
            finally:
                if self._taken_bytes:
                    self._budget.give_back(self._taken_bytes)
                    self._taken_bytes = 0

    @contextlib.contextmanager
    def _in_turn(self, *, waited: bool) -> Iterator[None]:
        """Around a request: a client's at once, one of another node's task when it is its turn."""
        if not self._background:
            with self._courtesy.serving_client():
                yield
            return
        if not waited:
            self._courtesy.give_way()
        began_s = time.monotonic()
        try:
            yield
        finally:
            self._courtesy.worked(time.monotonic() - began_s)

    def _provide(self, header: Header, payload_bytes: int) -> memoryview:
        """The buffer for a payload that comes in. One of another node's task waits for its turn before it is received:
        it must not hold memory that clients need."""
        if self._background:
            self._courtesy.give_way()
        self._budget.take(payload_bytes)
        self._taken_bytes = payload_bytes
        if payload_bytes > KEPT_BUFFER_BYTES:
            return memoryview(bytearray(payload_bytes))
        if len(self._buffer) < payload_bytes:
            self._buffer = bytearray(payload_bytes)
        return memoryview(self._buffer)[:payload_bytes]

    def _answer(self, frame: Frame) -> None:
        request = self._requests.get(str(frame.header.get("op")))
        try:
            if request is None:
                raise InvalidArgument(f"no request is called {frame.header.get('op')!r}: is the client newer?")
            request(frame)
        except _ConnectionBroken as broken:
            raise broken.error from broken
        except RedfsError as error:
            if isinstance(error, InternalError):
                log.error("request %s failed: %s", frame.header.get("op"), error)
            frames.send_frame(self._sock, frames.error_header(error))

    def _send(self, header: Header, payload: bytes = b"") -> None:
        try:
            frames.send_frame(self._sock, header, (payload,))
        except Unavailable as error:
            raise _ConnectionBroken(error) from error

    def _put(self, frame: Frame) -> None:
        header = frame.header
        self._check_may_write()
        if _number(header, "n") != len(frame.payload):
            raise InvalidArgument(f"{header['n']} bytes were announced and {len(frame.payload)} sent")
        self._store.put(_number(header, "s"), _number(header, "i", 16), frame.payload, _number(header, "c"))
        self._send({})

    def _get(self, frame: Frame) -> None:
        header = frame.header
        segment, shard, offset, length = (
            _number(header, name, bits) for name, bits in (("s", 64), ("i", 16), ("o", 32), ("n", 32))
        )
        if length > frames.MAX_PAYLOAD_BYTES:
            raise InvalidArgument(f"cannot read {length} bytes at once")
        with self._store.reading(segment, shard, offset, length) as found:
            entry = found.entry
            answer = digest_answer(entry.payload_bytes, entry.checksum) if header.get("d") is True else {}
            try:
                frames.send_frame(self._sock, answer, payload_bytes=length)
                done = 0
                while done < length:
                    count = min(length - done, SENDFILE_BYTES)
                    sent = found.file.sendfile(self._sock.fileno(), found.offset + done, count)
                    if sent == 0:
                        raise Unavailable("the file is shorter than its index says")
                    done += sent
            except (OSError, Unavailable) as error:
                # Part of the answer is out: the connection is out of step. The client asks elsewhere.
                log.warning("sending shard %d/%d failed: %s", segment, shard, error)
                raise _ConnectionBroken(Unavailable(f"sending failed: {error}")) from error

    def _delete(self, frame: Frame) -> None:
        self._check_may_write()
        self._store.delete(_keys(frame.header))
        self._send({})

    def _list(self, frame: Frame) -> None:
        after = _packed_keys(frame.header, "a")
        limit = min(_number(frame.header, "n"), MAX_PAGE)
        page = self._store.list_page(after[0] if after else None, limit)
        self._send({}, b"".join(SHARD_INFO.pack(*info) for info in page))

    def _verify(self, frame: Frame) -> None:
        findings: list[Finding] = []
        for segment, shard in _keys(frame.header):
            try:
                self._store.verify(segment, shard)
            except RedfsError as error:
                findings.append((segment, shard, error.code, str(error)))
        self._send({}, pack_findings(findings))

    def _stat(self, frame: Frame) -> None:
        self._send({"stat": list(self._store.stat())})

    def _check_may_write(self) -> None:
        if self._read_only:
            raise frames.refuse_write()


class _ConnectionBroken(Exception):
    """An answer could not be sent: nothing more may be sent on this connection."""

    def __init__(self, error: Unavailable) -> None:
        super().__init__(str(error))
        self.error = error


def _number(header: Header, name: str, bits: int = 64) -> int:
    """An unsigned number of the request. Raises InvalidArgument."""
    value = header.get(name)
    if not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise InvalidArgument(f"the request's {name!r} is {value!r}, not a number of {bits} bits")
    return value


def _packed_keys(header: Header, name: str) -> list[tuple[int, int]]:
    value = header.get(name)
    if not isinstance(value, bytes):
        raise InvalidArgument(f"the request's {name!r} is no list of shards")
    return unpack_keys(value)


def _keys(header: Header) -> list[tuple[int, int]]:
    keys = _packed_keys(header, "k")
    if len(keys) > MAX_KEYS:
        raise InvalidArgument(f"at most {MAX_KEYS} shards in one request, not {len(keys)}")
    return keys
