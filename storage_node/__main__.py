"""The storage node's program: `python -m redfs.storage_node --data DIR --coordinator HOST:PORT`.

Runs in the foreground until SIGTERM or SIGINT (a clean stop), until the disk fails (exit code 74) or until the
coordinator refuses the node for good. One line on the standard error output says why it could not start.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from redfs.core.errors import RedfsError
from redfs.storage_node.config import NodeConfig, parse_arguments
from redfs.storage_node.disk import DiskFailed
from redfs.storage_node.node import EXIT_DISK_FAILED, StorageNode

log = logging.getLogger("redfs.storage_node")

MAX_OPEN_FILES: Final = 1 << 20
"""One for each GiB of disk, and the connections."""
SWITCH_INTERVAL_S: Final = 0.001
"""A thread that computes gives way to one whose I/O is done after this; Python's 5 ms would be most of a PUT's time."""


def set_up_logging(log_file: Path | None) -> None:
    """One line for each event: UTC time, level, thread, module, text."""
    handler = logging.FileHandler(log_file) if log_file is not None else logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s [%(threadName)s] %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _log_lost_thread(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread is not None else "?"
    log.critical("thread %s died: %r", name, args.exc_value, exc_info=args.exc_value)


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run(config: NodeConfig) -> int:
    """The node's life; returns the exit code."""
    node = StorageNode(config)

    def on_signal(number: int, frame: FrameType | None) -> None:
        node.ask_to_stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        node.start()
    except RedfsError as error:
        return _say(config, str(error), error.exit_code)
    except (OSError, DiskFailed) as error:
        return _say(config, f"cannot use the disk folder {config.data}: {error}", EXIT_DISK_FAILED)
    pid_file = config.pid_file
    if pid_file is not None:
        beside = pid_file.with_name(pid_file.name + ".new")
        beside.write_text(f"{os.getpid()}\n")
        beside.replace(pid_file)  # never seen half-written
    node.wait()
    node.stop()
    if pid_file is not None:
        with contextlib.suppress(OSError):
            pid_file.unlink()
    return _say(config, node.failure, node.exit_code) if node.failure else 0


def _say(config: NodeConfig, text: str, exit_code: int) -> int:
    """Why the process ends, as its last line."""
    if config.log_file is not None:
        log.error("%s", text)
    print(f"redfs storage node: {text}", file=sys.stderr)
    return exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    try:
        config = parse_arguments(arguments)
    except RedfsError as error:
        print(f"redfs storage node: {error}", file=sys.stderr)
        return error.exit_code
    set_up_logging(config.log_file)
    threading.excepthook = _log_lost_thread
    _allow_open_files()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return run(config)


if __name__ == "__main__":
    sys.exit(main())
