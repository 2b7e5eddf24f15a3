"""The process: its folder, settings, exit codes; and killed again and again while clients commit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from redfs.coordinator.identity import DataFolder, decode_identity, encode_identity
from redfs.coordinator.main import main, read_config
from redfs.core.errors import Busy, InvalidArgument, RedfsError, TooFewNodes, Unavailable, WrongFormat
from redfs.proto import rpc
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.gen import cluster_pb2_grpc
from tests.coordinator.test_service import Node, Stream, commit

WAIT_S = 60.0


def test_the_identity_says_whose_the_folder_is(tmp_path: Path) -> None:
    with DataFolder(tmp_path) as folder:
        assert folder.pool_id() is None
        folder.claim("0123456789abcdef")
        folder.claim("0123456789abcdef")
        with pytest.raises(WrongFormat, match="two pools were mixed"):
            folder.claim("f" * 16)
        with pytest.raises(Busy, match="another coordinator"):
            DataFolder(tmp_path)
    with DataFolder(tmp_path) as folder:
        assert folder.pool_id() == "0123456789abcdef"


def test_the_bytes_of_an_identity() -> None:
    data = encode_identity("0123456789abcdef")
    assert data.hex() == "5245444653435244000130313233343536373839616263646566ef3b2b1810b747ee"
    assert data[:10] == b"REDFSCRD\x00\x01"
    assert data[10:26] == b"0123456789abcdef"
    assert len(data) == 34
    assert decode_identity(data, "x") == "0123456789abcdef"
    for wrong in (b"", b"OTHER" + data, data[:-1], data[:20] + b"!" + data[21:], data[:9] + b"\x02" + data[10:]):
        with pytest.raises(WrongFormat):
            decode_identity(wrong, "x")


def test_settings(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('lease_s = 3\ndefault_policy = "mirror:2"\n')
    config = read_config(file, ["hold_back=0.1"])
    assert (config.lease_s, config.default_policy, config.hold_back) == (3.0, "mirror:2", 0.1)
    for wrong, said in [
        ("lese_s = 3", "did you mean 'lease_s'"),
        ('lease_s = "3"', "must be of type float"),
        ("lease_s = 0", "more than 0"),
        ("hold_back = 2.0", "hold_back"),
        ("node_down_s = 0.5", "more than heartbeat_s"),
        ("=", "not TOML"),
    ]:
        with pytest.raises(InvalidArgument, match=said):
            read_config(None, [wrong])
    with pytest.raises(InvalidArgument, match="cannot read"):
        read_config(tmp_path / "none")


def test_exit_codes(tmp_path: Path) -> None:
    assert main(["--data", str(tmp_path), "--set", "lease=1", "--log-file", str(tmp_path / "log")]) == 2
    with DataFolder(tmp_path):
        assert main(["--data", str(tmp_path), "--log-file", str(tmp_path / "log")]) == 5
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["--data", str(tmp_path), "--listen", address, "--log-file", str(tmp_path / "log")]) == 5
    (tmp_path / "metadata.lmdb").unlink()
    assert main(["--data", str(tmp_path), "--log-file", str(tmp_path / "log")]) == 11
    assert "its metadata is gone" in (tmp_path / "log").read_text()


class Process:
    """A real coordinator that is killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["--data", str(self.folder / "data"), "--listen", self.address, "--pid-file", str(self.folder / "pid")]
        # The nodes of these tests have no data plane, so there is nothing to keep a journal on.
        words += [
            "--set",
            "journal_copies=0",
            "--set",
            "lease_s=60.0",
            "--set",
            "delete_grace_s=0.0",
            "--set",
            "flush_deadline_s=0.1",
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "redfs.coordinator", *words], stderr=log)

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(WAIT_S)
        self.process = None
        return code


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    running = Process(tmp_path)
    running.start()
    yield running
    if running.process is not None:
        running.end(signal.SIGKILL)


