"""`redfs up`, `down`, `status`, `tree`, `check`: the pool as a whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redfs.client.cli import output
from redfs.client.cli.job_commands import JOB_COLUMNS, job_rows
from redfs.client.cli.scrub_commands import last_scrub_text
from redfs.client.cli.settings import Command, settings
from redfs.core.errors import Corrupt, Unavailable

if TYPE_CHECKING:
    from rich.text import Text

    from redfs.client.check import CheckReport
    from redfs.client.local_pool import LocalPool
    from redfs.proto.gen import cluster_pb2 as pb

NODE_STYLES = {"up": "green", "suspect": "yellow", "draining": "yellow", "out": "dim"}
QUIET_S = 5.0
"""A node that reports does so every second: when it was seen last is worth saying only beyond this."""
HEALTH_STYLES = {"ok": "green", "degraded": "yellow", "failed": "red"}
data_option = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The pool's folder (default: redfs/pool in your data folder).",
)


# ---------------------------------------------------------------- up, down


@click.command(cls=Command)
@data_option
@click.option("--nodes", type=int, metavar="N", help="Storage nodes to run (default: those there are, 6 at first).")
@click.option(
    "--port", type=int, metavar="P", help="Port of the coordinator (default: as last time, a free one at first)."
)
@click.option("--no-console", is_flag=True, help="Start no console.")
@click.option(
    "--console-port",
    type=int,
    metavar="P",
    help="Port of the console (default: as last time, a free one at first).",
)
def up(data: Path | None, nodes: int | None, port: int | None, no_console: bool, console_port: int | None) -> None:
    """Start a whole pool on this machine.

    Starts a coordinator, storage nodes and the web console in the background and waits until they are up. What runs
    already is left alone, so it can be run at any time, also to start again what was stopped or killed.
    """
    chosen = settings()
    local = chosen.local(data)
    started = local.start(nodes, port, console=not no_console, console_port=console_port)
    url = local.console_url
    pool = local.pool_file()
    named = (
        "" if local.folder == type(local)(_default_folder()).folder else f"--pool {output.short_path(local.folder)} "
    )
    result = {
        "pool_id": pool.pool_id,
        "coordinator": pool.coordinator,
        "nodes": len(local.node_numbers()),
        "console": url,
        "folder": str(local.folder),
        "started": started,
    }

    def human() -> None:
        verb = "is up" if started else "was up already"
        click.echo(f"The pool {verb}: {output.count(pool.nodes, 'node')}, coordinator at {pool.coordinator}")
        click.echo(f"Its folder is {output.short_path(local.folder)}")
        if url:
            click.echo(f"Console at {url}")
        click.echo("\nNext:")
        click.echo(f"  redfs {named}volume create photos")
        click.echo(f"  redfs {named}mount photos ~/photos")
        click.echo(f"  redfs {named}status")

    chosen.emit(result, human)


def _default_folder() -> Path:
    from redfs.client.config import default_pool_folder

    return default_pool_folder()


@click.command(cls=Command)
@data_option
def down(data: Path | None) -> None:
    """Stop the pool on this machine; its data stays.

    Unmounts this machine's mounts of the pool first, with everything written to them. A mount that is in use keeps
    the pool running: nothing is stopped then.
    """
    chosen = settings()
    local = chosen.local(data)
    unmounted = _unmount_all(local)
    stopped = local.stop()

    def human() -> None:
        for mountpoint in unmounted:
            click.echo(f"Unmounted {output.short_path(mountpoint)}")
        click.echo("The pool is stopped; its data stays." if stopped else "The pool was stopped already.")

    chosen.emit({"unmounted": unmounted, "stopped": stopped, "folder": str(local.folder)}, human)


def _unmount_all(local: LocalPool) -> list[str]:
    from redfs.client.local_pool import running_pid
    from redfs.client.mounting import unmount

    done = []
    mounts = local.mounts()
    if mounts and running_pid(local.coordinator()) is None:
        raise Unavailable(
            f"{output.short_path(mounts[0].mountpoint)} is mounted and the coordinator does not run, so what was "
            f"written there cannot be saved: run `redfs up --data {output.short_path(local.folder)}` first"
        )
    for mounted in mounts:
        unmount(Path(mounted.mountpoint))
        done.append(mounted.mountpoint)
    return done


# ---------------------------------------------------------------- status


@click.command(cls=Command)
def status() -> None:
    """Show health, capacity, savings, nodes and jobs."""
    chosen = settings()
    with chosen.connect() as pool:
        state, nodes = pool.status(), pool.nodes()
    data = output.message_data(state) | {"nodes": [output.message_data(node) for node in nodes]}
    chosen.emit(data, lambda: _print_status(state, nodes))


def _print_status(state: pb.PoolStatus, nodes: list[pb.Node]) -> None:
    from rich.text import Text

    out = output.console()
    style = HEALTH_STYLES.get(state.health, "red")
    head = Text.assemble(("● ", style), (state.health, f"bold {style}"))
    head.append(f"   {state.nodes_up} of {output.count(state.nodes_total, 'node')} up")
    head.append(f", {output.count(state.mounts, 'mount')}, up for {output.duration(state.uptime_s)}", "dim")
    out.print(head)
    for problem in state.problems:
        out.print(Text(f"  {problem}", style=style))
    out.print(Text(f"  {last_scrub_text(state.scrub)}", style="yellow" if state.scrub.bad else "dim"))
    out.print()
    output.print_table(("SPACE", "SIZE", ""), _space_rows(state), right=("SIZE",), indent=2)
    if nodes:
        out.print()
        output.print_table(
            ("NODE", "STATE", "USED", "FREE", "CAPACITY", "SHARDS", "ERRORS", "ADDRESS", "FOLDER"),
            node_rows(nodes),
            right=("NODE", "USED", "FREE", "CAPACITY", "SHARDS"),
            indent=2,
        )
    if state.jobs or state.shards_to_delete:
        out.print()
        jobs = job_rows(list(state.jobs))
        if state.shards_to_delete:
            left = output.count(state.shards_to_delete, "shard") + " left"
            jobs.append(("", "delete", "shards on nodes", "running", left, "", ""))
        output.print_table(JOB_COLUMNS, jobs, right=("ID", "RATE"), indent=2)


def _space_rows(state: pb.PoolStatus) -> list[tuple[str, str, str]]:
    """From what files refer to, step by step, to what lies on the disks."""

    def saved(before: int, after: int) -> str:
        return f"{output.share(before - after, before)} saved" if before else ""

    def added(before: int, after: int) -> str:
        return f"{output.share(after - before, before)} added, in all shards on all nodes" if before else ""

    return [
        ("in files", output.size(state.logical_bytes), "in all volumes and snapshots"),
        ("after dedupe", output.size(state.unique_bytes), saved(state.logical_bytes, state.unique_bytes)),
        ("after compression", output.size(state.stored_bytes), saved(state.unique_bytes, state.stored_bytes)),
        ("with protection", output.size(state.segment_bytes), added(state.stored_bytes, state.segment_bytes)),
        ("disks", output.size(state.capacity_bytes), f"{output.size(state.used_bytes)} used"),
        ("free", output.size(state.free_bytes), "before protection"),
    ]


def node_errors(node: pb.Node) -> str:
    """What is wrong with a node's disk and shards, or nothing."""
    said = ["disk failed"] if node.disk_failed else []
    said += [f"{node.damaged_shards:,} damaged"] if node.damaged_shards else []
    said += [f"{node.missing_shards:,} missing"] if node.missing_shards else []
    return ", ".join(said)


