"""What every command shares: the global options, the pool they name, and one way to print.

The global options work before and after the verb (`redfs --json tree`, `redfs tree --json`). A command hands `emit` its
result twice: as plain data for --json, and as a function that prints for people. Nothing here talks to a pool before a
command asks for it, and heavy imports wait until then: `redfs --help` must feel instant.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redfs.client.config import PoolPlace, default_pool_folder, find_pool, looks_like_address, wanted_pool
from redfs.core.errors import InvalidArgument

if TYPE_CHECKING:
    from redfs.client.api import Pool
    from redfs.client.local_pool import LocalPool


class Settings:
    """The global options of one run."""

    def __init__(self) -> None:
        self.pool: str | None = None
        self.json = False
        self.debug = False

    def place(self) -> PoolPlace:
        """The pool that is meant. Raises InvalidArgument, NotFound, WrongFormat."""
        return find_pool(wanted_pool(self.pool))

    def connect(self) -> Pool:
        """An open connection to that pool's coordinator."""
        from redfs.client.api import Pool

        return Pool.connect(wanted_pool(self.pool))

    def local(self, data: Path | None = None) -> LocalPool:
        """The pool on this machine: `data`, else the folder that --pool or its like names, else the default one."""
        from redfs.client.local_pool import LocalPool

        if data is None:
            named = wanted_pool(self.pool)
            if looks_like_address(named):
                # A command for this machine's processes, and the usual pool is elsewhere: the default folder is meant,
                # unless the address was said right here.
                if self.pool is not None:
                    raise InvalidArgument(
                        f"'{named}' is an address: name the pool's folder, as --pool DIR or --data DIR"
                    )
                data = default_pool_folder()
            else:
                data = Path(named)
        return LocalPool(data)

    def emit(self, data: Any, human: Callable[[], None]) -> None:
        """Prints a command's result: `data` as JSON, or what `human` prints."""
        if self.json:
            sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
        else:
            human()


def settings(context: click.Context | None = None) -> Settings:
    """The settings of the running command."""
    found = (context or click.get_current_context()).find_root().ensure_object(Settings)
    assert isinstance(found, Settings)
    return found


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    # Not given here must not undo what was given before the verb.
    if value and parameter.name is not None:
        setattr(settings(context), parameter.name, value)


def global_options(*, hidden: bool = False) -> list[click.Option]:
    """Fresh option objects, for the root and for each command."""
    return [
        click.Option(
            ["--pool"],
            metavar="POOL",
            expose_value=False,
            callback=_remember,
            hidden=hidden,
            help="The pool: HOST:PORT or a folder of `redfs up` (else REDFS_POOL, the config file, the default folder)",
        ),
        click.Option(
            ["--json"], is_flag=True, expose_value=False, callback=_remember, hidden=hidden, help="Print JSON."
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            callback=_remember,
            hidden=hidden,
            help="Show where an unexpected error came from.",
        ),
    ]


class Command(click.Command):
    """A command that takes the global options after its name too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(global_options(hidden=True))


class Group(click.Group):
    """A noun with verbs; its commands come in the order in which they are written, the order of a first visit."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(global_options(hidden=True))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


Group.group_class = Group


def confirm(question: str, *, yes: bool) -> None:
    """Asks before something is destroyed, unless --yes was given. Without a terminal, --yes is needed."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidArgument(f"{question} Say so with --yes")
    if not click.confirm(question, err=True):
        raise click.Abort
