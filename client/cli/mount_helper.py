"""`mount.fuse.redfs` and `mount.redfs`: what mount(8) runs for `mount -t fuse.redfs VOLUME DIR` and for /etc/fstab.

Called as `mount.fuse.redfs SPEC DIR [-sfnv] [-o OPTIONS] [-t TYPE] [-N NAMESPACE]`. SPEC is VOLUME[@SNAPSHOT], also
written `redfs:VOLUME`, as mounts show it. It returns when the mount answers. Says in one line what is wrong, with the
exit codes of mount(8): 1 for a wrong call, 32 for a mount that failed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from redfs.client.mount_options import SOURCE_PREFIX, parse_options
from redfs.core.errors import InvalidArgument, RedfsError

WRONG_CALL, FAILED = 1, 32


class HelperParser(argparse.ArgumentParser):
    """Raises InvalidArgument for what it does not understand."""

    def error(self, message: str) -> None:  # type: ignore[override]  # raises, as the original exits
        raise InvalidArgument(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Mounts. The exit code."""
    try:
        call = _parse(sys.argv[1:] if arguments is None else arguments)
        options = parse_options(",".join(call.options), trusted=os.geteuid() == 0, sloppy=call.sloppy)
    except InvalidArgument as error:
        return _say(error, WRONG_CALL)
    if call.fake:
        return 0
    from redfs.client.cli.mount_commands import mount_when_free
    from redfs.client.config import wanted_pool

    volume: str = call.volume.removeprefix(SOURCE_PREFIX)
    try:
        mount_when_free(wanted_pool(options.pool), volume, Path(call.folder), options, tell=_tell)
    except RedfsError as error:
        return _say(error, FAILED)
    if call.verbose:
        print(f"{SOURCE_PREFIX}{volume} is mounted on {call.folder}")
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = HelperParser(
        prog="mount.fuse.redfs", description="Mounts a RedFS volume for mount(8).", allow_abbrev=False
    )
    parser.add_argument("volume", metavar="VOLUME[@SNAPSHOT]")
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("-o", dest="options", action="append", default=[], help="options, separated by commas")
    parser.add_argument("-s", dest="sloppy", action="store_true", help="ignore unknown options")
    parser.add_argument("-f", dest="fake", action="store_true", help="check the options, mount nothing")
    parser.add_argument("-v", dest="verbose", action="store_true", help="say what was mounted")
    parser.add_argument("-n", action="store_true", help="accepted: nothing is written to /etc/mtab")
    parser.add_argument("-r", dest="options", action="append_const", const="ro", help="read-only")
    parser.add_argument("-w", dest="options", action="append_const", const="rw", help="read-write")
    parser.add_argument("-t", dest="type", help="accepted: the type under which mount(8) called")
    parser.add_argument("-N", dest="namespace", help="accepted: mount(8) has entered it already")
    return parser.parse_args(arguments)


def _say(error: RedfsError, code: int) -> int:
    _tell(str(error))
    return code


def _tell(text: str) -> None:
    print(f"mount.fuse.redfs: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