def node_rows(nodes: list[pb.Node]) -> list[tuple[str | tuple[str, str], ...]]:
    """The nodes' table, used by `status` and `node ls`."""
    rows: list[tuple[str | tuple[str, str], ...]] = []
    for node in nodes:
        quiet = node.last_seen_s > QUIET_S
        state = f"{node.state}, seen {output.duration(node.last_seen_s)} ago" if quiet else node.state
        rows.append(
            (
                str(node.node_id),
                (state, NODE_STYLES.get(node.state, "red")),
                output.size(node.used_bytes),
                output.size(node.free_bytes),
                output.size(node.capacity_bytes),
                f"{node.shards:,}",
                (node_errors(node), "red"),
                node.address,
                output.short_path(node.data_folder),
            )
        )
    return rows


# ---------------------------------------------------------------- tree


@click.command(cls=Command)
def tree() -> None:
    """Draw the volume tree: volumes, their snapshots and clones."""
    chosen = settings()
    with chosen.connect() as pool:
        volumes = pool.volumes()
    data = [output.message_data(volume) for volume in volumes]
    chosen.emit(data, lambda: _print_tree(volumes))


def _print_tree(volumes: list[pb.Volume]) -> None:
    from rich.text import Text

    children: dict[int, list[pb.Volume]] = {}
    known = {volume.volume_id for volume in volumes}
    for volume in sorted(volumes, key=lambda v: (v.created_ns, v.volume_id)):
        parent = volume.parent_id if volume.parent_id in known else 0
        children.setdefault(parent, []).append(volume)
    out = output.console()
    # A stack, not recursion, and no width limit: clones of clones may be hundreds of steps deep.
    stack = [(volume, "", "") for volume in reversed(children.get(0, []))]
    while stack:
        volume, before, below = stack.pop()
        out.print(Text.assemble((before, "dim"), _label(volume)), soft_wrap=True)
        branches = children.get(volume.volume_id, [])
        for number, child in reversed(list(enumerate(branches))):
            last = number == len(branches) - 1
            stack.append((child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))
    if len(volumes) <= 1 and sys.stdout.isatty():
        click.echo("No volumes yet: make one with `redfs volume create NAME`")


