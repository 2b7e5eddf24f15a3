"""Which pool a command means: `--pool`, REDFS_POOL, the user's config file, or the default folder of `redfs up`.

A pool is named by its coordinator's HOST:PORT or by a folder that `redfs up` made, whose `pool.json` holds that
address. The config file is `$XDG_CONFIG_HOME/redfs/config.toml` (or the file that REDFS_CONFIG names); it is read
once, and an unknown key is an error that names the nearest known one.

Fails with InvalidArgument (a wrong file or address), NotFound (a folder without a pool), WrongFormat (a pool.json of
another version). Whether anything answers at the address is left to `client/api.py`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from redfs.core.errors import InvalidArgument, NotFound, WrongFormat

POOL_FILE = "pool.json"
POOL_FORMAT = "redfs-pool"
POOL_VERSION = 1


@dataclass(frozen=True)
class UserConfig:
    """The user's config file. Every key is optional."""

    pool: str = ""
    """HOST:PORT, or a folder of `redfs up`; used where neither --pool nor REDFS_POOL is given."""


@dataclass(frozen=True)
class PoolFile:
    """A local pool's `pool.json`: written by `redfs up`, read by everything that is given the folder."""

    pool_id: str
    coordinator: str
    """HOST:PORT."""
    nodes: int = 0
    """How many storage nodes `redfs up` starts; 0 where the file does not say."""
    console: str = ""
    """HOST:PORT of the console that `redfs up` started last; empty where it never did."""


def default_pool_folder(env: Mapping[str, str] = os.environ) -> Path:
    """Where `redfs up` keeps its pool when no --data is given."""
    base = env.get("XDG_DATA_HOME") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".local", "share")
    return Path(base) / "redfs" / "pool"


def config_path(env: Mapping[str, str] = os.environ) -> Path:
    """The user's config file, which need not exist."""
    if named := env.get("REDFS_CONFIG"):
        return Path(named)
    base = env.get("XDG_CONFIG_HOME") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".config")
    return Path(base) / "redfs" / "config.toml"


def log_path(env: Mapping[str, str] = os.environ) -> Path:
    """Where the command line writes what it did not expect."""
    base = env.get("XDG_STATE_HOME") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return Path(base) / "redfs" / "redfs.log"


def read_config(path: Path) -> UserConfig:
    """The config file's content; defaults where there is no file. Raises InvalidArgument."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return UserConfig()
    except OSError as error:
        raise InvalidArgument(f"cannot read the config file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"the config file {path} is not valid TOML: {error}") from error
    known = [field.name for field in dataclasses.fields(UserConfig)]
    for key, value in raw.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise InvalidArgument(f"the config file {path} has the unknown key '{key}': did you mean '{near}'?")
        if not isinstance(value, str):
            raise InvalidArgument(f"the config file {path}: '{key}' must be a text in quotes")
    return UserConfig(**raw)


def read_pool_file(folder: Path) -> PoolFile:
    """A local pool's address. NotFound where the folder holds no pool, WrongFormat where it is none of this version."""
    path = folder / POOL_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise no_pool(folder) from error
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise WrongFormat(f"{path} is not a pool file of RedFS: is {folder} the right folder?") from error
    if not isinstance(raw, dict) or raw.get("format") != POOL_FORMAT:
        raise WrongFormat(f"{path} is not a pool file of RedFS: is {folder} the right folder?")
    if raw.get("version") != POOL_VERSION:
        raise WrongFormat(
            f"{path} has version {raw.get('version')}, this RedFS knows version {POOL_VERSION}: "
            "use the RedFS that made it"
        )
    pool_id, coordinator, nodes = raw.get("pool_id"), raw.get("coordinator"), raw.get("nodes", 0)
    console = raw.get("console", "")
    if not isinstance(pool_id, str) or not isinstance(coordinator, str) or not isinstance(nodes, int):
        raise WrongFormat(f"{path} is damaged: a field is missing")
    if not isinstance(console, str):
        raise WrongFormat(f"{path} is damaged: a field is missing")
    return PoolFile(pool_id=pool_id, coordinator=coordinator, nodes=nodes, console=console)


def no_pool(folder: Path) -> NotFound:
    """What to say where a folder holds no pool."""
    command = "redfs up" if folder == default_pool_folder() else f"redfs up --data {folder}"
    return NotFound(f"no pool in {folder}: start one with `{command}`, or name another one with --pool")


def looks_like_address(text: str) -> bool:
    """HOST:PORT, as opposed to a folder."""
    host, colon, port = text.rpartition(":")
    return bool(colon and host and "/" not in text and port.isascii() and port.isdigit() and 0 < int(port) < 65536)


@dataclass(frozen=True)
class PoolPlace:
    """A pool as a command was given it."""

    address: str
    """The coordinator's HOST:PORT."""
    folder: Path | None
    """The local pool's folder, where one was named."""


def find_pool(named: str) -> PoolPlace:
    """What HOST:PORT or folder stands for. Raises InvalidArgument, NotFound, WrongFormat."""
    if looks_like_address(named):
        return PoolPlace(named, None)
    folder = Path(named).expanduser()
    if not folder.exists() and ":" in named and "/" not in named:
        raise InvalidArgument(f"'{named}' is neither HOST:PORT nor a folder made by `redfs up`")
    folder = folder.absolute()
    return PoolPlace(read_pool_file(folder).coordinator, folder)


def wanted_pool(option: str | None, env: Mapping[str, str] = os.environ) -> str:
    """The pool that a command means, as a HOST:PORT or a folder, not looked at yet."""
    return option or env.get("REDFS_POOL") or read_config(config_path(env)).pool or str(default_pool_folder(env))
