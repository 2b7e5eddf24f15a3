// Live: what all mounts together do right now and did in the last five minutes, and where the space goes.

import { Chart } from "./chart.js";
import { latency, number, percent, size } from "./format.js";
import { store } from "./store.js";
import { h, render } from "./vdom.js";

const TICK_MS = 1000;
/** Space moves while people write, and nothing pushes it. */
const SPACE_MS = 5000;

export class LiveView {
  constructor(container) {
    this.container = container;
    const changed = () => this.render();
    const rate = (value) => `${size(value)}/s`;
    this.throughput = new Chart({
      label: "Throughput",
      tall: true,
      binary: true,
      format: rate,
      changed,
      series: [
        { name: "Read", read: (sample) => sample.readRate },
        { name: "Write", read: (sample) => sample.writeRate, className: "second" },
      ],
    });
    this.operations = new Chart({
      label: "Operations",
      format: (value) => (value < 10 && !Number.isInteger(value) ? value.toFixed(1) : number(value)),
      changed,
      series: [{ name: "Operations", read: (sample) => sample.operations }],
    });
    this.latency = new Chart({
      label: "Mean latency",
      format: latency,
      changed,
      series: [{ name: "Latency", read: (sample) => sample.latencyMs }],
    });
    this.tick = setInterval(changed, TICK_MS);
    this.space = setInterval(() => !document.hidden && store.refresh("status"), SPACE_MS);
    this.stopWatching = store.watch(() => this.render());
    this.render();
  }

  follow() {}

  dispose() {
    clearInterval(this.tick);
    clearInterval(this.space);
    this.stopWatching();
    for (const chart of [this.throughput, this.operations, this.latency]) chart.dispose();
    render(this.container);
  }

  render() {
    const second = Math.floor(Date.now() / 1000);
    // The server's clock may be another: the newest sample is "now" while it is fresh.
    const newest = store.figures.samples.at(-1)?.second ?? second;
    const end = Math.abs(newest - second) <= 2 ? Math.max(newest, second - 1) : second;
    const samples = store.figures.series(end);
    const now = store.figures.now(end);
    const { status } = store.lists;
    render(
      this.container,
      h(
        "div",
        { class: "view" },
        h(
          "div",
          { class: "view-head" },
          h("h1", {}, "Live"),
          status && h("span", { class: "quiet" }, `All mounts together, last five minutes · ${status.mounts} ${status.mounts === 1 ? "mount" : "mounts"}`),
        ),
        h(
          "div",
          { class: "charts" },
          card("Throughput", this.throughput.view(samples), [
            ["Read", `${size(now.readRate)}/s`, ""],
            ["Write", `${size(now.writeRate)}/s`, "second"],
          ]),
          card("Operations a second", this.operations.view(samples), [["", number(now.operations), ""]]),
          card("Mean latency", this.latency.view(samples), [["", now.latencyMs === null ? "–" : latency(now.latencyMs), ""]]),
        ),
        status && spaceCard(status),
      ),
    );
  }
}

function card(title, chart, values) {
  return h(
    "section",
    { class: "card chart-card", key: title },
    h(
      "div",
      { class: "chart-head" },
      h("h2", {}, title),
      h(
        "div",
        { class: "chart-values" },
        values.map(([name, value, className]) => h("div", { key: name, class: className }, h("b", {}, value), name && h("span", {}, h("i", {}), name))),
      ),
    ),
    chart,
  );
}

function spaceCard(status) {
  const rows = [
    ["Logical", "what all files refer to", status.logical_bytes],
    ["After dedupe", "equal blocks once", status.unique_bytes],
    ["After compression", "as it is stored", status.stored_bytes],
    ["With protection", "on all disks together", status.segment_bytes],
  ];
  const widest = Math.max(1, ...rows.map(([, , bytes]) => bytes));
  const deduped = Math.max(0, status.logical_bytes - status.unique_bytes);
  const compressed = Math.max(0, status.unique_bytes - status.stored_bytes);
  return h(
    "section",
    { class: "card space-card" },
    h("h2", {}, "Space"),
    h(
      "div",
      { class: "space-rows" },
      rows.map(([name, line, bytes]) => spaceRow(name, line, bytes, widest)),
      spaceRow("Disks", `${size(status.free_bytes)} of ${size(status.capacity_bytes)} free`, status.used_bytes, status.capacity_bytes, true),
    ),
    h(
      "div",
      { class: "savings" },
      saving(size(deduped), `saved by dedupe, ${percent(deduped, status.logical_bytes)}`),
      saving(size(compressed), `saved by compression, ${percent(compressed, status.unique_bytes)}`),
      saving(status.stored_bytes ? `${(status.segment_bytes / status.stored_bytes).toFixed(2)} ×` : "–", "cost of protection"),
      saving(status.segment_bytes ? `${(status.logical_bytes / status.segment_bytes).toFixed(2)} ×` : "–", "files to disks, all in all"),
    ),
  );
}

function spaceRow(name, line, bytes, whole, track = false) {
  return h(
    "div",
    { key: name },
    h("div", {}, name, h("small", {}, line)),
    h("div", { class: track ? "bar track" : "bar", "aria-hidden": "true" }, h("i", { style: { width: `${whole ? Math.min(100, (100 * bytes) / whole) : 0}%` } })),
    h("div", { class: "amount" }, size(bytes)),
  );
}

function saving(value, text) {
  return h("div", { key: text }, h("b", {}, value), h("span", {}, text));
}
