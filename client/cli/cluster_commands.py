"""`redfs cluster`: a whole pool in containers on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from redfs.client.cli import output
from redfs.client.cli.settings import Group, confirm, settings
from redfs.core.errors import InvalidArgument, RedfsError

if TYPE_CHECKING:
    from redfs.client.container_pool import ContainerPool

DEFAULT_NAME = "redfs"

name_option = click.option(
    "--name", default=DEFAULT_NAME, metavar="NAME", help=f"Which cluster (default: {DEFAULT_NAME})."
)


@click.group(cls=Group)
def cluster() -> None:
    """Run a whole pool in containers on this machine."""


@contextlib.contextmanager
def _pool(name: str) -> Iterator[ContainerPool]:
    from redfs.client.container_pool import ContainerPool, connect_to_engine

    engine = connect_to_engine()
    try:
        yield ContainerPool(engine, name)
    finally:
        engine.close()


def _named(name: str) -> str:
    return "" if name == DEFAULT_NAME else f" --name {name}"


@cluster.command()
@click.option("--containers", is_flag=True, help="In containers of the Docker engine on this machine.")
@click.option("--nodes", type=int, metavar="N", help="Storage nodes to run (default: those there are, 6 at first).")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep the data in this folder (default: as last time, in the engine's volumes at first).",
)
@name_option
@click.option("--no-console", is_flag=True, help="Start no console.")
@click.option("--console-port", type=int, metavar="P", help="Port of the console (default: the first free one).")
def up(
    containers: bool, nodes: int | None, data: Path | None, name: str, no_console: bool, console_port: int | None
) -> None:
    """Start a coordinator, storage nodes and a console, each in a container.

    They have a private network that this machine reaches. The image is built when it is missing. What runs already is
    left alone, so it can be run at any time, also to add nodes.
    """
    if not containers:
        raise InvalidArgument("say --containers; `redfs up` runs a pool as processes of this machine")
    chosen = settings()
    with _pool(name) as pool:
        pool.ensure_image(lambda text: click.echo(text, err=True))
        found = pool.start(nodes, data, console=not no_console, console_port=console_port)
        image = pool.image
    result = {
        "name": name,
        "pool_id": found.pool_id,
        "coordinator": found.coordinator,
        "nodes": found.nodes,
        "console": found.console,
        "network": name,
        "started": found.started,
    }

    def human() -> None:
        verb = "is up" if found.started else "was up already"
        click.echo(f"The cluster {verb}: {output.count(found.nodes, 'node')}, coordinator at {found.coordinator}")
        if found.console:
            click.echo(f"Console at {found.console}")
        click.echo("\nNext, on this machine:")
        click.echo(f"  export REDFS_POOL={found.coordinator}")
        click.echo("  redfs volume create photos")
        click.echo("  redfs mount photos ~/photos")
        click.echo("or with a mount in a container:")
        click.echo(
            f"  docker run -d --name {name}-photos --label redfs.cluster={name} --label redfs.part=photos "
            f"--network {name} -e REDFS_POOL={found.coordinator} \\"
        )
        click.echo(
            "    --user 0 --cap-add SYS_ADMIN --device /dev/fuse --security-opt apparmor=unconfined "
            f"{image} mount photos"
        )
        click.echo(f"  docker exec -it {name}-photos bash -c 'cd /mnt/redfs/photos && bash'")
        click.echo("and at the end:")
        click.echo(f"  redfs cluster down{_named(name)}")

    chosen.emit(result, human)


@cluster.command()
@name_option
@click.option("--remove-data", is_flag=True, help="Remove the engine's volumes with all data too.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def down(name: str, remove_data: bool, yes: bool) -> None:
    """Stop the containers and remove them; the data stays.

    Unmount what is mounted on this machine first: what was not synced there would be lost. With --remove-data the
    volumes of the cluster go as well; a folder that was named with --data always stays.
    """
    chosen = settings()
    with _pool(name) as pool:
        if remove_data:
            confirm(f"Remove the cluster '{name}' with all its data?", yes=yes)
        stopped = pool.stop(remove_data=remove_data)
    text = "The cluster and its data are gone." if remove_data else "The cluster is stopped; its data stays."
    chosen.emit({"name": name, "stopped": stopped, "data_removed": remove_data}, lambda: click.echo(text))


@cluster.command()
@name_option
def status(name: str) -> None:
    """Show the cluster's containers, and the pool's health."""
    from redfs.client.api import Pool

    chosen = settings()
    with _pool(name) as containers:
        parts = containers.parts()
        url = containers.console_url()
        health, problems = "failed", []
        coordinator = ""
        try:
            coordinator = containers.coordinator()
            with Pool.connect(coordinator) as pool:
                state = pool.status()
            health, problems = state.health, list(state.problems)
        except RedfsError as error:
            problems.append(str(error))
    data = {
        "name": name,
        "health": health,
        "problems": problems,
        "coordinator": coordinator,
        "console": url,
        "parts": [vars(part) for part in parts],
    }

    def human() -> None:
        click.echo(f"{name}: {health}")
        for problem in problems:
            click.echo(f"  {problem}")
        click.echo()
        rows = [(part.name, _coloured(part.state), part.address, part.container) for part in parts]
        output.print_table(("PART", "STATE", "ADDRESS", "CONTAINER"), rows)
        click.echo()
        if coordinator:
            click.echo(f"Pool at {coordinator}" + (f", console at {url}" if url else ""))

    chosen.emit(data, human)


def _coloured(state: str) -> tuple[str, str]:
    return state, "green" if state == "running" else "red"
