"""The process that looks at a mount, on a plain folder."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from redfs.client.fs.kernel_cache import KernelCache
from redfs.client.fs.own_mount import OwnMount

WAIT_S = 60.0


async def test_it_answers_whatever_it_finds_and_ends_when_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    own = OwnMount(tmp_path)
    await own.stat()
    await own.sync()
    seen = await own.look_at([[b"a", b"b"], [b"not", b"there"], [b"\xff" * 200]])
    assert seen == [(tmp_path / "a" / "b").stat().st_ino, 0, 0]
    process = own._process
    assert process is not None
    assert process.poll() is None
    await own.close()
    assert process.wait(WAIT_S) == -signal.SIGKILL


async def test_it_is_started_again_after_its_end_and_after_a_request_that_was_given_up(tmp_path: Path) -> None:
    own = OwnMount(tmp_path)
    await own.sync()
    first = own._process
    assert first is not None
    os.kill(first.pid, signal.SIGSTOP)
    asking = asyncio.ensure_future(own.sync())
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert asking.cancelled()
    await own.sync()
    second = own._process
    assert second is not None
    assert second is not first
    await own.close()


async def test_a_process_that_loses_its_input_ends(tmp_path: Path) -> None:
    own = OwnMount(tmp_path)
    await own.sync()
    process = own._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(WAIT_S) == 0
    await own.close()


@pytest.mark.parametrize("is_shared", [False, True])
async def test_where_a_volume_is_shared_the_process_is_there_before_a_folder_moves(
    tmp_path: Path, is_shared: bool
) -> None:
    cache = KernelCache(tmp_path)
    await cache.answers(is_shared=is_shared)
    assert bool(cache._own_mount.pid) == is_shared
    await cache.close()
    assert cache._own_mount.pid == 0
