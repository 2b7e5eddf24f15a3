"""`redfs volume`, `redfs snapshot` and `redfs clone`: the nodes of the volume tree."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from redfs.client.cli import output
from redfs.client.cli.job_commands import wait_for_deletion, wait_option
from redfs.client.cli.settings import Command, Group, confirm, settings
from redfs.core.errors import InvalidArgument

if TYPE_CHECKING:
    from redfs.proto.gen import cluster_pb2 as pb

protect_option = click.option(
    "--protect", "protection", metavar="P", help="ec:K+M, mirror:N, single, raid5 (ec:4+1) or raid6 (ec:4+2)."
)
color_option = click.option("--color", metavar="COLOR", help="Its colour in the tree: a name like teal, or #rrggbb.")
compression_option = click.option("--compression", type=click.Choice(("zstd", "none")), help="For new data.")
description_option = click.option("--description", metavar="TEXT", help="A line for people.")
minimum_option = click.option(
    "--minimum-nodes",
    type=click.IntRange(0, 255),
    metavar="N",
    help="Go on writing, with less protection, while this many nodes are up (0: as the policy says).",
)
quota_option = click.option(
    "--quota", metavar="SIZE", help="It holds at most this much, before dedupe and compression (0: no limit)."
)

shared_option = click.option(
    "--shared/--no-shared", default=None, help="Several hosts may mount it and write, without `mount --shared`."
)


def _quota_bytes(quota: str | None) -> int | None:
    return None if quota is None else output.parse_size(quota)


def _created(volume: pb.Volume) -> str:
    return datetime.fromtimestamp(volume.created_ns / 1e9).strftime("%Y-%m-%d %H:%M") if volume.created_ns else ""


def _color(named: str | None) -> str | None:
    """What is stored for a colour. Raises InvalidArgument where neither the terminal nor the console knows it."""
    if named is None or named.lower() in output.PALETTE:
        return None if named is None else output.PALETTE[named.lower()]
    if named and not output.valid_style(named):
        names = ", ".join(output.PALETTE)
        raise InvalidArgument(f"'{named}' is no colour: use one of {names}, or six digits like '#3a7bd5'")
    return named


def _print_nodes(volumes: list[pb.Volume], *, snapshots: bool) -> None:
    rows: list[tuple[str | tuple[str, str], ...]] = []
    for volume in volumes:
        color = output.valid_style(volume.color) if volume.color else ""
        state = volume.state if volume.state != "ok" else ("mounted" if volume.mounts else "")
        sizes = output.size(volume.usage.logical_bytes), output.size(volume.usage.logical_alone_bytes)
        rows.append(((volume.name, color), *sizes, volume.protection, _created(volume), state, volume.description))
    heading = "SNAPSHOT" if snapshots else "VOLUME"
    columns = (heading, "SIZE", "ALONE", "PROTECTION", "CREATED", "STATE", "DESCRIPTION")
    output.print_table(columns, rows, right=("SIZE", "ALONE"))


# ---------------------------------------------------------------- volumes


@click.group(cls=Group)
def volume() -> None:
    """Create, list, change and delete volumes."""


@volume.command()
@click.argument("name")
@protect_option
@description_option
@color_option
@compression_option
@minimum_option
@quota_option
@shared_option
def create(
    name: str,
    protection: str | None,
    description: str | None,
    color: str | None,
    compression: str | None,
    minimum_nodes: int | None,
    quota: str | None,
    shared: bool | None,
) -> None:
    """Create an empty volume."""
    chosen = settings()
    color = _color(color)
    with chosen.connect() as pool:
        made = pool.create_volume(
            name,
            protection or "",
            description=description or "",
            color=color or "",
            compression=compression or "",
            minimum_nodes=minimum_nodes or 0,
            quota_bytes=_quota_bytes(quota) or 0,
            shared=bool(shared),
        )
    chosen.emit(output.message_data(made), lambda: click.echo(f"Created {made.name}, protected as {made.protection}"))


@volume.command("ls")
def list_volumes() -> None:
    """List the volumes."""
    chosen = settings()
    with chosen.connect() as pool:
        found = [v for v in pool.volumes() if v.kind == "live" and v.state != "deleted"]
    found.sort(key=lambda v: v.name)
    chosen.emit([output.message_data(v) for v in found], lambda: _print_nodes(found, snapshots=False))


@volume.command()
@click.argument("name")
def info(name: str) -> None:
    """Show everything about one volume or snapshot."""
    chosen = settings()
    with chosen.connect() as pool:
        found = pool.volume(name)
        parents = {v.volume_id: v.name or "zero" for v in pool.volumes()}

    def human() -> None:
        rows = [
            ("name", found.name),
            ("kind", found.kind),
            ("state", found.state),
            ("parent", parents.get(found.parent_id, "")),
            ("created", _created(found)),
            ("protection", found.protection),
            ("compression", found.compression),
            ("minimum nodes", str(found.minimum_nodes or "as the policy says")),
            ("quota", output.size(found.quota_bytes) if found.quota_bytes else ""),
            ("shared", "several hosts may mount it and write" if found.shared else ""),
            ("mode", _mode(found)),
            *_usage_rows(found),
            ("color", found.color),
            ("description", found.description),
            *(("mounted", where) for where in found.mounts),
        ]
        width = max(len(label) for label, _ in rows)
        for label, value in rows:
            if value:
                click.echo(f"{label:<{width}}  {value}")

    chosen.emit(output.message_data(found), human)


def _mode(volume: pb.Volume) -> str:
    if volume.in_shared_mode:
        return "shared: several hosts see each other's changes at once"
    return ""


def _usage_rows(volume: pb.Volume) -> list[tuple[str, str]]:
    if volume.kind == "zero" or volume.state != "ok":
        return []
    usage = volume.usage
    return [
        ("in files", f"{output.size(usage.logical_bytes)}, {output.size(usage.stored_bytes)} when compressed"),
        (
            "held by it alone",
            f"{output.size(usage.logical_alone_bytes)}, {output.size(usage.stored_alone_bytes)} when compressed",
        ),
    ]


@volume.command()
@click.argument("names", nargs=-1, required=True, metavar="NODE...")
def freed(names: tuple[str, ...]) -> None:
    """Count what deleting volumes and snapshots would free.

    Exact, with dedupe and sharing counted, for deleting all of them and nothing else. Nothing is changed.
    """
    chosen = settings()
    with chosen.connect() as pool:
        reply = pool.freed(names)

    def human() -> None:
        rows = [
            ("in files", output.size(reply.logical_bytes), "that nothing else refers to"),
            ("after dedupe", output.size(reply.unique_bytes), "in blocks that go"),
            ("after compression", output.size(reply.stored_bytes), ""),
            ("on disks", output.size(reply.segment_bytes), "with protection, in segments that go as a whole"),
        ]
        output.print_table(("FREED", "SIZE", ""), rows, right=("SIZE",))

    chosen.emit(output.message_data(reply), human)


@volume.command("set")
@click.argument("name")
@protect_option
@description_option
@color_option
@compression_option
@minimum_option
@quota_option
@shared_option
def change(
    name: str,
    protection: str | None,
    description: str | None,
    color: str | None,
    compression: str | None,
    minimum_nodes: int | None,
    quota: str | None,
    shared: bool | None,
) -> None:
    """Change settings.

    Data written before keeps its protection and compression.
    """
    chosen = settings()
    if all(value is None for value in (protection, description, color, compression, minimum_nodes, quota, shared)):
        raise InvalidArgument(
            "nothing to change: give --protect, --description, --color, --compression, --minimum-nodes, --quota or "
            "--shared"
        )
    color = _color(color)
    with chosen.connect() as pool:
        changed = pool.set_volume(
            name,
            protection=protection,
            description=description,
            color=color,
            compression=compression,
            minimum_nodes=minimum_nodes,
            quota_bytes=_quota_bytes(quota),
            shared=shared,
        )
    chosen.emit(output.message_data(changed), lambda: click.echo(f"Changed {changed.name}"))


@volume.command()
@click.argument("name")
@click.argument("new_name")
def rename(name: str, new_name: str) -> None:
    """Give a volume or snapshot another name."""
    chosen = settings()
    with chosen.connect() as pool:
        renamed = pool.rename_volume(name, new_name)
    chosen.emit(output.message_data(renamed), lambda: click.echo(f"Renamed {name} to {renamed.name}"))


@volume.command("rm")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@wait_option
def delete_volume(name: str, yes: bool, wait: bool) -> None:
    """Delete a volume.

    Everything in it goes; its snapshots and clones stay.
    """
    if "@" in name:
        raise InvalidArgument(f"'{name}' is a snapshot: use `redfs snapshot rm {name}`")
    _delete(name, yes=yes, wait=wait, question=f"Delete volume {name} and everything in it?")


def _delete(name: str, *, yes: bool, wait: bool, question: str) -> None:
    chosen = settings()
    with chosen.connect() as pool:
        found = pool.volume(name)
        confirm(" ".join((*_consequences(found, pool.volumes()), question)), yes=yes)
        deleted = pool.delete_volume(name, force=bool(found.mounts))
        if wait:
            wait_for_deletion(pool, deleted)
            deleted.state = "deleted"
    space = "is free" if wait else "comes back in the background"
    chosen.emit(output.message_data(deleted), lambda: click.echo(f"Deleted {name}; its space {space}"))


def _consequences(doomed: pb.Volume, tree: list[pb.Volume]) -> list[str]:
    """What else its deletion means, a sentence each."""
    said = []
    if doomed.mounts:
        said.append(
            f"{doomed.name} is mounted by {', '.join(doomed.mounts)}: programs there get errors from now on, and what "
            "they wrote goes with it."
        )
    below = sum(1 for node in tree if node.parent_id == doomed.volume_id)
    if below:
        said.append(
            f"{below} that descend from {doomed.name} stay, and the tree shows it as deleted until they are gone."
        )
    return said


# ---------------------------------------------------------------- snapshots and clones


@click.group(cls=Group)
def snapshot() -> None:
    """Create, list and delete snapshots, now or by the clock."""


def _snapshot_name(name: str) -> str:
    volume_name, at, label = name.partition("@")
    if not (volume_name and at and label):
        raise InvalidArgument(f"'{name}' does not name a snapshot: write VOLUME@SNAPSHOT")
    return name


@snapshot.command("create")
@click.argument("name", metavar="VOLUME@SNAPSHOT")
def create_snapshot(name: str) -> None:
    """Freeze a volume as it is now.

    It is there at once, also while the volume is mounted: the mount is asked to flush first.
    """
    chosen = settings()
    with chosen.connect() as pool:
        reply = pool.create_snapshot(_snapshot_name(name))
    flushed = "" if reply.holder_flushed else " (a mount did not flush in time: it holds what was committed before)"
    data = output.message_data(reply.snapshot) | {
        "holder_flushed": reply.holder_flushed,
        "coordinator_ms": reply.coordinator_ms,
    }
    chosen.emit(data, lambda: click.echo(f"Created {reply.snapshot.name}{flushed}"))


@snapshot.command("ls")
@click.argument("volume_name", metavar="[VOLUME]", required=False)
def list_snapshots(volume_name: str | None) -> None:
    """List the snapshots, of one volume or of all."""
    chosen = settings()
    with chosen.connect() as pool:
        if volume_name:
            pool.volume(volume_name)
        found = [v for v in pool.volumes() if v.kind == "snapshot" and v.state != "deleted"]
    if volume_name:
        found = [v for v in found if v.name.partition("@")[0] == volume_name]
    found.sort(key=lambda v: (v.created_ns, v.volume_id))
    chosen.emit([output.message_data(v) for v in found], lambda: _print_nodes(found, snapshots=True))


@snapshot.command("rm")
@click.argument("name", metavar="VOLUME@SNAPSHOT")
@click.option("--yes", is_flag=True, help="Do not ask.")
@wait_option
def delete_snapshot(name: str, yes: bool, wait: bool) -> None:
    """Delete a snapshot, in any order; what only it held comes back."""
    _delete(_snapshot_name(name), yes=yes, wait=wait, question=f"Delete snapshot {name}?")


@click.command(cls=Command)
@click.argument("source")
@click.argument("name")
@click.option("--backed", is_flag=True, help="First make a snapshot of the live source, then clone that.")
@click.option(
    "--snapshot", "snapshot_name", metavar="NAME", help="The snapshot's name; NAME of the clone if not given."
)
@protect_option
@description_option
@color_option
@compression_option
@minimum_option
@quota_option
@shared_option
def clone(
    source: str,
    name: str,
    backed: bool,
    snapshot_name: str | None,
    protection: str | None,
    description: str | None,
    color: str | None,
    compression: str | None,
    minimum_nodes: int | None,
    quota: str | None,
    shared: bool | None,
) -> None:
    """Make a writable copy of a volume or snapshot.

    It is there at once, without copying data, and shares what it has in common with its source. It has the source's
    settings, but for those given here.
    """
    chosen = settings()
    color = _color(color)
    if snapshot_name and not backed:
        raise InvalidArgument("--snapshot names the snapshot of a backed clone: add --backed")
    with chosen.connect() as pool:
        reply = pool.clone(
            source,
            name,
            backed=backed,
            snapshot=snapshot_name or "",
            protection=protection,
            description=description,
            color=color,
            compression=compression,
            minimum_nodes=minimum_nodes,
            quota_bytes=_quota_bytes(quota),
            shared=shared,
        )
    made = reply.snapshot
    origin = f"{source}@{snapshot_name or name}" if backed else source
    chosen.emit(output.message_data(made), lambda: click.echo(f"Created {made.name} as a clone of {origin}"))


@click.command(cls=Command)
@click.argument("name", metavar="VOLUME@SNAPSHOT")
@click.option("--keep", metavar="SNAPSHOT", help="Name of the snapshot that keeps what the volume holds now.")
@click.option("--discard", is_flag=True, help="Keep nothing of what the volume holds now.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rollback(name: str, keep: str | None, discard: bool, yes: bool) -> None:
    """Make a volume what one of its snapshots is.

    It is done at once, for any size. What the volume holds now is kept as another snapshot, unless --discard says
    otherwise.

    Works while the volume is mounted: its mounts first write what they hold, and show the snapshot's content when the
    command returns. Open files that are in the snapshot go on with its content; others give "Stale file handle".
    """
    chosen = settings()
    volume_name = _snapshot_name(name).partition("@")[0]
    with chosen.connect() as pool:
        pool.volume(name)  # says that there is none before it asks
        if discard:
            confirm(f"Discard what {volume_name} holds beyond {name}?", yes=yes)
        reply = pool.roll_back(name, keep=keep or "", discard=discard)
    data = {
        "volume": output.message_data(reply.volume),
        "kept": output.message_data(reply.kept) if reply.HasField("kept") else None,
        "coordinator_ms": reply.coordinator_ms,
    }
    kept = f"; what it held is kept as {reply.kept.name}" if reply.HasField("kept") else ""
    chosen.emit(data, lambda: click.echo(f"{reply.volume.name} is what {name} is{kept}"))
