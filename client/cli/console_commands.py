"""`redfs console`: the web page and the REST API, in this terminal."""

from __future__ import annotations

import json
import sys

import click

from redfs.client.cli.settings import Command, settings


@click.command(cls=Command)
@click.option(
    "--listen", metavar="HOST:PORT", default="127.0.0.1:7480", show_default=True, help="Where browsers find it."
)
@click.option(
    "--allow-host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="A name under which it may be asked for, too. Repeatable.",
)
def console(listen: str, hosts: tuple[str, ...]) -> None:
    """Serve the web console of the pool until Ctrl-C.

    There is no log-in: who reaches the address can do everything. Leave it on 127.0.0.1 and come through ssh
    (ssh -L 7480:127.0.0.1:7480 MACHINE), or keep the network that it listens on to yourself. `redfs up` starts one in
    the background.
    """
    from redfs.client.console.server import serve

    chosen = settings()

    def said(url: str) -> None:
        if chosen.json:
            sys.stdout.write(json.dumps({"console": url}) + "\n")
        else:
            click.echo(f"Console at {url}")
        sys.stdout.flush()

    serve(chosen.place(), listen, hosts, said)
