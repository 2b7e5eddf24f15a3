"""Real programs by hand: `python -m tests.programs --folder DIR [--scale N] [--only NAME]`.

`--folder` names a folder of the file system to judge: a mount, or any other for comparison. Given twice, the second is
the same folder through another mount: what one wrote is then read through the other, and the Maildir is used by both.
With `--pool` and `--volume` the folder is a mount of that volume, and it is remounted and killed meanwhile. Ends with
exit code 1 when a check fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from redfs.client import mounting
from tests.programs.checks import CHECKS
from tests.programs.place import Missing, Place

GONE_S = 30.0


def main() -> int:
    """Runs what the command line says; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.programs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, action="append", required=True, help="where to work")
    parser.add_argument("--scale", type=float, default=1.0, help="how much to do (1: some seconds for each check)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=list(CHECKS), help="a check to run (default: all)")
    parser.add_argument("--skip", action="append", default=[], choices=list(CHECKS), help="a check not to run")
    parser.add_argument("--reference", type=Path, help="a folder of a local file system (default: a temporary one)")
    parser.add_argument("--pool", help="the volume's pool, for remounts and kills")
    parser.add_argument("--volume", help="the volume that is mounted on the folder, for remounts and kills")
    parser.add_argument("--keep", action="store_true", help="leave the files of a check that failed")
    options = parser.parse_args()
    if (options.pool is None) != (options.volume is None) or (options.pool and len(options.folder) > 1):
        parser.error("remounts need --pool and --volume, and one --folder")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what a check has started is ended
    mount = Mount(options.folder[0].resolve(), options.pool, options.volume) if options.pool else None
    failed = 0
    for name in options.only or [name for name in CHECKS if name not in options.skip]:
        reference = Path(tempfile.mkdtemp(prefix=f"programs-{name}-", dir=options.reference))
        reference.chmod(0o755)
        base = f"{name}-{os.getpid()}"
        views = tuple(folder.resolve() / base for folder in options.folder)
        views[0].mkdir()
        again, kill = (mount.again, mount.kill) if mount else (None, None)
        place = Place(views, reference, options.scale, again, kill, options.seed)
        began = time.monotonic()
        try:
            CHECKS[name](place)
            verdict = "good"
        except Missing as missing:
            verdict = f"skipped: {missing}"
        except Exception:  # noqa: BLE001  # shown, and the others still run
            traceback.print_exc()
            failed += 1
            verdict = "FAILED"
        print(f"{name:10} {time.monotonic() - began:7.1f} s  {verdict}", flush=True)
        if verdict != "FAILED" or not options.keep:
            shutil.rmtree(views[0], ignore_errors=True)
            shutil.rmtree(reference, ignore_errors=True)
    return 1 if failed else 0


class Mount:
    """The mount that is judged, for those who remount and kill it."""

    def __init__(self, folder: Path, pool: str, volume: str) -> None:
        self.folder, self.pool, self.volume = folder, pool, volume

    def again(self) -> None:
        """Unmounts, also what was killed, and mounts."""
        self._redfs("umount", str(self.folder))
        self._redfs("mount", self.volume, str(self.folder))

    def kill(self) -> None:
        """kill -9 of the mount's process."""
        record = mounting.find_record(self.folder)
        assert record is not None, f"nothing of RedFS is mounted on {self.folder}"
        os.kill(record.pid, signal.SIGKILL)
        deadline = time.monotonic() + GONE_S
        while mounting.process_started(record.pid) == record.started:
            assert time.monotonic() < deadline, "the mount's process does not end"
            time.sleep(0.02)

    def _redfs(self, *words: str) -> None:
        command = [sys.executable, "-m", "redfs.client.cli.main", "--pool", self.pool, *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")


if __name__ == "__main__":
    sys.exit(main())
