// Begins everything: the header, the views behind the address, search, keys that hold everywhere.

import { BrowseView } from "./browse_view.js";
import { icon } from "./icons.js";
import { JobsView } from "./jobs_view.js";
import { LiveView } from "./live_view.js";
import { NodesView } from "./nodes_view.js";
import { go, parseRoute, routeTo } from "./router.js";
import { store } from "./store.js";
import { isDark, toggleTheme } from "./theme.js";
import { TreeView } from "./tree_view.js";
import { h, render } from "./vdom.js";

const VIEWS = {
  tree: { title: "Tree", icon: "tree", view: TreeView },
  browse: { title: "Browse", icon: "folder", view: BrowseView },
  nodes: { title: "Nodes", icon: "disks", view: NodesView },
  jobs: { title: "Jobs", icon: "jobs", view: JobsView },
  live: { title: "Live", icon: "live", view: LiveView },
};
const HEALTH = { ok: "Healthy", degraded: "Degraded", failed: "Failed" };
/** A short loss of the stream is nobody's concern. */
const BANNER_AFTER_MS = 700;

class App {
  constructor() {
    this.main = document.getElementById("main");
    this.name = null;
    this.view = null;
    this.searchState = "";
    addEventListener("hashchange", () => this.follow());
    addEventListener("keydown", (event) => this.onKey(event));
    addEventListener("themechange", () => this.renderHeader());
    store.watch((changed) => {
      if (changed.has("connection")) this.connectionChanged();
      if (changed.has("status") || changed.has("jobs")) this.renderHeader();
    });
    store.start();
    this.renderHeader();
    this.follow();
  }

  follow() {
    const route = parseRoute(location.hash);
    if (route.view !== this.name) {
      this.view?.dispose();
      this.name = route.view;
      this.searchState = "";
      this.main.scrollTop = 0;
      this.view = new VIEWS[route.view].view(this.main, this);
      document.title = `${VIEWS[route.view].title} · RedFS`;
      if (this.searchText) this.view.search?.(this.searchText);
    }
    this.view.follow(route);
    this.renderHeader();
  }

  // ---------------------------------------------------------------- header

  renderHeader() {
    const { status, jobs } = store.lists;
    const tabs = Object.entries(VIEWS).map(([name, view]) =>
      h(
        "a",
        { key: name, href: routeTo(name), "aria-current": name === this.name ? "page" : undefined },
        icon(view.icon),
        view.title,
        name === "jobs" && jobs?.length > 0 && h("span", { class: "tally num" }, String(jobs.length)),
      ),
    );
    render(
      document.getElementById("header"),
      h("a", { class: "brand", href: routeTo("tree"), "aria-label": "RedFS: the volume tree" }, mark(), h("span", {}, "RedFS")),
      h("nav", { class: "views", "aria-label": "Views" }, tabs),
      this.searchField(),
      this.health(status),
      h("button", {
        type: "button", class: "button plain icon-only", onClick: toggleTheme,
        "aria-label": isDark() ? "Light theme" : "Dark theme", title: isDark() ? "Light theme" : "Dark theme",
      }, icon(isDark() ? "sun" : "moon")),
    ); // prettier-ignore
    render(document.getElementById("tabs"), h("div", { class: "views" }, tabs));
  }

  searchField() {
    return h(
      "div",
      { class: "search", role: "search" },
      icon("search"),
      h("input", {
        class: "input", type: "search", placeholder: "Search volumes", "aria-label": "Search the volume tree",
        autocomplete: "off", spellcheck: "false",
        ref: (node) => { this.search = node; },
        onInput: (event) => this.searched(event.target.value),
        onKeydown: (event) => this.onSearchKey(event),
      }),
      h("span", { class: "aside num", role: "status" }, this.searchState || h("kbd", { title: "Press / to search" }, "/")),
    ); // prettier-ignore
  }

  health(status) {
    if (!status) return h("span", { class: "health" }, h("i", { class: "dot" }), h("span", { class: "detail" }, "…"));
    const text = HEALTH[status.health] ?? status.health;
    return h(
      "a",
      {
        class: "health",
        href: routeTo("nodes"),
        title: status.problems.join("\n") || "No problems",
        "aria-label": `Pool: ${text}, ${status.nodes_up} of ${status.nodes_total} nodes up`,
      },
      h("i", { class: `dot ${status.health}` }),
      h("span", { class: "detail" }, h("b", {}, text), ` · ${status.nodes_up}/${status.nodes_total} nodes`),
    );
  }

  connectionChanged() {
    clearTimeout(this.bannerTimer);
    const lost = store.connected === false ? "The connection to the console was lost" : store.away;
    const show = () =>
      render(
        document.getElementById("banner"),
        lost && h("div", { class: "banner" }, `${lost}. What is shown may be old; trying again…`),
      );
    if (lost) this.bannerTimer = setTimeout(show, BANNER_AFTER_MS);
    else show();
  }

  // ---------------------------------------------------------------- search and keys

  searched(text) {
    this.searchText = text;
    // The tree is where nodes are found: a search from elsewhere goes there.
    if (text.trim() && this.name !== "tree") go("tree");
    if (this.view.search) this.view.search(text);
    if (!text.trim()) this.showSearchState("");
  }

  onSearchKey(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      if (this.name !== "tree") this.searched(event.target.value);
      this.view.nextMatch?.(event.shiftKey ? -1 : 1);
    } else if (event.key === "ArrowDown" && this.view.svg) {
      // From the match into the tree, to walk on or to open it.
      event.preventDefault();
      if (this.view.active === null) this.view.nextMatch(1);
      this.view.svg.focus();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      event.target.value = "";
      this.searched("");
      event.target.blur();
      this.view.svg?.focus({ preventScroll: true });
    }
  }

  showSearchState(state) {
    if (state === this.searchState) return;
    this.searchState = state;
    this.renderHeader();
  }

  onKey(event) {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
    const typing = event.target.matches?.("input:not([type=radio], [type=checkbox]), select, textarea");
    if (event.key === "Escape") {
      if (this.view.escape?.()) event.preventDefault();
    } else if (event.key === "/" && !typing) {
      event.preventDefault();
      this.search.focus();
      this.search.select();
    } else if (!typing && /^[1-5]$/.test(event.key)) go(Object.keys(VIEWS)[Number(event.key) - 1]);
  }
}

function mark() {
  return h(
    "svg",
    { viewBox: "0 0 32 32", "aria-hidden": "true" },
    h("rect", { width: 32, height: 32, rx: 8 }),
    h("path", { d: "M8 11h16M12 11v6a5 5 0 0 0 5 5h7" }),
    h("circle", { cx: 8, cy: 11, r: 2.6 }),
    h("circle", { cx: 24, cy: 11, r: 2.6 }),
    h("circle", { cx: 24, cy: 22, r: 2.6 }),
  );
}

new App();
