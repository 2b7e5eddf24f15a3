// What differs between two nodes of the tree, in the panel: choose the other node, see created, changed, renamed and
// deleted paths, grouped.

import * as api from "./api.js";
import { failure } from "./fields.js";
import { count, size } from "./format.js";
import { icon } from "./icons.js";
import { Picker } from "./picker.js";
import { go } from "./router.js";
import { store } from "./store.js";
import { h } from "./vdom.js";

/** As many entries are asked for; a longer diff says that it goes on. */
const MOST_ENTRIES = 1000;
/** As many are shown of a group before "show all". */
const FIRST_SHOWN = 60;

const GROUPS = [
  ["created", "Created", "+"],
  ["modified", "Changed", "~"],
  ["renamed", "Renamed", "→"],
  ["deleted", "Deleted", "−"],
];

export class Compare {
  constructor(changed) {
    this.changed = changed;
    this.other = null;
    this.result = null;
    this.error = null;
    this.asked = "";
    this.swapped = false;
    this.all = new Set();
    this.picker = new Picker({
      label: "Node to compare with",
      candidates: () => candidates(this.volume),
      onPick: (other) => go("tree", this.volume.volume_id, { compare: other.volume_id }),
      changed,
    });
  }

  /** Whether a click on the tree means "compare with this one". */
  get isPicking() {
    return this.other === null;
  }

  follow(volume, other) {
    this.volume = volume;
    this.other = other?.volume_id === volume.volume_id ? null : other;
    if (!this.other) {
      this.stop();
      this.asked = "";
      this.result = null;
      this.error = null;
      return;
    }
    const older = this.other.created_ns < volume.created_ns ? this.other : volume;
    // A live volume is ahead of its snapshots, though it was made before them.
    const first = volume.kind === "snapshot" && volume.parent_id === this.other.volume_id ? volume
      : this.other.kind === "snapshot" && this.other.parent_id === volume.volume_id ? this.other : older; // prettier-ignore
    const pair = [first, first === volume ? this.other : volume];
    if (this.swapped) pair.reverse();
    this.pair = pair;
    const asked = pair.map((v) => v.name).join(" ");
    if (asked !== this.asked) this.ask(asked, pair);
  }

  async ask(asked, [before, after]) {
    this.stop();
    this.asked = asked;
    this.result = null;
    this.error = null;
    this.all.clear();
    this.running = new AbortController();
    try {
      this.result = await api.getDiff(before.name, after.name, MOST_ENTRIES, this.running.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.error = error;
    }
    this.changed();
  }

  stop() {
    this.running?.abort();
    this.running = null;
  }

  view(volume) {
    return h(
      "div",
      { class: "stack", "data-part": "compare" },
      h("div", {}, h("h2", {}, "Compare"), h("p", { class: "quiet small" }, "Paths that were created, changed, renamed or deleted between two nodes.")),
      h(
        "div",
        { class: "field" },
        h("span", { class: "field-label" }, `${volume.name} with`),
        this.picker.view(this.other),
        !this.other && h("div", { class: "hint" }, "Or click the other node in the tree"),
      ),
      this.other && this.pairView(),
      failure(this.error),
      this.other && !this.result && !this.error && h("p", { class: "loading" }, "Comparing…"),
      this.result && this.resultView(),
    );
  }

  pairView() {
    const [before, after] = this.pair;
    const swap = () => {
      this.swapped = !this.swapped;
      this.follow(this.volume, this.other);
      this.changed();
    };
    return h(
      "div",
      { class: "pair" },
      h("dl", {}, h("dt", {}, "before"), h("dd", {}, before.name), h("dt", {}, "after"), h("dd", {}, after.name)),
      h("button", { type: "button", class: "button tiny icon-only", "aria-label": "Swap before and after", title: "Swap", onClick: swap }, icon("swap")),
    );
  }

  resultView() {
    const { entries, complete } = this.result;
    if (!entries.length) return h("div", { class: "empty" }, icon("check"), h("b", {}, "No difference"), "Both show the same files.");
    return [
      GROUPS.map(([change, title, mark]) => {
        const group = entries.filter((entry) => entry.change === change);
        if (!group.length) return null;
        const shown = this.all.has(change) ? group : group.slice(0, FIRST_SHOWN);
        return h(
          "section",
          { class: "diff-group", key: change, "data-change": change },
          h("div", { class: "section-head" }, h("h3", {}, title), h("span", { class: "chip num" }, String(group.length))),
          h("ul", {}, shown.map((entry, index) => entryView(entry, mark, index))),
          shown.length < group.length &&
            h("button", {
              type: "button", class: "button tiny",
              onClick: () => {
                this.all.add(change);
                this.changed();
              },
            }, `Show all ${group.length}`),
        ); // prettier-ignore
      }),
      !complete && h("div", { class: "notice" }, icon("warning"), `More than ${count(entries.length, "path")} differ. For all of them: redfs diff ${this.pair[0].name} ${this.pair[1].name}`),
    ];
  }
}

function entryView(entry, mark, index) {
  const folder = entry.kind === "folder" ? "/" : "";
  const what = entry.change === "modified" && !entry.content ? "attributes" : amount(entry);
  return h(
    "li",
    { key: `${index} ${entry.path}` },
    h("span", { class: `change-mark ${entry.change}`, "aria-hidden": "true" }, mark),
    h("span", { class: "path" }, `${entry.name}${folder}`, entry.change === "renamed" && [h("br", {}), `→ ${entry.new_name}${folder}`]),
    h("span", { class: "amount" }, what),
  );
}

function amount(entry) {
  if (entry.kind !== "file") return entry.kind === "folder" ? "" : entry.kind;
  if (entry.change === "created") return size(entry.after_bytes);
  if (entry.change === "deleted") return size(entry.before_bytes);
  if (entry.change === "renamed" && !entry.content) return "";
  const more = entry.after_bytes - entry.before_bytes;
  return more === 0 ? `${size(entry.after_bytes)}, changed` : `${more > 0 ? "+" : "−"}${size(Math.abs(more))}`;
}

/** Nodes that a diff can be asked for, its own relatives first. */
function candidates(volume) {
  const family = volume.kind === "snapshot" ? volume.parent_id : volume.volume_id;
  const isNear = (other) => other.volume_id === family || other.parent_id === family || other.volume_id === volume.parent_id;
  const all = (store.lists.volumes ?? []).filter((v) => v.state === "ok" && v.kind !== "zero" && v !== volume);
  const newest = (a, b) => b.created_ns - a.created_ns;
  return [...all.filter(isNear).sort(newest), ...all.filter((v) => !isNear(v)).sort(newest)];
}
