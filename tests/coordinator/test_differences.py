"""`DiffVolumes` over real gRPC: what it lists, what it holds meanwhile, how it ends."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from redfs.coordinator import differences
from redfs.core import diff
from redfs.core.errors import Busy, InvalidArgument, NotFound
from redfs.core.kv import ReadKv
from redfs.core.records import (
    DirEntry,
    Inode,
    Kind,
    Piece,
    decode_root,
    dirent_key,
    encode_bucket,
    encode_inode,
    encode_slot,
    inode_key,
    name_hash,
    slot_key,
)
from redfs.core.tables import ATTACHMENTS, SESSIONS
from redfs.core.versions.layout import PINS, HolderType, is_held, parse_held
from redfs.proto.gen import cluster_pb2 as pb
from tests.coordinator.test_service import WAIT_S, Stream, World, error_of, until, world


class Writer:
    """A session that makes files in the top folder of one volume."""

    def __init__(self, stream: Stream, attached: Any) -> None:
        self._stream = stream
        self._volume = attached.volume.volume_id
        self._lineage = attached.lineage
        self._seed = decode_root(attached.root).hash_seed
        self._next_ino = 10
        self._number = 0

    async def make(self, *names: bytes) -> None:
        rows = []
        for name in names:
            ino, hashed = self._next_ino, name_hash(self._seed, name)
            self._next_ino += 1
            inode = Inode(0o100644, 0, 0, 1, 0, 0, 0, 0, 0, parent=1, name_hash=hashed)
            rows.append(pb.Row(kind=Kind.INODE, obj=inode_key(ino).obj, value=encode_inode(inode)))
            entry = encode_bucket((DirEntry(name, ino, 8, 0),))
            rows.append(pb.Row(kind=Kind.DIRENT, obj=dirent_key(1, hashed).obj, value=entry))
        self._number += 1
        await self._stream.call(
            commit=pb.Commit(volume_id=self._volume, number=self._number, rows=rows, lineage=self._lineage)
        )


async def writer(w: World, name: str) -> Writer:
    stream = await w.session()
    return Writer(stream, await stream.call(attach=pb.Attach(name=name)))


async def listed(w: World, before: str, after: str) -> list[tuple[str, bytes]]:
    found = []
    async for page in w.stub.DiffVolumes(pb.DiffRequest(before=before, after=after)):
        found += [(entry.change, entry.path) for entry in page.entries]
    return found


def views_held(w: World) -> int:
    with w.coordinator.read() as kv:
        held = [parse_held(key)[1].type for key, _ in kv.scan(PINS, b"", b"\xff" * 64) if is_held(key)]
    return held.count(HolderType.VIEW)


async def test_a_mount_is_flushed_and_the_live_volume_compared(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
        stream = await w.session()
        mount = Writer(stream, await stream.call(attach=pb.Attach(name="v")))
        await mount.make(b"old")
        first = asyncio.ensure_future(w.stub.CreateSnapshot(pb.SnapshotCreate(name="v@s")))
        await stream.call(flush_done=pb.FlushDone(flush_id=(await stream.orders.get()).flush.flush_id))
        await first
        comparison = asyncio.ensure_future(listed(w, "v@s", "v"))
        order = await stream.orders.get()
        await mount.make(b"new")
        await stream.call(flush_done=pb.FlushDone(flush_id=order.flush.flush_id))
        assert await comparison == [("created", b"new")]
        assert views_held(w) == 0
        with w.coordinator.read() as kv:
            assert sum(1 for _ in kv.scan(SESSIONS, b"", b"\xff" * 9)) == 1


class HeldUp:
    """Lets a comparison go on behind its first page only when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self._first = True
        plain = diff.Diff.step
        held = self

        def step(work: diff.Diff, kv: ReadKv) -> list[diff.Entry] | None:
            if not held._first:
                assert held.go_on.wait(WAIT_S)
            held._first = False
            return plain(work, kv)

        monkeypatch.setattr(diff, "STEP_ENTRIES", 1)
        monkeypatch.setattr(diff.Diff, "step", step)


