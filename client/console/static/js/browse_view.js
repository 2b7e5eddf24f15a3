// Browse: choose any node of the tree, walk its folders, open a file's panel.
//
// A folder comes in its own order, a page at a time: it is fetched up to a bound and sorted by name here. Paths are
// percent-encoded everywhere but where people read them.

import * as api from "./api.js";
import { failure } from "./fields.js";
import { FilePanel } from "./file_panel.js";
import { count, dateTime, number, permissions, size } from "./format.js";
import { icon } from "./icons.js";
import { folderOf, shownPath } from "./paths.js";
import { Picker } from "./picker.js";
import { go, routeTo } from "./router.js";
import { store } from "./store.js";
import { h, render } from "./vdom.js";

const PAGE_ENTRIES = 1000;
/** As many of a folder are fetched without asking: sorted by name, it is whole up to here. */
const MOST_UNASKED = 10_000;
/** As many rows are shown before "show more". */
const FIRST_ROWS = 1000;
const BY_NAME = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

export class BrowseView {
  constructor(container) {
    this.container = container;
    this.route = { subject: "", query: {} };
    this.entries = null;
    this.next = null;
    this.error = null;
    this.asked = "";
    this.panel = new FilePanel(() => this.render(), () => this.reload());
    this.picker = new Picker({
      label: "Node to browse",
      candidates: browsable,
      onPick: (volume) => go("browse", volume.name, { path: this.path }),
      changed: () => this.render(),
    });
    this.stopWatching = store.watch((changed) => {
      if (changed.has("volumes")) {
        this.chooseFirst();
        this.followFile();
      }
      if (!changed.has("figures") || changed.size > 1) this.render();
    });
    this.render();
  }

  dispose() {
    this.stopWatching();
    this.running?.abort();
    this.panel.stop();
    render(this.container);
  }

  get node() {
    return store.byName.get(this.route.subject) ?? null;
  }

  get path() {
    return this.route.query.path ?? "/";
  }

  follow(route) {
    this.route = route;
    this.chooseFirst();
    const asked = `${this.route.subject} ${this.path}`;
    if (this.route.subject && asked !== this.asked) this.load(asked);
    this.followFile();
    this.render();
  }

  chooseFirst() {
    if (this.route.subject) return;
    const all = browsable();
    const first = all.find((volume) => volume.mounts.length && volume.kind === "live") ?? all[0];
    if (first) go("browse", first.name, {}, { replace: true });
  }

  async load(asked) {
    this.asked = asked;
    this.entries = null;
    this.error = null;
    this.rows = FIRST_ROWS;
    await this.fetchFolder();
    if (asked !== this.asked) return;
    this.followFile();
    this.render();
    // Keys go on in the new folder, unless a file's panel or the picker has them.
    if (!this.route.query.file && !this.container.querySelector(".picker :focus")) this.container.querySelector(".files button.file")?.focus();
  }

  /** Reads the folder anew, in place. */
  async reload() {
    await this.fetchFolder();
    this.followFile();
    this.render();
  }

  /** All of the folder, or its next pages where it is very large. */
  async fetchFolder(after) {
    this.running?.abort();
    const running = new AbortController();
    this.running = running;
    try {
      const fetched = after === undefined ? [] : [...this.entries];
      const bound = fetched.length + MOST_UNASKED;
      let next = after;
      do {
        const page = await api.browse(this.route.subject, this.path, next, PAGE_ENTRIES, running.signal);
        fetched.push(...page.entries);
        next = page.next;
      } while (next !== null && fetched.length < bound);
      const rank = (entry) => (entry.kind === "folder" ? 0 : 1);
      fetched.sort((a, b) => rank(a) - rank(b) || BY_NAME.compare(a.name, b.name));
      this.entries = fetched;
      this.next = next;
    } catch (error) {
      if (running.signal.aborted) return;
      this.error = error;
    }
    this.render();
  }

  followFile() {
    const { file } = this.route.query;
    const entry = this.entries?.find((other) => other.path === file) ?? null;
    this.panel.follow(this.node, file ?? null, entry);
  }

  /** Escape closes the file's panel. Returns whether there was one. */
  escape() {
    if (this.route.query.file === undefined) return false;
    const { file } = this.route.query;
    go("browse", this.route.subject, { path: this.path });
    [...this.container.querySelectorAll("button.file")].find((row) => row.dataset.path === file)?.focus();
    return true;
  }

