"""`redfs jobs` and `redfs job`: the pool's background work; and waiting for a deletion's."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from redfs.client.cli import output
from redfs.client.cli.settings import Command, Group, settings

if TYPE_CHECKING:
    from redfs.client.api import Pool
    from redfs.proto.gen import cluster_pb2 as pb

FREEING = ("reclaim", "reap", "clean")
"""Jobs whose bytes are those that they have freed; of others they are those of shards."""
STATE_STYLES = {"running": "green", "paused": "yellow"}


def progress_text(job: pb.Job) -> str:
    """How far a job is, as exactly as is known."""
    if job.total_bytes:
        return f"{output.share(job.done_bytes, job.total_bytes)} of {output.size(job.total_bytes)}"
    if job.done_bytes:
        return f"{output.size(job.done_bytes)} {'freed' if job.kind in FREEING else 'done'}"
    return output.count(job.done, "row") + " done"


def rate_text(job: pb.Job) -> str:
    return f"{output.size(job.rate)}/s" if job.rate > 0 else ""


def left_text(job: pb.Job) -> str:
    return output.duration(job.left_s) if job.left_s >= 0 else ""


def job_rows(jobs: list[pb.Job]) -> list[tuple[str | tuple[str, str], ...]]:
    """The jobs' table, used by `jobs` and `status`; its columns are JOB_COLUMNS."""
    return [
        (
            str(job.job_id) if job.job_id else "",
            job.kind,
            job.subject,
            (job.state, STATE_STYLES.get(job.state, "")),
            progress_text(job),
            rate_text(job),
            left_text(job),
        )
        for job in jobs
    ]


JOB_COLUMNS = ("ID", "JOB", "OF", "STATE", "PROGRESS", "RATE", "LEFT")


@click.command("jobs", cls=Command)
def list_jobs() -> None:
    """List the background jobs: how far each is, how fast, how long it will take."""
    chosen = settings()
    with chosen.connect() as pool:
        found = pool.jobs()

    def human() -> None:
        if found:
            output.print_table(JOB_COLUMNS, job_rows(found), right=("ID", "RATE"))
        else:
            click.echo("No jobs: nothing is left to do")

    chosen.emit([output.message_data(job) for job in found], human)


@click.group(cls=Group)
def job() -> None:
    """Pause, resume and cancel background jobs."""


def _control(number: int, action: str, said: str) -> None:
    chosen = settings()
    with chosen.connect() as pool:
        changed = pool.control_job(number, action)
    chosen.emit(output.message_data(changed), lambda: click.echo(f"{said} job {number} ({changed.subject})"))


@job.command()
@click.argument("number", metavar="ID", type=int)
def pause(number: int) -> None:
    """Let a job stand still, also over restarts, until it is resumed."""
    _control(number, "pause", "Paused")


@job.command()
@click.argument("number", metavar="ID", type=int)
def resume(number: int) -> None:
    """Let a paused job go on where it was."""
    _control(number, "resume", "Resumed")


@job.command()
@click.argument("number", metavar="ID", type=int)
def cancel(number: int) -> None:
    """End a drain (the node is used again) or a rebalance before it is done; refused for what must be done."""
    _control(number, "cancel", "Cancelled")


# ---------------------------------------------------------------- rebalance


@click.command("rebalance", cls=Command)
@click.option("--wait", is_flag=True, help="Return when it is done; shows how far that is.")
def rebalance(wait: bool) -> None:
    """Move data from full nodes to empty ones, until each holds its share.

    New data goes to new nodes by itself; this moves the old as well. It also parts shards that lie in one failure
    domain though another one has room. Nothing loses protection meanwhile.
    """
    chosen = settings()
    with chosen.connect() as pool:
        started = pool.start_job("rebalance")
        if wait:
            wait_for_job(pool, started, "Levelling the nodes")
    text = (
        "The nodes are level" if wait else "Levelling the nodes in the background: `redfs jobs` shows how far that is"
    )
    chosen.emit(output.message_data(started), lambda: click.echo(text))


# ---------------------------------------------------------------- clean


@click.command("clean", cls=Command)
@click.option("--wait", is_flag=True, help="Return when nothing is left to pack; shows how far that is.")
def clean(wait: bool) -> None:
    """Pack what is left of half-empty, small and narrow segments into full ones, and free the rest.

    The pool does that by itself when it pays and the data has settled; this does all of it now.
    """
    chosen = settings()
    with chosen.connect() as pool:
        started = pool.start_job("clean")
        if wait:
            wait_for_job(pool, started, "Cleaning")
    text = "Nothing is left to clean" if wait else "Cleaning in the background: `redfs jobs` shows how far that is"
    chosen.emit(output.message_data(started), lambda: click.echo(text))


# ---------------------------------------------------------------- waiting


def wait_for_job(pool: Pool, job: pb.Job, what: str) -> None:
    """Returns when a job is done. On a terminal a line shows how far that is."""
    _follow(pool, pool.follow_job(job.job_id), what)


wait_option = click.option("--wait", is_flag=True, help="Return when its space is free; shows how far that is.")


def wait_for_deletion(pool: Pool, deleted: pb.Volume) -> None:
    """Returns when what a deleted node held alone is free. On a terminal a line shows how far that is."""
    _follow(pool, pool.follow_deletion(deleted.volume_id), f"Freeing {deleted.name}")


def _follow(pool: Pool, steps: Iterable[pb.Job], what: str) -> None:
    """On a terminal a line shows how far it is. Where a node cannot be emptied, what the pool lacks is told once: other
    jobs wait for nothing that people can mend."""
    out = output.console(stderr=True)
    told = False
    with out.status(what) if sys.stderr.isatty() else contextlib.nullcontext() as line:
        for found in steps:
            waits = found.kind == "drain" and found.state == "waiting"
            problems = pool.status().problems if waits and not told else ()
            for problem in problems:
                out.print(f"{what} waits: {problem}")
            told = waits and (told or bool(problems))
            if line is not None:
                left = left_text(found)
                parts = (found.state, progress_text(found), rate_text(found), f"{left} left" if left else "")
                line.update(f"{what}: {', '.join(part for part in parts if part)}")
