"""`redfs node`: the storage nodes; emptying and removing them; starting and stopping those of this machine's pool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from redfs.client.cli import output
from redfs.client.cli.job_commands import wait_for_job
from redfs.client.cli.pool_commands import node_rows
from redfs.client.cli.settings import Group, confirm, settings
from redfs.core.errors import NotAllowed

if TYPE_CHECKING:
    from redfs.client.api import Pool
    from redfs.proto.gen import cluster_pb2 as pb


@click.group(cls=Group)
def node() -> None:
    """See, empty, remove, start and stop storage nodes."""


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


# ---------------------------------------------------------------- what a node is used for


@node.command()
@click.argument("number", metavar="NODE", type=int)
@click.option("--wait", is_flag=True, help="Return when it is empty; shows how far that is.")
def drain(number: int, wait: bool) -> None:
    """Move everything away from a node; nothing loses protection meanwhile.

    NODE is its number in `redfs node ls`. It is read from until it is empty, and takes nothing new. Then it can be
    removed. `redfs node in NODE` takes it back.
    """
    chosen = settings()
    with chosen.connect() as pool:
        job = pool.drain(number)
        if wait and job is not None:
            wait_for_job(pool, job, f"Emptying node {number}")
        found = next((node for node in pool.nodes() if node.node_id == number), None)
        if wait and (found is None or found.state in ("up", "suspect")):
            raise NotAllowed(f"node {number} was let in again, so it is not empty")
    if wait:
        text = f"Node {number} is empty: `redfs node remove {number}` forgets it"
    else:
        text = f"Emptying node {number} in the background: `redfs jobs` shows how far that is"
    chosen.emit(output.message_data(found) if found is not None else {}, lambda: click.echo(text))


@node.command("in")
@click.argument("number", metavar="NODE", type=int)
def let_in(number: int) -> None:
    """Use a node again that was drained or taken out."""
    _control(number, "in", f"Node {number} is in use")


@node.command("out")
@click.argument("number", metavar="NODE", type=int)
def take_out(number: int) -> None:
    """Say that a node is not coming back: what it held is made anew on others, at once."""
    _control(number, "out", f"Node {number} is out: what it held is made anew elsewhere, `redfs jobs` shows how far")


@node.command()
@click.argument("number", metavar="NODE", type=int)
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(number: int, yes: bool) -> None:
    """Forget a node that holds nothing any more.

    Refused while anything lies there. Its disk can join again after it was wiped, as a new node. A node of `redfs up`
    on this machine is stopped, and its folder set aside.
    """
    confirm(f"Remove node {number} from the pool?", yes=yes)
    chosen = settings()
    with chosen.connect() as pool:
        removed = pool.control_node(number, "remove")
        aside = _set_aside(pool, removed)
    rest = "its disk can be wiped" if aside is None else f"what is left of it, {aside}, can be deleted"
    chosen.emit(output.message_data(removed), lambda: click.echo(f"Node {number} is removed; {rest}"))


def _set_aside(pool: Pool, removed: pb.Node) -> Path | None:
    """Where the folder of a removed node is now, if `redfs up` made it on this machine."""
    from redfs.client.local_pool import LocalPool

    folder = Path(removed.data_folder)
    local = LocalPool(folder.parent)
    if not local.exists or local.pool_file().pool_id != pool.status().pool_id:
        return None
    return local.retire_node(folder)


def _control(number: int, action: str, said: str) -> None:
    chosen = settings()
    with chosen.connect() as pool:
        changed = pool.control_node(number, action)
    chosen.emit(output.message_data(changed), lambda: click.echo(said))
