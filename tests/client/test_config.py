"""Which pool is meant, and what a wrong file says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from redfs.client.config import (
    default_pool_folder,
    find_pool,
    looks_like_address,
    read_config,
    read_pool_file,
    wanted_pool,
)
from redfs.core.errors import InvalidArgument, NotFound, WrongFormat


def test_option_then_environment_then_file_then_default(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    assert wanted_pool(None, env) == str(tmp_path / ".local/share/redfs/pool") == str(default_pool_folder(env))
    config = tmp_path / ".config/redfs/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('pool = "from-file:1"\n')
    assert wanted_pool(None, env) == "from-file:1"
    assert wanted_pool(None, env | {"REDFS_POOL": "from-env:1"}) == "from-env:1"
    assert wanted_pool("from-option:1", env | {"REDFS_POOL": "from-env:1"}) == "from-option:1"


@pytest.mark.parametrize(
    ("content", "text"),
    [('poool = "x"', "did you mean 'pool'"), ("pool = 3", "in quotes"), ("pool =", "not valid TOML")],
)
def test_a_wrong_config_file_says_what_is_wrong(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(content)
    with pytest.raises(InvalidArgument, match=text):
        read_config(path)


@pytest.mark.parametrize("text", ["localhost:7400", "10.0.0.1:1", "[::1]:65535"])
def test_addresses(text: str) -> None:
    assert looks_like_address(text)
    assert find_pool(text).address == text


@pytest.mark.parametrize("text", ["/a/folder", "folder", "host:", ":1", "host:70000", "host:name", "./a:1/b"])
def test_no_addresses(text: str) -> None:
    assert not looks_like_address(text)


def test_a_folder_stands_for_its_coordinator(tmp_path: Path) -> None:
    good = {"format": "redfs-pool", "version": 1, "pool_id": "p", "coordinator": "127.0.0.1:7", "nodes": 3}
    path = tmp_path / "pool.json"
    path.write_text(json.dumps(good))
    assert find_pool(str(tmp_path)).address == "127.0.0.1:7"
    assert read_pool_file(tmp_path).nodes == 3
    for bad in (
        json.dumps(good | {"version": 2}),
        json.dumps(good | {"format": "other"}),
        json.dumps({k: v for k, v in good.items() if k != "coordinator"}),
        "[]",
        "{",
    ):
        path.write_text(bad)
        with pytest.raises(WrongFormat):
            find_pool(str(tmp_path))
    path.unlink()
    with pytest.raises(NotFound, match="redfs up"):
        find_pool(str(tmp_path))
    with pytest.raises(InvalidArgument, match="neither"):
        find_pool("host:port")
