"""Between cluster.proto's messages and the plain types that commands work on. Checks nothing but what would not fit."""

from __future__ import annotations

from collections.abc import Iterable

from redfs.coordinator import check, reads
from redfs.coordinator.cluster import NodeView, Report
from redfs.coordinator.commits import CommitRequest, Record
from redfs.coordinator.figures import MountFigures
from redfs.coordinator.jobs import ShownJob
from redfs.coordinator.new_data import SegmentLayout
from redfs.coordinator.nodes import Hello
from redfs.coordinator.schedules import Schedule
from redfs.coordinator.status import Status
from redfs.coordinator.usage import Usage
from redfs.coordinator.volumes import COMPRESSION_NAMES
from redfs.coordinator.watch import Topic
from redfs.core import diff
from redfs.core.errors import WrongFormat
from redfs.core.policy import Layout
from redfs.core.tables import BlockRow, SegmentRow, VolumeKind, VolumeRow, VolumeState
from redfs.proto.gen import cluster_pb2 as pb
from redfs.proto.rpc import PROTOCOL_VERSION

KIND_NAMES = {int(VolumeKind.ZERO): "zero", int(VolumeKind.LIVE): "live", int(VolumeKind.SNAPSHOT): "snapshot"}
STATE_NAMES = {int(VolumeState.OK): "ok", int(VolumeState.DELETING): "deleting", int(VolumeState.DELETED): "deleted"}


def protocol() -> pb.ProtocolVersion:
    """What this coordinator speaks."""
    return pb.ProtocolVersion(version=PROTOCOL_VERSION)


def check_protocol(peer: pb.ProtocolVersion, what: str) -> None:
    """Raises WrongFormat where the peer speaks another version or needs features that are not known here."""
    if peer.version != PROTOCOL_VERSION:
        raise WrongFormat(
            f"this {what} speaks version {peer.version}, the coordinator {PROTOCOL_VERSION}: upgrade the older one"
        )
    if peer.incompatible_features:
        raise WrongFormat(
            f"this {what} needs features {peer.incompatible_features:#x} that the coordinator does not know: upgrade it"
        )


def to_volume(
    row: VolumeRow, mounts: Iterable[str], usage: Usage, allowed: Iterable[str], *, in_shared_mode: bool
) -> pb.Volume:
    return pb.Volume(
        volume_id=row.volume_id,
        kind=KIND_NAMES[row.kind],
        name=row.name,
        parent_id=row.parent_id,
        state=STATE_NAMES[row.state],
        created_ns=row.created_ns,
        protection=str(row.policy),
        description=row.description,
        color=row.color,
        compression=COMPRESSION_NAMES[row.compression],
        minimum_nodes=row.minimum_nodes,
        mounts=mounts,
        quota_bytes=row.quota_bytes,
        usage=pb.Usage(
            logical_bytes=usage.shown.logical_bytes,
            stored_bytes=usage.shown.stored_bytes,
            logical_alone_bytes=usage.alone.logical_bytes,
            stored_alone_bytes=usage.alone.stored_bytes,
        ),
        schedule_id=row.schedule_id,
        origin=row.origin,
        allowed=allowed,
        shared=row.shared,
        in_shared_mode=in_shared_mode,
    )


def to_listed(row: VolumeRow) -> pb.Volume:
    """What a mount needs to know of a snapshot: some thousands of them are one answer."""
    return pb.Volume(
        volume_id=row.volume_id,
        kind=KIND_NAMES[row.kind],
        name=row.name,
        parent_id=row.parent_id,
        state=STATE_NAMES[row.state],
        created_ns=row.created_ns,
    )


def to_node(
    node: NodeView, damaged_shards: int = 0, missing_shards: int = 0, segments: int = 0, allowed: Iterable[str] = ()
) -> pb.Node:
    report = node.report
    return pb.Node(
        node_id=node.node_id,
        address=node.row.address,
        state=node.state,
        capacity_bytes=report.capacity_bytes,
        used_bytes=report.used_bytes,
        free_bytes=report.free_bytes,
        shards=report.shards,
        backing_files=report.backing_files,
        domain=node.row.domain,
        last_seen_s=node.seen_ago_s,
        data_folder=node.row.data_folder,
        generation=node.row.generation,
        damaged_shards=damaged_shards,
        missing_shards=missing_shards,
        disk_failed=node.row.failed,
        segments=segments,
        allowed=allowed,
    )


def to_segment(segment_id: int, row: SegmentRow) -> pb.Segment:
    k, m = row.layout
    return pb.Segment(segment_id=segment_id, k=k, m=m, shard_bytes=row.shard_bytes, nodes=row.nodes)


