// Nodes and disks: what is wrong with the pool, what the last scrub found, then every storage node with its room and its
// files.

import * as api from "./api.js";
import { ago, count, duration, number, percent, size } from "./format.js";
import { icon } from "./icons.js";
import { store } from "./store.js";
import { toast } from "./toasts.js";
import { h, render } from "./vdom.js";

/** A disk this full is shown as full. */
const NEARLY_FULL = 0.92;
/** A node that is up reports every few seconds: only what is older than this is worth saying. */
const QUIET_S = 5;
const TICK_MS = 1000;

export class NodesView {
  constructor(container) {
    this.container = container;
    this.stopWatching = store.watch(() => this.render());
    this.timer = setInterval(() => this.render(), TICK_MS);
    this.render();
  }

  follow() {}

  dispose() {
    this.stopWatching();
    clearInterval(this.timer);
    render(this.container);
  }

  render() {
    const { nodes, status } = store.lists;
    render(
      this.container,
      h(
        "div",
        { class: "view" },
        h(
          "div",
          { class: "view-head" },
          h("h1", {}, "Nodes and disks"),
          status && h("span", { class: "quiet" }, `${status.nodes_up} of ${count(status.nodes_total, "node")} up · ${size(status.free_bytes)} of ${size(status.capacity_bytes)} free`),
        ),
        h(
          "div",
          { class: "problems", role: "list", "aria-label": "Problems" },
          (status?.problems ?? []).map((problem) => h("div", { key: problem, class: status.health === "failed" ? "failure" : "notice", role: "listitem" }, icon("warning"), problem)),
        ),
        status && scrubLine(status),
        nodes
          ? nodes.length
            ? h("ul", { class: "node-list" }, nodes.map(nodeCard))
            : h("div", { class: "empty" }, icon("disks"), h("b", {}, "No storage nodes yet"), "A node joins when it is started with this pool's address.")
          : h("p", { class: "loading" }, store.errors.nodes?.message ?? "Loading…"),
      ),
    );
  }
}

function scrubLine({ scrub, jobs }) {
  const running = jobs.some((job) => job.kind === "scrub");
  const found = scrub.bad ? `${count(scrub.bad, "bad one")} found` : "all of them good";
  const said = scrub.ended_ns ? `Last scrub ${ago(scrub.ended_ns)}: ${count(scrub.shards, "shard")}, ${size(scrub.bytes)}, ${found}` : "Nothing was scrubbed yet";
  return h(
    "p",
    { class: "quiet", "data-scrub": "" },
    `${said} `,
    h("button", { type: "button", class: "button tiny", disabled: running, onClick: startScrub }, icon("check"), running ? "Scrubbing" : "Scrub now"),
  );
}

async function startScrub() {
  try {
    await api.startJob("scrub");
    await store.refresh("status");
  } catch (error) {
    toast(error.message);
  }
}

function errorsOf(node) {
  const said = [node.disk_failed && "the disk failed", node.damaged_shards && `${count(node.damaged_shards, "damaged shard")}`, node.missing_shards && `${count(node.missing_shards, "missing shard")}`].filter(Boolean);
  return said.length ? h("span", { class: "wrong" }, said.join(", ")) : "none";
}

function nodeCard(node) {
  const used = node.capacity_bytes ? node.used_bytes / node.capacity_bytes : 0;
  // What the list said, and the time since it was fetched.
  const seen = node.last_seen_s + (Date.now() - store.fetchedMs.nodes) / 1000;
  const quiet = seen > QUIET_S && node.last_seen_s > QUIET_S;
  const state = quiet || node.state === "down" ? `${node.state}, last seen ${duration(seen)} ago` : node.state;
  const fact = (name, value) => (value === "" || value === undefined ? null : [h("dt", {}, name), h("dd", {}, value)]);
  return h(
    "li",
    { key: node.node_id, class: `card node-card ${node.state}` },
    h("header", {}, h("i", { class: `dot ${node.state}`, "aria-hidden": "true" }), h("h2", {}, `Node ${node.node_id}`), h("span", { class: "state" }, state)),
    h(
      "div",
      {},
      h("div", { class: "capacity" }, h("span", {}, `${size(node.used_bytes)} used`), h("span", { class: "quiet" }, `${size(node.free_bytes)} free of ${size(node.capacity_bytes)}`)),
      h(
        "div",
        { class: used > NEARLY_FULL ? "bar full" : "bar", role: "img", "aria-label": `${percent(node.used_bytes, node.capacity_bytes)} used` },
        h("i", { style: { width: `${Math.min(100, 100 * used).toFixed(2)}%` } }),
      ),
    ),
    h(
      "dl",
      { class: "facts" },
      fact("Shards", h("span", { class: "num" }, number(node.shards))),
      fact("Errors", errorsOf(node)),
      fact("Backing files", h("span", { class: "num" }, number(node.backing_files))),
      fact("Address", h("span", { class: "mono" }, node.address)),
      fact("Domain", node.domain),
      fact("Folder", node.data_folder && h("span", { class: "mono small" }, node.data_folder)),
      fact("Starts", h("span", { class: "num" }, number(node.generation))),
    ),
  );
}
