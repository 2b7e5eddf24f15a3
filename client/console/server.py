"""The console's process: arguments, log, signals, and the HTTP server around the application.

    redfs console                             in this terminal, on 127.0.0.1:7480
    python -m redfs.client.console ...        the same, as `redfs up` and systemd start it

Ends with 0 when told to (SIGTERM, SIGINT), with an error's exit code and one line where it cannot start. The
coordinator need not be there: its absence is an answer of the API, not the end of the console.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import uvicorn
import uvloop
from uvicorn.protocols.http.h11_impl import H11Protocol

from redfs.client.config import PoolPlace, find_pool, wanted_pool
from redfs.client.console.app import Console
from redfs.core.errors import Busy, InvalidArgument, RedfsError

log = logging.getLogger("redfs.console")

DEFAULT_LISTEN = "127.0.0.1:7480"
MAX_CONNECTIONS = 256
"""Connections and requests at once; a browser has half a dozen, the listeners 64."""
BACKLOG = 64
REQUEST_TIMEOUT_S = 30.0
"""From the start of a connection, or the answer before, to the whole head of the next request."""
STOP_GRACE_S = 3
"""Answers under way get so long when the process is told to stop."""
MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers: a path may have 32 KiB."""


class _Connection(H11Protocol):
    """Is closed when no whole request has come on it for a while: idle connections count among the bounded ones."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._waiting is not None:
            self._waiting.cancel()

    def _await_request(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = self.loop.call_later(REQUEST_TIMEOUT_S, self._close_idle)

    def _close_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class _Server(uvicorn.Server):
    """Ends the endless answers when it is told to stop: the server waits for all of them."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_stop()
        super().handle_exit(sig, frame)


def split_address(text: str) -> tuple[str, int]:
    """HOST:PORT, [HOST]:PORT. Raises InvalidArgument."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(f"'{text}' is no address to listen on: use HOST:PORT, as in {DEFAULT_LISTEN}")
    return host, int(port)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket's first half. Busy where the port is taken, InvalidArgument where there is no such host."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InvalidArgument(f"cannot listen on {host}: {error.strerror}") from error
    family, kind, number, _, address = found[0]
    bound = socket.socket(family, kind, number)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise Busy(f"port {port} on {host} is taken: choose another one with --listen HOST:PORT") from error
        raise InvalidArgument(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return bound


def url_of(host: str, port: int) -> str:
    """What a person types into a browser on this machine."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            host = "127.0.0.1"
        elif address.version == 6:
            host = f"[{host}]"
    return f"http://{host}:{port}"


def make_server(console: Console) -> uvicorn.Server:
    """The server around a console's application, not started yet."""
    config = uvicorn.Config(
        console.app,
        loop="none",
        http=_Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        backlog=BACKLOG,
        timeout_keep_alive=int(REQUEST_TIMEOUT_S),
        timeout_graceful_shutdown=STOP_GRACE_S,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    return _Server(config, console.close_streams)


def serve(
    place: PoolPlace, listen: str, hosts: Sequence[str] = (), said: Callable[[str], None] = lambda _: None
) -> None:
    """Serves until a signal comes. `said` gets the address as soon as browsers can be told. Busy, InvalidArgument."""
    host, port = split_address(listen)
    own_name = [] if host in ("0.0.0.0", "::") else [host]
    with bind(host, port) as bound:
        server = make_server(Console(place, [*hosts, *own_name]))
        url = url_of(host, bound.getsockname()[1])
        bound.listen(BACKLOG)
        log.info("the console of the pool at %s listens on %s", place.address, url)
        said(url)
        uvloop.run(server.serve(sockets=[bound]))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="redfs console", description="RedFS console: a pool's web page and REST API")
    parser.add_argument("--data", type=Path, help="the pool's folder, made by `redfs up`")
    parser.add_argument("--pool", help="HOST:PORT of the coordinator, or the pool's folder")
    parser.add_argument("--listen", default=DEFAULT_LISTEN, help="HOST:PORT for browsers")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a name it is asked under")
    parser.add_argument("--pid-file", type=Path, help="where to write the process id and remove it at the end")
    parser.add_argument("--log-file", type=Path, help="log here instead of to stderr")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The program. Returns the exit code."""
    arguments = _arguments(argv)
    handler: logging.Handler = logging.StreamHandler()
    if arguments.log_file is not None:
        arguments.log_file.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(arguments.log_file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=arguments.log_level, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        place = find_pool(str(arguments.data) if arguments.data is not None else wanted_pool(arguments.pool))
        if arguments.pid_file is not None:
            arguments.pid_file.write_text(f"{os.getpid()}\n")
        try:
            serve(place, arguments.listen, arguments.allow_host)
        finally:
            if arguments.pid_file is not None:
                arguments.pid_file.unlink(missing_ok=True)
    except RedfsError as error:
        log.error("%s", error)
        if arguments.log_file is not None:
            print(f"redfs: {error}", file=sys.stderr)
        return error.exit_code
    return 0
