"""What each request of a session does: validated, converted, handed to a read or to a command, converted back.

Knows messages, but neither gRPC nor threads: `Requests.handle` either answers at once (reads of a committed state) or
returns a command for the state thread, with how its value becomes the answer. The session stream and simulations both
drive it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from redfs.coordinator import (
    commits,
    convert,
    held_writes,
    nodes,
    reads,
    segments,
    sessions,
    shared_opens,
    shared_operations,
    shared_writes,
)
from redfs.coordinator.cluster import NodeView
from redfs.coordinator.coordinator import Command, Coordinator
from redfs.coordinator.node_control import allowed_actions
from redfs.coordinator.shared_looks import is_quick_look, look
from redfs.coordinator.status import count_damage
from redfs.coordinator.txn import Txn
from redfs.coordinator.usage import usage_of
from redfs.coordinator.volumes import all_in_shared_mode, all_mounts, mounts_of
from redfs.coordinator.watch import Topic
from redfs.core.errors import InvalidArgument, LeaseLapsed
from redfs.core.kv import ReadKv
from redfs.core.policy import shrink
from redfs.core.records import Kind
from redfs.core.tables import READING_ONLY, SHARING, Access, NodeRow, VolumeKind, VolumeRow
from redfs.core.versions.reader import VersionReader
from redfs.core.volume_tree import ReadTree, operations_on
from redfs.proto.gen import cluster_pb2 as pb

QUICK_READ_ROWS = 512
"""Reads of at most so many records are answered where they arrive: about 2 ms. Larger ones go to a reader thread."""


class Forget(NamedTuple):
    """Sessions whose kernels must drop what they remember of an inode's data."""

    sessions: frozenset[int]
    volume_id: int
    ino: int


class Later(NamedTuple):
    """A command for the state thread, and the fields of the reply that its value makes."""

    command: Command[Any]
    reply: Callable[[Any], dict[str, Any]]
    forget: Callable[[Any], Forget | None] = lambda _: None
    """From its value, what others must drop before the answer is given."""
    tell: Callable[[Any], Iterable[tuple[int, pb.SessionReply]]] = lambda _: ()
    """From its value, orders for other sessions that are not waited for."""


Answer = dict[str, Any]
"""The reply's body, as the keyword of SessionReply."""


def open_session(request: pb.Open) -> Command[sessions.Opened]:
    """The command for the first request of a stream. Raises WrongFormat for another protocol."""
    convert.check_protocol(request.protocol, "client")
    return lambda txn: sessions.open_session(txn, request.client_name, request.session_id, request.token)