def _label(volume: pb.Volume) -> Text:
    from rich.text import Text

    if volume.kind == "zero":
        return Text("zero", style="dim")
    color = output.valid_style(volume.color) if volume.color else ""
    gone = volume.state != "ok"
    style = "dim strike" if gone else (f"bold {color}".strip() if volume.kind == "live" else color)
    text = Text.assemble((volume.name or "(no name)", style))
    if volume.kind == "live" and not gone:
        text.append(f"  {volume.protection}", "dim")
    if gone:
        text.append(f"  {volume.state}", "dim")
    if volume.mounts:
        text.append("  mounted", "green")
    if volume.description:
        text.append(f"  {volume.description}", "dim italic")
    return text


# ---------------------------------------------------------------- check


@click.command(cls=Command)
@click.option("--data", is_flag=True, help="Also read and verify every byte on every node.")
def check(data: bool) -> None:
    """Prove that everything is there and right.

    Metadata is proved from scratch and compared with the shards on every node; with --data every shard is read and
    verified too. Nothing is changed.

    Ends with 0 where everything was checked and is right, with 10 where something is damaged or missing, and with 7
    where nothing is wrong so far but a node could not be asked.
    """
    from redfs.client.check import run_check

    chosen = settings()
    place = chosen.connect()
    with place as pool:
        if chosen.json or not sys.stderr.isatty():
            report = run_check(pool, verify_data=data, progress=None)
        else:
            report = _check_with_progress(pool, data)
    chosen.emit(report.data(), lambda: _print_check(report))
    if report.problems:
        raise Corrupt(f"the check found {output.count(len(report.problems), 'problem')}")
    if report.unchecked:
        raise Unavailable(f"not everything could be checked: {'; '.join(report.unchecked)}")


def _check_with_progress(pool: Any, data: bool) -> CheckReport:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from redfs.client.check import run_check

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=output.console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading metadata", total=None)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        return run_check(pool, verify_data=data, progress=progress)


def _print_check(report: CheckReport) -> None:
    for problem in report.problems:
        click.echo(problem)
    for gap in report.unchecked:
        click.echo(f"not checked: {gap}")
    summary = (
        f"{output.count(report.volumes, 'volume')}, {output.count(report.records, 'record')}, "
        f"{output.count(report.blocks, 'block')}, {output.count(report.segments, 'segment')}, "
        f"{output.count(report.shards, 'shard')}"
    )
    if report.verified_shards:
        summary += (
            f"; {output.count(report.verified_shards, 'shard')} read and verified, {output.size(report.verified_bytes)}"
        )
    if report.clean:
        click.echo(f"clean: {summary}")
    else:
        click.echo(f"looked at {summary}")
