// A line chart over the last five minutes, as SVG. Give it samples once a second; it shows the values under the pointer,
// or under the keys: the chart takes the focus, left and right walk along the time.

import { WINDOW_S } from "./figures.js";
import { h } from "./vdom.js";

/** Room for the values beside the lines. */
const LEFT = 64;
const BOTTOM = 20;
const TOP = 6;
const TICK_S = 60;
const KEY_STEP_S = 5;
const NARROW_PX = 380;
/** Room for a tip at the pointer's side. */
const TIP_PX = 170;

export class Chart {
  /** binary: values are sizes. series: [{name, read(sample) -> number or null, className}]. format(value) -> text. changed() renders again. */
  constructor({ label, series, format, tall, binary, changed }) {
    Object.assign(this, { label, series, format, tall, binary, changed });
    this.width = 600;
    this.height = tall ? 176 : 132;
    this.pointed = null; // seconds before the newest sample
    this.sizes = new ResizeObserver(([entry]) => {
      const { width, height } = entry.contentRect;
      if (!width || (width === this.width && height === this.height)) return;
      this.width = width;
      this.height = height;
      this.changed();
    });
  }

  dispose() {
    this.sizes.disconnect();
  }

  /** samples: as Figures.series gives them, one a second. */
  view(samples) {
    this.samples = samples;
    const highest = Math.max(...this.series.flatMap((s) => samples.map((sample) => s.read(sample) ?? 0)));
    const { steps, top } = niceSteps(highest, this.binary);
    const plotHeight = this.height - BOTTOM - TOP;
    const x = (index) => LEFT + (index / WINDOW_S) * (this.width - LEFT - 1);
    const y = (value) => TOP + plotHeight * (1 - value / top);
    const index = this.pointed === null ? null : samples.length - 1 - this.pointed;
    const minutes = Array.from({ length: WINDOW_S / TICK_S }, (_, i) => i * TICK_S);
    // The last minute's mark would stand in the "now" of a narrow chart.
    const ticks = this.width < NARROW_PX ? minutes.slice(0, -1) : minutes;
    return h(
      "div",
      {
        class: this.tall ? "chart tall" : "chart",
        tabindex: 0,
        role: "img",
        "aria-label": `${this.label}, last five minutes. ${this.sentence(samples.at(-1))}`,
        ref: (node) => { this.element = node; this.sizes.observe(node); },
        onPointermove: (event) => this.point(event),
        onPointerleave: () => this.pointAt(null),
        onKeydown: (event) => this.onKey(event),
        onBlur: () => this.pointAt(null),
      },
      h(
        "svg",
        { "aria-hidden": "true" },
        steps.map((step) => [
          h("line", { key: `grid ${step}`, class: "grid", x1: LEFT, x2: this.width, y1: y(step), y2: y(step) }),
          step > 0 && h("text", { key: `value ${step}`, class: "tick", x: LEFT - 10, y: y(step) + 4, "text-anchor": "end" }, this.format(step)),
        ]),
        ticks.map((s) => h("text", { key: `time ${s}`, class: "tick", x: x(s), y: this.height - 4 }, `−${(WINDOW_S - s) / 60} min`)),
        h("text", { class: "tick", x: this.width - 1, y: this.height - 4, "text-anchor": "end" }, "now"),
        this.series.map((s) => {
          const line = pathOf(samples, s.read, x, y);
          return [
            h("path", { key: `area ${s.name}`, class: `area ${s.className ?? ""}`, d: areaOf(line, y(0)) }),
            h("path", { key: `line ${s.name}`, class: `line ${s.className ?? ""}`, d: line.map((run) => `M${run.join("L")}`).join("") }),
          ];
        }),
        index !== null && h("line", { class: "cross", x1: x(index), x2: x(index), y1: TOP, y2: y(0) }),
        index !== null &&
          this.series.map((s) => {
            const value = s.read(samples[index]);
            return value !== null && h("circle", { key: `point ${s.name}`, class: `point ${s.className ?? ""}`, cx: x(index), cy: y(value), r: 4.5 });
          }),
      ),
      index !== null && this.tip(samples[index], x(index)),
    ); // prettier-ignore
  }

  tip(sample, at) {
    const left = at > this.width - TIP_PX ? { right: `${Math.round(this.width - at + 10)}px` } : { left: `${Math.round(at + 10)}px` };
    const time = new Date(sample.second * 1000).toLocaleTimeString("en-GB");
    return h(
      "div",
      { class: "chart-tip", style: left },
      time,
      this.series.map((s) => h("div", { key: s.name }, `${s.name} `, h("b", {}, valueText(s, sample, this.format)))),
    );
  }

  sentence(sample) {
    return this.series.map((s) => `${s.name}: ${valueText(s, sample, this.format)}`).join(", ");
  }

  point(event) {
    const frame = this.element.getBoundingClientRect();
    const share = (event.clientX - frame.left - LEFT) / (frame.width - LEFT - 1);
    this.pointAt(Math.round((1 - Math.min(1, Math.max(0, share))) * WINDOW_S));
  }

  pointAt(secondsAgo) {
    if (secondsAgo === this.pointed) return;
    this.pointed = secondsAgo;
    this.changed();
  }

  onKey(event) {
    const step = { ArrowLeft: KEY_STEP_S, ArrowRight: -KEY_STEP_S }[event.key];
    if (!step) return;
    event.preventDefault();
    this.pointAt(Math.min(WINDOW_S, Math.max(0, (this.pointed ?? -Math.min(0, step)) + step)));
  }
}

function valueText(series, sample, format) {
  const value = series.read(sample);
  return value === null ? "–" : format(value);
}

/** Runs of points, broken where there is no value. */
function pathOf(samples, read, x, y) {
  const runs = [];
  let run = null;
  samples.forEach((sample, index) => {
    const value = read(sample);
    if (value === null) {
      run = null;
      return;
    }
    if (!run) {
      run = [];
      runs.push(run);
    }
    run.push(`${x(index).toFixed(1)} ${y(value).toFixed(1)}`);
  });
  // A single second would be a line of no length: round caps show it as a point.
  for (const each of runs) if (each.length === 1) each.push(each[0]);
  return runs;
}

function areaOf(runs, floor) {
  return runs
    .map((run) => `M${run[0].split(" ")[0]} ${floor}L${run.join("L")}L${run.at(-1).split(" ")[0]} ${floor}Z`)
    .join("");
}

/** A few lines at round values (`binary`: round as sizes are read, 128 MiB), and the value at the top edge. */
export function niceSteps(highest, binary) {
  if (highest <= 0) return { steps: [0], top: 1 };
  const unit = binary && highest >= 1024 ? 1024 ** Math.floor(Math.log2(highest) / 10) : 1;
  const scaled = highest / unit / 2;
  const power = 10 ** Math.floor(Math.log10(scaled));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((m) => m >= scaled * 0.75) * unit;
  const steps = [];
  for (let value = 0; value <= highest * 1.02; value += step) steps.push(value);
  return { steps, top: Math.max(highest * 1.18, step) };
}
