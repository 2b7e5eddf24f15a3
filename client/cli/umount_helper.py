"""`umount.fuse` and `umount.fuse.redfs`: what umount(8) runs for a mounted volume, so that it returns when all is safe.

Called as `umount.fuse DIR [-lfnvr] [-t TYPE] [-N NAMESPACE]`. Without it umount(8) returns at once, while the mount's
process still stores what programs wrote. With -l it does so still: the mount may be in use for long.

umount(8) spares itself the look for the whole type where it can (libmount asks statfs), and then knows of a mount only
that it is FUSE's. So the helper has two names, and gives what is none of ours back to umount(8).

Exit codes of umount(8): 1 for a wrong call, 32 for a mount that is in use, or whose data could not all be saved.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from redfs.client.cli.mount_helper import FAILED, WRONG_CALL, HelperParser
from redfs.core.errors import InvalidArgument, RedfsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Unmounts. The exit code."""
    from redfs.client import mounting

    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        call = _parse(words)
        mounted = mounting.mounted_at(Path(os.path.realpath(call.folder)))
        if mounted is not None and mounted.fs_type != mounting.FUSE_TYPE:
            os.execvp("umount", ["umount", "-i", *words])
        mounting.unmount(Path(call.folder), lazy=call.lazy, force=call.force)
    except RedfsError as error:
        print(f"umount.fuse.redfs: {error}", file=sys.stderr)
        return WRONG_CALL if isinstance(error, InvalidArgument) else FAILED
    if call.verbose:
        print(f"{call.folder} is unmounted")
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = HelperParser(prog="umount.fuse.redfs", description="Unmounts for umount(8).", allow_abbrev=False)
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("-l", dest="lazy", action="store_true", help="detach at once, wait for nothing")
    parser.add_argument("-f", dest="force", action="store_true", help="also end requests that hang")
    parser.add_argument("-v", dest="verbose", action="store_true", help="say what was unmounted")
    parser.add_argument("-n", action="store_true", help="accepted: nothing is written to /etc/mtab")
    parser.add_argument("-r", action="store_true", help="accepted: a mount cannot be made read-only")
    parser.add_argument("-t", dest="type", help="accepted: the type under which umount(8) called")
    parser.add_argument("-N", dest="namespace", help="accepted: umount(8) has entered it already")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
