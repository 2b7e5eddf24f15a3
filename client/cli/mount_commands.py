"""`redfs mount` and `redfs umount`."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import click

from redfs.client.cli import output
from redfs.client.cli.settings import Command, Settings, settings
from redfs.core.errors import Busy

DEAD_MOUNT_WAIT_S = 40.0
"""A killed mount's lease runs for 15 s, and afresh when the coordinator starts again meanwhile."""
DEAD_MOUNT_POLL_S = 0.5


def _held_by_the_dead(chosen: Settings, volume: str) -> bool:
    """Whether all who have the volume mounted are processes of this machine that run no more."""
    from redfs.client.local_pool import process_is_alive

    with chosen.connect() as pool:
        holders = [name.split(":", 2) for name in pool.volume(volume).mounts]
    here = socket.gethostname()
    return all(
        len(parts) == 3 and parts[0] == here and parts[1].isdigit() and not process_is_alive(int(parts[1]))
        for parts in holders
    )


@click.command(cls=Command)
@click.argument("volume", metavar="VOLUME[@SNAPSHOT]")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--foreground", is_flag=True, help="Stay in this terminal until it is unmounted.")
@click.option("--read-only", is_flag=True, help="Allow no changes (always so for a snapshot).")
def mount(volume: str, folder: Path, foreground: bool, read_only: bool) -> None:
    """Mount a volume or snapshot on a folder.

    The folder is made if need be. Snapshots are mounted read-only.
    """
    from redfs.client import mounting

    chosen = settings()
    place = chosen.place()
    where = folder.expanduser().absolute()
    mounting.check_mountpoint(where)
    deadline = time.monotonic() + DEAD_MOUNT_WAIT_S
    told = False
    while True:
        try:
            mounting.mount(place.address, volume, where, foreground=foreground, read_only=read_only)
            break
        except Busy:
            if time.monotonic() > deadline or not _held_by_the_dead(chosen, volume):
                raise
            if not told:
                click.echo("The mount before this one was killed: waiting until its lease is over", err=True)
                told = True
            time.sleep(DEAD_MOUNT_POLL_S)
    if not foreground:
        result = {"volume": volume, "mountpoint": str(where), "read_only": read_only or "@" in volume}
        shown = output.short_path(where)
        chosen.emit(result, lambda: click.echo(f"Mounted {volume} on {shown} (unmount: redfs umount {shown})"))


@click.command(cls=Command)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def umount(folder: Path) -> None:
    """Unmount a folder.

    Returns when everything written there is safe in the pool. Fails while the mount is in use.
    """
    from redfs.client import mounting

    chosen = settings()
    where = folder.expanduser().absolute()
    mounting.unmount(where)
    chosen.emit({"mountpoint": str(where)}, lambda: click.echo(f"Unmounted {output.short_path(where)}"))
