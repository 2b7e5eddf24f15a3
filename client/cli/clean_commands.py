"""`redfs clean`: packs what is worth packing now, instead of when it has settled."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from redfs.client.cli import output
from redfs.client.cli.job_commands import left_text, progress_text, rate_text
from redfs.client.cli.settings import Command, settings

if TYPE_CHECKING:
    from redfs.client.api import Pool
    from redfs.proto.gen import cluster_pb2 as pb


@click.command("clean", cls=Command)
@click.option("--wait", is_flag=True, help="Return when nothing is left to pack; shows how far that is.")
def clean(wait: bool) -> None:
    """Pack what is left of half-empty, small and narrow segments into full ones, and free the rest."""
    chosen = settings()
    with chosen.connect() as pool:
        job = pool.start_job("clean")
        if wait:
            job = _wait(pool, job)

    def human() -> None:
        if wait:
            click.echo("Cleaned: nothing is left that pays to pack")
        else:
            click.echo(f"Cleaning as job {job.job_id}: `redfs jobs` tells how far it is")

    chosen.emit(output.message_data(job), human)


def _wait(pool: Pool, job: pb.Job) -> pb.Job:
    """Returns the job as it was seen last, when it has ended. On a terminal a line shows how far it is."""
    seen = job
    if not sys.stderr.isatty():
        for seen in pool.follow_job(job):  # noqa: B007 - the last one counts
            pass
        return seen
    with output.console(stderr=True).status("Cleaning") as line:
        for seen in pool.follow_job(job):
            left = left_text(seen)
            parts = (seen.state, progress_text(seen), rate_text(seen), f"{left} left" if left else "")
            line.update(f"Cleaning: {', '.join(part for part in parts if part)}")
    return seen