async def answer(call: Any) -> Any:
    """Tries until the coordinator answers."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return await call()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, RedfsError):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_stop_is_clean(process: Process) -> None:
    channel = rpc.open_channel(process.address)
    stub: Any = cluster_pb2_grpc.CoordinatorServiceStub(channel)
    status = await answer(lambda: stub.GetStatus(pb.Empty()))
    assert (process.folder / "pid").read_text() == f"{process.process.pid if process.process else 0}\n"
    await channel.close(None)
    assert process.end(signal.SIGTERM) == 0
    assert not (process.folder / "pid").exists()
    process.start()
    channel = rpc.open_channel(process.address)
    stub = cluster_pb2_grpc.CoordinatorServiceStub(channel)
    assert (await answer(lambda: stub.GetStatus(pb.Empty()))).pool_id == status.pool_id
    await channel.close(None)


class Writer:
    """Commits one slot after the other, through all interruptions, and remembers what was acknowledged."""

    def __init__(self, address: str, volume: str) -> None:
        self.address = address
        self.volume = volume
        self.acknowledged = 0
        self.credentials: tuple[int, bytes] = (0, b"")

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            channel = rpc.open_channel(self.address)
            stream = Stream(channel)
            try:
                await self._converse(stream, stop)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError, Unavailable, TooFewNodes):
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                if not stream.lost:
                    raise
                await asyncio.sleep(0.02)
            finally:
                await stream.close()
                await channel.close(None)

    async def _converse(self, stream: Stream, stop: asyncio.Event) -> None:
        opened = await asyncio.wait_for(stream.open(*self.credentials), WAIT_S)
        self.credentials = (opened.session_id, opened.token)
        assert opened.last_commit in (self.acknowledged, self.acknowledged + 1)
        self.acknowledged = opened.last_commit
        attached = await asyncio.wait_for(stream.call(attach=pb.Attach(name=self.volume)), WAIT_S)
        while not stop.is_set():
            number = self.acknowledged + 1
            word = f"{self.volume}{number % 5}"
            answer = await commit(stream, attached.volume.volume_id, number, word, number)
            reply = await asyncio.wait_for(answer, WAIT_S)
            assert reply.number == number
            self.acknowledged = number


async def node_forever(address: str, number: int) -> None:
    """A node that comes back whenever it is thrown out, and deletes what it is told to."""
    while True:
        channel = rpc.open_channel(address)
        node = Node(channel, number)
        try:
            await node.join()
            while True:
                await node.beat()
                with contextlib.suppress(TimeoutError):
                    order = await node.order(1.0)
                    if order.HasField("delete"):
                        await node.report(deleted=pb.ShardsDeleted(packed=order.delete.packed))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError, AttributeError):
            await asyncio.sleep(0.02)
        finally:
            await channel.close(None)


@pytest.mark.slow
async def test_killed_again_and_again_under_load(process: Process) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    chance = random.Random(seed)
    channel = rpc.open_channel(process.address)
    stub: Any = cluster_pb2_grpc.CoordinatorServiceStub(channel)
    nodes = [asyncio.create_task(node_forever(process.address, n)) for n in range(3)]
    await answer(lambda: stub.CreateVolume(pb.VolumeCreate(name="v", protection="mirror:3")))
    await answer(lambda: stub.CreateVolume(pb.VolumeCreate(name="w", protection="mirror:3")))
    writers = [Writer(process.address, name) for name in ("v", "w")]
    stop = asyncio.Event()
    running = [asyncio.create_task(writer.run(stop)) for writer in writers]
    snapshots = 0
    for _ in range(6):
        await asyncio.sleep(0.3 + chance.random())
        try:
            await stub.CreateSnapshot(pb.SnapshotCreate(name=f"v@s{snapshots}", flush_deadline_s=0.01))
            snapshots += 1
            if snapshots % 2:
                await stub.DeleteVolume(pb.VolumeDelete(name=f"v@s{snapshots - 1}"))
        except grpc.aio.AioRpcError:
            snapshots += 1
        process.end(signal.SIGKILL)
        process.start()
    async with asyncio.timeout(WAIT_S):
        while not all(writer.acknowledged > 10 for writer in writers):
            await asyncio.sleep(0.05)
    stop.set()
    await asyncio.wait_for(asyncio.gather(*running), WAIT_S)
    await answer(lambda: stub.GetStatus(pb.Empty()))
    items = [item async for item in stub.Check(pb.CheckRequest())]
    assert [item.problem for item in items if item.HasField("problem")] == [], f"seed {seed}"
    for writer in writers:
        clone = await stub.CloneVolume(pb.VolumeClone(source=writer.volume, name=f"{writer.volume}-clone"))
        stream = Stream(channel)
        await stream.open()
        attached = await stream.call(attach=pb.Attach(name=clone.snapshot.name))
        volume = attached.volume.volume_id
        seen = 0
        for first in range(1, writer.acknowledged + 1, 1000):
            found = await stream.call(
                read_slots=pb.ReadSlots(volume_id=volume, ino=10, generation=1, first=first, count=1000)
            )
            seen += len(found.rows)
        assert seen >= writer.acknowledged, f"seed {seed}: acknowledged and lost"
        await stream.close()
    for node in nodes:
        node.cancel()
    await asyncio.gather(*nodes, return_exceptions=True)
    await channel.close(None)
