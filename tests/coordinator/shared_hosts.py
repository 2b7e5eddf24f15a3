"""Hosts that share a volume in shared mode, over a coordinator without surroundings; and a client's side of writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from errno import ENOENT
from typing import Any

from redfs.coordinator import segments, sessions, shared_opens, shared_operations, shared_writes
from redfs.coordinator.shared_looks import look
from redfs.core.errors import FsError
from redfs.core.ids import ROOT_INO, block_id
from redfs.core.records import Inode, decode_inode
from redfs.core.tables import SegmentRow
from redfs.proto.gen import cluster_pb2 as pb
from tests.coordinator.harness import SHARD_BYTES, Pool, fingerprint

O_CREAT, O_EXCL, O_TRUNC = os.O_CREAT, os.O_EXCL, os.O_TRUNC


class Host:
    """A session that shares the volume "v". Its kernel never remembers anything."""

    def __init__(self, pool: Pool, name: str, *, read_only: bool = False) -> None:
        self.pool = pool
        opened = pool.coordinator.execute(lambda txn: sessions.open_session(txn, name))
        self.session_id = opened.session_id
        self.volume_id = pool.volume("v").volume_id
        self.lineage = pool.volume("v").lineage
        _, exclusive, _ = pool.coordinator.execute(
            lambda txn: sessions.attach(txn, self.session_id, "v", read_only, shared=True)
        )
        if exclusive:
            pool.coordinator.execute(lambda txn: sessions.give_back(txn, self.session_id, self.volume_id, []))
            pool.coordinator.env.recalled.pop(self.volume_id)
        self.number = 0
        self.answered = 0
        self.last: pb.Change | pb.WriteThrough | None = None

    # -- changes

    def request(self, operation: str, **fields: Any) -> pb.Change:
        self.number += 1
        return pb.Change(
            volume_id=self.volume_id, lineage=self.lineage, number=self.number, answered=self.answered,
            operation=operation, **fields,
        )  # fmt: skip

    def send(self, request: pb.Change) -> shared_operations.Changed:
        self.last = request
        return self.pool.coordinator.execute(lambda txn: shared_operations.change(txn, self.session_id, request))

    def change(self, operation: str, **fields: Any) -> shared_operations.Changed:
        changed = self.send(self.request(operation, **fields))
        self.answered = self.number
        return changed

    def create(self, name: bytes, flags: int = O_CREAT, parent: int = ROOT_INO) -> int:
        return self.change("create", ino=parent, name=name, mode=0o644, flags=flags).row.ino

    def open(self, ino: int, flags: int = 0) -> None:
        self.change("open", ino=ino, flags=flags)

    def release(self, ino: int) -> shared_operations.Changed:
        return self.change("release", ino=ino)

    def unlink(self, name: bytes) -> shared_operations.Changed:
        return self.change("unlink", ino=ROOT_INO, name=name)

    def declare(self, *inodes: int) -> list[int]:
        return self.pool.coordinator.execute(
            lambda txn: shared_opens.declare_open(txn, self.session_id, self.volume_id, inodes)
        )

    def end(self) -> None:
        self.pool.coordinator.execute(lambda txn: sessions.end_session(txn, self.session_id))

    # -- data

    def segment(self) -> tuple[int, SegmentRow]:
        return self.pool.coordinator.execute(
            lambda txn: segments.open_segments(txn, self.session_id, self.volume_id, 1, False)
        )[0]

    def writing(
        self,
        ino: int,
        words: Sequence[tuple[str, int]],
        offset: int | None = None,
        expected: Iterable[pb.Row] = (),
        segment: tuple[int, SegmentRow] | None = None,
    ) -> pb.WriteThrough:
        """A write of (word, bytes) one after another, each a block; offset None appends."""
        segment_id, row = segment or self.segment()
        self.number += 1
        return pb.WriteThrough(
            volume_id=self.volume_id, lineage=self.lineage, number=self.number, answered=self.answered, ino=ino,
            offset=offset or 0, append=offset is None, expected=expected,
            segments=[
                pb.Segment(
                    segment_id=segment_id, k=row.layout.k, m=row.layout.m, shard_bytes=SHARD_BYTES, nodes=row.nodes
                )
            ],
            blocks=[
                pb.Block(
                    block_id=block_id(segment_id, at), segment_id=segment_id, offset=1000 * at, stored_bytes=100,
                    plain_bytes=length, checksum=1, fingerprint=fingerprint(word),
                )
                for at, (word, length) in enumerate(words)
            ],
            parts=[
                pb.StoredPart(block_id=block_id(segment_id, at), bytes=length) for at, (_, length) in enumerate(words)
            ],
        )  # fmt: skip

    def tell(self, request: pb.WriteThrough) -> shared_writes.Written:
        self.last = request
        return self.pool.coordinator.execute(lambda txn: shared_writes.write_through(txn, self.session_id, request))

    def write(self, ino: int, word: str, length: int, offset: int | None = None) -> shared_writes.Written:
        written = self.tell(self.writing(ino, [(word, length)], offset))
        self.answered = self.number
        return written

    # -- looks

    def look(self, operation: str, **fields: Any) -> pb.LookReply:
        """Raises ENOENT also where the answer is that there is no such name. Nothing is remembered of it."""
        reply = self.look_and_remember(operation, **fields)
        self.pool.coordinator.env.remembered.forget(self.volume_id, self.session_id)
        if operation == "lookup" and not reply.ino:
            raise FsError(ENOENT)
        return reply

    def look_and_remember(self, operation: str, **fields: Any) -> pb.LookReply:
        request = pb.Look(volume_id=self.volume_id, lineage=self.lineage, operation=operation, **fields)
        return look(self.pool.coordinator, self.session_id, request)

    def inode(self, ino: int) -> Inode:
        return decode_inode(self.look("getattr", ino=ino).inode)


def hosts(count: int, **settings: object) -> tuple[Pool, list[Host]]:
    """That many hosts that share "v", in shared mode."""
    pool = Pool(**settings)  # type: ignore[arg-type]
    pool.create("v")
    return pool, [Host(pool, f"host:{number}:/mnt") for number in range(count)]
