"""Files and folders of a view as streams: in bounded memory, with read-ahead, ended when the browser goes.

A file is sent with its length, Range and If-Range are understood (one range; several are answered with the whole, as
RFC 9110 allows). A folder is sent as a tar while it is walked: depth first, one page of entries in memory and a place
for each level above; links, modes, owners and times to the nanosecond (pax). Sockets are left out, tar has none.

The first bytes are read before the answer begins, so what cannot be read is an error with its status. What fails later
breaks the connection off: a shorter file never looks whole. A view holds still, so a download is of one instant.
"""

from __future__ import annotations

import contextlib
import re
import stat
import tarfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

from redfs.client.console import paths
from redfs.client.console.browse import FIRST_COOKIE, NOBODY, where
from redfs.client.console.streaming import Streamed
from redfs.client.console.views import View
from redfs.core.errors import Corrupt, InvalidArgument
from redfs.core.namespace import Entry
from redfs.core.records import Inode

CHUNK_BYTES = 1 << 20
"""Read and sent at once: a handful of blocks, little beside what is read ahead."""
TAR_PAGE = 64
"""Entries of a folder looked at together; a folder is looked up again behind each folder in it."""
MAX_DEPTH = 4096
"""Folders in one another: a path of that many names is longer than any program can open."""
MAX_LINKS = 65_536
"""Files with several names whose first name is remembered, so that the others become links; beyond, copies."""
TAR_RECORD_BYTES = 10_240
"""A tar ends on a multiple of this."""

_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z", re.ASCII)
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 !#$&+.^_`{}~@()\-]")


