"""`redfs send` and `redfs receive`: a volume as a stream of bytes, out of a pool and into one."""

from __future__ import annotations

import sys
import time

import click

from redfs.client.cli import output
from redfs.client.cli.settings import Command, settings
from redfs.client.config import wanted_pool
from redfs.core.errors import InvalidArgument

PROGRESS_S = 0.5
"""Between two updates of the line on the terminal."""


class _Progress:
    """A line on stderr that is written over, where that is a terminal."""

    def __init__(self, word: str) -> None:
        self._word = word
        self._shown = sys.stderr.isatty()
        self._started_s = time.monotonic()
        self._next_s = self._started_s + PROGRESS_S

    def __call__(self, done_bytes: int) -> None:
        now_s = time.monotonic()
        if not self._shown or now_s < self._next_s:
            return
        self._next_s = now_s + PROGRESS_S
        rate = output.size(done_bytes / (now_s - self._started_s))
        click.echo(f"\r\033[K{self._word} {output.size(done_bytes)}, {rate}/s", nl=False, err=True)

    def end(self) -> None:
        if self._shown:
            click.echo("\r\033[K", nl=False, err=True)


@click.command(cls=Command)
@click.argument("node", metavar="VOLUME[@SNAPSHOT]")
@click.option(
    "--from", "base", metavar="VOLUME@SNAPSHOT", default="", help="Send only what differs from this snapshot."
)
def send(node: str, base: str) -> None:
    """Write a volume or snapshot to stdout, for `redfs receive`.

    All of it, or with --from what differs from a snapshot that it goes on from and that the receiver has. A mounted
    volume is asked to flush first.
    """
    from redfs.client.send import send as run

    file = sys.stdout.buffer
    if file.isatty():
        raise InvalidArgument("the stream is not for a terminal: redirect it into a file or a command, `> FILE`")
    progress = _Progress("Sent")
    try:
        header, totals = run(wanted_pool(settings().pool), node, file, base=base, progress=progress)
    finally:
        progress.end()
    click.echo(
        f"Sent {header.node}{f' from {base}' if base else ''}: {output.size(totals.plain_bytes)} in "
        f"{output.count(totals.blocks, 'block')}, {output.count(totals.rows, 'record')}",
        err=True,
    )


@click.command(cls=Command)
@click.argument("name", metavar="VOLUME")
@click.option("--force", is_flag=True, help="Lose what VOLUME was changed by since the snapshot that the stream needs.")
def receive(name: str, force: bool) -> None:
    """Make a volume of a stream on stdin, or its next snapshot.

    A whole stream becomes the new volume VOLUME with one snapshot. One that was sent with --from brings VOLUME, which
    must have received that snapshot and not have been changed since, to what was sent, and makes a snapshot of it. A
    stream that was cut or damaged leaves nothing behind.
    """
    from redfs.client.receive import receive as run

    chosen = settings()
    file = sys.stdin.buffer
    if file.isatty():
        raise InvalidArgument("the stream comes from a file or a command: `redfs receive VOLUME < FILE`")
    progress = _Progress("Received")
    try:
        received = run(wanted_pool(chosen.pool), name, file, force=force, progress=progress)
    finally:
        progress.end()
    header, totals, made = received
    data = {
        "snapshot": made,
        "sent": header.node,
        "incremental": bool(header.base_id),
        "origin": header.stream_id,
        "plain_bytes": totals.plain_bytes,
        "blocks": totals.blocks,
        "records": totals.rows,
    }
    chosen.emit(data, lambda: click.echo(f"Received {made}: {output.size(totals.plain_bytes)}"))
