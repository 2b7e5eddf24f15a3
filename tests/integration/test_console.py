"""The console of a real pool: what a browser gets of what mounts wrote, and how soon it hears of what changes."""

from __future__ import annotations

import io
import json
import os
import queue
import random
import socket
import tarfile
import threading
from collections.abc import Iterator
from typing import Any, Self

import httpx
import pytest

from redfs.client.console.models import FolderPage
from redfs.client.local_pool import running_pid
from tests.integration.pools import WAIT_S, RunningPool, new_port, wait_for

pytestmark = [pytest.mark.mount, pytest.mark.slow]

CHANGE = {"X-RedFS-Console": "1"}


@pytest.fixture(scope="module")
def browser(pool: RunningPool) -> Iterator[httpx.Client]:
    """A client of the console that `redfs up` starts."""
    started = pool.data("up", "--console-port", str(new_port()))
    assert started["started"] == ["console"]
    with httpx.Client(base_url=f"{started['console']}/api/v1", timeout=60, trust_env=False) as client:
        yield client


def data(browser: httpx.Client, path: str) -> Any:
    answer = browser.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


class Listener:
    """Reads the console's events in a thread, as long as the context lasts."""

    def __init__(self, browser: httpx.Client) -> None:
        self.events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._client = httpx.Client(base_url=browser.base_url, timeout=60, trust_env=False)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()

    def _read(self) -> None:
        name = ""
        with self._client.stream("GET", "/events") as answer:
            for line in answer.iter_lines():  # a line at least every 15 s
                if self._ended.is_set():
                    return
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    self.events.put((name, json.loads(line.removeprefix("data: "))))

    def until(self, name: str, key: str) -> None:
        """Waits for the first event of that name with that flag."""
        while True:
            found, body = self.events.get(timeout=WAIT_S)
            if found == name and body.get(key):
                return


def test_files_of_a_mounted_volume_and_of_its_snapshots(pool: RunningPool, browser: httpx.Client) -> None:
    pool.redfs("volume", "create", "photos", "--protect", "ec:4+2")
    place = pool.mount("photos")
    content = random.Random(5).randbytes(20_000_000)
    folder = place / "2026"
    folder.mkdir()
    (folder / "large").write_bytes(content)
    odd = os.fsencode(folder) + b"/\xff\xfe 100%"
    with open(odd, "wb") as file:
        file.write(b"odd")
    os.symlink("large", folder / "link")
    os.utime(folder / "large", ns=(5, 1_234_567_890_123_456_789))
    pool.redfs("snapshot", "create", "photos@one")
    with open(folder / "large", "r+b") as changed:
        changed.seek(10_000_000)
        changed.write(b"changed")
    pool.redfs("snapshot", "create", "photos@two")
    os.chmod(folder / "large", 0o600)
    pool.redfs("snapshot", "create", "photos@three")

    page = data(browser, "/browse/photos@one?path=/2026")
    FolderPage.model_validate(page, strict=True)
    entries = {entry["name"]: entry for entry in page["entries"]}
    odd_name = "\ufffd\ufffd 100%"
    assert set(entries) == {"large", "link", odd_name}
    assert entries["large"]["mtime_ns"] == 1_234_567_890_123_456_789
    assert browser.get(f"/download/photos@one?path={entries[odd_name]['path']}").content == b"odd"
    whole = browser.get("/download/photos@one?path=/2026/large")
    assert whole.content == content
    part = browser.get("/download/photos@one?path=/2026/large", headers={"Range": "bytes=9999990-10000009"})
    assert (part.status_code, part.content) == (206, content[9_999_990:10_000_010])
    now = browser.get("/download/photos@two?path=/2026/large", headers={"Range": "bytes=9999990-10000009"})
    assert now.content == content[9_999_990:10_000_000] + b"changed" + content[10_000_007:10_000_010]

    versions = data(browser, "/versions/photos?path=/2026/large")
    assert [version["node"] for version in versions] == ["photos@one", "photos@two", "photos@three", "photos"]
    assert [version["same_as_previous"] for version in versions] == [None, False, True, True]

    tar = browser.get("/download/photos@one?path=/2026").content
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as opened:
        members = {os.fsencode(member.name): member for member in opened}
        assert set(members) == {b"2026", b"2026/large", b"2026/link", b"2026/\xff\xfe 100%"}
        file_in_tar = opened.extractfile(members[b"2026/large"])
        assert file_in_tar is not None
        assert file_in_tar.read() == content
        assert members[b"2026/link"].linkname == "large"

    (place / "new").write_bytes(b"not synced")
    os.sync()
    wait_for(lambda: len(data(browser, "/browse/photos")["entries"]) == 2, "the new file is shown")
    assert [v["mounts"] for v in data(browser, "/volumes") if v["name"] == "photos"] != [[]]
    assert len(data(browser, "/volumes/photos")["mounts"]) == 1, "the console has nothing mounted"
    pool.umount(place)


def test_a_deleted_file_is_restored_from_a_snapshot_mounted_or_not(pool: RunningPool, browser: httpx.Client) -> None:
    pool.redfs("volume", "create", "files", "--protect", "mirror:2")
    place = pool.mount("files")
    (place / "a b").write_bytes(b"precious")
    pool.redfs("snapshot", "create", "files@safe")
    (place / "a b").unlink()
    body = {"source": "files@safe", "source_path": "/a%20b", "target": "files", "target_path": "/back"}
    copied = browser.post("/copies", json=body, headers=CHANGE)
    assert copied.status_code == 200, copied.text
    assert copied.json()["path"] == "/back"
    assert (place / "back").read_bytes() == b"precious"
    again = browser.post("/copies", json=body, headers=CHANGE)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "exists")
    pool.umount(place)
    unmounted = browser.post("/copies", json=body | {"target_path": "/%FF"}, headers=CHANGE)
    assert unmounted.status_code == 200, unmounted.text
    assert browser.get("/download/files?path=/%FF").content == b"precious"