  render() {
    const file = this.route.query.file;
    render(
      this.container,
      h(
        "div",
        { class: "browse" },
        h(
          "div",
          { class: "browse-main" },
          h(
            "div",
            { class: "view" },
            h("h1", { class: "sr-only" }, "Browse"),
            h("div", { class: "browse-bar" }, this.picker.view(this.node), this.crumbs()),
            store.lists.volumes && this.route.subject && !this.node && h("div", { class: "notice" }, icon("warning"), `There is no node named ${this.route.subject} any more: choose another.`),
            this.error ? failure(this.error) : this.list(),
          ),
        ),
        file !== undefined && this.node && this.panel.view(() => this.escape()),
      ),
    );
    this.panel.settle();
  }

  crumbs() {
    const parts = this.path.split("/").filter(Boolean);
    const link = (path, name) => {
      const text = shownPath(name);
      return path === this.path
        ? h("b", { key: path, "aria-current": "page" }, text)
        : h("a", { key: path, href: routeTo("browse", this.route.subject, { path }) }, text);
    };
    return h(
      "nav",
      { class: "crumbs", "aria-label": "Folder" },
      link("/", "top"),
      parts.map((part, index) => [h("span", { key: `mark ${index}`, "aria-hidden": "true" }, icon("forward")), link(`/${parts.slice(0, index + 1).join("/")}`, part)]),
    );
  }

  list() {
    if (!this.entries) return h("p", { class: "loading" }, store.lists.volumes && !browsable().length ? "There is no volume to browse yet." : "Loading…");
    if (!this.entries.length) return h("div", { class: "empty" }, icon("folder"), h("b", {}, "An empty folder"));
    return h(
      "div",
      { class: "card files", role: "list", "aria-label": `Entries of ${shownPath(this.path)}`, onKeydown: (event) => this.onKey(event) },
      h(
        "div",
        { class: "file head", "aria-hidden": "true" },
        h("span", {}), h("span", {}, "Name"), h("span", { class: "size" }, "Size"), h("span", { class: "when" }, "Changed"), h("span", { class: "mode" }, "Mode"),
      ),
      this.entries.slice(0, this.rows).map((entry) => this.row(entry)),
      this.more(),
    ); // prettier-ignore
  }

  more() {
    const hidden = this.entries.length - this.rows;
    if (hidden <= 0 && !this.next) return null;
    const show = () => {
      this.rows += FIRST_ROWS;
      if (hidden <= 0) this.fetchFolder(this.next);
      this.render();
    };
    const text = hidden > 0 ? `Show more: ${number(hidden)}${this.next ? " and others" : ""}` : "Fetch more";
    return h("div", { class: "more" }, h("button", { type: "button", class: "button tiny", onClick: show }, text));
  }

  row(entry) {
    const chosen = entry.path === this.route.query.file;
    return h(
      "div",
      { role: "listitem", key: entry.path },
      h(
        "button",
        {
          type: "button",
          class: chosen ? "file chosen" : "file",
          "data-name": entry.name,
          "data-path": entry.path,
          "aria-label": `${entry.kind} ${entry.name}`,
          "aria-current": chosen ? "true" : undefined,
          onClick: () => this.open(entry),
        },
        icon(entry.kind === "symlink" ? "link" : entry.kind, `icon of-${entry.kind}`),
        h("span", { class: "name" }, entry.name, entry.target && h("span", { class: "target" }, ` → ${entry.target}`)),
        h("span", { class: "size" }, entry.kind === "file" ? size(entry.size) : entry.kind === "folder" ? count(entry.size, "entry", "entries") : ""),
        h("span", { class: "when num" }, dateTime(entry.mtime_ns)),
        h("span", { class: "mode" }, permissions(entry.mode, entry.kind)),
      ),
    );
  }

  open(entry) {
    if (entry.kind === "folder") go("browse", this.route.subject, { path: entry.path });
    else go("browse", this.route.subject, { path: this.path, file: entry.path });
  }

  onKey(event) {
    const rows = [...this.container.querySelectorAll("button.file")];
    const at = rows.indexOf(document.activeElement);
    if (at < 0) return;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      rows[Math.min(rows.length - 1, Math.max(0, to))].focus();
    } else if (event.key === "ArrowRight") {
      event.preventDefault();
      rows[at].click();
    } else if ((event.key === "Backspace" || event.key === "ArrowLeft") && this.path !== "/") {
      event.preventDefault();
      go("browse", this.route.subject, { path: folderOf(this.path) });
    } else if (event.key === "i") {
      // A folder as a whole: its panel, where Enter would walk into it.
      go("browse", this.route.subject, { path: this.path, file: rows[at].dataset.path });
    }
  }
}

/** Nodes that can be looked into, volumes first. */
function browsable() {
  const all = (store.lists.volumes ?? []).filter((v) => v.state === "ok" && v.kind !== "zero");
  const rank = (volume) => (volume.kind === "live" ? 0 : 1);
  return all.sort((a, b) => rank(a) - rank(b) || b.created_ns - a.created_ns);
}
