"""`redfs mount` and `redfs umount`."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import click

from redfs.client.cli import output
from redfs.client.cli.settings import Command, settings
from redfs.client.config import find_pool, wanted_pool
from redfs.client.mount_options import MountOptions, parse_options
from redfs.core.errors import Busy

DEAD_MOUNT_WAIT_S = 40.0
"""A killed mount's lease runs for 15 s, and afresh when the coordinator starts again meanwhile."""
DEAD_MOUNT_POLL_S = 0.5


def _held_by_the_dead(pool_name: str, volume: str) -> bool:
    """Whether all who have the volume mounted are processes of this machine that run no more."""
    from redfs.client.api import Pool
    from redfs.client.local_pool import process_is_alive

    with Pool.connect(pool_name) as pool:
        holders = [name.split(":", 2) for name in pool.volume(volume).mounts]
    here = socket.gethostname()
    return all(
        len(parts) == 3 and parts[0] == here and parts[1].isdigit() and not process_is_alive(int(parts[1]))
        for parts in holders
    )


def mount_when_free(
    pool: str,
    volume: str,
    folder: Path,
    options: MountOptions,
    *,
    foreground: bool = False,
    tell: Callable[[str], None],
) -> None:
    """Mounts, once the lease of a killed mount before it is over. Raises what keeps it from mounting.

    `pool` is named as --pool does; `tell` is given a line for the user where there is something to wait for.
    """
    from redfs.client import mounting

    address = find_pool(pool).address
    mounting.check_mountpoint(folder)
    deadline = time.monotonic() + DEAD_MOUNT_WAIT_S
    told = False
    while True:
        try:
            mounting.mount(
                address,
                volume,
                folder,
                foreground=foreground,
                read_only=options.read_only,
                relatime=options.relatime,
                shared=options.shared,
                kernel_options=options.kernel,
                log_file=None if options.log_file is None else Path(options.log_file),
                give_up_s=options.give_up_s,
            )
            return
        except Busy:
            if time.monotonic() > deadline or not _held_by_the_dead(pool, volume):
                raise
            if not told:
                tell("The mount before this one was killed: waiting until its lease is over")
                told = True
            time.sleep(DEAD_MOUNT_POLL_S)


@click.command(cls=Command)
@click.argument("volume", metavar="VOLUME[@SNAPSHOT]")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--foreground", is_flag=True, help="Stay in this terminal until it is unmounted.")
@click.option("--read-only", is_flag=True, help="Allow no changes (always so for a snapshot).")
@click.option("--shared", is_flag=True, help="Let other hosts that say so too mount it and write.")
@click.option("-o", "--options", metavar="LIST", default="", help="Options as for mount(8): noexec,relatime,suid,dev")
def mount(volume: str, folder: Path, foreground: bool, read_only: bool, shared: bool, options: str) -> None:
    """Mount a volume or snapshot on a folder.

    The folder is made if need be. Snapshots are mounted read-only.
    """
    chosen = settings()
    parsed = parse_options(",".join([options, *(["ro"] if read_only else []), *(["shared"] if shared else [])]))
    where = folder.expanduser().absolute()
    mount_when_free(
        wanted_pool(parsed.pool or chosen.pool),
        volume,
        where,
        parsed,
        foreground=foreground,
        tell=lambda text: click.echo(text, err=True),
    )
    if not foreground:
        result = {"volume": volume, "mountpoint": str(where), "read_only": parsed.read_only or "@" in volume}
        shown = output.short_path(where)
        chosen.emit(result, lambda: click.echo(f"Mounted {volume} on {shown} (unmount: redfs umount {shown})"))


@click.command(cls=Command)
@click.argument("folder", metavar="DIR")  # no click.Path: that looks at the mount, which may not answer
def umount(folder: str) -> None:
    """Unmount a folder.

    Returns when everything written there is safe in the pool. Fails while the mount is in use.
    """
    from redfs.client import mounting

    chosen = settings()
    where = Path(folder).expanduser().absolute()
    mounting.unmount(where)
    chosen.emit({"mountpoint": str(where)}, lambda: click.echo(f"Unmounted {output.short_path(where)}"))