def is_quick(request: pb.SessionRequest) -> bool:
    """Whether answering takes so little that it may be done between two messages."""
    match request.WhichOneof("body"):
        case "get_rows":
            return len(request.get_rows.keys) <= QUICK_READ_ROWS
        case "read_folder":
            return 0 < request.read_folder.limit <= QUICK_READ_ROWS // 2
        case "scan_rows":
            return 0 < request.scan_rows.limit <= QUICK_READ_ROWS and not request.scan_rows.since
        case "read_slots":
            return bool(request.read_slots.count <= QUICK_READ_ROWS // 4)
        case "locate_blocks":
            return len(request.locate_blocks.block_ids) <= QUICK_READ_ROWS
        case "find_blocks":
            return len(request.find_blocks.fingerprints) <= QUICK_READ_ROWS
        case "look":
            return is_quick_look(request.look)
        case "segment_blocks" | "list_snapshots":
            return False
        case _:
            return True


class Requests:
    """Requests of sessions to one coordinator."""

    def __init__(
        self,
        coordinator: Coordinator,
        order_done: Callable[[int, int], None],
        copy_done: Callable[[int, pb.CopyDone], None],
    ) -> None:
        self._coordinator = coordinator
        self._order_done = order_done
        self._ancestry = coordinator.env.ancestry
        self._copy_done = copy_done
        self._handlers: dict[str, Callable[[int, Any], Answer | Later]] = {
            "renew": self._renew,
            "attach": self._attach,
            "detach": self._detach,
            "give_back": self._give_back,
            "become_exclusive": self._become_exclusive,
            "get_rows": self._get_rows,
            "read_folder": self._read_folder,
            "scan_rows": self._scan_rows,
            "read_slots": self._read_slots,
            "locate_blocks": self._locate_blocks,
            "segment_blocks": self._segment_blocks,
            "find_blocks": self._find_blocks,
            "open_segments": self._open_segments,
            "replace_shard": self._replace_shard,
            "abort_segments": self._abort_segments,
            "reserve": self._reserve,
            "grant_inodes": self._grant_inodes,
            "commit": self._commit,
            "look": self._look,
            "change": self._change,
            "write_through": self._write_through,
            "declare_open": self._declare_open,
            "write_held": self._write_held,
            "forget_done": self._forgotten,
            "return_held_done": self._returned_held,
            "drop_remembered_done": self._dropped_remembered,
            "list_nodes": self._list_nodes,
            "stat_volume": self._stat_volume,
            "list_snapshots": self._list_snapshots,
            "report_damage": self._report_damage,
            "report_figures": self._report_figures,
            "flush_done": self._flushed,
            "rebase_done": self._rebased,
            "copy_done": self._copied,
            "recall_done": self._recalled,
            "close": self._close,
        }

    def handle(self, session_id: int, request: pb.SessionRequest) -> Answer | Later:
        """The answer, or what to do for it. Raises errors of the family."""
        self._coordinator.requests += 1
        body = request.WhichOneof("body")
        handler = self._handlers.get(body or "")
        if handler is None:
            raise InvalidArgument(f"a session cannot ask for {body or 'nothing'!r} here: is the client newer?")
        return handler(session_id, getattr(request, body))

    # -- the session itself

    def _renew(self, session_id: int, _: pb.Renew) -> Answer:
        if not self._coordinator.leases.renew(session_id):
            raise LeaseLapsed("the session has ended, its lease lapsed: mount again")
        return {"renew": pb.RenewReply()}

    def _attach(self, session_id: int, request: pb.Attach) -> Later:
        def command(txn: Txn) -> pb.AttachReply:
            name = request.name
            if name and request.volume_id:
                name = sessions.name_now(txn, request.volume_id, name)
            if not name and request.volume_id:
                attached = sessions.attached(txn, session_id, request.volume_id)
            elif request.view:
                attached = sessions.attach_view(txn, session_id, name)
            else:
                attached = sessions.attach(
                    txn, session_id, name, request.read_only, shared=request.shared, alone=request.alone
                )
            return _attach_reply(txn, session_id, attached)

        return Later(command, lambda reply: {"attach": reply})

    def _give_back(self, session_id: int, request: pb.GiveBack) -> Later:
        def command(txn: Txn) -> pb.AttachReply:
            inodes = request.open_inodes
            return _attach_reply(txn, session_id, sessions.give_back(txn, session_id, request.volume_id, inodes))

        return Later(command, lambda reply: {"give_back": pb.GiveBackReply(attached=reply)})

    def _become_exclusive(self, session_id: int, request: pb.BecomeExclusive) -> Later:
        def command(txn: Txn) -> pb.AttachReply:
            return _attach_reply(txn, session_id, sessions.become_exclusive(txn, session_id, request.volume_id))

        return Later(command, lambda reply: {"become_exclusive": pb.BecomeExclusiveReply(attached=reply)})

    def _detach(self, session_id: int, request: pb.Detach) -> Later:
        volume_id = request.volume_id
        return Later(lambda txn: sessions.detach(txn, session_id, volume_id), lambda _: {"detach": pb.DetachReply()})

    def _close(self, session_id: int, _: pb.Close) -> Later:
        return Later(lambda txn: sessions.end_session(txn, session_id), lambda _: {"close": pb.CloseReply()})

    def _report_figures(self, session_id: int, request: pb.ReportFigures) -> Answer:
        env = self._coordinator.env
        if env.figures.report(session_id, convert.from_figures(request.figures)):
            env.hooks.changed(Topic.FIGURES)
        return {"report_figures": pb.ReportFiguresReply()}

    def _flushed(self, session_id: int, request: pb.FlushDone) -> Answer:
        self._order_done(session_id, request.flush_id)
        return {"flush_done": pb.FlushDoneReply()}

    def _rebased(self, session_id: int, request: pb.RebaseDone) -> Answer:
        self._order_done(session_id, request.rebase_id)
        return {"rebase_done": pb.RebaseDoneReply()}

    def _copied(self, session_id: int, request: pb.CopyDone) -> Answer:
        self._copy_done(session_id, request)
        return {"copy_done": pb.CopyDoneReply()}

    def _recalled(self, session_id: int, request: pb.RecallDone) -> Answer:
        self._order_done(session_id, request.recall_id)
        return {"recall_done": pb.RecallDoneReply()}

    # -- reads of a committed state

    def _get_rows(self, session_id: int, request: pb.GetRows) -> Answer:
        with self._coordinator.read() as kv:
            volume = reads.volume_reader(kv, session_id, request.volume_id, self._ancestry)
            rows = reads.get_rows(volume, [(key.kind, key.obj) for key in request.keys])
        return {"get_rows": pb.GetRowsReply(rows=convert.to_rows(rows))}

    def _read_folder(self, session_id: int, request: pb.ReadFolder) -> Answer:
        with self._coordinator.read() as kv:
            volume = reads.volume_reader(kv, session_id, request.volume_id, self._ancestry)
            rows, last, complete = reads.read_folder(volume, request.ino, request.after, request.limit)
        return {"read_folder": pb.ReadFolderReply(rows=convert.to_rows(rows), last=last, complete=complete)}

    def _scan_rows(self, session_id: int, request: pb.ScanRows) -> Answer:
        if request.since:
            return self._scan_changes(session_id, request)
        with self._coordinator.read() as kv:
            volume = reads.volume_reader(kv, session_id, request.volume_id, self._ancestry)
            rows, complete = reads.scan_rows(volume, request.kind, request.start, request.end, request.limit)
        return {"scan_rows": pb.ScanRowsReply(rows=convert.to_rows(rows), complete=complete)}

    def _scan_changes(self, session_id: int, request: pb.ScanRows) -> Answer:
        with self._coordinator.read() as kv:
            volume = reads.volume_reader(kv, session_id, request.volume_id, self._ancestry)
            since = reads.volume_reader(kv, session_id, request.since, self._ancestry)
            rows, following = reads.changed_rows(kv, since, volume, request.start, request.limit)
        return {
            "scan_rows": pb.ScanRowsReply(rows=convert.to_rows(rows), complete=following is None, next=following or b"")
        }

    def _read_slots(self, session_id: int, request: pb.ReadSlots) -> Answer:
        with self._coordinator.read() as kv:
            volume = reads.volume_reader(kv, session_id, request.volume_id, self._ancestry)
            rows, located = reads.read_slots(kv, volume, request.ino, request.generation, request.first, request.count)
        return {
            "read_slots": pb.ReadSlotsReply(
                rows=convert.to_rows(rows),
                blocks=[convert.to_block(*block) for block in located.blocks],
                segments=[convert.to_segment(*segment) for segment in located.segments],
            )
        }

    def _locate_blocks(self, _: int, request: pb.LocateBlocks) -> Answer:
        if len(request.block_ids) > reads.MAX_BLOCKS:
            raise InvalidArgument(f"at most {reads.MAX_BLOCKS} blocks are located at once")
        with self._coordinator.read() as kv:
            located = reads.locate(kv, request.block_ids)
        return {
            "locate_blocks": pb.LocateBlocksReply(
                blocks=[convert.to_block(*block) for block in located.blocks],
                segments=[convert.to_segment(*segment) for segment in located.segments],
            )
        }

    def _segment_blocks(self, _: int, request: pb.SegmentBlocks) -> Answer:
        with self._coordinator.read() as kv:
            blocks = reads.segment_blocks(kv, request.segment_id)
        return {"segment_blocks": pb.SegmentBlocksReply(blocks=[convert.to_block(*block) for block in blocks])}

    def _find_blocks(self, session_id: int, request: pb.FindBlocks) -> Answer:
        up = self._coordinator.cluster.up()
        with self._coordinator.read() as kv:
            volume = reads.volume_reader(kv, session_id, request.volume_id, self._ancestry)
            found = reads.find_blocks(kv, volume, request.fingerprints, up)
        return {"find_blocks": pb.FindBlocksReply(block_ids=found)}

    def _list_nodes(self, _: int, __: pb.ListNodes) -> Answer:
        return {"list_nodes": node_list(self._coordinator)}

    def _list_snapshots(self, session_id: int, request: pb.ListSnapshots) -> Answer:
        with self._coordinator.read() as kv:
            volume = reads.volume_reader(kv, session_id, request.volume_id).row
            rows = list(ReadTree(kv).snapshots(volume))
        return {"list_snapshots": pb.ListSnapshotsReply(snapshots=[convert.to_listed(row) for row in rows])}

    def _stat_volume(self, session_id: int, request: pb.StatVolume) -> Answer:
        cluster = self._coordinator.cluster
        up = cluster.writable()
        with self._coordinator.read() as kv:
            row = reads.volume_reader(kv, session_id, request.volume_id, self._ancestry).row
            total = cluster.total_plain_bytes(shrink(row.policy, up, 1)) if up else 0
            free = min(total, sessions.writable_bytes(Txn(kv, self._coordinator.env), row))
            left = sessions.quota_left(kv, row)
            if left is not None:
                free = min(free, left)
                total = min(total, row.quota_bytes)
        return {"stat_volume": pb.StatVolumeReply(total_bytes=total, free_bytes=free)}

    # -- writing

    def _open_segments(self, session_id: int, request: pb.OpenSegments) -> Later:
        return Later(
            lambda txn: segments.open_segments(txn, session_id, request.volume_id, request.count or 1, request.small),
            lambda opened: {
                "open_segments": pb.OpenSegmentsReply(segments=[convert.to_segment(*segment) for segment in opened])
            },
        )

    def _replace_shard(self, session_id: int, request: pb.ReplaceShard) -> Later:
        return Later(
            lambda txn: segments.replace_shard(txn, session_id, request.segment_id, request.shard, list(request.avoid)),
            lambda node: {"replace_shard": pb.ReplaceShardReply(node=node)},
        )

    def _abort_segments(self, session_id: int, request: pb.AbortSegments) -> Later:
        return Later(
            lambda txn: segments.abort_segments(txn, session_id, list(request.segment_ids)),
            lambda _: {"abort_segments": pb.AbortSegmentsReply()},
        )

    def _reserve(self, session_id: int, request: pb.Reserve) -> Later:
        return Later(
            lambda txn: sessions.reserve(txn, session_id, request.volume_id, request.wanted_bytes),
            lambda granted: {
                "reserve": pb.ReserveReply(
                    granted_bytes=granted.bytes,
                    has_quota=granted.quota_left_bytes is not None,
                    quota_left_bytes=granted.quota_left_bytes or 0,
                    freeing=granted.freeing,
                )
            },
        )

    def _grant_inodes(self, session_id: int, request: pb.GrantInodes) -> Later:
        return Later(
            lambda txn: sessions.grant_inodes(txn, session_id, request.volume_id, request.count, request.above),
            lambda granted: {"grant_inodes": pb.GrantInodesReply(first=granted[0], count=granted[1])},
        )

    def _commit(self, session_id: int, request: pb.Commit) -> Later:
        wanted = convert.from_commit(request)

        def reply(substitutions: tuple[tuple[int, int], ...]) -> Answer:
            self._coordinator.commits += 1
            answer = pb.CommitReply(number=wanted.number)
            for block, stored in substitutions:
                answer.substitutions.add(block=block, stored=stored)
            return {"commit": answer}

        return Later(lambda txn: commits.commit(txn, session_id, wanted), reply)

    # -- shared mode

    def _look(self, session_id: int, request: pb.Look) -> Answer:
        return {"look": look(self._coordinator, session_id, request)}

    def _change(self, session_id: int, request: pb.Change) -> Later:
        def reply(changed: shared_operations.Changed) -> Answer:
            row = changed.row
            holds = self._coordinator.env.holds
            made = request.operation == "create" and not row.existed
            return {
                "change": pb.ChangeReply(
                    number=request.number,
                    ino=row.ino,
                    inode=row.inode,
                    replaced=row.replaced,
                    replaced_inode=row.replaced_inode,
                    existed=row.existed,
                    # As it is now, also for a repetition: it may have been let go, or lost by a restart.
                    held=made and holds.holder(request.volume_id, row.ino) == session_id,
                )
            }

        def forget(changed: shared_operations.Changed) -> Forget | None:
            return Forget(changed.forget, request.volume_id, changed.row.ino) if changed.forget else None

        def tell(changed: shared_operations.Changed) -> Iterable[tuple[int, pb.SessionReply]]:
            for moved in changed.moved:
                for session in changed.others:
                    yield session, pb.SessionReply(moved=moved)

        return Later(lambda txn: shared_operations.change(txn, session_id, request), reply, forget, tell)

    def _write_through(self, session_id: int, request: pb.WriteThrough) -> Later:
        def reply(written: shared_writes.Written) -> Answer:
            full = [(int(Kind.SLOT), obj, value) for obj, value in written.full]
            row = written.row
            return {
                "write_through": pb.WriteThroughReply(
                    number=request.number, offset=row.offset, inode=row.inode, full=convert.to_rows(full)
                )
            }

        return Later(lambda txn: shared_writes.write_through(txn, session_id, request), reply)

    def _declare_open(self, session_id: int, request: pb.DeclareOpen) -> Later:
        return Later(
            lambda txn: shared_opens.declare_open(
                txn, session_id, request.volume_id, request.open_inodes, request.held_inodes
            ),
            lambda gone: {"declare_open": pb.DeclareOpenReply(gone=gone)},
        )

    def _write_held(self, session_id: int, request: pb.WriteHeld) -> Later:
        return Later(
            lambda txn: held_writes.write_held(txn, session_id, request),
            lambda _: {"write_held": pb.WriteHeldReply(number=request.number)},
        )

    def _returned_held(self, session_id: int, request: pb.ReturnHeldDone) -> Answer:
        self._order_done(session_id, request.return_id)
        return {"return_held_done": pb.ReturnHeldDoneReply()}

    def _dropped_remembered(self, session_id: int, request: pb.DropRememberedDone) -> Answer:
        self._order_done(session_id, request.drop_id)
        return {"drop_remembered_done": pb.DropRememberedDoneReply()}

    def _forgotten(self, session_id: int, request: pb.ForgetDone) -> Answer:
        self._order_done(session_id, request.forget_id)
        return {"forget_done": pb.ForgetDoneReply()}

    def _report_damage(self, session_id: int, request: pb.ReportDamage) -> Later:
        def reply(_: bool) -> Answer:
            self._coordinator.damage_reports += 1
            return {"report_damage": pb.ReportDamageReply()}

        return Later(lambda txn: nodes.report_damage(txn, request.segment_id, request.shard, request.reason), reply)


def _attach_reply(txn: Txn, session_id: int, attached: tuple[VolumeRow, bool, bytes]) -> pb.AttachReply:
    """How a session has a volume, as `sessions` tells it."""
    row, exclusive, root = attached
    access = sessions.access_of(txn.kv, session_id, row.volume_id)
    return pb.AttachReply(
        volume=show_volume(txn.kv, row, txn.versions),
        lineage=row.lineage,
        epoch=row.epoch,
        root=root,
        exclusive=exclusive,
        writable_bytes=sessions.writable_bytes(txn, row),
        shared=access in SHARING and not exclusive,
        read_only=access in READING_ONLY or access == Access.VIEW,
    )


def node_list(coordinator: Coordinator) -> pb.ListNodesReply:
    """All nodes as they are now."""
    return pb.ListNodesReply(nodes=[convert.to_node(node) for node in coordinator.cluster.view()])


def node_list_for_people(coordinator: Coordinator) -> pb.ListNodesReply:
    """The same, with what is wrong on each."""
    with coordinator.read() as kv:
        damage = count_damage(kv)
    return pb.ListNodesReply(nodes=[_node_for_people(coordinator, n, damage) for n in coordinator.cluster.view()])


def show_node(coordinator: Coordinator, node_id: int, row: NodeRow) -> pb.Node:
    """A node after something was asked of it; `row`: as it is then, or was, where it was removed."""
    with coordinator.read() as kv:
        damage = count_damage(kv)
    view = next((n for n in coordinator.cluster.view() if n.node_id == node_id), None)
    if view is None:
        return pb.Node(
            node_id=node_id, address=row.address, state="out", domain=row.domain, data_folder=row.data_folder
        )
    return _node_for_people(coordinator, view, damage)


def _node_for_people(coordinator: Coordinator, node: NodeView, damage: Counter[tuple[int, bool]]) -> pb.Node:
    book = coordinator.env.redundancy
    segments = book.segments_on(node.node_id)
    return convert.to_node(
        node,
        damage[node.node_id, False],
        damage[node.node_id, True],
        segments or 0,
        allowed_actions(node.row, segments if book.current else None),
    )


def show_volume(
    kv: ReadKv,
    row: VolumeRow,
    versions: VersionReader | None = None,
    mounts: Iterable[str] | None = None,
    in_shared_mode: bool | None = None,
) -> pb.Volume:
    """A node of the tree for people; `mounts` and the mode are looked up where they are not given."""
    usage = usage_of(kv, versions or VersionReader(kv), row)
    has_snapshots = row.kind == VolumeKind.LIVE and ReadTree(kv).has_snapshots(row.volume_id)
    allowed = operations_on(row, has_snapshots=has_snapshots)
    if mounts is None:
        mounts = mounts_of(kv, row.volume_id)
    if in_shared_mode is None:
        in_shared_mode = sessions.in_shared_mode(kv, row.volume_id)
    return convert.to_volume(row, mounts, usage, allowed, in_shared_mode=in_shared_mode)


def list_volumes(coordinator: Coordinator) -> pb.VolumeList:
    """The whole tree."""
    with coordinator.read() as kv:
        mounts = all_mounts(kv)
        shared = all_in_shared_mode(kv)
        versions = VersionReader(kv, coordinator.env.ancestry)
        rows = [
            show_volume(kv, row, versions, mounts.get(row.volume_id, ()), row.volume_id in shared)
            for row in ReadTree(kv).all()
        ]
    return pb.VolumeList(volumes=rows)
