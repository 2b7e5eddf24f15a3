"""The program as people start it: its settings, its exit codes, its port, stopping and dying."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redfs.core.errors import InvalidArgument, NoSpace, NotFound, Unavailable, WrongFormat
from redfs.proto.data_plane import NodeConnection
from redfs.storage_node.__main__ import main
from redfs.storage_node.config import parse_arguments, parse_size
from redfs.storage_node.shard_store import StoreLimits
from tests.storage_node.rig import payload_of


def test_settings_are_read_from_the_command_line(tmp_path: Path) -> None:
    config = parse_arguments(
        ["--data", f"{tmp_path}/d", "--coordinator", "host:7000", "--capacity", "1.5G", "--reserve", "64M"]
    )
    assert config.data == tmp_path / "d"
    assert config.listen == "127.0.0.1:0"
    assert config.limits == StoreLimits(capacity_bytes=3 << 29, reserve_bytes=64 << 20)
    assert StoreLimits().reserve(1 << 40) == 256 << 20
    assert StoreLimits(capacity_bytes=1 << 20).reserve(1 << 40) == 1 << 16


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("4096", 4096), ("64k", 65536), ("2 MiB", 2 << 20), ("1T", 1 << 40)]
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_wrong_settings_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size("much")
    base = ["--data", "/nowhere", "--coordinator", "host:7000"]
    for wrong in (["--capacity", "much"], ["--listen", "here"], ["--capacit", "1G"], ["--unknown"]):
        with pytest.raises(SystemExit) as caught:
            parse_arguments([*base, *wrong])
        assert caught.value.code == 2
    for wrong in (["--file-size", "1K"], ["--capacity", "1M", "--reserve", "1M"]):
        with pytest.raises(InvalidArgument):
            parse_arguments([*base, *wrong])
        assert main([*base, *wrong]) == InvalidArgument.exit_code
    assert "--reserve must be less than --capacity" in capsys.readouterr().err


class Program:
    """The storage node as a process of its own, without a coordinator."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> list[str]:
        return [
            *(sys.executable, "-m", "redfs.storage_node", "--data", str(self.folder / "disk")),
            *("--coordinator", "127.0.0.1:1", "--pid-file", str(self.folder / "pid"), *arguments),
        ]

    def start(self) -> str:
        """Runs until it serves; returns its address."""
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        self.process = subprocess.Popen(self.command("--log-file", str(log)))
        while self.process.poll() is None:
            text = log.read_text() if log.exists() else ""
            if "serving " in text and (self.folder / "pid").exists():
                return text.partition("serving ")[2].split(" on ")[1].split(",")[0]
        raise AssertionError(log.read_text())

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait()
        self.process = None
        return code


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    yield made
    if made.process is not None:
        made.end(signal.SIGKILL)


@pytest.mark.slow
def test_stopped_and_killed_nodes_come_back_with_everything_on_the_same_port(program: Program) -> None:
    address = program.start()
    assert program.process is not None
    assert (program.folder / "pid").read_text() == f"{program.process.pid}\n"
    shards = {(1, shard): payload_of(shard, 50_000) for shard in range(6)}
    with NodeConnection.open(address) as node:
        assert (node.node_id, node.generation) == (0, 1)
        for (segment, shard), payload in shards.items():
            node.put(segment, shard, payload)
        node.delete([(1, 5)])

    busy = subprocess.run(program.command(), capture_output=True, check=False)
    assert busy.returncode == 5
    assert b"another process serves" in busy.stderr

    assert program.end(signal.SIGTERM) == 0
    assert not (program.folder / "pid").exists()
    with pytest.raises(Unavailable):
        NodeConnection.open(address)
    for generation, death in ((2, signal.SIGKILL), (3, signal.SIGINT)):
        assert program.start() == address
        log = (program.folder / "log").read_text()
        assert ("rebuilt the index: 5 shards in 1 backing files" in log) == (generation == 3)
        with NodeConnection.open(address) as node:
            assert node.generation == generation
            for shard in range(5):
                assert bytes(node.get(1, shard, 0, 50_000)) == shards[1, shard]
            with pytest.raises(NotFound):
                node.get(1, 5, 0, 1)
        program.end(death)


@pytest.fixture
def small_disk(program: Program) -> Iterator[Path]:
    """64 MiB, of which the program has the folder."""
    disk = program.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_node_starts_and_stops_on_a_disk_that_others_have_filled(small_disk: Path, program: Program) -> None:
    payload = payload_of(1, 50_000)
    with NodeConnection.open(program.start()) as node:
        node.put(1, 1, payload)
    program.end(signal.SIGTERM)
    with (small_disk / "of others").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    for generation, death in ((2, signal.SIGTERM), (3, signal.SIGKILL), (4, signal.SIGKILL), (5, signal.SIGTERM)):
        with NodeConnection.open(program.start()) as node:
            assert node.generation == generation
            assert bytes(node.get(1, 1, 0, 50_000)) == payload
            with pytest.raises(NoSpace):
                node.put(2, 1, payload)
        assert program.end(death) in (0, -death)
    assert "stopped cleanly" in (program.folder / "log").read_text()
    (small_disk / "of others").unlink()
    with NodeConnection.open(program.start()) as node:
        node.put(2, 1, payload)


@pytest.mark.slow
def test_a_folder_that_cannot_be_served_is_refused_in_one_line(program: Program) -> None:
    disk = program.folder / "disk"
    disk.mkdir()
    (disk / "node.json").write_text('{"format": "redfs-node", "version": 99}')
    refused = subprocess.run(program.command(), capture_output=True, check=False)
    assert refused.returncode == WrongFormat.exit_code
    assert refused.stderr.decode().splitlines()[-1] == (
        "redfs storage node: node.json has version 99, this program knows 1: use the newer program"
    )
    os.unlink(disk / "node.json")
    os.unlink(disk / "lock")
    os.rmdir(disk)
    disk.write_text("a file in the way")
    refused = subprocess.run(program.command(), capture_output=True, check=False)
    assert refused.returncode == 74
    assert b"cannot use the disk folder" in refused.stderr
