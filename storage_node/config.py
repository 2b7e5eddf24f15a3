"""What a storage node is told when it starts. Read once from the command line; nothing is configured elsewhere."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from redfs.core.errors import InvalidArgument
from redfs.proto.frames import split_address
from redfs.storage_node.shard_store import FILE_BYTES, StoreLimits

MIN_FILE_BYTES: Final = 64 * 1024
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class NodeConfig:
    """A storage node's settings."""

    data: Path
    """The disk folder; absolute."""
    coordinator: str
    """HOST:PORT of the coordinator."""
    listen: str = "127.0.0.1:0"
    """HOST:PORT of the data plane; port 0: the one from last time, else any."""
    advertise: str = ""
    """Host that clients reach this node by; empty: the one it listens on."""
    domain: str = ""
    """Failure domain (a machine, a rack); empty: one of its own."""
    pid_file: Path | None = None
    log_file: Path | None = None
    limits: StoreLimits = field(default_factory=StoreLimits)


def parse_size(text: str) -> int:
    """Bytes of a size such as 4096, 64M or 1.5T (powers of 1024). Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is not a size: write it like 500G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _address(text: str) -> str:
    try:
        split_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def parse_arguments(arguments: Sequence[str] | None = None) -> NodeConfig:
    """The settings of a command line (None: this process's). Ends the process with usage on a wrong one; raises
    InvalidArgument for values that do not go together."""
    parser = argparse.ArgumentParser(
        prog="python -m redfs.storage_node", description="Serves one disk folder of a RedFS pool.", allow_abbrev=False
    )
    parser.add_argument("--data", required=True, type=Path, help="folder on the disk to serve")
    parser.add_argument("--coordinator", required=True, type=_address, metavar="HOST:PORT")
    parser.add_argument(
        "--listen", default="127.0.0.1:0", type=_address, metavar="HOST:PORT", help="port 0: the one from last time"
    )
    parser.add_argument("--advertise", default="", metavar="HOST", help="host name that clients reach this node by")
    parser.add_argument("--domain", default="", help="failure domain: nodes that may fail together share one")
    parser.add_argument("--pid-file", type=Path)
    parser.add_argument("--log-file", type=Path, help="instead of the standard error output")
    parser.add_argument("--capacity", default=0, type=_size, metavar="SIZE", help="use at most this much of the disk")
    parser.add_argument("--reserve", default=-1, type=_size, metavar="SIZE", help="held back so that deletes work")
    parser.add_argument("--file-size", default=FILE_BYTES, type=_size, metavar="SIZE", help="of a backing file")
    given = parser.parse_args(arguments)
    limits = StoreLimits(given.capacity, given.reserve, given.file_size)
    if limits.file_bytes < MIN_FILE_BYTES:
        raise InvalidArgument(f"--file-size must be at least {MIN_FILE_BYTES} bytes")
    if limits.capacity_bytes and limits.reserve_bytes >= limits.capacity_bytes:
        raise InvalidArgument("--reserve must be less than --capacity")
    return NodeConfig(
        data=given.data.expanduser().absolute(),
        coordinator=given.coordinator,
        listen=given.listen,
        advertise=given.advertise,
        domain=given.domain,
        pid_file=given.pid_file,
        log_file=given.log_file,
        limits=limits,
    )
