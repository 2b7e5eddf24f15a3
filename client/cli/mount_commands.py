"""`redfs mount` and `redfs umount`."""

from __future__ import annotations

from pathlib import Path

import click

from redfs.client.cli import output
from redfs.client.cli.settings import Command, settings


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
    mounting.mount(place.address, volume, where, foreground=foreground, read_only=read_only)
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
