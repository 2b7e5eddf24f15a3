"""Who may ask the console for what: names, the header of changes, bounds, and what goes with every answer."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from redfs.client.console import guard, server
from redfs.client.console.server import bind, split_address, url_of
from redfs.core.errors import Busy, InvalidArgument
from redfs.proto.gen import cluster_pb2 as pb
from tests.client.console.rig import CHANGE, WAIT_S, ConsoleCoordinator, Site, refused, site, until


async def test_a_foreign_name_is_refused_for_reads_too(console: Site) -> None:
    for host in ("evil.example", "evil.example:7480", "localhost.evil.example", "127.0.0.1.evil", ""):
        for path in ("/", "/api/v1/status", "/static/js/app.js", "/api/v1/openapi.json"):
            message = refused(await console.browser.get(path, headers={"Host": host}), 403, "not_allowed")
            assert "--allow-host" in message


async def test_addresses_and_localhost_are_served(console: Site) -> None:
    for host in ["localhost", "LOCALHOST:9", "localhost.:80", "127.0.0.1:1", "[::1]:7480", "[::1]", "192.168.1.5:7480"]:
        assert (await console.get("/status", headers={"Host": host})).status_code == 200


async def test_a_name_that_was_allowed_is_served(coordinator: ConsoleCoordinator, page: Path) -> None:
    async with site(coordinator.address, page, ("nas.home",)) as console:
        assert (await console.get("/status", headers={"Host": "nas.home:7480"})).status_code == 200
        refused(await console.get("/status", headers={"Host": "home:7480"}), 403, "not_allowed")


async def test_a_change_without_the_header_changes_nothing(console: Site, coordinator: ConsoleCoordinator) -> None:
    ways: list[dict[str, str]] = [{}, {"X-RedFS-Console": "0"}, {"X-RedFS-Console": ""}]
    paths = [("POST", "volumes"), ("DELETE", "volumes/zero?confirm=zero"), ("PATCH", "volumes/zero"), ("POST", "freed")]
    for headers, (method, path) in itertools.product(ways, paths):
        answer = await console.browser.request(
            method, f"/api/v1/{path}", json={"name": "a", "names": []}, headers=headers
        )
        refused(answer, 403, "not_allowed")
    assert coordinator.calls == []


async def test_a_page_of_another_site_may_not_even_ask(console: Site) -> None:
    asking = {
        "Origin": "https://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-redfs-console",
    }
    answer = await console.browser.options("/api/v1/volumes", headers=asking)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_long_body_is_refused_whether_its_length_is_said_or_not(console: Site) -> None:
    long = b'{"name": "' + b"a" * guard.MAX_BODY_BYTES + b'"}'
    refused(await console.browser.post("/api/v1/volumes", content=long, headers=CHANGE), 413, "invalid")

    async def pieces() -> object:
        for at in range(0, len(long), 10_000):
            yield long[at : at + 10_000]

    answer = await console.browser.post("/api/v1/volumes", content=pieces(), headers=CHANGE)  # type: ignore[arg-type]
    refused(answer, 413, "invalid")


async def test_a_body_that_does_not_come_is_not_waited_for(console: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_TIMEOUT_S", 0.05)
    base = console.browser.base_url
    reader, writer = await asyncio.open_connection(base.host, base.port)
    try:
        writer.write(
            b"POST /api/v1/volumes HTTP/1.1\r\nHost: localhost\r\nX-RedFS-Console: 1\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        line = await asyncio.wait_for(reader.readline(), WAIT_S)
        assert b" 408 " in line
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_connection_that_asks_nothing_is_closed(
    coordinator: ConsoleCoordinator, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_TIMEOUT_S", 0.2)
    head = b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n"
    async with site(coordinator.address, page) as console:
        base = console.browser.base_url
        for asked in (b"", head, head + b"\r\n", head + b"\r\n" + head):
            reader, writer = await asyncio.open_connection(base.host, base.port)
            try:
                writer.write(asked)
                answer = await asyncio.wait_for(reader.read(), WAIT_S)
                assert answer.startswith(b"HTTP/1.1 200") == (b"\r\n\r\n" in asked)
            finally:
                writer.close()
                await writer.wait_closed()
        # One whose answer goes on is left alone.
        async with console.events() as browser:
            await browser.next()
            loop = asyncio.get_running_loop()
            later_s = loop.time() + 0.4
            await until(lambda: loop.time() > later_s)
            coordinator.words.put(pb.Changed(jobs=True))
            await browser.until(lambda name, data: name == "changed" and data["jobs"] and not data["tree"])


async def test_what_goes_with_every_answer(console: Site) -> None:
    for path in ("/", "/static/js/app.js", "/api/v1/status", "/api/v1/docs", "/api/v1/nothing", "/nothing"):
        headers = (await console.browser.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == ("no-store" if path.startswith("/api") else "no-cache")
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers


async def test_files_of_the_page_are_kept_by_their_tag(console: Site) -> None:
    first = await console.browser.get("/static/js/app.js")
    assert first.headers["content-type"].startswith("text/javascript")
    again = await console.browser.get("/static/js/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert (await console.browser.get("/")).text.startswith("<!doctype html>")
    for path in (
        "/static/../secret.txt",
        "/static/%2e%2e/secret.txt",
        "/static/js/%2e%2e/%2e%2e/secret.txt",
        "/static/no.js",
    ):
        assert (await console.browser.get(path)).status_code == 404


async def test_the_documentation_loads_nothing_from_elsewhere(console: Site) -> None:
    page = await console.browser.get("/api/v1/docs")
    assert page.headers["content-type"].startswith("text/html")
    for name in ("docs.css", "docs.js"):
        part = await console.browser.get(f"/api/v1/docs/{name}")
        assert part.status_code == 200
        assert f"docs/{name}" in page.text
        assert "http://" not in part.text
        assert "https://" not in part.text
    assert "http" not in page.text.replace("http-equiv", "")


async def test_what_nobody_expected_is_no_traceback(
    console: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parts = console.console.parts
    assert parts is not None

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(parts.coordinator, "call", broken)
    message = refused(await console.get("/status"), 500, "internal")
    assert "secret" not in message
    assert "secret detail" in caplog.text
    caplog.clear()


def test_addresses_to_listen_on() -> None:
    assert split_address("127.0.0.1:7480") == ("127.0.0.1", 7480)
    assert split_address("[::1]:80") == ("::1", 80)
    for wrong in ("7480", "localhost", ":80", "localhost:http", "a:70000", "a:-1"):
        with pytest.raises(InvalidArgument):
            split_address(wrong)
    assert url_of("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert url_of("::1", 80) == "http://[::1]:80"
    assert url_of("nas.home", 80) == "http://nas.home:80"


def test_a_taken_port_is_said() -> None:
    with bind("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(Busy, match="--listen"):
            bind("127.0.0.1", first.getsockname()[1])
