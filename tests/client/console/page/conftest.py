"""A real browser on the real page, over a fake pool: one browser for each file of tests, one page for each test.

Playwright keeps an event loop of its own running while it is open, and coroutine tests cannot run beside it: so it is
open for one module at a time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, Request, expect, sync_playwright

from tests.client.console.page.fake_pool import FakePool, small_pool
from tests.client.console.page.fake_rest import FakeRest, serving
from tests.conftest import find_browser, networks_stay

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 60_000
MAX_LOADS = 10
NETWORK_CHANGED = "ERR_NETWORK_CHANGED"
LOOK_MS = 10
"""How long a test waits for what must come: far more than it takes, for machines that are busy."""


@dataclass
class Visit:
    """A page that is open, and what is behind it."""

    page: Page
    rest: FakeRest
    url: str
    complaints: list[str] = field(default_factory=list)
    """What the browser's console said, and exceptions of the page."""

    @property
    def pool(self) -> FakePool:
        return self.rest.pool

    def go(self, route: str) -> None:
        """To a route of the page, as a link would."""
        self.page.evaluate("(hash) => { location.hash = hash; }", route)

    def id_of(self, name: str) -> int:
        return int(self.pool.named(name)["volume_id"])

    def open_node(self, name: str, query: str = "") -> None:
        self.go(f"#/tree/{self.id_of(name)}{query}")

    def operation(self, name: str) -> None:
        """Opens the form of one of the node's operations."""
        self.page.locator(f".operation[data-operation={name}]").click()

    def changes(self) -> list[tuple[str, str, dict[str, Any]]]:
        """The changes that the page asked for."""
        return self.rest.requests


Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_browser()
    assert path is not None
    with networks_stay(), sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens the page over a pool. At the end the browser must have had nothing to complain about."""
    expect.set_options(timeout=PATIENCE_MS)
    with contextlib.ExitStack() as stack:
        visits: list[Visit] = []

        def opened(
            pool: FakePool | None = None, route: str = "", width: int = 1280, height: int = 800, **options: Any
        ) -> Visit:
            rest = FakeRest(pool or small_pool())
            url = stack.enter_context(serving(rest))
            context = browser.new_context(
                viewport={"width": width, "height": height}, timezone_id="UTC", locale="en-GB", **options
            )
            stack.callback(context.close)
            context.set_default_timeout(PATIENCE_MS)
            page = context.new_page()
            visit = Visit(page, rest, url)
            page.on("console", lambda message: note(visit, message.type, message.text))
            page.on("pageerror", lambda error: visit.complaints.append(str(error)))
            page.on("requestfailed", lambda request: print("not loaded:", request.url, request.failure))
            visits.append(visit)
            load(page, f"{url}/{route}")
            # The list is there, and the page listens to what changes.
            expect(page.locator(".health")).to_contain_text("nodes")
            until(page, "performance.getEntriesByType('resource').some((e) => e.name.includes('/volumes'))")
            return visit

        yield opened
        for visit in visits:
            assert visit.complaints == []


def load(page: Page, url: str) -> None:
    """Opens the page; again where something outside the tests changed the machine's networks meanwhile, and chromium
    gave up what it was loading."""
    for _ in range(MAX_LOADS):
        given_up: list[str] = []

        def note_failure(request: Request, given_up: list[str] = given_up) -> None:
            if NETWORK_CHANGED in (request.failure or ""):
                given_up.append(request.url)

        page.on("requestfailed", note_failure)
        try:
            page.goto(url)
        except Error as error:
            if NETWORK_CHANGED not in error.message:
                raise
            continue
        finally:
            page.remove_listener("requestfailed", note_failure)
        if not given_up:
            return


def until(page: Page, expression: str, arg: Any = None, within_ms: int = PATIENCE_MS) -> None:
    """Waits until an expression holds in the page. Playwright's own wait needs what the page's policy forbids."""
    deadline_s = time.monotonic() + within_ms / 1000
    while not page.evaluate(expression, arg):
        assert time.monotonic() < deadline_s, f"not within {within_ms} ms: {expression}"
        page.wait_for_timeout(LOOK_MS)


def note(visit: Visit, kind: str, text: str) -> None:
    # A refusal is an answer with an error's status, which the browser mentions by itself.
    if kind in ("error", "warning") and "Failed to load resource" not in text:
        visit.complaints.append(text)


@pytest.fixture
def visit(open_page: Open) -> Visit:
    """The small pool, on the tree."""
    return open_page()
