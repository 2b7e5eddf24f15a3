"""What the adapter tells the kernel where another host was faster."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest

from redfs.client.fs.fuse_adapter import FuseAdapter
from redfs.core.errors import FsError

INO = 1000


async def _gone(*_: Any) -> Any:
    raise FsError(errno.ENOENT)


def adapter(*, shared: bool) -> FuseAdapter:
    """One whose volume has nothing that it is asked for."""
    gate = SimpleNamespace(is_open=True, inside=0)
    vfs: Any = SimpleNamespace(
        gate=gate, is_shared=shared, is_snapshot=False, follows=False, now_ns=lambda: 1,
        getattr=_gone, opendir=_gone, mkdir=_gone, unlink=_gone, open=_gone, link=_gone,
    )  # fmt: skip
    session: Any = SimpleNamespace(is_serving=True)
    return FuseAdapter(vfs, session)


@pytest.mark.parametrize(("shared", "number"), [(True, errno.ESTALE), (False, errno.ENOENT)])
async def test_what_was_found_and_is_gone_makes_the_kernel_look_again(shared: bool, number: int) -> None:
    ours = adapter(shared=shared)
    who = SimpleNamespace(uid=0, gid=0)
    for request in (
        ours.getattr(INO, who),
        ours.open(INO, 0, who),
        ours.opendir(INO, who),
        ours.mkdir(INO, b"x", 0, who),
        ours.link(INO, INO, b"x", who),
    ):
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await request
        assert raised.value.errno == number


async def test_a_name_that_is_not_there_is_not_looked_for_again() -> None:
    ours = adapter(shared=True)
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await ours.unlink(INO, b"x", SimpleNamespace(uid=0, gid=0))
    assert raised.value.errno == errno.ENOENT


@pytest.mark.parametrize("shared", [True, False])
async def test_an_append_is_one_request(shared: bool) -> None:
    """Through its pages, the kernel sends one in pieces."""

    ours = adapter(shared=shared)

    async def opened(*_: Any) -> int:
        return 7

    ours.vfs.open = opened  # type: ignore[method-assign, assignment]
    who = SimpleNamespace(uid=0, gid=0)
    assert (await ours.open(INO, os.O_WRONLY | os.O_APPEND, who)).direct_io
    assert not (await ours.open(INO, os.O_WRONLY, who)).direct_io