def content_disposition(name: str) -> str:
    """`attachment` with the name as it is (RFC 5987) and as near as ASCII comes to it (RFC 6266)."""
    plain = _NOT_PLAIN.sub("_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


class Part(NamedTuple):
    """The bytes of a file that an answer holds."""

    start: int
    length: int
    is_range: bool


def wanted_part(size: int, etag: str, headers: Mapping[str, str]) -> Part | None:
    """What a request's Range asks for; the whole where it asks for none that counts; None: behind the end."""
    whole = Part(0, size, False)
    found = _RANGE.match(headers.get("range", ""))
    if found is None or found[0] == "bytes=-" or headers.get("if-range", etag) != etag:
        return whole
    first, last = found[1][:20], found[2][:20]
    if not first:
        length = min(int(last), size)
        return Part(size - length, length, True) if length else None
    start = int(first)
    if last and int(last) < start:
        return whole
    if start >= size:
        return None
    end = min(int(last), size - 1) if last else size - 1
    return Part(start, end + 1 - start, True)


def etag_of(view: View, entry: Entry) -> str:
    """Changes whenever the file does."""
    inode = entry.inode
    return f'"{view.node.volume_id:x}-{entry.ino:x}-{inode.ctime_ns:x}-{inode.mtime_ns:x}-{inode.size:x}"'


async def file_bytes(view: View, ino: int, start: int, length: int) -> AsyncGenerator[bytes]:
    """A range of a file, in chunks. Corrupt where the file ends before its size."""
    vfs = view.vfs
    handle = await vfs.open(NOBODY, ino, 0)
    try:
        end = start + length
        while start < end:
            # The buffer is good until the next await only, and sending waits.
            data = bytes(await vfs.read(handle, start, min(CHUNK_BYTES, end - start)))
            if not data:
                raise Corrupt(f"inode {ino} of '{view.node.name}' ends before its size: run `redfs check`")
            start += len(data)
            yield data
    finally:
        await vfs.release(NOBODY, handle)


# ---------------------------------------------------------------- tar


class _Level:
    """A folder that is being walked."""

    __slots__ = ("cookie", "handle", "name")

    def __init__(self, name: bytes, handle: int) -> None:
        self.name = name
        self.handle = handle
        self.cookie = FIRST_COOKIE


async def tar_bytes(view: View, top: Entry, name: bytes) -> AsyncGenerator[bytes]:
    """A folder and all below it as a tar whose top is called `name`."""
    vfs = view.vfs
    links: dict[int, bytes] = {}
    sent = 0
    levels: list[_Level] = []
    try:
        head = _header(name, top.inode, b"")
        sent += len(head)
        yield head
        levels.append(_Level(name, await vfs.opendir(top.ino)))
        while levels:
            level = levels[-1]
            listed = await vfs.readdir(level.handle, level.cookie, TAR_PAGE)
            if not listed:
                levels.pop()
                await vfs.releasedir(NOBODY, level.handle)
                continue
            for item, inode in listed:
                level.cookie = item.cookie
                path = b"/".join([*(above.name for above in levels), item.name])
                if stat.S_ISSOCK(inode.mode):
                    continue
                linked = links.get(item.ino, b"") if inode.nlink > 1 and not stat.S_ISDIR(inode.mode) else b""
                head = _header(path, inode, linked)
                sent += len(head)
                yield head
                if stat.S_ISDIR(inode.mode):
                    if len(levels) >= MAX_DEPTH:
                        raise Corrupt(f"'{view.node.name}' has folders more than {MAX_DEPTH} deep in one another")
                    levels.append(_Level(item.name, await vfs.opendir(item.ino)))
                    break
                if linked:
                    continue
                if inode.nlink > 1 and len(links) < MAX_LINKS:
                    links[item.ino] = path
                if stat.S_ISREG(inode.mode):
                    async with contextlib.aclosing(file_bytes(view, item.ino, 0, inode.size)) as data:
                        async for chunk in data:
                            yield chunk
                    padding = bytes(-inode.size % tarfile.BLOCKSIZE)
                    sent += inode.size + len(padding)
                    yield padding
        rest = 2 * tarfile.BLOCKSIZE
        yield bytes(rest + -(sent + rest) % TAR_RECORD_BYTES)
    finally:
        for level in levels:
            await vfs.releasedir(NOBODY, level.handle)


def _header(path: bytes, inode: Inode, linked: bytes) -> bytes:
    """The blocks before an entry's data."""
    info = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
    info.mode = stat.S_IMODE(inode.mode)
    info.uid, info.gid = inode.uid, inode.gid
    seconds, nanoseconds = divmod(inode.mtime_ns, 1_000_000_000)
    info.mtime = seconds
    if nanoseconds or seconds < 0:
        exact = abs(inode.mtime_ns)
        sign = "-" if inode.mtime_ns < 0 else ""
        info.pax_headers = {"mtime": f"{sign}{exact // 1_000_000_000}.{exact % 1_000_000_000:09}"}
    if linked:
        info.type = tarfile.LNKTYPE
        info.linkname = linked.decode("utf-8", "surrogateescape")
    elif stat.S_ISDIR(inode.mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(inode.mode):
        info.type = tarfile.SYMTYPE
        info.linkname = inode.symlink.decode("utf-8", "surrogateescape")
    elif stat.S_ISFIFO(inode.mode):
        info.type = tarfile.FIFOTYPE
    elif stat.S_ISREG(inode.mode):
        info.size = inode.size
    else:
        info.type = tarfile.CHRTYPE if stat.S_ISCHR(inode.mode) else tarfile.BLKTYPE
        info.devmajor, info.devminor = _device(inode.rdev)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _device(rdev: int) -> tuple[int, int]:
    """(major, minor) of the kernel's 32-bit form."""
    return rdev >> 8 & 0xFFF, rdev & 0xFF | rdev >> 12 & 0xFFF00


# ---------------------------------------------------------------- the answer


async def answer(
    view: View,
    entry: Entry,
    names: Sequence[bytes],
    headers: Mapping[str, str],
    held: contextlib.AsyncExitStack,
    *,
    head: bool,
) -> Streamed:
    """The answer to a request for what lies at a path; it takes over `held`."""
    inode = entry.inode
    name = paths.shown(names[-1]) if names else view.node.name
    what = where(view, names)
    if stat.S_ISDIR(inode.mode):
        top = names[-1] if names else view.node.name.encode()
        tar = None if head else tar_bytes(view, entry, top)
        about = {"Content-Type": "application/x-tar", "Content-Disposition": content_disposition(f"{name}.tar")}
        return Streamed(tar, about, what=what, first=b"" if tar is None else await anext(tar), held=held)
    if not stat.S_ISREG(inode.mode):
        raise InvalidArgument(f"{what} is neither a file nor a folder: there is nothing to download")
    etag = etag_of(view, entry)
    part = wanted_part(inode.size, etag, headers)
    if part is None:
        behind = {"Content-Range": f"bytes */{inode.size}", "Content-Length": "0", "ETag": etag}
        return Streamed(None, behind, what=what, status_code=416, held=held)
    of_file = {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": content_disposition(name),
        "Content-Length": str(part.length),
        "Accept-Ranges": "bytes",
        "ETag": etag,
    }
    if part.is_range:
        of_file["Content-Range"] = f"bytes {part.start}-{part.start + part.length - 1}/{inode.size}"
    data = None if head else file_bytes(view, entry.ino, part.start, part.length)
    first = b"" if data is None else await anext(data, b"")
    status = 206 if part.is_range else 200
    return Streamed(data, of_file, what=what, first=first, status_code=status, held=held)
