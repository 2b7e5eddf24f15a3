"""The volume tree itself: where nodes go, what is drawn of a thousand, keys, search, moving and zooming."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.client.console.page.conftest import Open, Visit, until
from tests.client.console.page.fake_pool import FakePool, large_pool, small_pool

pytestmark = [pytest.mark.slow, pytest.mark.browser]

LAYOUT = """async (volumes) => {
  const { layoutTree } = await import("/static/js/tree_layout.js");
  const layout = layoutTree(volumes, (volume) => volume.name.length * 7);
  const box = ({ id, row, column, x, y, width, height }) => ({ id, row, column, x, y, width, height });
  const { lines, trunks, elbows, width, height } = layout;
  return { boxes: layout.boxes.map(box), lines, trunks, elbows, width, height };
}"""
SCENE = "document.querySelector('svg.tree').scene"


def layout_of(page: Page, pool: FakePool) -> dict[str, Any]:
    laid: dict[str, Any] = page.evaluate(LAYOUT, pool.listing())
    return laid


def places(laid: dict[str, Any], pool: FakePool) -> dict[str, tuple[int, int]]:
    """Name -> (row, column)."""
    return {pool.volumes[box["id"]]["name"]: (box["row"], box["column"]) for box in laid["boxes"]}


class TestLayout:
    def test_the_small_tree_goes_where_it_should(self, visit: Visit) -> None:
        at = places(layout_of(visit.page, visit.pool), visit.pool)
        # The row of a volume: its snapshots in time order, then the volume, straight on from the zero volume.
        row = ["zero", "photos@monday", "photos@tuesday", "photos@edit-base", "photos"]
        assert [at[name] for name in row] == [(0, column) for column in range(5)]
        # Clones of snapshots: a step right of the snapshot, on rows of their own below; the rightmost nearest.
        assert at["raw-edit"] == (1, 4)
        assert at["try-it"] == (2, 2)
        # Other volumes begin at the zero volume too.
        assert at["mail@before-upgrade"] == (3, 1)
        assert at["mail"] == (3, 2)
        # A direct clone begins between the snapshot before it and the volume: beside the volume, below it.
        assert at["mail-test"] == (4, 2)
        assert (at["release@shipped"], at["release"], at["hotfix"]) == ((6, 2), (6, 3), (7, 3))

    def test_a_direct_clone_branches_where_it_was_made(self, visit: Visit) -> None:
        pool = FakePool()
        pool.create("a")
        pool.clone("a", "first")
        pool.snapshot("a", "s1")
        pool.clone("a", "second")
        pool.snapshot("a", "s2")
        pool.clone("a", "third")
        laid = layout_of(visit.page, pool)
        at = places(laid, pool)
        assert {name: at[name][1] for name in ("first", "second", "third")} == {"first": 1, "second": 2, "third": 3}
        boxes = {pool.volumes[box["id"]]["name"]: box for box in laid["boxes"]}
        dots = sorted(trunk["x"] for trunk in laid["trunks"] if trunk["dot"])
        assert len(dots) == 3
        for x, before, after in zip(dots, ("zero", "a@s1", "a@s2"), ("a@s1", "a@s2", "a"), strict=True):
            assert boxes[before]["x"] + boxes[before]["width"] < x < boxes[after]["x"]

    def test_the_same_volumes_in_any_order_give_the_same_picture(self, visit: Visit) -> None:
        volumes = large_pool(300).listing()
        assert visit.page.evaluate(LAYOUT, volumes) == visit.page.evaluate(LAYOUT, volumes[::-1])

    def test_a_chain_of_clones_may_be_very_long(self, visit: Visit) -> None:
        pool = FakePool()
        pool.create("v0")
        for number in range(1, 3000):
            parent = pool.volumes[number + 1]
            pool._add("live", f"v{number}", parent["volume_id"])
        assert len(layout_of(visit.page, pool)["boxes"]) == 3001

    def test_what_cannot_be_is_still_shown(self, visit: Visit) -> None:
        volumes = small_pool().listing()
        orphan = {**volumes[1], "volume_id": 900, "name": "orphan", "parent_id": 777}
        ring = [{**volumes[1], "volume_id": 901, "parent_id": 902}, {**volumes[1], "volume_id": 902, "parent_id": 901}]
        laid = visit.page.evaluate(LAYOUT, [*volumes, orphan, *ring])
        assert {900, 901, 902} <= {box["id"] for box in laid["boxes"]}

    @pytest.mark.parametrize("nodes", [30, 1000, 10_000])
    def test_a_large_tree_is_sound(self, visit: Visit, nodes: int) -> None:
        pool = large_pool(nodes)
        laid = layout_of(visit.page, pool)
        boxes = laid["boxes"]
        assert sorted(box["id"] for box in boxes) == sorted(pool.volumes)
        self.no_two_overlap(boxes)
        self.rows_are_in_time_order(boxes, pool)
        self.children_are_further_right(boxes, pool)
        if nodes <= 1000:
            self.no_trunk_crosses_a_box(laid)

    def no_two_overlap(self, boxes: list[dict[str, Any]]) -> None:
        rows: dict[int, list[dict[str, Any]]] = {}
        for box in boxes:
            rows.setdefault(box["row"], []).append(box)
        for row in rows.values():
            row.sort(key=lambda box: float(box["x"]))
            for one, other in pairwise(row):
                assert one["x"] + one["width"] < other["x"]
        tops = sorted({(box["row"], box["y"], box["height"]) for box in boxes})
        for (_, y, height), (_, below, _) in pairwise(tops):
            assert y + height < below

    def rows_are_in_time_order(self, boxes: list[dict[str, Any]], pool: FakePool) -> None:
        by_id = {box["id"]: box for box in boxes}
        for volume in pool.volumes.values():
            if volume["kind"] != "snapshot":
                continue
            snapshot, live = by_id[volume["volume_id"]], by_id[volume["parent_id"]]
            assert snapshot["row"] == live["row"]
            assert snapshot["column"] < live["column"]
        snapshots = [v for v in pool.volumes.values() if v["kind"] == "snapshot"]
        snapshots.sort(key=lambda v: (int(v["parent_id"]), int(v["created_ns"])))
        for one, other in pairwise(snapshots):
            if one["parent_id"] == other["parent_id"]:
                assert by_id[one["volume_id"]]["column"] + 1 == by_id[other["volume_id"]]["column"]

    def children_are_further_right(self, boxes: list[dict[str, Any]], pool: FakePool) -> None:
        by_id = {box["id"]: box for box in boxes}
        first: dict[int, int] = {}
        for box in boxes:
            first[box["row"]] = min(box["column"], first.get(box["row"], box["column"]))
        for volume in pool.volumes.values():
            parent = pool.volumes.get(volume["parent_id"])
            if volume["kind"] == "live" and parent and parent["kind"] == "snapshot":
                assert first[by_id[volume["volume_id"]]["row"]] == by_id[parent["volume_id"]]["column"] + 1

    def no_trunk_crosses_a_box(self, laid: dict[str, Any]) -> None:
        for trunk in laid["trunks"]:
            for box in laid["boxes"]:
                inside = box["x"] < trunk["x"] < box["x"] + box["width"]
                # It begins at the lower edge of the box that it leaves.
                assert not (inside and trunk["y1"] < box["y"] + box["height"] and trunk["y2"] > box["y"])


class TestLooks:
    def test_nodes_wear_their_colour_and_state(self, visit: Visit) -> None:
        page, pool = visit.page, visit.pool
        photos = page.locator(f"#node-{visit.id_of('photos')}")
        expect(photos).to_have_class(re.compile(r"\blive\b.*\bmounted\b"))
        assert photos.locator(".box").evaluate("(box) => getComputedStyle(box).fill") == "rgb(58, 95, 208)"
        assert float(photos.locator(".box").evaluate("(box) => parseFloat(getComputedStyle(box).strokeWidth)")) >= 3
        unmounted = page.locator(f"#node-{visit.id_of('mail')} .box")
        assert float(unmounted.evaluate("(box) => parseFloat(getComputedStyle(box).strokeWidth)")) < 2
        gone = next(v for v in pool.volumes.values() if v["state"] == "deleted")
        fill = page.locator(f"#node-{gone['volume_id']} .box").evaluate("(box) => getComputedStyle(box).fill")
        assert fill == "rgb(19, 19, 18)"
        # A snapshot is called by its own part.
        expect(page.locator(f"#node-{visit.id_of('photos@monday')} .label")).to_have_text("monday")

    def test_an_empty_pool_says_how_to_begin(self, open_page: Open) -> None:
        visit = open_page(FakePool())
        visit.page.get_by_role("button", name="New volume").click()
        expect(visit.page.locator("form[data-operation=clone]")).to_be_visible()


class TestManyNodes:
    def test_only_what_is_near_is_drawn_and_moving_changes_one_attribute(self, open_page: Open) -> None:
        visit = open_page(large_pool(1000))
        page = visit.page
        expect(page.locator(".node").first).to_be_visible()
        drawn = page.locator(".node").count()
        assert 0 < drawn < 250
        seen = page.evaluate(
            """async () => {
              const svg = document.querySelector("svg.tree");
              const { scene } = svg;
              let changes = [];
              const watcher = new MutationObserver((records) => changes.push(...records));
              watcher.observe(svg, { subtree: true, childList: true, attributes: true, characterData: true });
              const redraws = scene.redraws;
              const layout = scene.layout;
              for (let step = 0; step < 20; step += 1) {
                scene.moveTo({ ...scene.view, x: scene.view.x - 5, y: scene.view.y - 5 });
                await new Promise(requestAnimationFrame);
              }
              await new Promise(requestAnimationFrame);
              changes.push(...watcher.takeRecords());
              return {
                redraws: scene.redraws - redraws, sameLayout: layout === scene.layout,
                what: [...new Set(changes.map((c) => `${c.target.getAttribute("class")} ${c.attributeName}`))],
                count: changes.length,
              };
            }"""
        )
        assert seen["what"] == ["world transform"]
        assert seen["redraws"] == 0
        assert seen["sameLayout"]
        assert seen["count"] <= 21

    def test_far_moves_draw_anew_and_drop_what_is_out_of_sight(self, open_page: Open) -> None:
        visit = open_page(large_pool(1000))
        page = visit.page
        expect(page.locator(".node").first).to_be_visible()
        before = set(page.locator(".node").evaluate_all("all => all.map((one) => one.id)"))
        page.evaluate(f"{SCENE}.moveTo({{ x: 0, y: -6000, scale: 0.9 }})")
        until(page, f"{SCENE}.covered.y1 > 3000")
        after = set(page.locator(".node").evaluate_all("all => all.map((one) => one.id)"))
        assert after
        assert not before & after

    @pytest.mark.parametrize("nodes", [1000, 10_000])
    def test_from_afar_all_of_it_is_a_handful_of_elements(self, open_page: Open, nodes: int) -> None:
        visit = open_page(large_pool(nodes))
        page = visit.page
        expect(page.locator(".node").first).to_be_visible()
        page.locator("svg.tree").focus()
        page.keyboard.press("0")
        expect(page.locator("svg.tree")).to_have_class(re.compile("is-far"))
        expect(page.locator(".node")).to_have_count(0)
        assert page.locator("svg.tree *").count() < 80
        boxes = page.locator(".far-box").evaluate_all(
            "all => all.reduce((sum, path) => sum + path.getAttribute('d').split('M').length - 1, 0)"
        )
        if nodes == 1000:
            assert boxes == 1001

    def test_a_node_can_be_opened_from_afar(self, open_page: Open) -> None:
        visit = open_page(large_pool(1000))
        page = visit.page
        page.locator("svg.tree").focus()
        page.keyboard.press("0")
        expect(page.locator("svg.tree")).to_have_class(re.compile("is-far"))
        target = page.evaluate(
            f"""() => {{
              const scene = {SCENE};
              const box = scene.layout.boxes[500];
              const frame = document.querySelector("svg.tree").getBoundingClientRect();
              const {{ x, y, scale }} = scene.view;
              return {{ id: box.id, x: frame.left + (box.x + box.width / 2) * scale + x,
                       y: frame.top + (box.y + box.height / 2) * scale + y }};
            }}"""
        )
        page.mouse.click(target["x"], target["y"])
        expect(page.locator(".panel")).to_be_visible()
        # And one sees where it is.
        expect(page.locator(f"#node-{target['id']}")).to_be_visible()


class TestMoving:
    def view(self, visit: Visit) -> dict[str, float]:
        found: dict[str, float] = visit.page.evaluate(f"({{...{SCENE}.view}})")
        return found

    def test_dragging_moves_and_a_click_opens(self, visit: Visit) -> None:
        page = visit.page
        expect(page.locator(".node").first).to_be_visible()
        before = self.view(visit)
        page.mouse.move(640, 700)
        page.mouse.down()
        page.mouse.move(700, 660, steps=4)
        page.mouse.up()
        after = self.view(visit)
        assert after["x"] - before["x"] == pytest.approx(60, abs=2)
        assert after["y"] - before["y"] == pytest.approx(-40, abs=2)
        expect(page.locator(".panel")).to_have_count(0)
        page.locator(f"#node-{visit.id_of('mail')}").click()
        expect(page.locator(".panel h1")).to_have_text("mail")

    def test_the_wheel_moves_and_with_ctrl_it_zooms_at_the_pointer(self, visit: Visit) -> None:
        page = visit.page
        expect(page.locator(".node").first).to_be_visible()
        page.mouse.move(500, 400)
        before = self.view(visit)
        page.mouse.wheel(30, 50)
        until(page, f"{SCENE}.view.y < {before['y']}")
        moved = self.view(visit)
        assert (moved["x"] - before["x"], moved["y"] - before["y"]) == (-30, -50)
        page.keyboard.down("Control")
        page.mouse.wheel(0, -120)
        page.keyboard.up("Control")
        until(page, f"{SCENE}.view.scale > {before['scale']}")
        zoomed = self.view(visit)
        top = page.locator("svg.tree").bounding_box()
        assert top is not None
        for one in (moved, zoomed):
            one["worldX"] = (500 - top["x"] - one["x"]) / one["scale"]
        assert zoomed["worldX"] == pytest.approx(moved["worldX"], abs=0.5)

    def test_keys_zoom_and_move(self, visit: Visit) -> None:
        page = visit.page
        page.locator("svg.tree").focus()
        before = self.view(visit)
        page.keyboard.press("-")
        assert self.view(visit)["scale"] < before["scale"]
        page.keyboard.press("+")
        page.keyboard.press("Shift+ArrowRight")
        assert self.view(visit)["x"] < before["x"]
        page.keyboard.press("0")
        assert self.view(visit)["x"] == pytest.approx(before["x"], abs=1)

    def test_arrows_walk_the_tree(self, visit: Visit) -> None:
        page = visit.page
        page.locator("svg.tree").focus()
        page.keyboard.press("Home")
        steps = [
            ("ArrowRight", "photos@monday"), ("ArrowRight", "photos@tuesday"), ("ArrowRight", "photos@edit-base"),
            ("ArrowRight", "photos"), ("ArrowDown", "raw-edit"), ("ArrowLeft", "photos@edit-base"),
            ("ArrowLeft", "photos@tuesday"), ("ArrowDown", "raw-edit"), ("ArrowDown", "try-it"),
            ("ArrowLeft", "photos@monday"), ("ArrowLeft", "zero"), ("ArrowLeft", "zero"),
        ]  # fmt: skip
        for key, name in steps:
            page.keyboard.press(key)
            reached = page.locator("svg.tree").get_attribute("aria-activedescendant")
            assert reached == f"node-{visit.id_of(name)}", (key, name)
        page.keyboard.press("Enter")
        expect(page.locator(".panel h1")).to_have_text("zero")


class TestSearch:
    def test_matches_stand_out_and_enter_cycles(self, visit: Visit) -> None:
        page = visit.page
        page.get_by_label("Search the volume tree").fill("mail")
        expect(page.locator(".node.match")).to_have_count(3)
        expect(page.locator(".node.no-match")).to_have_count(len(visit.pool.volumes) - 3)
        reached = []
        for number in range(1, 5):
            page.keyboard.press("Enter")
            expect(page.locator(".search .aside")).to_have_text(f"{(number - 1) % 3 + 1} of 3")
            reached.append(page.locator("svg.tree").get_attribute("aria-activedescendant"))
        assert len(set(reached)) == 3
        assert reached[3] == reached[0]
        page.keyboard.press("Escape")
        expect(page.locator(".node.no-match")).to_have_count(0)

    def test_descriptions_are_searched_and_other_views_lead_to_the_tree(self, open_page: Open) -> None:
        visit = open_page(route="#/jobs")
        visit.page.get_by_label("Search the volume tree").fill("nightly")
        expect(visit.page.locator(".node.match")).not_to_have_count(0)

    def test_a_match_out_of_sight_is_brought_into_it(self, open_page: Open) -> None:
        visit = open_page(large_pool(1000))
        pool = visit.pool
        last = max(pool.volumes.values(), key=lambda v: int(v["volume_id"]))
        visit.page.get_by_label("Search the volume tree").fill(last["name"])
        visit.page.keyboard.press("Enter")
        expect(visit.page.locator(f"#node-{last['volume_id']}")).to_be_in_viewport()
