"""Where channels are opened: a peer that answers late is waited for."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

from redfs.proto import rpc

LATE_S = 0.6
"""Far more than a fast network's answer, far less than what an attempt may take."""
CALL_S = 10.0


def _late_relay(listener: socket.socket, port: int) -> None:
    """Accepts one connection, says nothing for a while, then passes bytes on to the port."""
    near, _ = listener.accept()
    threading.Event().wait(LATE_S)
    far = socket.create_connection(("127.0.0.1", port))

    def copy(source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)

    with near, far:
        back = threading.Thread(target=copy, args=(far, near))
        back.start()
        copy(near, far)
        back.join()


def test_a_first_connection_may_be_slow() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    code = None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = threading.Thread(target=_late_relay, args=(listener, port), daemon=True)
        relay.start()
        with rpc.open_blocking_channel(f"127.0.0.1:{listener.getsockname()[1]}") as channel:
            call = channel.unary_unary("/redfs.Nothing/Nothing", None, None)
            try:
                call(b"", timeout=CALL_S)
            except grpc.RpcError as error:
                code = error.code()
        relay.join(CALL_S)
    server.stop(None).wait()
    assert code is grpc.StatusCode.UNIMPLEMENTED  # it was reached, and knows no such call
