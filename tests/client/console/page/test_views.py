"""The other views: nodes, jobs, live figures, browsing; what comes by push; narrow screens, themes, contrast."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.client.console.page.conftest import Open, Visit, until
from tests.client.console.page.fake_pool import GIB, MIB, FakePool, small_pool

pytestmark = [pytest.mark.slow, pytest.mark.browser]


VIEWS = {"tree": ".node", "browse": "button.file", "nodes": ".node-card", "jobs": ".job", "live": ".chart"}


def busy_pool() -> FakePool:
    pool = small_pool()
    pool.add_job("release, deleted", 0.37)
    pool.nodes[1].update(damaged_shards=1, missing_shards=12)
    pool.nodes[2].update(state="down", last_seen_s=754.0)
    pool.problems = ["node 3 (10.0.0.3:7410) is down: 212 segments have lost one shard"]
    return pool


class TestNodes:
    def test_each_node_with_its_state_and_room_and_problems_on_top(self, open_page: Open) -> None:
        visit = open_page(busy_pool(), "#/nodes")
        page = visit.page
        expect(page.locator(".problems")).to_have_text(visit.pool.problems[0])
        cards = page.locator(".node-card")
        expect(cards).to_have_count(6)
        expect(cards.nth(2)).to_contain_text(re.compile(r"down, last seen 12 min \d+ s ago"))
        first = cards.first
        for text in ("14 GiB used", "50 GiB free of 64 GiB", "4,237", "12", "10.0.0.1:7410", "rack-1", "/srv/disk-1"):
            expect(first).to_contain_text(text)
        expect(first).to_contain_text("Errorsnone")
        expect(cards.nth(1)).to_contain_text("Errors1 damaged shard, 12 missing shards")
        expect(page.locator(".health")).to_contain_text("Degraded")

    def test_a_node_that_comes_back_shows_by_push(self, open_page: Open) -> None:
        visit = open_page(busy_pool(), "#/nodes")
        expect(visit.page.locator(".node-card.down")).to_have_count(1)
        visit.pool.nodes[2].update(state="up", last_seen_s=0.5)
        visit.pool.problems = []
        visit.pool.notify(nodes=True)
        expect(visit.page.locator(".node-card.down")).to_have_count(0)
        expect(visit.page.locator(".health")).to_contain_text("Healthy")
        expect(visit.page.locator(".problems > *")).to_have_count(0)

    def test_what_the_last_scrub_found_and_another_one_begun(self, open_page: Open) -> None:
        pool = busy_pool()
        visit = open_page(pool, "#/nodes")
        line = visit.page.locator("[data-scrub]")
        expect(line).to_contain_text("Nothing was scrubbed yet")
        line.get_by_role("button", name="Scrub now").click()
        expect(line.get_by_role("button", name="Scrubbing")).to_be_disabled()
        assert visit.changes() == [("POST", "/jobs", {"kind": "scrub"})]
        pool.jobs.clear()
        pool.scrub = {"ended_ns": time.time_ns() - 3 * 3600 * 10**9, "shards": 12_345, "bytes": 5 << 30, "bad": 2}
        pool.notify(nodes=True)
        expect(line).to_contain_text("Last scrub 3 h ago: 12,345 shards, 5 GiB, 2 bad ones found")
        expect(line.get_by_role("button", name="Scrub now")).to_be_enabled()


class TestJobs:
    def test_progress_rate_and_time_left(self, open_page: Open) -> None:
        visit = open_page(busy_pool(), "#/jobs")
        job = visit.page.locator(".job")
        expect(job.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "37")
        expect(job).to_contain_text("14.8 GiB of 40 GiB")
        expect(job).to_contain_text("180 MiB/s · 2 min 23 s left")

    def test_pause_resume_cancel_as_allowed(self, open_page: Open) -> None:
        visit = open_page(busy_pool(), "#/jobs")
        job = visit.page.locator(".job")
        assert job.get_by_role("button").all_inner_texts() == ["Pause", "Cancel"]
        job.get_by_role("button", name="Pause").click()
        expect(job.get_by_role("button", name="Resume")).to_be_visible()
        expect(job).to_contain_text("paused")
        job.get_by_role("button", name="Resume").click()
        job.get_by_role("button", name="Pause").wait_for()
        job.get_by_role("button", name="Cancel").click()
        expect(visit.page.locator(".empty")).to_contain_text("Nothing to do")
        assert [path for _, path, _ in visit.changes()] == ["/jobs/1/pause", "/jobs/1/resume", "/jobs/1/cancel"]

    def test_a_refusal_is_shown_at_the_job(self, open_page: Open) -> None:
        visit = open_page(busy_pool(), "#/jobs")
        expect(visit.page.locator(".job")).to_be_visible()
        visit.pool.jobs[0]["allowed"] = []
        visit.page.get_by_role("button", name="Pause").click()
        expect(visit.page.locator(".job .failure")).to_have_text("job 1 is running: it cannot pause")


class TestLive:
    def totals(self, at_ms: int, read_mib: int, written_mib: int, operations: int, busy_us: int) -> dict[str, int]:
        return {
            "read_bytes": read_mib * MIB, "written_bytes": written_mib * MIB, "operations": operations,
            "busy_us": busy_us, "at_ms": at_ms,
        }  # fmt: skip

    def test_rates_are_differences_of_totals(self, open_page: Open) -> None:
        visit = open_page(route="#/live")
        page = visit.page
        throughput = page.locator(".chart-card").first
        expect(throughput).to_contain_text("0 B/s")
        now = int(page.evaluate("Date.now()"))
        visit.rest.push("figures", self.totals(now - 1000, 100, 50, 1000, 10_000))
        visit.rest.push("figures", self.totals(now, 164, 82, 1500, 260_000))
        card = page.locator(".chart-card")
        label = card.nth(0).locator(".chart")
        expect(label).to_have_attribute("aria-label", re.compile(r"Read: 64 MiB/s, Write: 32 MiB/s"))
        expect(card.nth(1).locator(".chart")).to_have_attribute("aria-label", re.compile("Operations: 500"))
        expect(card.nth(2).locator(".chart")).to_have_attribute("aria-label", re.compile(r"Latency: 500 µs"))

    def test_values_under_the_pointer(self, open_page: Open) -> None:
        visit = open_page(route="#/live")
        page = visit.page
        now = int(page.evaluate("Date.now()"))
        for second in range(300, -1, -1):
            done = 300 - second
            visit.rest.push("figures", self.totals(now - 1000 * second, 8 * done, 4 * done, 100 * done, 50_000 * done))
        chart = page.locator(".chart").first
        box = chart.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
        expect(chart.locator(".chart-tip")).to_contain_text("Read 8 MiB/s")
        expect(chart.locator(".chart-tip")).to_contain_text("Write 4 MiB/s")
        page.mouse.move(5, 5)
        expect(chart.locator(".chart-tip")).to_have_count(0)
        chart.focus()
        page.keyboard.press("ArrowLeft")
        expect(chart.locator(".chart-tip")).to_contain_text("Read")

    def test_figures_are_pure(self, visit: Visit) -> None:
        """Gaps, a restart of the coordinator, and old samples."""
        found = visit.page.evaluate(
            """async () => {
              const { Figures } = await import("/static/js/figures.js");
              const f = new Figures();
              const add = (s, bytes, ops) => f.add({
                read_bytes: bytes, written_bytes: 0, operations: ops, busy_us: 1000 * ops, at_ms: s * 1000,
              });
              add(1000, 0, 0); add(1001, 500, 5); add(1010, 1400, 9); add(1011, 100, 1);
              add(1012, 300, 2); add(1400, 600, 3);
              return { seconds: f.samples.map((s) => s.second), now: f.now(1400).readRate, still: f.now(1500).readRate,
                       length: f.series(1400).length, gap: f.series(1400).at(-2).readRate };
            }"""
        )
        assert found == {"seconds": [1400], "now": 200, "still": 0, "length": 301, "gap": 0}

    def test_space_by_kind_and_savings(self, open_page: Open) -> None:
        visit = open_page(route="#/live")
        space = visit.page.locator(".space-card")
        for text in ("212 GiB", "131 GiB", "88 GiB", "132 GiB", "81 GiB", "38 %", "43 GiB", "33 %", "1.50 ×", "1.61 ×"):
            expect(space).to_contain_text(text)


class TestBrowse:
    def test_folders_first_by_name_and_down_and_up_by_keys(self, open_page: Open) -> None:
        visit = open_page(route="#/browse/photos")
        page = visit.page
        rows = page.locator("button.file")
        expect(rows).to_have_count(3)
        assert rows.evaluate_all("all => all.map((one) => one.dataset.name)") == ["2024", "albums", "notes.txt"]
        expect(rows.first).to_be_focused()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.locator("button.file").first).to_have_attribute("data-name", "50% off")
        expect(page.locator("button.file").first).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("button.file")).to_have_count(1)  # two match while the folder above is shown
        expect(page.locator("button.file")).to_have_attribute("data-name", "caf\ufffd menu.txt")
        assert page.locator(".crumbs").inner_text().split() == ["top", "albums", "50%", "off"]
        page.keyboard.press("Backspace")
        expect(page.locator("button.file").first).to_have_attribute("data-name", "50% off")
        page.get_by_role("link", name="top").click()
        expect(page.locator("button.file")).to_have_count(3)

    def test_another_node_in_the_same_folder(self, open_page: Open) -> None:
        visit = open_page(route="#/browse/photos?path=/albums")
        page = visit.page
        expect(page.locator("button.file")).to_have_count(2)
        page.get_by_label("Node to browse").fill("photos@mon")
        page.keyboard.press("Enter")
        expect(page.locator("button.file")).to_have_count(3)
        assert page.url.endswith("#/browse/photos%40monday?path=%2Falbums")

    def test_a_file_with_odd_bytes_is_downloaded_exactly(self, open_page: Open) -> None:
        visit = open_page(route="#/browse/photos?path=%2Falbums%2F50%2525%2520off")
        page = visit.page
        page.locator("button.file").click()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download", exact=True).click()
        assert download.value.path().read_bytes() == b"odd bytes in its name\n"

    def test_versions_say_what_changed(self, open_page: Open) -> None:
        visit = open_page(route="#/browse/photos@monday?file=/notes.txt")
        versions = visit.page.locator(".versions li")
        expect(versions).to_have_count(4)
        assert versions.evaluate_all("all => all.map((one) => [one.dataset.node, one.className])") == [
            ["photos", "changed"], ["photos@edit-base", "same"], ["photos@tuesday", "changed"],
            ["photos@monday", "changed"],
        ]  # fmt: skip
        expect(versions.nth(1)).to_contain_text("as before")

    def test_a_file_that_was_not_always_there(self, open_page: Open) -> None:
        visit = open_page(route="#/browse/photos@tuesday?path=/2024&file=/2024/img-0040.jpg")
        absent = visit.page.locator(".versions .absent")
        expect(absent).to_have_count(1)
        expect(absent).to_contain_text("not there")
        expect(absent.get_by_role("button")).to_have_count(0)

    def test_any_version_can_be_downloaded(self, open_page: Open) -> None:
        visit = open_page(route="#/browse/photos?file=/notes.txt")
        with visit.page.expect_download() as download:
            visit.page.get_by_label("Download as in tuesday").click()
        assert download.value.path().read_bytes() == b"first thoughts\nand second ones\n"

    def test_restore_in_place(self, open_page: Open) -> None:
        visit = open_page(route="#/browse/photos?file=/notes.txt")
        page = visit.page
        page.get_by_label("Restore from monday").click()
        page.locator("form[data-operation=restore] button[type=submit]").click()
        expect(page.locator(".toast")).to_contain_text("Restored 1 file to photos:/notes.txt")
        body = {
            "source": "photos@monday", "source_path": "/notes.txt", "target": "photos", "target_path": "/notes.txt",
            "replace": True,
        }  # fmt: skip
        assert visit.changes() == [("POST", "/copies", body)]
        assert visit.pool.files[visit.id_of("photos")]["/notes.txt"] == b"first thoughts\n"

    def test_restore_beside(self, open_page: Open) -> None:
        visit = open_page(route="#/browse/photos?file=/notes.txt")
        page = visit.page
        page.get_by_label("Restore from monday").click()
        page.get_by_text("Beside it").click()
        expect(page.get_by_label("Path there")).to_have_value("/notes.monday.txt")
        page.get_by_label("Path there").fill("/old/100% notes.txt")
        page.locator("form[data-operation=restore] button[type=submit]").click()
        expect(page.locator(".toast")).to_be_visible()
        assert visit.changes()[0][2]["target_path"] == "/old/100%25%20notes.txt"
        assert "/old/100% notes.txt" in visit.pool.files[visit.id_of("photos")]

    def test_clone_a_folder_into_another_volume(self, open_page: Open) -> None:
        visit = open_page(route="#/browse/photos@monday")
        page = visit.page
        expect(page.locator("button.file").first).to_be_focused()
        page.keyboard.press("i")
        expect(page.locator(".panel h1")).to_have_text("2024")
        page.get_by_role("button", name="Clone into…").click()
        page.get_by_label("Volume to clone into").fill("mail")
        page.keyboard.press("Enter")
        page.locator("form[data-operation=clone] button[type=submit]").click()
        expect(page.locator(".toast")).to_contain_text("Cloned 40 files to mail:/2024")
        assert visit.changes()[0][2]["target"] == "mail"

    def test_a_refusal_is_shown_in_place(self, open_page: Open) -> None:
        visit = open_page(route="#/browse/photos@monday?file=/notes.txt")
        page = visit.page
        page.get_by_role("button", name="Clone into…").click()
        page.get_by_label("Volume to clone into").fill("photos")
        page.keyboard.press("Enter")
        page.locator("form[data-operation=clone] button[type=submit]").click()
        expect(page.locator("form .failure")).to_contain_text("exists already")

    def test_a_node_that_is_gone_is_said(self, open_page: Open) -> None:
        visit = open_page(route="#/browse/photos")
        expect(visit.page.locator("button.file")).to_have_count(3)
        visit.pool.rename("photos", "pictures")
        expect(visit.page.locator(".notice")).to_contain_text("There is no node named photos any more")


class TestPush:
    def test_what_changes_elsewhere_shows_by_itself(self, visit: Visit) -> None:
        page = visit.page
        expect(page.locator(".node").first).to_be_visible()
        snapshot = visit.pool.snapshot("photos", "elsewhere")
        expect(page.locator(f"#node-{snapshot['volume_id']}")).to_be_visible()
        visit.pool.set("mail", {"color": "#123456"})
        own = page.locator(f"#node-{visit.id_of('mail')}")
        until(
            page,
            "(node) => node.style.getPropertyValue('--own') === '#123456'",
            arg=own.element_handle(),
        )
        visit.pool.add_job("something", 0.5)
        expect(page.locator("#header .tally")).to_have_text("1")

    def test_a_form_that_is_being_filled_in_is_left_alone(self, visit: Visit) -> None:
        page = visit.page
        visit.open_node("photos")
        visit.operation("set")
        field = page.get_by_label("Description")
        field.fill("half a sentence")
        page.keyboard.press("ArrowLeft")
        before = field.evaluate("(input) => { input.marked = true; return input.selectionStart; }")
        for number in range(5):
            visit.pool.snapshot("photos", f"push-{number}")
        visit.pool.set("photos", {"description": "from elsewhere"})
        expect(page.locator(f"#node-{visit.id_of('photos@push-4')}")).to_be_visible()
        expect(field).to_be_focused()
        expect(field).to_have_value("half a sentence")
        assert field.evaluate("(input) => input.selectionStart") == before
        assert field.evaluate("(input) => input.marked === true")

    def test_what_one_looks_at_stays_where_it_is_while_the_tree_grows(self, visit: Visit) -> None:
        page = visit.page
        visit.open_node("hotfix")
        hotfix = page.locator(f"#node-{visit.id_of('hotfix')}")
        expect(hotfix).to_be_visible()
        before = hotfix.bounding_box()
        clone = visit.pool.clone("photos@monday", "above-it")
        expect(page.locator(f"#node-{clone['volume_id']}")).to_be_attached()
        after = hotfix.bounding_box()
        assert before is not None
        assert after is not None
        assert (after["x"], after["y"]) == pytest.approx((before["x"], before["y"]), abs=1)

    def test_a_burst_of_changes_costs_few_fetches(self, visit: Visit) -> None:
        expect(visit.page.locator(".node").first).to_be_visible()
        before = visit.rest.fetches["/api/v1/volumes"]
        for number in range(60):
            visit.pool.snapshot("mail", f"burst-{number}")
        expect(visit.page.locator(".tree[aria-label*='node']")).to_have_attribute(
            "aria-label", re.compile(f"{len(visit.pool.volumes) - 1} nodes")
        )
        assert visit.rest.fetches["/api/v1/volumes"] - before < 15

    def test_a_lost_stream_is_said_and_taken_up_again(self, visit: Visit) -> None:
        page = visit.page
        expect(page.locator(".node").first).to_be_visible()
        page.context.set_offline(True)
        visit.rest.drop_streams()
        expect(page.locator(".banner")).to_contain_text("The connection to the console was lost")
        page.context.set_offline(False)
        expect(page.locator(".banner")).to_have_count(0)
        # Of what happened meanwhile nothing is missed.
        snapshot = visit.pool.snapshot("photos", "after")
        expect(page.locator(f"#node-{snapshot['volume_id']}")).to_be_visible()

    def test_a_coordinator_that_is_away_is_said(self, visit: Visit) -> None:
        words = {"code": "unavailable", "message": "the coordinator at 10.0.0.9:7400 does not answer"}
        expect(visit.page.locator(".node").first).to_be_visible()
        visit.rest.push("coordinator", {"reachable": False, "error": words})
        expect(visit.page.locator(".banner")).to_contain_text("the coordinator at 10.0.0.9:7400 does not answer")
        visit.rest.push("coordinator", {"reachable": True, "error": None})
        expect(visit.page.locator(".banner")).to_have_count(0)


class TestNarrow:
    WIDTH = 390

    def no_sideways_scroll(self, page: Page) -> None:
        wide = page.evaluate(
            """() => [document.documentElement, document.getElementById("main"), document.querySelector(".panel-body")]
              .filter(Boolean).filter((one) => one.scrollWidth > one.clientWidth)
              .map((one) => one.className || one.tagName)"""
        )
        assert wide == []

    def reachable(self, target: Locator) -> None:
        """It can be scrolled to, lies inside the window, and is large enough for a finger."""
        target.scroll_into_view_if_needed()
        box = target.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= self.WIDTH
        assert box["height"] >= 26

    @pytest.mark.parametrize("view", VIEWS)
    def test_no_view_scrolls_sideways_and_all_are_reachable(self, open_page: Open, view: str) -> None:
        visit = open_page(busy_pool(), width=self.WIDTH, height=844, has_touch=True)
        page = visit.page
        page.locator(f"#tabs a[href='#/{view}']").click()
        expect(page.locator(VIEWS[view]).first).to_be_visible()
        self.no_sideways_scroll(page)
        for link in page.locator("#tabs a").all():
            self.reachable(link)

    @pytest.mark.parametrize("operation", ["snapshot", "clone_backed", "set", "rollback", "delete", "mount"])
    def test_forms_fit(self, open_page: Open, operation: str) -> None:
        visit = open_page(busy_pool(), width=self.WIDTH, height=844, has_touch=True)
        page = visit.page
        visit.open_node("photos")
        self.no_sideways_scroll(page)
        for one in page.locator(".operation").all():
            self.reachable(one)
        visit.operation(operation)
        expect(page.locator(f"form[data-operation={operation}]")).to_be_visible()
        self.no_sideways_scroll(page)
        for one in page.locator(".panel form .input, .panel form button").all():
            self.reachable(one)
        page.get_by_label("Close").click()
        expect(page.locator(".panel")).to_have_count(0)

    def test_a_file_and_its_versions(self, open_page: Open) -> None:
        visit = open_page(route="#/browse/photos", width=self.WIDTH, height=844, has_touch=True)
        page = visit.page
        page.locator("button.file", has_text="notes.txt").click()
        expect(page.locator(".versions li")).to_have_count(4)
        self.no_sideways_scroll(page)
        for one in page.locator(".versions button").all():
            self.reachable(one)


# Texts, each with what it stands on; what a person must be able to read.
TEXTS = [
    ".brand span", ".views a[aria-current]", ".views a:not([aria-current])", ".health", ".panel h1", ".chip",
    ".facts dt", ".facts dd", ".usage-numbers b", ".usage-numbers span", ".usage .key", ".operation b",
    ".operation span", ".operation.danger b", ".panel-links .button", ".section-head h3", ".rows span",
    ".tree-legend span",
]  # fmt: skip
FORM_TEXTS = [".button.danger", ".button:not(.danger)", ".field label", ".freed .big", ".freed li", ".freed li.grave"]
LEAST_CONTRAST = 4.5

CONTRAST = """(selector) => {
  const parse = (text) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.fillStyle = text;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const part = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const element = document.querySelector(selector);
  const style = getComputedStyle(element);
  const svg = element.namespaceURI.includes("svg");
  const ink = parse(svg ? style.fill : style.color);
  let ground = svg ? parse(getComputedStyle(element.parentNode.querySelector(".box")).fill) : null;
  for (let at = element; !ground && at; at = at.parentElement) {
    const found = parse(getComputedStyle(at).backgroundColor);
    if (found[3] > 200) ground = found;
  }
  const [high, low] = [light(ink), light(ground)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}"""


class TestThemes:
    def ratios(self, page: Page, selectors: list[str]) -> dict[str, Any]:
        return {selector: page.evaluate(CONTRAST, selector) for selector in selectors}

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_texts_can_be_read(self, open_page: Open, scheme: str) -> None:
        # Without transitions and entrances, whose colours are not the final ones.
        visit = open_page(color_scheme=scheme, reduced_motion="reduce")
        page = visit.page
        visit.open_node("photos")
        expect(page.locator(".operation").first).to_be_visible()
        labels = [f"#node-{volume_id} .label" for volume_id in visit.pool.volumes]
        found = self.ratios(page, TEXTS + labels)
        visit.operation("delete")
        page.get_by_label("to confirm").fill("photos")
        expect(page.locator(".freed .big")).to_be_visible()
        found |= self.ratios(page, FORM_TEXTS)
        too_faint = {selector: ratio for selector, ratio in found.items() if ratio < LEAST_CONTRAST}
        assert too_faint == {}

    def test_the_toggle_holds_over_a_reload_and_gives_the_choice_back(self, open_page: Open) -> None:
        visit = open_page(color_scheme="light")
        page = visit.page
        page.get_by_label("Dark theme").click()
        ground = "getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(ground) == "rgb(18, 18, 20)"
        page.reload()
        expect(page.get_by_label("Light theme")).to_be_visible()
        assert page.evaluate(ground) == "rgb(18, 18, 20)"
        page.get_by_label("Light theme").click()
        assert page.evaluate(ground) == "rgb(250, 250, 249)"
        # As the system says anyway: from now on as the system says.
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(ground) == "rgb(18, 18, 20)"

    def test_nothing_moves_where_motion_is_not_wanted(self, open_page: Open) -> None:
        visit = open_page(reduced_motion="reduce")
        visit.open_node("photos")
        panel = visit.page.locator(".panel")
        assert panel.evaluate("(panel) => getComputedStyle(panel).animationName") == "none"


class TestNames:
    def test_every_control_has_a_name(self, open_page: Open) -> None:
        visit = open_page(busy_pool())
        page = visit.page
        routes = [
            "tree/2",
            "tree/2?do=set",
            "tree/2?compare=with",
            "browse/photos?file=/notes.txt",
            "nodes",
            "jobs",
            "live",
        ]
        for route in routes:
            visit.go(f"#/{route}")
            until(page, "document.querySelector('#main').children.length > 0")
            nameless = page.evaluate(
                """() => [...document.querySelectorAll("button, a[href], input, select, [role=img], [role=tree]")]
                  .filter((one) => one.offsetParent !== null || one.closest("svg"))
                  .filter((one) => !(one.getAttribute("aria-label") || one.textContent.trim() || one.labels?.length))
                  .map((one) => one.outerHTML.slice(0, 120))"""
            )
            assert nameless == [], route

    def test_nothing_is_loaded_from_elsewhere(self, visit: Visit) -> None:
        foreign = visit.page.evaluate(
            """() => performance.getEntriesByType("resource").map((one) => one.name)
              .filter((name) => !name.startsWith(location.origin))"""
        )
        assert foreign == []


def test_sizes_and_times_for_people(visit: Visit) -> None:
    found = visit.page.evaluate(
        """async () => {
          const f = await import("/static/js/format.js");
          return [f.size(999), f.size(1536), f.size(40 * 1024 ** 3), f.parseSize("1.5 GiB"), f.parseSize("2T"),
                  f.parseSize(""), String(f.parseSize("much")), f.duration(3900), f.parseDuration("30 min"),
                  f.parseDuration("1d"), String(f.parseDuration("soon")), f.permissions(0o755, "folder")];
        }"""
    )
    assert found == [
        "999 B", "1.5 KiB", "40 GiB", int(1.5 * GIB), 2048 * GIB, 0, "NaN", "1 h 5 min", 1800, 86400, "NaN",
        "drwxr-xr-x",
    ]  # fmt: skip
