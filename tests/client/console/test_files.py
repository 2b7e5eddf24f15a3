"""Browsing, versions and downloads over HTTP, from volumes in plain memory with names and files of every kind."""

from __future__ import annotations

import asyncio
import io
import stat
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import httpx
import pytest

from redfs.client.console import browse, download, streaming
from redfs.client.console.browse import Versions
from redfs.client.console.download import Part, content_disposition, wanted_part
from redfs.client.console.models import FolderPage, PathVersion
from redfs.client.console.views import Backend, View
from redfs.core.errors import Corrupt, NotFound, Unavailable
from redfs.core.records import SLOT_BYTES
from redfs.proto.gen import cluster_pb2 as pb
from tests.client.console.rig import ConsoleCoordinator, Site, refused, until
from tests.client.fs.fakes import FakeCoordinator, Mount

ODD_NAMES = [b"plain", b"with space", "ünï".encode(), b"\xff\xfe", b"100%", b"a+b&c=d#e?f", b'quo"te', b"new\nline"]


class MemoryViews:
    """In the place of the console's views: nodes are volumes in memory."""

    def __init__(self) -> None:
        self.nodes: dict[str, View] = {}
        self.mounts: dict[str, Mount] = {}

    def add(self, name: str, coordinator: FakeCoordinator, volume_id: int = 3) -> View:
        mount = Mount(coordinator, snapshot=True)
        backend = SimpleNamespace(session=mount.session, lapsed=False)
        node = pb.Volume(name=name, volume_id=volume_id, kind="snapshot" if "@" in name else "live")
        self.mounts[name] = mount
        self.nodes[name] = View(node, cast(Backend, backend), mount.vfs, 0.0)
        return self.nodes[name]

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[View]:
        if name not in self.nodes:
            raise NotFound(f"no volume '{name}'")
        view = self.nodes[name]
        view.users += 1
        try:
            yield view
        finally:
            view.users -= 1

    def tick(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
async def views(console: Site) -> MemoryViews:
    parts = console.console.parts
    assert parts is not None
    found = MemoryViews()
    parts.views = cast(Any, found)
    parts.versions = Versions(parts.coordinator, cast(Any, found))
    return found


async def odd_volume(views: MemoryViews) -> Mount:
    """`photos`: a folder of odd names, links, a large file, a special one."""
    mount = Mount()
    vfs = await mount.start()
    folder = (await vfs.mkdir(mount.ctx, 1, b"odd", 0o750)).ino
    for name in ODD_NAMES:
        await mount.write_file(name, b"I am " + name, folder)
    await vfs.symlink(mount.ctx, folder, b"link", b"to/\xff")
    await vfs.mkdir(mount.ctx, folder, b"empty", 0o700)
    await vfs.mknod(mount.ctx, folder, b"pipe", stat.S_IFIFO | 0o600, 0)
    await mount.write_file(b"large", bytes(range(256)) * 8192)
    await vfs.close()
    views.add("photos", mount.coordinator)
    return mount


async def test_every_name_of_a_folder_can_be_seen_and_fetched(console: Site, views: MemoryViews) -> None:
    await odd_volume(views)
    page = await console.data("/browse/photos?path=/odd")
    FolderPage.model_validate(page, strict=True)
    assert (page["node"], page["path"], page["next"]) == ("photos", "/odd", None)
    entries = {unquote_to_bytes(entry["path"]): entry for entry in page["entries"]}
    assert set(entries) == {b"/odd/" + name for name in [*ODD_NAMES, b"link", b"empty", b"pipe"]}
    assert entries[b"/odd/\xff\xfe"]["name"] == "\ufffd\ufffd"
    assert entries["/odd/ünï".encode()]["name"] == "ünï"
    assert (entries[b"/odd/link"]["kind"], entries[b"/odd/link"]["target"]) == ("symlink", "to/\ufffd")
    assert (entries[b"/odd/pipe"]["kind"], entries[b"/odd/empty"]["kind"]) == ("special", "folder")
    assert entries[b"/odd/plain"]["size"] == len(b"I am plain")
    for name in ODD_NAMES:
        answer = await console.get(f"/download/photos?path={entries[b'/odd/' + name]['path']}")
        assert answer.content == b"I am " + name
    # A path made of text by any program's own URL functions means the same.
    assert (await console.get("/download/photos", params={"path": "/odd/a+b&c=d#e?f"})).content == b"I am a+b&c=d#e?f"
    assert (await console.get("/download/photos", params={"path": "odd//./ünï/"})).content == "I am ünï".encode()


async def test_pages_of_a_folder_hold_each_entry_once(console: Site, views: MemoryViews) -> None:
    mount = Mount()
    await mount.start()
    for number in range(57):
        await mount.write_file(b"f%d" % number, b"")
    await mount.vfs.close()
    views.add("photos", mount.coordinator)
    seen: list[str] = []
    after = ""
    for _ in range(20):
        page = await console.data(f"/browse/photos?limit=5&after={after}")
        seen += [entry["name"] for entry in page["entries"]]
        assert len(page["entries"]) <= 5
        after = page["next"]
        if after is None:
            break
    assert sorted(seen) == sorted(f"f{number}" for number in range(57))
    for wrong in ("x", "-1", "1", "9" * 20, "٣"):
        refused(await console.get("/browse/photos", params={"after": wrong}), 400, "invalid")


async def test_wrong_paths_say_what_is_wrong(console: Site, views: MemoryViews) -> None:
    await odd_volume(views)
    assert "'/none' in 'photos'" in refused(await console.get("/browse/photos?path=/none"), 404, "not_found")
    for path in ("/large", "/odd/link"):
        refused(await console.get(f"/browse/photos?path={path}"), 400, "invalid")
    for path in ("/large/below", "/odd/..", "/a%00b", "/" + "n" * 256, "/100%"):
        refused(await console.get(f"/browse/photos?path={path}"), 400, "invalid")
        refused(await console.get(f"/download/photos?path={path}"), 400, "invalid")
    for path in ("/odd/link", "/odd/pipe"):
        assert "neither" in refused(await console.get(f"/download/photos?path={path}"), 400, "invalid")
    refused(await console.get("/download/none?path=/"), 404, "not_found")
    assert views.nodes["photos"].users == 0


# ---------------------------------------------------------------- files


def test_which_part_a_range_means() -> None:
    tag = '"t"'
    for text, part in {
        "bytes=0-": Part(0, 100, True),
        "bytes=0-0": Part(0, 1, True),
        "bytes=10-19": Part(10, 10, True),
        "bytes=90-1000": Part(90, 10, True),
        "bytes=-5": Part(95, 5, True),
        "bytes=-500": Part(0, 100, True),
        "bytes=100-": None,
        "bytes=-0": None,
        "bytes=5-4": Part(0, 100, False),
        "bytes=-": Part(0, 100, False),
        "bytes=0-1,5-6": Part(0, 100, False),
        "lines=0-1": Part(0, 100, False),
        "bytes=0-٣": Part(0, 100, False),
    }.items():
        assert wanted_part(100, tag, {"range": text}) == part, text
    assert wanted_part(100, tag, {"range": "bytes=1-2", "if-range": tag}) == Part(1, 2, True)
    assert wanted_part(100, tag, {"range": "bytes=1-2", "if-range": '"old"'}) == Part(0, 100, False)
    assert wanted_part(0, tag, {}) == Part(0, 0, False)
    assert wanted_part(0, tag, {"range": "bytes=0-"}) is None


def test_names_of_downloads_cannot_break_out_of_their_header() -> None:
    assert content_disposition("a.txt") == "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt"
    hard = content_disposition('ü"\r\nX: y;\\')
    assert hard.isascii()
    assert hard.isprintable()
    assert hard == "attachment; filename=\"____X_ y__\"; filename*=UTF-8''%C3%BC%22%0D%0AX%3A%20y%3B%5C"


async def test_a_file_comes_whole_in_parts_or_as_its_head(console: Site, views: MemoryViews) -> None:
    await odd_volume(views)
    content = bytes(range(256)) * 8192
    address = "/download/photos?path=/large"
    whole = await console.get(address)
    assert whole.content == content
    assert whole.headers["content-length"] == str(len(content))
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["content-disposition"].startswith("attachment; ")
    head = await console.browser.head(f"/api/v1{address}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(content))
    assert head.headers["etag"] == whole.headers["etag"]
    first, last = SLOT_BYTES - 3, 9 * SLOT_BYTES + 5
    part = await console.get(address, headers={"Range": f"bytes={first}-{last}", "If-Range": head.headers["etag"]})
    assert part.status_code == 206
    assert part.headers["content-range"] == f"bytes {first}-{last}/{len(content)}"
    assert part.content == content[first : last + 1]
    changed = await console.get(address, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, content)
    behind = await console.get(address, headers={"Range": f"bytes={len(content)}-"})
    assert behind.status_code == 416
    assert behind.headers["content-range"] == f"bytes */{len(content)}"
    await until(lambda: views.nodes["photos"].users == 0)


async def test_what_cannot_be_read_is_an_error_and_never_a_shorter_file(
    console: Site, views: MemoryViews, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mount = await odd_volume(views)
    monkeypatch.setattr(download, "CHUNK_BYTES", SLOT_BYTES)
    reader = views.mounts["photos"].reader
    blocks = list(mount.coordinator.blocks)
    honest = reader.read_many
    allowed = 0

    async def read_many(wanted: Any) -> Any:
        if allowed <= reader.reads:
            raise Unavailable("too few nodes answer")
        return await honest(wanted)

    monkeypatch.setattr(reader, "read_many", read_many)
    assert blocks
    refused(await console.get("/download/photos?path=/large"), 503, "unavailable")
    allowed = reader.reads + 1
    with pytest.raises(httpx.RemoteProtocolError):
        await console.get("/download/photos?path=/large")
    allowed = reader.reads
    with pytest.raises(httpx.RemoteProtocolError):
        await console.get("/download/photos?path=/")
    assert "too few nodes answer" in caplog.text
    assert "Traceback" not in caplog.text
    await until(lambda: views.nodes["photos"].users == 0)


async def test_a_file_that_ends_before_its_size_is_damage(
    console: Site, views: MemoryViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    await odd_volume(views)

    async def nothing(*_: Any) -> bytes:
        return b""

    monkeypatch.setattr(views.nodes["photos"].vfs, "read", nothing)
    assert "redfs check" in refused(await console.get("/download/photos?path=/large"), 500, Corrupt.code)


async def test_a_browser_that_leaves_or_takes_nothing_gives_the_view_back(
    console: Site, views: MemoryViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = Mount()
    await mount.start()
    await mount.write_file(b"huge", bytes(64 << 20))
    await mount.vfs.close()
    view = views.add("photos", mount.coordinator)
    async with console.browser.stream("GET", "/api/v1/download/photos?path=/huge") as answer:
        assert answer.status_code == 200
        assert view.users == 1
    await until(lambda: view.users == 0)
    stuck = asyncio.Event()

    async def never(*_: Any) -> bytes:
        await stuck.wait()
        return b""

    small = view.vfs.read
    with monkeypatch.context() as patch:
        patch.setattr(view.vfs, "read", lambda *args: never() if args[1] else small(*args))
        async with console.browser.stream("GET", "/api/v1/download/photos?path=/huge") as answer:
            assert answer.status_code == 200
            assert view.users == 1
        await until(lambda: view.users == 0)  # although no node answers
    monkeypatch.setattr(streaming, "STALL_S", 0.05)
    async with console.browser.stream("GET", "/api/v1/download/photos?path=/huge") as answer:
        assert answer.status_code == 200
        await until(lambda: view.users == 0)  # while the connection is open and nobody reads


async def test_downloads_at_once_are_bounded(
    console: Site, views: MemoryViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = console.console.parts
    assert parts is not None
    parts.downloads = asyncio.Semaphore(1)
    mount = Mount()
    await mount.start()
    await mount.write_file(b"huge", bytes(64 << 20))
    await mount.vfs.close()
    view = views.add("photos", mount.coordinator)
    async with console.browser.stream("GET", "/api/v1/download/photos?path=/huge"):
        refused(await console.get("/download/photos?path=/huge"), 503, "unavailable")
    await until(lambda: view.users == 0)
    assert (await console.browser.head("/api/v1/download/photos?path=/huge")).status_code == 200


# ---------------------------------------------------------------- tar


async def test_a_folder_comes_as_a_tar_of_all_that_it_holds(console: Site, views: MemoryViews) -> None:
    mount = await odd_volume(views)
    vfs = await Mount(mount.coordinator).start()
    entry = await vfs.lookup(1, b"odd")
    plain = await vfs.lookup(entry.ino, b"plain")
    await vfs.setattr(mount.ctx, plain.ino, mode=0o4711, mtime_ns=1_234_567_890_123_456_789, uid=7, gid=8)
    await vfs.link(mount.ctx, plain.ino, entry.ino, b"again")
    old = await vfs.lookup(entry.ino, b"with space")
    await vfs.setattr(mount.ctx, old.ino, mtime_ns=-1_500_000_000)
    for number in range(200):
        made = await vfs.mkdir(mount.ctx, entry.ino, b"n%d" % number, 0o755)
        await vfs.symlink(mount.ctx, made.ino, b"x" * 200, b"y" * 300)
    await vfs.close()
    views.add("photos", mount.coordinator)
    answer = await console.get("/download/photos?path=/odd")
    assert answer.headers["content-type"] == "application/x-tar"
    assert 'filename="odd.tar"' in answer.headers["content-disposition"]
    assert len(answer.content) % download.TAR_RECORD_BYTES == 0
    with tarfile.open(fileobj=io.BytesIO(answer.content), errors="surrogateescape") as tar:
        members = {member.name.encode("utf-8", "surrogateescape"): member for member in tar}
        wanted = [*ODD_NAMES, b"link", b"empty", b"pipe", b"again", *(b"n%d" % n for n in range(200))]
        links = [b"n%d/" % n + b"x" * 200 for n in range(200)]
        assert set(members) == {b"odd", *(b"odd/" + name for name in [*wanted, *links])}
        for name in ODD_NAMES:
            member = members[b"odd/" + name]
            content = tar.extractfile(member)
            assert content is not None
            assert content.read() == b"I am " + name
    linked, first = sorted((members[b"odd/plain"], members[b"odd/again"]), key=lambda m: m.isreg())
    assert (linked.type, linked.linkname) == (tarfile.LNKTYPE, first.name)
    assert (first.mode, first.uid, first.gid) == (0o4711, 7, 8)
    assert first.pax_headers["mtime"] == "1234567890.123456789"
    assert float(members[b"odd/with space"].pax_headers["mtime"]) == -1.5
    assert members[b"odd"].isdir()
    assert members[b"odd"].mode == 0o750
    assert members[b"odd/link"].linkname.encode("utf-8", "surrogateescape") == b"to/\xff"
    assert members[b"odd/n7/" + b"x" * 200].linkname == "y" * 300
    assert members[b"odd/pipe"].isfifo()
    whole = await console.get("/download/photos")
    with tarfile.open(fileobj=io.BytesIO(whole.content)) as tar:
        assert tar.getnames()[0] == "photos"
        assert "photos/large" in tar.getnames()
    assert not views.nodes["photos"].vfs._folders, "every folder that was opened is closed"
    head = await console.browser.head("/api/v1/download/photos?path=/odd")
    assert (head.status_code, head.headers["content-type"]) == (200, "application/x-tar")


async def test_folders_in_one_another_are_walked_without_recursion(console: Site, views: MemoryViews) -> None:
    mount = Mount()
    vfs = await mount.start()
    at = 1
    for _ in range(1200):
        at = (await vfs.mkdir(mount.ctx, at, b"d", 0o755)).ino
    await mount.write_file(b"bottom", b"deep", at)
    await vfs.close()
    views.add("photos", mount.coordinator)
    answer = await console.get("/download/photos")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        last = tar.getmembers()[-1]
        assert last.name == "photos/" + "d/" * 1200 + "bottom"
        content = tar.extractfile(last)
        assert content is not None
        assert content.read() == b"deep"


# ---------------------------------------------------------------- versions


async def test_versions_tell_where_a_file_changed(
    console: Site, views: MemoryViews, coordinator: ConsoleCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = Mount()
    vfs = await mount.start()
    coordinator.volumes["photos"] = pb.Volume(volume_id=2, name="photos", kind="live", state="ok")
    made = 0

    async def snapshot() -> None:
        nonlocal made
        await vfs.sync()
        copy = FakeCoordinator()
        copy.view.apply(dict(mount.coordinator.view.records))
        copy.blocks = dict(mount.coordinator.blocks)
        made += 1
        name = f"photos@s{made}"
        coordinator.volumes[name] = pb.Volume(
            volume_id=10 + made, name=name, kind="snapshot", state="ok", created_ns=made
        )
        views.add(name, copy)

    await snapshot()
    ino = await mount.write_file(b"a", b"x" * (3 * SLOT_BYTES))
    await snapshot()
    await vfs.setattr(mount.ctx, ino, mode=0o600)
    await snapshot()
    handle = await vfs.open(mount.ctx, ino, 2)
    await vfs.write(handle, 2 * SLOT_BYTES, b"y")
    await snapshot()
    await vfs.setattr(mount.ctx, ino, mtime_ns=5)
    await snapshot()
    await vfs.setattr(mount.ctx, ino, size=SLOT_BYTES)
    await snapshot()
    await vfs.unlink(mount.ctx, 1, b"a")
    await snapshot()
    await vfs.symlink(mount.ctx, 1, b"a", b"elsewhere")
    await vfs.sync()
    views.add("photos", mount.coordinator)
    await vfs.release(mount.ctx, handle)

    found = await console.data("/versions/photos?path=/a")
    for version in found:
        PathVersion.model_validate(version, strict=True)
    assert [version["node"] for version in found] == [*(f"photos@s{n}" for n in range(1, 8)), "photos"]
    assert [version["exists"] for version in found] == [False, True, True, True, True, True, False, True]
    assert [version["same_as_previous"] for version in found] == [None, False, True, False, True, False, None, False]
    assert [version["kind"] for version in found] == [None, *["file"] * 5, None, "symlink"]
    assert found[5]["size"] == SLOT_BYTES
    assert found[6]["mtime_ns"] is None

    monkeypatch.setattr(browse, "MAX_COMPARED_SLOTS", 4)
    bounded = await console.data("/versions/photos?path=/a")
    judged = [(now["same_as_previous"], known["same_as_previous"]) for now, known in zip(bounded, found, strict=True)]
    assert all(now in (known, None) for now, known in judged), judged
    assert sum(now is None and known is not None for now, known in judged) >= 1
    monkeypatch.setattr(browse, "MAX_VERSIONS", 2)
    newest = await console.data("/versions/photos?path=/a")
    assert [version["node"] for version in newest] == ["photos@s6", "photos@s7", "photos"]
    refused(await console.get("/versions/photos@s1?path=/a"), 400, "invalid")
    refused(await console.get("/versions/none?path=/a"), 404, "not_found")
