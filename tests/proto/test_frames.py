"""The frames' bytes are fixed; what is not a frame is refused; nothing waits for ever."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import msgpack
import pytest
import xxhash

from redfs.core.errors import (
    BY_CODE,
    CommitRefused,
    FsError,
    InternalError,
    NotFound,
    RedfsError,
    Unavailable,
    WrongFormat,
)
from redfs.proto import frames
from redfs.proto.frames import Header, Hello

Pair = tuple[socket.socket, socket.socket]
WAIT_S = 60.0
"""For what takes microseconds on an idle machine."""


@pytest.fixture
def pair() -> Iterator[Pair]:
    with frames.listen("127.0.0.1:0") as listener:
        near = frames.connect(f"127.0.0.1:{listener.getsockname()[1]}", io_timeout_s=WAIT_S)
        far, _ = listener.accept()
        frames.set_timeouts(far, WAIT_S)
    with near, far:
        yield near, far


def received(
    sock: socket.socket, into: memoryview | Callable[[Header, int], memoryview] | None = None
) -> tuple[Header, bytes] | None:
    """The next frame, with a payload that is easy to compare."""
    frame = frames.recv_frame(sock, into)
    return None if frame is None else (frame.header, bytes(frame.payload))


def test_a_frame_is_these_bytes(pair: Pair) -> None:
    near, far = pair
    frames.send_frame(near, {"op": "stat"}, [b"pay", memoryview(b"load")])
    near.close()
    seen = b"".join(iter(lambda: far.recv(1000), b""))
    assert seen.hex() == (
        "52656446"  # magic
        "0001"  # version
        "0000"  # reserved
        "00000009"  # header bytes
        "e6cc34b9"  # xxh32 of the header
        "0000000000000007"  # payload bytes
        "81a26f70a473746174"  # {"op": "stat"}
        "7061796c6f6164"
    )


def test_frames_arrive_as_they_were_sent_into_any_buffer(pair: Pair) -> None:
    near, far = pair
    frames.send_frame(near, {"n": 1, "b": b"\0\xff"})
    frames.send_frame(near, {"n": 2}, [b"abc", bytearray(b"de"), b""])
    frames.send_frame(near, {"n": 3}, [b"into a buffer"])
    frames.send_frame(near, {"n": 4}, [b"into what a function provides"])
    near.close()
    assert received(far) == ({"n": 1, "b": b"\0\xff"}, b"")
    assert received(far) == ({"n": 2}, b"abcde")
    buffer = bytearray(20)
    assert received(far, memoryview(buffer)) == ({"n": 3}, b"into a buffer")
    assert buffer[:13] == b"into a buffer"
    asked: list[tuple[object, int]] = []

    def provide(header: Header, payload_bytes: int) -> memoryview:
        asked.append((header["n"], payload_bytes))
        return memoryview(bytearray(payload_bytes))

    assert received(far, provide) == ({"n": 4}, b"into what a function provides")
    assert asked == [(4, 29)]
    assert frames.recv_frame(far) is None


def test_a_large_payload_passes_in_many_parts(pair: Pair) -> None:
    near, far = pair
    parts = [bytes([number]) * 1_000_003 for number in range(8)]
    thread = threading.Thread(target=frames.send_frame, args=(near, {"big": True}, parts))
    thread.start()
    found = received(far)
    thread.join()
    assert found == ({"big": True}, b"".join(parts))


def test_a_payload_may_be_announced_and_sent_apart(pair: Pair) -> None:
    near, far = pair
    frames.send_frame(near, {}, payload_bytes=5)
    near.sendall(b"apart")
    assert received(far) == ({}, b"apart")


def test_what_is_over_the_limits_is_neither_sent_nor_received(pair: Pair) -> None:
    near, far = pair
    with pytest.raises(InternalError):
        frames.send_frame(near, {"x": bytes(frames.MAX_HEADER_BYTES)})
    with pytest.raises(InternalError):
        frames.send_frame(near, {}, payload_bytes=frames.MAX_PAYLOAD_BYTES + 1)
    near.sendall(frames.PREFIX.pack(frames.MAGIC, frames.VERSION, 0, 1, 0, frames.MAX_PAYLOAD_BYTES + 1))
    with pytest.raises(WrongFormat, match="over the limit"):
        frames.recv_frame(far)


def test_more_than_the_buffer_holds_is_refused(pair: Pair) -> None:
    near, far = pair
    frames.send_frame(near, {}, [b"12345"])
    with pytest.raises(WrongFormat, match="at most 4"):
        frames.recv_frame(far, memoryview(bytearray(4)))


def frame_bytes(packed: bytes, *, version: int = frames.VERSION, magic: bytes = frames.MAGIC, flip: int = 0) -> bytes:
    return frames.PREFIX.pack(magic, version, 0, len(packed), xxhash.xxh32_intdigest(packed) ^ flip, 0) + packed


@pytest.mark.parametrize(
    "sent",
    [
        frame_bytes(msgpack.packb({}), magic=b"HTTP"),
        frame_bytes(msgpack.packb({}), version=2),
        frame_bytes(msgpack.packb({}), flip=1),
        frame_bytes(msgpack.packb([1, 2])),
        frame_bytes(b"\xc1"),
        b"GET / HTTP/1.1\r\nHost: storage\r\n\r\n",
    ],
)
def test_what_is_no_frame_is_refused(pair: Pair, sent: bytes) -> None:
    near, far = pair
    near.sendall(sent)
    with pytest.raises(WrongFormat):
        frames.recv_frame(far)


@pytest.mark.parametrize("length", [1, 10, 23, 24, 30, 40])
def test_a_connection_that_breaks_inside_a_frame_says_so(pair: Pair, length: int) -> None:
    near, far = pair
    whole = frame_bytes(msgpack.packb({"a": 1, "b": 2, "c": "some more bytes"}))
    assert len(whole) > 40
    near.sendall(whole[:length])
    near.close()
    with pytest.raises(Unavailable):
        frames.recv_frame(far)


def test_silence_between_frames_is_no_error_and_inside_one_it_is(pair: Pair) -> None:
    near, far = pair
    frames.set_timeouts(far, 0.02)
    with pytest.raises(TimeoutError):
        frames.recv_frame(far)
    near.sendall(frame_bytes(msgpack.packb({"late": 1}))[:26])
    with pytest.raises(Unavailable, match="in time"):
        frames.recv_frame(far)


def test_a_peer_that_reads_nothing_does_not_hold_up_the_sender_for_ever(pair: Pair) -> None:
    near, _ = pair
    frames.set_timeouts(near, 0.02)
    with pytest.raises(Unavailable, match="in time"):
        frames.send_frame(near, {}, [bytes(frames.MAX_PAYLOAD_BYTES)])


def test_a_dead_address_is_unavailable() -> None:
    with frames.listen("127.0.0.1:0") as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    for wrong in (address, "127.0.0.1", "nonsense:port"):
        with pytest.raises(Unavailable, match="cannot reach"):
            frames.connect(wrong, connect_timeout_s=WAIT_S)


# ------------------------------------------------------------------------------------------ errors


def test_errors_travel_as_their_class() -> None:
    for code, cls in BY_CODE.items():
        if issubclass(cls, FsError | CommitRefused):
            continue
        with pytest.raises(cls, match="the reason") as caught:
            frames.raise_error(frames.error_header(cls("the reason")))
        assert caught.value.code == code
    for header in ({"error": "from_a_newer_peer", "message": "why"}, {"error": "fs", "message": "why"}):
        with pytest.raises(RedfsError, match="why"):
            frames.raise_error(header)
    with pytest.raises(NotFound, match=r"^$"):
        frames.raise_error({"error": "not_found"})
    frames.raise_error({"n": 1})


# ------------------------------------------------------------------------------------------ hello


def exchange(pair: Pair, client: Hello, node: Hello) -> tuple[Hello, bool, bool] | RedfsError:
    """What the client learnt, and whether each side takes the connection for read-only; or the error of both."""
    near, far = pair
    answers: list[bool] = []
    refusals: list[RedfsError] = []

    def accept() -> None:
        try:
            answers.append(frames.accept_hello(far, node).read_only)
        except RedfsError as error:
            refusals.append(error)

    thread = threading.Thread(target=accept)
    thread.start()
    learnt: tuple[Hello, bool] | None = None
    try:
        learnt = frames.greet(near, client)
    except RedfsError as error:
        refusals.append(error)
    thread.join()
    if learnt is None:
        assert str(refusals[0]) == str(refusals[1])
        return refusals[1]
    return *learnt, answers[0]


NODE = Hello(pool_id="p1", node_id=3, generation=9)


@pytest.mark.parametrize("client", [Hello(), Hello(pool_id="p1"), Hello(node_id=3), Hello(pool_id="p1", node_id=3)])
def test_a_hello_that_fits_is_answered(pair: Pair, client: Hello) -> None:
    assert exchange(pair, client, NODE) == (NODE, False, False)


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (Hello(pool_id="p2"), "belongs to pool p1, not to pool p2"),
        (Hello(pool_id="p1", node_id=4), "storage node 3, not 4"),
        (Hello(version=2), "version 2"),
        (Hello(incompatible_features=4), "features 0x4"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused_on_both_sides(pair: Pair, client: Hello, reason: str) -> None:
    error = exchange(pair, client, NODE)
    assert isinstance(error, WrongFormat)
    assert reason in str(error)


def test_features_that_are_not_known_allow_reading_or_everything(pair: Pair) -> None:
    assert exchange(pair, Hello(read_only_features=1), NODE) == (NODE, False, True)
    assert exchange(pair, Hello(compatible_features=1), NODE) == (NODE, False, False)


def test_a_client_may_say_that_its_requests_give_way(pair: Pair) -> None:
    near, far = pair
    for client in (Hello(pool_id="p1"), Hello(pool_id="p1", background=True)):
        frames.send_frame(near, client.to_header())
        assert frames.accept_hello(far, NODE) == (False, client.background)
        frames.recv_frame(near)
        assert Hello.from_header(client.to_header()) == client


def test_a_first_message_that_is_no_hello_is_refused(pair: Pair) -> None:
    near, far = pair
    for header in ({"op": "stat"}, {**Hello().to_header(), "node": "three"}):
        frames.send_frame(near, header)
        with pytest.raises(WrongFormat, match="first message"):
            frames.accept_hello(far, NODE)
        reply = frames.recv_frame(near)
        assert reply is not None
        assert reply.header["error"] == "wrong_format"
