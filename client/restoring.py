"""A lost coordinator made anew, for the command line: runs the coordinator's own `restore` as a process.

For a pool of `redfs up` the storage nodes are started first, without a coordinator, and their addresses found;
elsewhere the caller names them. Whatever the process says in its last line is the error here, with its class.

Raises Busy (the coordinator runs), and what the restore raises; a retry is safe.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redfs.client.local_pool import LocalPool, running_pid
from redfs.core.errors import BY_CODE, Busy, InternalError, RedfsError

LAST_WORDS = "redfs: "


def restore_coordinator(
    data: Path,
    nodes: Sequence[str],
    *,
    pool_id: str = "",
    force: bool = False,
    settings: Sequence[str] = (),
    python: str = sys.executable,
) -> dict[str, Any]:
    """Makes the coordinator's folder `data` anew from these nodes' journals. What was restored, as plain data.

    Takes as long as reading the metadata once; there is no time after which it gives up.
    """
    words = [python, "-m", "redfs.coordinator", "restore", "--data", str(data), *settings]
    for node in nodes:
        words += ["--node", node]
    if pool_id:
        words += ["--pool-id", pool_id]
    if force:
        words.append("--force")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _error_of(done.returncode, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def restore_local(local: LocalPool, *, force: bool = False) -> dict[str, Any]:
    """The same for a pool of `redfs up`. The nodes run afterwards; `redfs up` starts the rest."""
    pool = local.pool_file()
    coordinator = local.coordinator()
    pid = running_pid(coordinator)
    if pid is not None:
        raise Busy(f"the coordinator runs (process {pid}): stop it first, with `redfs down --data {local.folder}`")
    addresses = local.start_nodes_alone()
    return restore_coordinator(
        coordinator.folder,
        addresses,
        pool_id=pool.pool_id,
        force=force,
        settings=local.coordinator_settings(),
    )


def _error_of(exit_code: int, said: str) -> RedfsError:
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
    kind = next((cls for cls in BY_CODE.values() if cls.exit_code == exit_code), None)
    if kind is None or not last.startswith(LAST_WORDS):
        return InternalError(f"the restore ended with code {exit_code}: {last}")
    return kind(last.removeprefix(LAST_WORDS))
