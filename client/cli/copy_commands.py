"""`redfs cp`: files and folders from one node of the volume tree into another, without copying data."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

import click

from redfs.client.cli import output
from redfs.client.cli.settings import Command, settings
from redfs.core.errors import InvalidArgument

if TYPE_CHECKING:
    from redfs.proto.gen import cluster_pb2 as pb


def split_place(text: str) -> tuple[str, bytes]:
    """(node, path) of NODE:PATH. Names of nodes have no colon, so the first one ends it. Raises InvalidArgument."""
    node, colon, path = text.partition(":")
    if not (node and colon):
        raise InvalidArgument(f"'{text}' names no place: write VOLUME:PATH or VOLUME@SNAPSHOT:PATH")
    return node, os.fsencode(path or "/")


@click.command(cls=Command)
@click.argument("source", metavar="VOLUME[@SNAPSHOT]:PATH")
@click.argument("target", metavar="VOLUME:PATH")
@click.option("--replace", is_flag=True, help="An existing file gives way, at once and whole.")
def cp(source: str, target: str, replace: bool) -> None:
    """Copy a file or a folder into a volume, without copying data.

    From a snapshot into its volume this restores what was deleted or changed. Both may be mounted: the copy shows at
    once, and whole. A folder comes with all that is in it; where the target is a folder that exists, the copy goes
    into it under its own name. An existing folder is never replaced.
    """
    chosen = settings()
    (source_node, source_path), (target_node, target_path) = split_place(source), split_place(target)
    with chosen.connect() as pool:
        reply = pool.copy(source_node, source_path, target_node, target_path, replace=replace)
    data = output.message_data(reply) | {"path": quote_from_bytes(reply.path)}
    chosen.emit(data, lambda: _print(target_node, reply))


def _print(target: str, reply: pb.CopyFilesReply) -> None:
    made = f"{output.count(reply.files, 'file')}, {output.size(reply.bytes)}"
    path = bytes(reply.path).decode("utf-8", "replace")
    click.echo(f"Copied {made}, without copying data: {target}:{path}")
