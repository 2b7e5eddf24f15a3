"""Every operation of the tree through the page: the form, what it asks for, what the tree shows then, and refusals."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.client.console.page.conftest import Open, Visit
from tests.client.console.page.fake_pool import GIB

pytestmark = [pytest.mark.slow, pytest.mark.browser]


def see_node(visit: Visit, name: str) -> None:
    """The tree draws the node."""
    volume_id = visit.id_of(name)
    expect(visit.page.locator(f"#node-{volume_id}")).to_be_visible()


def submit(page: Page) -> None:
    page.locator(".panel form button[type=submit]").click()


def wait_until_done(page: Page) -> None:
    """The form worked: the panel is back at the node, or gone."""
    expect(page.locator(".toast").first).to_be_visible()
    expect(page.locator(".panel form[data-operation]")).to_have_count(0)


class TestWhatIsAllowed:
    @pytest.mark.parametrize("name", ["zero", "photos", "mail-test", "photos@monday"])
    def test_exactly_what_the_server_allows_is_offered(self, visit: Visit, name: str) -> None:
        visit.open_node(name)
        wanted = set(visit.pool.shown(visit.pool.named(name))["allowed"])
        operations = visit.page.locator(".operation")
        expect(operations).to_have_count(len(wanted))
        shown = operations.evaluate_all("all => all.map((one) => one.dataset.operation)")
        assert set(shown) == wanted
        assert operations.locator("svg.picture").count() == len(wanted)

    def test_a_deleted_node_offers_nothing(self, visit: Visit) -> None:
        gone = next(v for v in visit.pool.volumes.values() if v["state"] == "deleted")
        visit.go(f"#/tree/{gone['volume_id']}")
        expect(visit.page.locator(".panel")).to_contain_text("It was deleted")
        expect(visit.page.locator(".operation")).to_have_count(0)
        expect(visit.page.locator(".panel-links")).to_have_count(0)

    def test_a_form_goes_when_its_operation_is_not_allowed_any_more(self, visit: Visit) -> None:
        visit.open_node("mail-test", "?do=snapshot")
        expect(visit.page.locator("form[data-operation=snapshot]")).to_be_visible()
        visit.pool.delete("mail-test", "mail-test")
        expect(visit.page.locator("form[data-operation=snapshot]")).to_have_count(0)


class TestWhoGoesOn:
    @pytest.mark.parametrize("onwards", ["#/browse/photos@monday", "#/nodes"])
    def test_is_not_taken_back_when_the_work_is_done(self, visit: Visit, onwards: str) -> None:
        page = visit.page
        visit.open_node("photos", "?do=snapshot")
        page.get_by_label("Name of the snapshot").fill("now")
        lists = re.compile(r"/volumes(\?|$)")
        page.route(lists, lambda route: None if route.request.method == "GET" else route.continue_())
        submit(page)
        expect(page.locator(".toast").first).to_be_visible()
        visit.go(onwards)
        expect(page.locator("#header nav a[aria-current=page]")).not_to_have_text("Tree")
        with page.expect_response(lists) as answer:
            page.unroute(lists)  # which lets go what is held
        for _ in range(3):  # by then the page has dealt with that answer, and with the one to what it asked next
            page.evaluate("(url) => fetch(url).then((answer) => answer.text())", answer.value.url)
        assert page.evaluate("location.hash") == onwards
        assert page.locator("#main .tree-stage").count() == 0


class TestSnapshotsAndClones:
    def test_new_volume(self, visit: Visit) -> None:
        page = visit.page
        visit.open_node("zero")
        visit.operation("clone")
        page.get_by_label("Name", exact=True).fill("music")
        page.get_by_label("Teal").check(force=True)
        page.get_by_label("Description").fill("Records")
        page.get_by_label("Protection").fill("mirror:2")
        page.get_by_label("Quota").fill("1.5 TiB")
        submit(page)
        wait_until_done(page)
        assert visit.changes() == [
            (
                "POST",
                "/volumes",
                {
                    "name": "music", "color": "#17787d", "description": "Records", "protection": "mirror:2",
                    "quota_bytes": 1536 * GIB,
                },
            )
        ]  # fmt: skip
        see_node(visit, "music")
        expect(page.locator(".panel h1")).to_have_text("music")

    def test_snapshot(self, visit: Visit) -> None:
        visit.open_node("photos")
        visit.operation("snapshot")
        visit.page.get_by_label("Name of the snapshot").fill("wednesday")
        visit.page.keyboard.press("Enter")
        wait_until_done(visit.page)
        assert visit.changes() == [("POST", "/volumes/photos/snapshots", {"snapshot": "wednesday"})]
        see_node(visit, "photos@wednesday")

    def test_direct_clone_with_other_settings(self, visit: Visit) -> None:
        page = visit.page
        visit.open_node("photos")
        visit.operation("clone")
        page.get_by_label("Name of the clone").fill("second")
        page.locator("summary").click()
        page.get_by_label("Rose").check(force=True)
        page.get_by_label("Compression").select_option("none")
        page.get_by_label("Quota").fill("")
        submit(page)
        wait_until_done(page)
        body = {"name": "second", "color": "#c73e77", "compression": "none", "quota_bytes": 0}
        assert visit.changes() == [("POST", "/volumes/photos/clones", body)]
        see_node(visit, "second")

    def test_a_plain_clone_asks_for_nothing_but_its_name(self, visit: Visit) -> None:
        visit.open_node("photos@monday")
        visit.operation("clone")
        visit.page.get_by_label("Name of the clone").fill("third")
        submit(visit.page)
        wait_until_done(visit.page)
        assert visit.changes() == [("POST", "/volumes/photos@monday/clones", {"name": "third"})]
        assert visit.pool.named("third")["parent_id"] == visit.id_of("photos@monday")

    def test_backed_clone(self, visit: Visit) -> None:
        visit.open_node("mail")
        visit.operation("clone_backed")
        visit.page.get_by_label("Name of the clone").fill("trial")
        visit.page.get_by_label("Name of the snapshot behind it").fill("base")
        submit(visit.page)
        wait_until_done(visit.page)
        body = {"name": "trial", "backed": True, "snapshot": "base"}
        assert visit.changes() == [("POST", "/volumes/mail/clones", body)]
        see_node(visit, "mail@base")
        see_node(visit, "trial")

    def test_a_refusal_is_shown_in_place_in_the_servers_words_and_what_was_typed_stays(self, visit: Visit) -> None:
        page = visit.page
        visit.open_node("photos")
        visit.operation("snapshot")
        field = page.get_by_label("Name of the snapshot")
        field.fill("monday")
        submit(page)
        alert = page.locator("form .failure")
        expect(alert).to_have_text("'photos@monday' exists already: choose another name, or delete it first")
        expect(field).to_have_value("monday")
        field.fill("monday-2")
        submit(page)
        wait_until_done(page)
        see_node(visit, "photos@monday-2")

    def test_a_quota_that_is_none_is_said_before_anything_is_asked(self, visit: Visit) -> None:
        visit.open_node("zero", "?do=clone")
        visit.page.get_by_label("Name", exact=True).fill("music")
        visit.page.get_by_label("Quota").fill("a lot")
        submit(visit.page)
        expect(visit.page.locator("form .failure")).to_contain_text("'a lot' is no size")
        assert visit.changes() == []


class TestProperties:
    def test_only_what_changed_is_sent(self, visit: Visit) -> None:
        page = visit.page
        visit.open_node("photos")
        visit.operation("set")
        page.get_by_label("Description").fill("All pictures")
        page.get_by_label("Green").check(force=True)
        submit(page)
        wait_until_done(page)
        body = {"description": "All pictures", "color": "#237a4b"}
        assert visit.changes() == [("PATCH", "/volumes/photos", body)]
        expect(page.locator(".panel")).to_contain_text("All pictures")
        own = page.locator(f"#node-{visit.id_of('photos')}").evaluate("(node) => node.style.getPropertyValue('--own')")
        assert own == "#237a4b"

    def test_a_colour_of_ones_own(self, visit: Visit) -> None:
        visit.open_node("photos", "?do=set")
        custom = visit.page.get_by_label("Another colour")
        custom.evaluate(
            "(input) => { input.value = '#123456'; input.dispatchEvent(new Event('input', {bubbles: true})); }"
        )
        submit(visit.page)
        wait_until_done(visit.page)
        assert visit.changes() == [("PATCH", "/volumes/photos", {"color": "#123456"})]

    def test_protection_compression_and_quota(self, visit: Visit) -> None:
        page = visit.page
        visit.open_node("photos", "?do=set")
        page.get_by_label("Protection").fill("ec:8+3")
        page.get_by_label("Compression").select_option("none")
        page.get_by_label("Quota").fill("2T")
        page.get_by_label("Least number of nodes to write").fill("2")
        page.get_by_label("Hosts that may write at once").select_option("several")
        submit(page)
        wait_until_done(page)
        body = {
            "protection": "ec:8+3", "compression": "none", "quota_bytes": 2048 * GIB, "minimum_nodes": 2,
            "shared": True,
        }  # fmt: skip
        assert visit.changes() == [("PATCH", "/volumes/photos", body)]

    def test_a_snapshot_has_only_colour_and_description(self, visit: Visit) -> None:
        visit.open_node("photos@monday", "?do=set")
        expect(visit.page.get_by_label("Description")).to_be_visible()
        expect(visit.page.get_by_label("Protection")).to_have_count(0)
        visit.page.get_by_label("No colour").check(force=True)
        submit(visit.page)
        wait_until_done(visit.page)
        assert visit.changes() == [("PATCH", "/volumes/photos@monday", {"color": ""})]

    def test_a_bad_policy_is_refused_in_place(self, visit: Visit) -> None:
        visit.open_node("photos", "?do=set")
        visit.page.get_by_label("Protection").fill("raid99")
        submit(visit.page)
        expect(visit.page.locator("form .failure")).to_contain_text("'raid99' is no protection policy")

    def test_rename_a_volume(self, visit: Visit) -> None:
        visit.open_node("photos")
        visit.operation("rename")
        visit.page.get_by_label("New name").fill("pictures")
        submit(visit.page)
        wait_until_done(visit.page)
        assert visit.changes() == [("POST", "/volumes/photos/rename", {"new_name": "pictures"})]
        expect(visit.page.locator(".panel h1")).to_have_text("pictures")

    def test_rename_a_snapshot_stays_with_its_volume(self, visit: Visit) -> None:
        visit.open_node("photos@monday")
        visit.operation("rename")
        expect(visit.page.get_by_label("New name")).to_have_value("monday")
        visit.page.get_by_label("New name").fill("first")
        submit(visit.page)
        wait_until_done(visit.page)
        assert visit.changes() == [("POST", "/volumes/photos@monday/rename", {"new_name": "photos@first"})]

    @pytest.mark.parametrize("name", ["photos", "photos@monday"])
    def test_mount_shows_the_command(self, visit: Visit, name: str) -> None:
        visit.open_node(name)
        visit.operation("mount")
        commands = visit.page.locator(".command code")
        expect(commands.first).to_contain_text(f"redfs mount {name} ~/")
        expect(commands.nth(1)).to_contain_text("redfs umount ~/")


class TestRollBackAndDelete:
    def test_roll_back_keeps_what_was(self, visit: Visit) -> None:
        visit.open_node("photos")
        visit.operation("rollback")
        visit.page.get_by_label("To the snapshot").select_option("photos@monday")
        visit.page.get_by_label("Name of that snapshot").fill("oops")
        submit(visit.page)
        wait_until_done(visit.page)
        body = {"confirm": "photos", "keep": "oops"}
        assert visit.changes() == [("POST", "/volumes/photos@monday/rollback", body)]
        see_node(visit, "photos@oops")

    def test_roll_back_with_discard_asks_for_the_name(self, visit: Visit) -> None:
        page = visit.page
        visit.open_node("photos@tuesday")
        visit.operation("restore")
        page.get_by_text("Discard what it holds now").click()
        button = page.locator(".panel form button[type=submit]")
        expect(button).to_be_disabled()
        page.get_by_label("to confirm").fill("photo")
        expect(button).to_be_disabled()
        page.get_by_label("to confirm").fill("photos")
        expect(button).to_be_enabled()
        submit(page)
        wait_until_done(page)
        body = {"confirm": "photos", "discard": True}
        assert visit.changes() == [("POST", "/volumes/photos@tuesday/rollback", body)]

    def test_restoring_leads_to_browsing_the_snapshot(self, visit: Visit) -> None:
        visit.open_node("photos@monday")
        visit.operation("restore")
        visit.page.get_by_role("link", name="browse this snapshot").click()
        expect(visit.page.locator("button.file", has_text="notes.txt")).to_be_visible()

    def test_delete_says_what_it_frees_and_what_happens_and_asks_for_the_name(self, visit: Visit) -> None:
        page = visit.page
        visit.pool.named("photos")["usage"]["stored_alone_bytes"] = 3 * GIB
        visit.open_node("photos")
        visit.operation("delete")
        form = page.locator("form[data-operation=delete]")
        expect(form.locator(".freed .big")).to_have_text("3 GiB")
        expect(form).to_contain_text("Mounted by laptop:4312:/home/ada/photos: that mount gives errors from then on")
        expect(form).to_contain_text("3 snapshots of it stay as they are")
        assert visit.pool.freed_asked == [["photos"]]
        button = form.locator("button[type=submit]")
        expect(button).to_be_disabled()
        page.keyboard.press("Enter")
        page.get_by_label("to confirm").fill("photos")
        button.click()
        wait_until_done(page)
        assert visit.changes() == [("DELETE", "/volumes/photos", {"confirm": "photos"})]
        volume_id = next(v["volume_id"] for v in visit.pool.volumes.values() if v["name"] == "photos")
        expect(page.locator(f"#node-{volume_id}")).to_have_class(re.compile(r"\bgone\b"))
        expect(page.locator(".panel")).to_have_count(0)

    def test_delete_a_leaf_and_it_leaves_the_tree(self, visit: Visit) -> None:
        volume_id = visit.id_of("hotfix")
        visit.open_node("hotfix", "?do=delete")
        visit.page.get_by_label("to confirm").fill("hotfix")
        submit(visit.page)
        wait_until_done(visit.page)
        expect(visit.page.locator(f"#node-{volume_id}")).to_have_count(0)


class TestSchedules:
    def test_add_change_and_remove(self, visit: Visit) -> None:
        page = visit.page
        visit.open_node("photos")
        section = page.get_by_label("Scheduled snapshots")
        expect(section).to_contain_text("every 1 h, 24 snapshots kept")
        section.get_by_role("button", name="Add").click()
        section.get_by_label("Label").fill("daily")
        section.get_by_label("Every").fill("1d")
        section.get_by_label("Keep the newest").fill("7")
        section.get_by_role("button", name="Add schedule").click()
        expect(section).to_contain_text("every 1 d, 7 snapshots kept")
        section.get_by_label("Change daily").click()
        expect(section.get_by_label("Every")).to_have_value("1 d")
        section.get_by_label("Keep the newest").fill("14")
        section.get_by_role("button", name="Save schedule").click()
        expect(section).to_contain_text("14 snapshots kept")
        section.get_by_label("Remove daily").click()
        section.get_by_role("button", name="Remove", exact=True).click()
        expect(section).not_to_contain_text("daily")
        assert visit.changes() == [
            ("PUT", "/volumes/photos/schedules/daily", {"every_s": 86400, "keep": 7}),
            ("PUT", "/volumes/photos/schedules/daily", {"every_s": 86400, "keep": 14}),
            ("DELETE", "/volumes/photos/schedules/daily", {}),
        ]

    def test_refused_in_the_servers_words(self, visit: Visit) -> None:
        visit.open_node("photos")
        section = visit.page.get_by_label("Scheduled snapshots")
        section.get_by_role("button", name="Add").click()
        section.get_by_label("Label").fill("mad")
        section.get_by_label("Every").fill("5 s")
        section.get_by_label("Keep the newest").fill("2")
        section.get_by_role("button", name="Add schedule").click()
        expect(section.locator(".failure")).to_have_text("a schedule takes a snapshot every minute at most")


class TestCompare:
    def test_with_a_node_that_is_picked_in_the_list(self, visit: Visit) -> None:
        page = visit.page
        visit.open_node("photos@monday")
        page.get_by_role("button", name="Compare").click()
        page.get_by_label("Node to compare with").fill("photos@tues")
        page.keyboard.press("Enter")
        created = page.locator("[data-change=created]")
        expect(created).to_contain_text("/2024/img-0040.jpg")
        expect(page.locator("[data-change=modified]")).to_contain_text("/notes.txt")
        expect(page.locator(".pair dd").first).to_have_text("photos@monday")
        page.get_by_label("Swap before and after").click()
        expect(page.locator("[data-change=deleted]")).to_contain_text("/2024/img-0040.jpg")

    def test_with_a_node_that_is_clicked_in_the_tree(self, visit: Visit) -> None:
        page = visit.page
        visit.open_node("photos@monday", "?compare=with")
        expect(page.locator(".tree-hint")).to_contain_text("Click the node to compare photos@monday with")
        page.locator(f"#node-{visit.id_of('photos@tuesday')}").click()
        expect(page.locator("[data-change=modified]")).to_contain_text("/notes.txt")

    def test_no_difference(self, visit: Visit) -> None:
        ids = visit.id_of("mail"), visit.id_of("mail-test")
        visit.go(f"#/tree/{ids[0]}?compare={ids[1]}")
        expect(visit.page.locator(".panel")).to_contain_text("No difference")


class TestByKeyboardAlone:
    def test_from_the_tree_to_a_snapshot_taken_and_back(self, open_page: Open) -> None:
        visit = open_page()
        page = visit.page
        page.keyboard.press("/")
        page.keyboard.type("edit-base")
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowDown")
        expect(page.locator("svg.tree")).to_be_focused()
        page.keyboard.press("ArrowRight")
        active = page.locator(f"#node-{visit.id_of('photos')}")
        expect(active).to_have_class(re.compile(r"\bactive\b"))
        page.keyboard.press("Enter")
        panel = page.locator(".panel")
        expect(panel).to_be_focused()
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.dataset.operation") == "snapshot":
                break
        page.keyboard.press("Enter")
        expect(page.get_by_label("Name of the snapshot")).to_be_focused()
        page.keyboard.type("by-keys")
        page.keyboard.press("Enter")
        wait_until_done(page)
        see_node(visit, "photos@by-keys")
        page.keyboard.press("Escape")
        expect(panel).to_have_count(0)
        expect(page.locator("svg.tree")).to_be_focused()

    def test_escape_goes_back_a_step_at_a_time(self, visit: Visit) -> None:
        page = visit.page
        visit.open_node("photos", "?do=delete")
        expect(page.get_by_label("to confirm")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator(".operation").first).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator(".panel")).to_have_count(0)

    def test_numbers_lead_to_the_views(self, visit: Visit) -> None:
        for key, heading in (("3", "Nodes and disks"), ("4", "Jobs"), ("5", "Live"), ("1", "Volume tree")):
            visit.page.keyboard.press(key)
            expect(visit.page.locator("h1", has_text=heading)).to_be_attached()
