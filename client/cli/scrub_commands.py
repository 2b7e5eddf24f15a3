"""`redfs scrub`: has the storage nodes read and check everything, and says what the last scrub found."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from redfs.client.cli import output
from redfs.client.cli.job_commands import wait_for_job
from redfs.client.cli.settings import Command, settings
from redfs.core.errors import Unavailable

if TYPE_CHECKING:
    from redfs.proto.gen import cluster_pb2 as pb


def last_scrub_text(scrub: pb.Scrub, now_s: float | None = None) -> str:
    """What the last whole scrub found, in a line."""
    if not scrub.ended_ns:
        return "Nothing was scrubbed yet"
    ago_s = max(0.0, (time.time() if now_s is None else now_s) - scrub.ended_ns / 1e9)
    found = f"{output.count(scrub.bad, 'bad one')} found" if scrub.bad else "all of them good"
    what = f"{output.count(scrub.shards, 'shard')}, {output.size(scrub.bytes)}"
    return f"Last scrub {output.duration(ago_s)} ago: {what}, {found}"


@click.command("scrub", cls=Command)
@click.option("--wait", is_flag=True, help="Return when it is done; shows how far it is.")
def scrub(wait: bool) -> None:
    """Read and check every shard on every node, now.

    The nodes do it in the background, at a bounded rate and behind what programs read and write. What is found
    damaged or missing is repaired. `redfs jobs` shows how far it is and pauses it; it also runs by itself, every 14
    days if not set otherwise.
    """
    chosen = settings()
    with chosen.connect() as pool:
        before_ns = pool.status().scrub.ended_ns
        job = pool.start_job("scrub")
        if not wait:
            said = f"Scrubbing: job {job.job_id}, see `redfs jobs`"
            chosen.emit(output.message_data(job), lambda: click.echo(said))
            return
        wait_for_job(pool, job, "Scrubbing")
        result = pool.status().scrub
    if result.ended_ns == before_ns:
        raise Unavailable("the scrub was cancelled before its end: run it again")
    chosen.emit(output.message_data(result), lambda: click.echo(last_scrub_text(result)))
