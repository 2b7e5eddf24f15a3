"""`redfs node`: the storage nodes; starting and stopping those of this machine's pool."""

from __future__ import annotations

import click

from redfs.client.cli import output
from redfs.client.cli.pool_commands import node_rows
from redfs.client.cli.settings import Group, settings


@click.group(cls=Group)
def node() -> None:
    """See, start and stop storage nodes."""


@node.command("ls")
def list_nodes() -> None:
    """List the pool's storage nodes."""
    chosen = settings()
    with chosen.connect() as pool:
        nodes = pool.nodes()

    def human() -> None:
        columns = ("NODE", "STATE", "USED", "FREE", "CAPACITY", "SHARDS", "ERRORS", "ADDRESS", "FOLDER")
        output.print_table(columns, node_rows(nodes), right=("NODE", "USED", "FREE", "CAPACITY", "SHARDS"))

    chosen.emit([output.message_data(found) for found in nodes], human)


@node.command()
@click.argument("number", metavar="N", type=int)
def start(number: int) -> None:
    """Start local node N of `redfs up`, the one whose folder is node-N."""
    chosen = settings()
    started = chosen.local().start_node(number)
    text = f"node-{number} is up" if started else f"node-{number} was up already"
    chosen.emit({"node": number, "started": started}, lambda: click.echo(text))


@node.command()
@click.argument("number", metavar="N", type=int)
def stop(number: int) -> None:
    """Stop local node N of `redfs up`; its data stays and counts again when it is back."""
    chosen = settings()
    stopped = chosen.local().stop_node(number)
    text = f"node-{number} is stopped" if stopped else f"node-{number} was stopped already"
    chosen.emit({"node": number, "stopped": stopped}, lambda: click.echo(text))
