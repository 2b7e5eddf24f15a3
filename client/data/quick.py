"""A data-plane connection that the event loop itself reads and writes: for short requests, where a thread's hop would
cost more than the request.

Requests are answered in order, so several may be under way. A request that is not answered in time ends with
`Unavailable` while the connection goes on for the others; when even its oldest request is older than its patience the
connection is closed, and everything on it ends with `Unavailable`. Long transfers would hold up the loop: those are
left to threads (`node_pool.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Sequence

from redfs.core.errors import RedfsError, Unavailable, WrongFormat
from redfs.proto import frames
from redfs.proto.frames import PREFIX, Buffer, Header

SCRATCH_BYTES = 16 * 1024
"""Read at once where a frame begins: a short answer comes whole, and of a long one only this much is copied."""
READS_PER_WAKE = 8
"""Receives before the loop gets its turn again."""


class _Request:
    __slots__ = ("answer", "expected_bytes", "timer")

    def __init__(self, answer: asyncio.Future[memoryview], expected_bytes: int) -> None:
        self.answer = answer
        self.expected_bytes = expected_bytes
        self.timer: asyncio.TimerHandle | None = None


class QuickConnection:
    """See the module. `sock` is connected and greeted; it belongs to this object from now on."""

    def __init__(
        self, sock: socket.socket, name: str, *, patience_s: float, on_end: Callable[[QuickConnection], None]
    ) -> None:
        self.name = name
        self.alive = True
        self.answered = 0
        """Answers received so far; 0 tells a fresh connection from one that may have gone stale."""
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._patience_s = patience_s
        self._on_end = on_end
        self._requests: deque[_Request] = deque()
        self._unsent: deque[memoryview] = deque()
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._filled = 0
        self._header: Header | None = None
        self._payload = memoryview(b"")
        self._payload_at = 0
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def under_way(self) -> int:
        """Requests not answered yet, those given up included."""
        return len(self._requests)

    def send(
        self, header: Header, payload: Sequence[Buffer], payload_bytes: int, expected_bytes: int, timeout_s: float
    ) -> asyncio.Future[memoryview]:
        """Sends a request at once; the future ends with the answer's payload of `expected_bytes`, or a RedfsError."""
        request = _Request(self._loop.create_future(), expected_bytes)
        head = frames.encode_head(header, payload_bytes)
        self._requests.append(request)
        request.timer = self._loop.call_later(timeout_s, self._late, request, timeout_s)
        if self._unsent:
            self._unsent.extend(map(memoryview, (head, *payload)))
            return request.answer
        try:
            sent = self._sock.sendmsg([head, *payload])
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self.close(f"the connection broke: {error.strerror or error}")
            return request.answer
        if sent < len(head) + payload_bytes:
            self._unsent.extend(map(memoryview, (head, *payload)))
            self._drop_sent(sent)
            self._loop.add_writer(self._sock.fileno(), self._writable)
        return request.answer

    def close(self, why: str = "the connection was closed") -> None:
        """Closes the socket; everything under way ends with Unavailable."""
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        error = Unavailable(f"{self.name}: {why}")
        while self._requests:
            self._finish(self._requests.popleft(), error)
        self._unsent.clear()
        self._on_end(self)

    # ------------------------------------------------------------ sending

    def _writable(self) -> None:
        try:
            sent = self._sock.sendmsg(list(self._unsent)[:16])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(f"the connection broke: {error.strerror or error}")
            return
        self._drop_sent(sent)
        if not self._unsent:
            self._loop.remove_writer(self._sock.fileno())

    def _drop_sent(self, sent: int) -> None:
        while self._unsent and sent >= len(self._unsent[0]):
            sent -= len(self._unsent.popleft())
        if sent:
            self._unsent[0] = self._unsent[0][sent:]

    # ------------------------------------------------------------ receiving

    def _readable(self) -> None:
        try:
            for _ in range(READS_PER_WAKE):
                if self._header is None:
                    got = self._sock.recv_into(self._scratch[self._filled :])
                    self._filled += got
                else:
                    got = self._sock.recv_into(self._payload[self._payload_at :])
                    self._payload_at += got
                if got == 0:
                    self.close("the node closed the connection")
                    return
                while self._take_frame():
                    pass
                if not self._requests or not self.alive:
                    return
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(f"the connection broke: {error.strerror or error}")
        except WrongFormat as error:
            self.close(str(error))

    def _take_frame(self) -> bool:
        """Takes one whole frame out of what was received; False where more is needed."""
        if self._header is None and not self._begin_frame():
            return False
        if self._payload_at < len(self._payload):
            return False
        header, payload = self._header, self._payload
        assert header is not None
        self._header, self._payload, self._payload_at = None, memoryview(b""), 0
        request = self._requests.popleft()
        self.answered += 1
        try:
            frames.raise_error(header)
            if len(payload) != request.expected_bytes:
                raise WrongFormat(f"the node answered {len(payload)} bytes instead of {request.expected_bytes}")
        except RedfsError as error:
            self._finish(request, error)
        else:
            self._finish(request, payload)
        return self._filled > 0

    def _begin_frame(self) -> bool:
        if self._filled < PREFIX.size:
            return False
        header_bytes, checksum, payload_bytes = frames.parse_prefix(self._scratch[: PREFIX.size])
        start = PREFIX.size + header_bytes
        if start > SCRATCH_BYTES:
            raise WrongFormat(f"the node sent a header of {header_bytes} bytes")
        if self._filled < start:
            return False
        if not self._requests:
            raise WrongFormat("the node answered what nobody asked")
        if payload_bytes > max(self._requests[0].expected_bytes, 0):
            raise WrongFormat(f"the node sent {payload_bytes} bytes, more than were asked for")
        self._header = frames.parse_header(self._scratch[PREFIX.size : start], checksum)
        here = min(self._filled - start, payload_bytes)
        self._payload = memoryview(bytearray(payload_bytes))
        self._payload[:here] = self._scratch[start : start + here]
        self._payload_at = here
        rest = self._filled - start - here
        if rest:
            self._scratch[:rest] = bytes(self._scratch[start + here : self._filled])
        self._filled = rest
        return True

    # ------------------------------------------------------------ ends

    def _finish(self, request: _Request, result: memoryview | RedfsError) -> None:
        if request.timer is not None:
            request.timer.cancel()
        if request.answer.done():
            return
        if isinstance(result, RedfsError):
            request.answer.set_exception(result)
        else:
            request.answer.set_result(result)

    def _late(self, request: _Request, waited_s: float) -> None:
        """No answer in time: whoever waits goes on; the connection has until the end of its patience."""
        if not request.answer.done():
            request.answer.set_exception(Unavailable(f"{self.name} did not answer within {waited_s:g} s"))
        left_s = self._patience_s - waited_s
        if left_s > 0:
            request.timer = self._loop.call_later(left_s, self._late, request, self._patience_s)
        else:
            self.close(f"no answer within {self._patience_s:g} s")


def open_socket(address: str, pool_id: str, node_id: int, timeout_s: float) -> socket.socket:
    """A connected and greeted socket. Blocks; for threads. Raises Unavailable, WrongFormat."""
    sock = frames.connect(address, connect_timeout_s=timeout_s, io_timeout_s=timeout_s)
    try:
        frames.greet(sock, frames.Hello(pool_id=pool_id, node_id=node_id))
    except RedfsError:
        with contextlib.suppress(OSError):
            sock.close()
        raise
    return sock
