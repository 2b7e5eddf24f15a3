"""The program `redfs`: its commands, and what a user sees when one fails.

Every failure is one line on stderr, `redfs: what is wrong and what to do`, and the exit code of its class
(`core/errors.py`, listed in docs/cli.md); never a traceback. What nobody expected goes to a log file with its
traceback, and the line says where; --debug shows it at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from redfs import __version__
from redfs.client.cli import (
    console_commands,
    copy_commands,
    diff_commands,
    job_commands,
    mount_commands,
    node_commands,
    pool_commands,
    schedule_commands,
    scrub_commands,
    send_commands,
    volume_commands,
)
from redfs.client.cli.settings import Group, Settings, global_options, settings
from redfs.client.config import log_path
from redfs.core.errors import FsError, InternalError, InvalidArgument, RedfsError

log = logging.getLogger("redfs.cli")

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
LOG_BYTES = 1 << 20
"""The log starts afresh beyond this, so that a failing script does not fill the home folder."""


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def redfs() -> None:
    """A storage pool over networked disks: protected volumes with instant snapshots and clones.

    \b
    A first look:
      redfs up
      redfs volume create photos --protect ec:4+2
      redfs mount photos ~/photos
      redfs snapshot create photos@before
      redfs clone photos@before try-it
      redfs tree
    """


redfs.params[:] = global_options()
for command in (
    pool_commands.up,
    pool_commands.down,
    pool_commands.status,
    pool_commands.tree,
    pool_commands.check,
    volume_commands.volume,
    volume_commands.snapshot,
    volume_commands.clone,
    volume_commands.rollback,
    copy_commands.cp,
    diff_commands.diff,
    send_commands.send,
    send_commands.receive,
    mount_commands.mount,
    mount_commands.umount,
    node_commands.node,
    job_commands.list_jobs,
    job_commands.job,
    job_commands.rebalance,
    scrub_commands.scrub,
    job_commands.clean,
    console_commands.console,
):
    redfs.add_command(command)
for verb in schedule_commands.COMMANDS:
    volume_commands.snapshot.add_command(verb)


@redfs.command()
def version() -> None:
    """Print the version of RedFS."""
    settings().emit({"version": __version__}, lambda: click.echo(f"redfs {__version__}"))


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    chosen = Settings()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        result = redfs.main(args=words, prog_name="redfs", standalone_mode=False, obj=chosen)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "")
        return InvalidArgument.exit_code
    except click.UsageError as error:
        where = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
        return _fail(chosen, InvalidArgument(error.format_message().rstrip(".") + where))
    except click.ClickException as error:
        return _fail(chosen, InvalidArgument(error.format_message()))
    except (click.Abort, KeyboardInterrupt):
        click.echo("redfs: stopped", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went (`redfs tree | head`): what is left to print has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except RedfsError as error:
        return _fail(chosen, error)
    except Exception as error:
        # One line for the user, everything for the log.
        with _log_file() as path:
            log.exception("unexpected error in: redfs %s", " ".join(words))
        if chosen.debug:
            raise
        where = f"see {path}, or run it again with --debug" if path else "run it again with --debug"
        return _fail(chosen, InternalError(f"unexpected {type(error).__name__}: {error} ({where})"))


def _fail(chosen: Settings, error: RedfsError) -> int:
    """Says what went wrong, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, FsError) and error.errno:
        text = f"{text} (errno {error.errno})"
    if chosen.json:
        line = json.dumps({"error": {"code": error.code, "exit_code": error.exit_code, "message": text}})
    else:
        line = f"redfs: {text}"
    click.echo(line, err=True)
    return error.exit_code


@contextlib.contextmanager
def _log_file() -> Iterator[Path | None]:
    """Sends what this module logs to the user's log file; None where that cannot be written."""
    path = log_path()
    handler: logging.Handler = logging.NullHandler()
    written: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = "a" if not path.exists() or path.stat().st_size < LOG_BYTES else "w"
        handler = logging.FileHandler(path, mode=mode, encoding="utf-8")
        written = path
    except OSError:
        pass  # the line for the user still comes, and --debug shows the rest
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.propagate = False
    try:
        yield written
    finally:
        log.removeHandler(handler)
        handler.close()


if __name__ == "__main__":
    sys.exit(main())
