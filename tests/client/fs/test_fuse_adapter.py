"""What the adapter tells the kernel where another host was faster."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest

from redfs.client.fs.config import FsConfig
from redfs.client.fs.fuse_adapter import FuseAdapter
from redfs.core.errors import FsError

INO = 1000
WHO = SimpleNamespace(uid=0, gid=0)


async def _gone(*_: Any) -> Any:
    raise FsError(errno.ENOENT)


async def _opened(*_: Any) -> int:
    return 7


def adapter(*, shared: bool, may_share: bool = False, maps_direct: bool = True) -> FuseAdapter:
    """One whose volume has nothing that it is asked for."""
    gate = SimpleNamespace(is_open=True, inside=0)
    vfs: Any = SimpleNamespace(
        gate=gate, config=FsConfig(may_share=may_share),
        is_shared=shared, is_snapshot=False, follows=False, now_ns=lambda: 1,
        getattr=_gone, opendir=_gone, mkdir=_gone, unlink=_gone, open=_gone, link=_gone,
    )  # fmt: skip
    session: Any = SimpleNamespace(is_serving=True)
    return FuseAdapter(vfs, session, maps_direct=lambda: maps_direct)


@pytest.mark.parametrize(("shared", "number"), [(True, errno.ESTALE), (False, errno.ENOENT)])
async def test_what_was_found_and_is_gone_makes_the_kernel_look_again(shared: bool, number: int) -> None:
    ours = adapter(shared=shared)
    for request in (
        ours.getattr(INO, WHO),
        ours.open(INO, 0, WHO),
        ours.opendir(INO, WHO),
        ours.mkdir(INO, b"x", 0, WHO),
        ours.link(INO, INO, b"x", WHO),
    ):
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await request
        assert raised.value.errno == number


async def test_a_name_that_is_not_there_is_not_looked_for_again() -> None:
    ours = adapter(shared=True)
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await ours.unlink(INO, b"x", WHO)
    assert raised.value.errno == errno.ENOENT


@pytest.mark.parametrize("maps_direct", [True, False])
@pytest.mark.parametrize(("may_share", "shared"), [(True, False), (False, True), (False, False)])
async def test_pages_are_not_kept_where_others_may_write_too(may_share: bool, shared: bool, maps_direct: bool) -> None:
    """But for kernels that could not map such files then; appends never go through pages: the kernel would send one in
    pieces."""
    ours = adapter(shared=shared, may_share=may_share, maps_direct=maps_direct)
    vfs: Any = ours.vfs
    vfs.open = _opened
    assert (await ours.open(INO, os.O_WRONLY | os.O_APPEND, WHO)).direct_io == (may_share or shared)
    assert (await ours.open(INO, os.O_RDWR, WHO)).direct_io == ((may_share or shared) and maps_direct)


@pytest.mark.parametrize(("uid", "kept"), [(0, 0o6777), (1000, 0o777)])
async def test_a_write_past_the_pages_takes_privileges_away_as_the_kernel_does(uid: int, kept: int) -> None:
    ours = adapter(shared=True)
    vfs: Any = ours.vfs
    modes, removed = [0o106777], []

    async def setattr_(ctx: Any, ino: int, *, mode: int) -> None:
        modes.append(mode)

    async def getattr_(ino: int) -> Any:
        return SimpleNamespace(mode=modes[-1])

    async def removexattr(ctx: Any, ino: int, name: bytes) -> None:
        removed.append(name)

    async def done(*_: Any) -> int:
        return 1

    vfs.open, vfs.getattr, vfs.setattr, vfs.removexattr = _opened, getattr_, setattr_, removexattr
    vfs.lacks_attribute, vfs.getxattr, vfs.write = lambda *_: False, done, done
    vfs.inode_of = lambda _: INO
    await ours.open(INO, os.O_WRONLY, SimpleNamespace(uid=uid, gid=0))
    await ours.write(7, 0, b"x")
    assert modes[-1] & 0o7777 == kept
    assert removed == [b"security.capability"]