def test_operations_through_the_console_and_the_command_line_are_the_same(
    pool: RunningPool, browser: httpx.Client
) -> None:
    made = browser.post("/volumes", json={"name": "tree", "protection": "mirror:2"}, headers=CHANGE)
    assert made.status_code == 200, made.text
    assert browser.post("/volumes/tree/snapshots", json={"snapshot": "a"}, headers=CHANGE).status_code == 200
    cloned = browser.post("/volumes/tree/clones", json={"name": "branch", "backed": True}, headers=CHANGE).json()
    assert cloned["snapshot"]["name"] == "branch"
    shown = {volume["name"] for volume in pool.data("tree")}
    assert {"tree", "tree@a", "tree@branch", "branch"} <= shown
    assert pool.data("volume", "info", "tree") == data(browser, "/volumes/tree")
    rolled = browser.post("/volumes/tree@a/rollback", json={"confirm": "tree", "discard": True}, headers=CHANGE)
    assert rolled.status_code == 200, rolled.text
    for name in ("branch", "tree@branch", "tree@a", "tree"):
        gone = browser.delete("/volumes/" + name, params={"confirm": name}, headers=CHANGE)
        assert gone.status_code == 200, gone.text
    assert not {"tree", "tree@a", "tree@branch", "branch"} & {volume["name"] for volume in pool.data("tree")}


def test_a_download_goes_on_without_a_node(pool: RunningPool, browser: httpx.Client) -> None:
    pool.redfs("volume", "create", "safe", "--protect", "ec:4+2")
    place = pool.mount("safe")
    content = random.Random(6).randbytes(30_000_000)
    (place / "file").write_bytes(content)
    pool.umount(place)
    got = bytearray()
    with browser.stream("GET", "/download/safe?path=/file") as answer:
        for chunk in answer.iter_bytes():
            if not got:
                pool.kill("node-1", "node-2")
            got += chunk
    assert got == content
    pool.redfs("up", "--no-console")
    pool.wait_for_nodes(6)


def test_a_coordinator_that_is_away_is_said_and_found_again(pool: RunningPool, browser: httpx.Client) -> None:
    pool.redfs("volume", "create", "away")
    assert data(browser, "/browse/away")["entries"] == []
    pool.kill("coordinator")
    for path in ("/status", "/volumes", "/browse/away"):
        answer = browser.get(path)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "unavailable"
    assert running_pid(pool.local.console()) is not None
    pool.redfs("up", "--no-console")
    wait_for(lambda: browser.get("/status").status_code == 200, "the coordinator is found again")
    wait_for(lambda: browser.get("/browse/away").status_code == 200, "browsing works again")


def test_down_ends_the_console_and_up_starts_it_where_it_was(pool: RunningPool, browser: httpx.Client) -> None:
    before = pool.local.console_url
    assert "console" in pool.data("down")["stopped"]
    assert pool.local.console_url == ""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(before.rpartition(":")[2])))
        other.listen()
        code, text = pool.refused("up", "--console-port", before.rpartition(":")[2])
        assert code == 5
        assert "--console-port" in text
        elsewhere = pool.data("up")["console"]
        assert elsewhere not in ("", before)
        assert httpx.get(f"{elsewhere}/api/v1/status", trust_env=False).status_code == 200
        pool.redfs("down")
    again = pool.data("up", "--console-port", before.rpartition(":")[2])
    assert again["console"] == before
    assert "Console at " + before in pool.redfs("up")
    code, text = pool.refused("up", "--console-port", "1")
    assert code == 5
    assert before.rpartition(":")[2] in text


def test_what_the_command_line_changes_is_heard_by_itself(pool: RunningPool, browser: httpx.Client) -> None:
    with Listener(browser) as listener, pool.api() as api:
        listener.until("changed", "schedules")
        api.create_volume("heard")
        listener.until("changed", "tree")
        api.set_volume("heard", description="so that the listener has a line to end on")


def test_files_are_restored_through_the_console(pool: RunningPool, browser: httpx.Client) -> None:
    pool.redfs("volume", "create", "restored", "--protect", "mirror:2")
    place = pool.mount("restored")
    (place / "a b").write_bytes(b"before")
    pool.redfs("snapshot", "create", "restored@s")
    (place / "a b").unlink()
    request = {"source": "restored@s", "source_path": "/a%20b", "target": "restored", "target_path": "/%FF"}
    answer = browser.post("/copies", json=request, headers=CHANGE)
    assert answer.json() == {"files": 1, "bytes": 6, "path": "/%FF", "unattended": False}
    assert (os.fsencode(place) + b"/\xff") in [entry.path for entry in os.scandir(os.fsencode(place))]
    assert browser.post("/copies", json=request, headers=CHANGE).status_code == 409
    pool.umount(place)
    for number in range(2):
        answer = browser.post("/copies", json=request | {"target_path": f"/unmounted-{number}"}, headers=CHANGE)
        assert answer.status_code == 200, answer.text
    place = pool.mount("restored")
    assert (place / "unmounted-1").read_bytes() == b"before"
    pool.umount(place)
