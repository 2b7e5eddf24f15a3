"""The console's page in a real browser, over a real pool: from a new volume to a deleted file that is restored."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from redfs.client.local_pool import running_pid
from tests.client.console.page.conftest import FLAGS, PATIENCE_MS, load
from tests.conftest import find_browser, networks_stay
from tests.integration.pools import RunningPool, new_port, wait_for

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def page(pool: RunningPool) -> Iterator[Page]:
    """The page of the console that `redfs up` starts. It must have had nothing to complain about at the end."""
    address = pool.data("up", "--console-port", str(new_port()))["console"]
    path = find_browser()
    assert path is not None
    expect.set_options(timeout=PATIENCE_MS)
    complaints: list[str] = []
    with networks_stay(), sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        opened = launched.new_page(viewport={"width": 1280, "height": 800})
        opened.set_default_timeout(PATIENCE_MS)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("console", lambda said: complaints.extend(_complaint(said.type, said.text)))
        opened.on("requestfailed", lambda request: print("not loaded:", request.url, request.failure))
        load(opened, address)
        expect(opened.locator("#header nav")).to_be_visible()
        yield opened
        launched.close()
    assert complaints == []


def _complaint(kind: str, text: str) -> list[str]:
    """What the console of the browser says, where that is an error that the page did not expect."""
    return [text] if kind == "error" and "Failed to load" not in text else []


def node_id(pool: RunningPool, name: str) -> int:
    return int(pool.data("volume", "info", name)["volume_id"])


def open_form(page: Page, pool: RunningPool, name: str, operation: str) -> None:
    page.evaluate("(hash) => { location.hash = hash; }", f"#/tree/{node_id(pool, name)}")
    page.locator(f".operation[data-operation={operation}]").click()


def submit(page: Page, said: str) -> None:
    page.locator(".panel form button[type=submit]").click()
    expect(page.locator(".toast", has_text=said)).to_be_visible()


def test_from_a_new_volume_to_a_file_restored(pool: RunningPool, page: Page) -> None:
    page.evaluate("location.hash = '#/tree/1?do=clone'")
    page.get_by_label("Name", exact=True).fill("photos")
    page.get_by_label("Protection").fill("ec:4+2")
    page.get_by_label("Blue").check(force=True)
    submit(page, "Created photos")
    found = pool.data("volume", "info", "photos")
    assert (found["protection"], found["color"]) == ("ec:4+2", "#3a5fd0")

    place = pool.mount("photos")
    expect(page.locator(f"#node-{found['volume_id']}")).to_have_class(re.compile(r"\bmounted\b"))
    (place / "notes.txt").write_text("do not lose this\n")
    open_form(page, pool, "photos", "snapshot")
    page.get_by_label("Name of the snapshot").fill("before")
    submit(page, "Took photos@before")
    expect(page.locator(f"#node-{node_id(pool, 'photos@before')} .label")).to_have_text("before")
    (place / "notes.txt").unlink()

    page.evaluate("location.hash = '#/browse/photos@before'")
    page.locator("button.file", has_text="notes.txt").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download", exact=True).click()
    assert download.value.path().read_text() == "do not lose this\n"
    page.locator(".panel-links").get_by_role("button", name="Restore").click()
    page.locator("form[data-operation=restore] button[type=submit]").click()
    expect(page.locator(".toast", has_text="Restored 1 file to photos:/notes.txt")).to_be_visible()
    wait_for(lambda: (place / "notes.txt").exists(), "the restored file is in the mount")
    assert (place / "notes.txt").read_text() == "do not lose this\n"
    pool.umount(place)


def test_what_the_command_line_changes_shows_by_itself(pool: RunningPool, page: Page) -> None:
    # The page never looks without being told. How soon it is, `coordinator/test_watch.py` proves by a clock of its own.
    page.evaluate("location.hash = '#/tree'")
    pool.redfs("volume", "create", "tree", "--protect", "mirror:2")
    pool.redfs("snapshot", "create", "tree@one")
    pool.redfs("clone", "tree@one", "branch")
    branch = node_id(pool, "branch")
    expect(page.locator(f"#node-{branch}")).to_be_attached()
    pool.redfs("volume", "rename", "branch", "twig")
    expect(page.locator(f"#node-{branch} .label")).to_have_text("twig")
    pool.redfs("volume", "rm", "twig", "--yes")
    expect(page.locator(f"#node-{branch}:not(.gone)")).to_have_count(0)


def test_a_clone_and_a_deletion_by_the_page(pool: RunningPool, page: Page) -> None:
    pool.redfs("volume", "create", "plants", "--protect", "mirror:2")
    open_form(page, pool, "plants", "clone_backed")
    page.get_by_label("Name of the clone").fill("cuttings")
    submit(page, "Cloned plants as cuttings")
    assert pool.data("volume", "info", "plants@cuttings")["kind"] == "snapshot"
    open_form(page, pool, "plants@cuttings", "delete")
    expect(page.locator(".freed")).to_contain_text("of stored data is freed")
    page.get_by_label("to confirm").fill("plants@cuttings")
    submit(page, "Deleted plants@cuttings")
    # A clone descends from it: it stays in the tree, black.
    expect(page.locator(".node.gone", has_text="cuttings")).to_be_visible()


def test_a_mounted_volume_is_compared_and_rolled_back(pool: RunningPool, page: Page) -> None:
    pool.redfs("volume", "create", "letters", "--protect", "mirror:2")
    place = pool.mount("letters")
    (place / "old").write_text("as it was\n")
    pool.redfs("snapshot", "create", "letters@draft")
    (place / "old").rename(place / "new")
    (place / "more").write_text("something else\n")
    pool.redfs("snapshot", "create", "letters@sent")
    first, second = node_id(pool, "letters@draft"), node_id(pool, "letters@sent")
    page.evaluate("(hash) => { location.hash = hash; }", f"#/tree/{second}?compare={first}")
    expect(page.locator("[data-change=renamed]")).to_contain_text("/old→ /new")
    expect(page.locator("[data-change=created]")).to_contain_text("/more")

    open_form(page, pool, "letters", "rollback")
    page.get_by_label("To the snapshot").select_option("letters@draft")
    page.get_by_label("Name of that snapshot").fill("after-all")
    submit(page, "letters is letters@draft again; what it held is letters@after-all")
    wait_for(lambda: [entry.name for entry in place.iterdir()] == ["old"], "the mount shows what the snapshot holds")
    assert (place / "old").read_text() == "as it was\n"
    pool.umount(place)


def test_a_console_that_comes_back_is_taken_up_again(pool: RunningPool, page: Page) -> None:
    page.evaluate("location.hash = '#/tree'")
    expect(page.locator(".node").first).to_be_visible()
    assert running_pid(pool.member("console")) is not None
    pool.kill("console")
    expect(page.locator(".banner")).to_contain_text("The connection to the console was lost")
    pool.redfs("volume", "create", "meanwhile", "--protect", "mirror:2")
    pool.data("up")
    expect(page.locator(".banner")).to_have_count(0)
    expect(page.locator(f"#node-{node_id(pool, 'meanwhile')}")).to_be_attached()