async def two_volumes(w: World, *names: bytes) -> None:
    """v, and its clone c with files of these names."""
    await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
    await w.stub.CloneVolume(pb.VolumeClone(source="v", name="c"))
    mount = await writer(w, "c")
    await mount.make(*names)


async def test_a_node_deleted_in_the_middle_is_listed_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldUp(monkeypatch)
    async with world(tmp_path, flush_deadline_s=0.01) as w:
        await two_volumes(w, b"a", b"b", b"c")
        pages = aiter(w.stub.DiffVolumes(pb.DiffRequest(before="v", after="c")))
        found = [entry.path for entry in (await anext(pages)).entries]
        await w.stub.DeleteVolume(pb.VolumeDelete(name="c", force=True))
        await until(lambda: not w.coordinator.has_jobs)
        held.go_on.set()
        async for page in pages:
            found += [entry.path for entry in page.entries]
        assert found == [b"a", b"b", b"c"]
        await until(lambda: views_held(w) == 0)


async def test_a_caller_that_goes_leaves_nothing_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldUp(monkeypatch)
    async with world(tmp_path, flush_deadline_s=0.01) as w:
        await two_volumes(w, b"a", b"b", b"c")
        call = w.stub.DiffVolumes(pb.DiffRequest(before="v", after="c"))
        await call.read()
        assert views_held(w) == 2
        call.cancel()
        await until(lambda: views_held(w) == 0)
        held.go_on.set()
        with w.coordinator.read() as kv:
            assert sum(1 for _ in kv.scan(ATTACHMENTS, b"", b"\xff" * 17)) == 1, "the mount's"


async def test_what_cannot_be_compared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path) as w:
        for name in ("v", "w"):
            await w.stub.CreateVolume(pb.VolumeCreate(name=name))
        for pair in (("v", "w"), ("zero", "v")):
            refused = await error_of(listed(w, *pair))
            assert isinstance(refused, InvalidArgument)
            assert "no common ancestor but the zero volume" in str(refused)
        assert isinstance(await error_of(listed(w, "v", "none")), NotFound)
        assert await listed(w, "v", "v") == []
        assert views_held(w) == 0
        monkeypatch.setattr(differences, "MAX_COMPARISONS", 0)
        assert isinstance(await error_of(listed(w, "v", "v")), Busy)


async def test_equal_blocks_are_equal_content(tmp_path: Path) -> None:
    """Fingerprints come from the block table: the same word stored in two segments of different domains."""
    async with world(tmp_path, flush_deadline_s=0.01) as w:
        await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
        await w.stub.CloneVolume(pb.VolumeClone(source="v", name="c", settings=pb.VolumeSet(protection="mirror:2")))
        for name in ("v", "c"):
            stream = await w.session()
            attached = await stream.call(attach=pb.Attach(name=name))
            await _write(stream, attached, b"word", mtime_ns=1)
        assert await listed(w, "v", "c") == [], "the same inode number, name and fingerprint"


async def _write(stream: Stream, attached: Any, word: bytes, mtime_ns: int) -> None:
    volume = attached.volume.volume_id
    opened = await stream.call(open_segments=pb.OpenSegments(volume_id=volume, count=1))
    segment = opened.segments[0]
    segment.shard_bytes = 64
    block = segment.segment_id << 16
    hashed = name_hash(decode_root(attached.root).hash_seed, b"f")
    inode = Inode(0o100644, 0, 0, 1, 4096, 0, mtime_ns, 0, 0, parent=1, name_hash=hashed)
    rows = [
        (inode_key(10), encode_inode(inode)),
        (dirent_key(1, hashed), encode_bucket((DirEntry(b"f", 10, 8, 0),))),
        (slot_key(10, 1, 0), encode_slot((Piece(0, 4096, block, 0),))),
    ]
    new = pb.Block(
        block_id=block, segment_id=segment.segment_id, stored_bytes=50, plain_bytes=4096, fingerprint=word * 8
    )
    await stream.call(
        commit=pb.Commit(
            volume_id=volume,
            number=1,
            lineage=attached.lineage,
            segments=[segment],
            blocks=[new],
            rows=[pb.Row(kind=key.kind, obj=key.obj, value=value) for key, value in rows],
        )
    )
