"""The one place where gRPC channels are opened and servers made: message limits, keepalive, and what a method is.

Raises nothing by itself; a channel connects when it is first used and reconnects by itself. Errors of calls are
translated in `rpc_errors.py`.
"""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

PROTOCOL_VERSION = 1
"""Of cluster.proto's meaning; the first message of every conversation carries it."""

MAX_MESSAGE_BYTES = 32 << 20
"""Control messages: a commit of tens of thousands of records fits, file data never passes here."""
KEEPALIVE_TIME_MS = 10_000
"""An idle connection is probed this often, so that a peer that vanished is noticed before a lease is over."""
KEEPALIVE_TIMEOUT_MS = 5_000
"""A probe that is not answered for this long ends the connection."""
MIN_PING_INTERVAL_MS = 5_000
"""Servers accept probes this often."""
MAX_CONCURRENT_STREAMS = 4096
"""Calls and streams on one server at a time; sessions and nodes have one each."""
RECONNECT_MIN_MS = 100
CONNECT_TIMEOUT_MS = 5_000
"""One attempt may take this long: on a bad network the first packet is lost and sent again after a second, and a busy
machine answers late. gRPC calls it the least time between attempts, but refused ones are repeated sooner."""
RECONNECT_MAX_MS = 2_000
"""A coordinator that restarts is back in a second or two: waiting longer between attempts only adds to that."""

_COMMON: list[tuple[str, Any]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
_CHANNEL: list[tuple[str, Any]] = [
    *_COMMON,
    ("grpc.initial_reconnect_backoff_ms", RECONNECT_MIN_MS),
    ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_MAX_MS),
    ("grpc.enable_retries", 0),
    # Every open has its own connection, so that one closing does not disturb another in the same process.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]
_SERVER: list[tuple[str, Any]] = [
    *_COMMON,
    ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
    ("grpc.so_reuseport", 0),
]


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to HOST:PORT for the running event loop."""
    return grpc.aio.insecure_channel(address, options=_CHANNEL)


def open_blocking_channel(address: str) -> grpc.Channel:
    """A channel to HOST:PORT for threads."""
    return grpc.insecure_channel(address, options=_CHANNEL)


def make_server() -> grpc.aio.Server:
    """A server for the running event loop; `listen` gives it its port."""
    return grpc.aio.server(options=_SERVER)


def listen(server: grpc.aio.Server, address: str) -> int:
    """Binds HOST:PORT (port 0: any) and returns the port. OSError where it cannot be had."""
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    if port == 0:
        raise OSError(f"cannot listen on {address}")
    return port
