"""`redfs coordinator`: what is done to the coordinator itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from redfs.client.cli import output
from redfs.client.cli.settings import Group, confirm, settings
from redfs.core.errors import InvalidArgument


@click.group(cls=Group)
def coordinator() -> None:
    """Make a lost coordinator anew."""


@coordinator.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder for the new coordinator's metadata (with --node).",
)
@click.option("--node", "nodes", multiple=True, metavar="HOST:PORT", help="A storage node's data address; repeat it.")
@click.option("--pool-id", default="", metavar="ID", help="Take only nodes of this pool.")
@click.option("--force", is_flag=True, help="Take what there is, though something acknowledged may be missing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(data: Path | None, nodes: tuple[str, ...], pool_id: str, force: bool, yes: bool) -> None:
    """Make a coordinator whose disk is lost anew, from the journal on its storage nodes.

    Name all storage nodes that are left: half of the pool's nodes must answer, and one that had the journal last. The
    old coordinator, should it come back, is refused from then on. Start the new one afterwards as the old one was.

    Without --node: the pool on this machine (of `redfs up`), whose coordinator's folder was lost. `redfs up` starts it
    afterwards.
    """
    from redfs.client.restoring import restore_coordinator, restore_local

    chosen = settings()
    if bool(nodes) != (data is not None):
        raise InvalidArgument("--data and --node go together; without both, the pool of `redfs up` is restored")
    confirm("From now on the old coordinator is refused, wherever it is. Go on?", yes=yes)
    if data is None:
        local = chosen.local()
        done = restore_local(local, force=force)
        after = f"Start it with `redfs up --data {output.short_path(local.folder)}`"
    else:
        done = restore_coordinator(data.absolute(), nodes, pool_id=pool_id, force=force)
        after = "Start it where the nodes look for it: `python -m redfs.coordinator --data ... --listen HOST:PORT`"
    chosen.emit(done, lambda: _print_restored(done, after))


def _print_restored(done: dict[str, Any], after: str) -> None:
    for warning in done["warnings"]:
        click.echo(f"Note: {warning}")
    sure = "nothing acknowledged is missing" if done["is_sure"] else "something acknowledged may be missing"
    click.echo(f"Restored pool {done['pool_id']} up to change {done['position']}, from node {done['node_id']}: {sure}")
    click.echo(after)