def to_block(block_id: int, row: BlockRow) -> pb.Block:
    return pb.Block(
        block_id=block_id,
        segment_id=row.segment_id,
        offset=row.offset,
        stored_bytes=row.stored_bytes,
        plain_bytes=row.plain_bytes,
        codec=row.codec,
        checksum=row.checksum,
        fingerprint=row.fingerprint,
    )


def to_rows(rows: Iterable[reads.Row]) -> list[pb.Row]:
    return [pb.Row(kind=kind, obj=obj, value=value) for kind, obj, value in rows]


def from_segments(sent: Iterable[pb.Segment]) -> list[SegmentLayout]:
    return [SegmentLayout(s.segment_id, Layout(s.k, s.m), s.shard_bytes, tuple(s.nodes)) for s in sent]


def from_blocks(sent: Iterable[pb.Block]) -> list[tuple[int, BlockRow]]:
    return [
        (
            b.block_id,
            BlockRow(b.segment_id, b.offset, b.stored_bytes, b.plain_bytes, b.codec, b.checksum, b.fingerprint, 0),
        )
        for b in sent
    ]


def from_commit(sent: pb.Commit) -> CommitRequest:
    return CommitRequest(
        sent.volume_id,
        sent.number,
        from_segments(sent.segments),
        from_blocks(sent.blocks),
        [Record(r.kind, r.obj, r.value) for r in sent.rows],
        sent.lineage,
    )


def from_figures(sent: pb.Figures) -> MountFigures:
    return MountFigures(sent.read_bytes, sent.written_bytes, sent.operations, sent.busy_us)


def to_figures(figures: MountFigures) -> pb.Figures:
    return pb.Figures(**figures._asdict())


def to_changed(topics: Topic, figures: MountFigures | None) -> pb.Changed:
    return pb.Changed(
        tree=bool(topics & (Topic.TREE | Topic.USAGE)),
        nodes=bool(topics & (Topic.NODES | Topic.REPORTS)),
        jobs=bool(topics & Topic.JOBS),
        schedules=bool(topics & Topic.SCHEDULES),
        figures=None if figures is None else to_figures(figures),
    )


def from_hello(hello: pb.NodeHello) -> Hello:
    return Hello(
        hello.pool_id,
        hello.node_id,
        hello.disk_uuid,
        hello.address,
        hello.generation,
        hello.domain,
        hello.data_folder,
    )


def from_heartbeat(beat: pb.NodeHeartbeat) -> Report:
    return Report(
        beat.capacity_bytes,
        beat.used_bytes,
        beat.free_bytes,
        beat.shards,
        beat.backing_files,
        beat.failed,
        beat.file_system,
    )


def to_status(status: Status, requests: int, commits: int, transactions: int, damage_reports: int) -> pb.PoolStatus:
    return pb.PoolStatus(
        pool_id=status.pool_id,
        health=status.health,
        problems=status.problems,
        nodes_up=sum(n.up for n in status.nodes),
        nodes_total=len(status.nodes),
        capacity_bytes=sum(n.report.capacity_bytes for n in status.nodes),
        used_bytes=sum(n.report.used_bytes for n in status.nodes),
        free_bytes=sum(n.report.free_bytes for n in status.nodes),
        logical_bytes=status.totals.logical_bytes,
        unique_bytes=status.totals.unique_bytes,
        stored_bytes=status.totals.stored_bytes,
        segment_bytes=status.totals.segment_bytes,
        blocks=status.totals.blocks,
        segments=status.totals.segments,
        charged_bytes=status.totals.charged_bytes,
        volumes=status.volumes,
        sessions=status.sessions,
        mounts=status.mounts,
        jobs=[to_job(job) for job in status.jobs],
        uptime_s=status.uptime_s,
        shards_to_delete=status.shards_to_delete,
        commits=commits,
        transactions=transactions,
        requests=requests,
        damage_reports=damage_reports,
        endangered_segments=status.redundancy.endangered,
        critical_segments=status.redundancy.critical,
        lost_segments=status.redundancy.lost,
    )


def to_schedule(schedule: Schedule) -> pb.Schedule:
    return pb.Schedule(volume=schedule.volume, label=schedule.label, **schedule.row._asdict())


def to_job(job: ShownJob) -> pb.Job:
    return pb.Job(**job._asdict())


def to_diff_page(entries: Iterable[diff.Entry]) -> pb.DiffPage:
    return pb.DiffPage(entries=[pb.DiffEntry(**entry._asdict()) for entry in entries])


def to_check_item(item: check.Item) -> pb.CheckItem:
    if isinstance(item, str):
        return pb.CheckItem(problem=item)
    if isinstance(item, check.Expected):
        return pb.CheckItem(
            expected=pb.ExpectedShards(node_id=item.node_id, packed=item.packed, committed=item.committed)
        )
    return pb.CheckItem(
        summary=pb.CheckSummary(volumes=item.volumes, records=item.records, blocks=item.blocks, segments=item.segments)
    )
