"""The coordinator's process: arguments, data folder, log, signals; wires the real clock, disk, sockets and randomness.

Ends with 0 when told to (SIGTERM, SIGINT), with an error's exit code and one line where it cannot start, and with 70
where it had to stop: then the log says why and what was acknowledged is on disk.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import uvloop

from redfs.coordinator.cleaner import Cleaning
from redfs.coordinator.coordinator import ALL_TABLES, Coordinator
from redfs.coordinator.environment import CoordinatorConfig, SystemClock, SystemRandomness
from redfs.coordinator.healing.worker import Worker
from redfs.coordinator.identity import DataFolder, publish
from redfs.coordinator.scheduler import scheduler_of
from redfs.coordinator.scrub import scrubber_of
from redfs.coordinator.service import serve
from redfs.coordinator.shell import Shell, cancel_and_wait
from redfs.coordinator.store import STORE_FILE, LmdbStore
from redfs.core.errors import Busy, InternalError, InvalidArgument, RedfsError, WrongFormat
from redfs.proto import rpc

TICK_S = 1.0
"""How often sessions that were away for too long are looked for."""
STOP_GRACE_S = 2.0
"""Calls under way get this long when the process is told to stop."""
SWITCH_INTERVAL_S = 0.0005
"""How soon a thread that wants to run gets the interpreter: the default of 5 ms would add to every answer."""

log = logging.getLogger("redfs.coordinator")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="redfs.coordinator", description="RedFS coordinator: all metadata of one pool"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder for the metadata")
    parser.add_argument("--listen", default="127.0.0.1:7400", help="HOST:PORT for clients and storage nodes")
    parser.add_argument("--config", type=Path, help="settings (TOML); see docs/formats/coordinator.md")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="one setting, as in TOML")
    parser.add_argument("--pid-file", type=Path, help="where to write the process id and remove it at the end")
    parser.add_argument("--log-file", type=Path, help="log here instead of to stderr")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser.parse_args(argv)


def read_config(path: Path | None, more: Sequence[str] = ()) -> CoordinatorConfig:
    """The settings of a file and of NAME=VALUE words. Raises InvalidArgument."""
    try:
        settings = tomllib.loads(path.read_text()) if path is not None else {}
        for word in more:
            settings.update(tomllib.loads(word))
    except OSError as error:
        raise InvalidArgument(f"cannot read the settings in {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"the settings are not TOML: {error}") from error
    return CoordinatorConfig.from_mapping(settings)


def _log_to(path: Path | None, level: str) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path) if path is not None else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def open_coordinator(folder: DataFolder, config: CoordinatorConfig) -> Coordinator:
    """The coordinator on its folder. Raises WrongFormat, NoSpace, Busy."""
    known = folder.pool_id()
    if known is not None and not (folder.path / STORE_FILE).exists():
        raise WrongFormat(f"{folder.path} belongs to pool {known} and its metadata is gone: put {STORE_FILE} back")
    store = LmdbStore(folder.path, ALL_TABLES, config.map_bytes)
    try:
        coordinator = Coordinator(store, config, SystemClock(), SystemRandomness())
        folder.claim(coordinator.pool_id)
    except BaseException:
        store.close()
        raise
    return coordinator


async def run(folder: DataFolder, config: CoordinatorConfig, address: str) -> int:
    """Serves until a signal comes or the state cannot go on. Returns the exit code."""
    coordinator = open_coordinator(folder, config)
    shell = Shell(coordinator)
    server = rpc.make_server()
    try:
        port = rpc.listen(server, address)
    except OSError as error:
        coordinator.store.close()
        raise Busy(f"{error}: is another program there? Choose another port with --listen") from error
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def stop_from_thread() -> None:
        loop.call_soon_threadsafe(stop.set)

    shell.state.on_fatal = stop_from_thread
    await serve(shell, server)
    gc.freeze()
    log.info("pool %s: listening on port %d, metadata in %s", coordinator.pool_id, port, folder.path)
    ticker = asyncio.create_task(_tick(shell), name="ticker")
    scheduling = asyncio.create_task(scheduler_of(shell).run_for_ever(), name="scheduler")
    scrubbing = asyncio.create_task(scrubber_of(shell).run_for_ever(), name="scrubber")
    healing = asyncio.create_task(Worker(shell).run_for_ever(), name="healing")
    cleaning = asyncio.create_task(Cleaning(shell).run_for_ever(), name="cleaning")
    await stop.wait()
    log.info("stopping")
    await cancel_and_wait([ticker, scheduling, healing, scrubbing, cleaning])
    shell.watchers.close()
    await server.stop(STOP_GRACE_S)
    await loop.run_in_executor(None, shell.stop)
    coordinator.store.close()
    return InternalError.exit_code if shell.state.fatal is not None else 0


async def _tick(shell: Shell) -> None:
    """Ends sessions that were away for too long."""
    coordinator = shell.coordinator
    while True:
        await asyncio.sleep(TICK_S)
        if coordinator.forgotten_sessions():
            with contextlib.suppress(RedfsError):
                ended = await shell.run(coordinator.end_forgotten)
                log.info("%d sessions were away for too long and have ended", ended)


def main(argv: Sequence[str] | None = None) -> int:
    """The program. Returns the exit code."""
    arguments = _arguments(argv)
    _log_to(arguments.log_file, arguments.log_level)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        config = read_config(arguments.config, arguments.set)
        with DataFolder(arguments.data) as folder:
            if arguments.pid_file is not None:
                publish(arguments.pid_file, f"{os.getpid()}\n".encode())
            try:
                return uvloop.run(run(folder, config, arguments.listen))
            finally:
                if arguments.pid_file is not None:
                    arguments.pid_file.unlink(missing_ok=True)
    except RedfsError as error:
        log.error("%s", error)
        if arguments.log_file is not None:
            print(f"redfs: {error}", file=sys.stderr)
        return error.exit_code
