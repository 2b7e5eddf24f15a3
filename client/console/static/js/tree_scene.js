// Draws a layout of the volume tree as SVG: only what is near the window, and coarsely when far away.
//
// Moving and zooming changes one attribute, the transform of one group. What is drawn covers the window and a margin of
// half a window on each side; it is worked out anew only when the window leaves that, or the zoom changes by much. From
// near, a node is a group (box and name); all lines are one path. From afar, where names cannot be read, all boxes of a
// colour are one path, so that ten thousand nodes are a handful of elements.

import { hexColor, wantsLightInk } from "./color.js";
import { ago, ownName } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
/** Below this zoom names cannot be read, and boxes are drawn as merged paths. */
export const FAR_SCALE = 0.3;
export const LEAST_SCALE = 0.01;
export const MOST_SCALE = 2.5;
/** How far beyond the window things are drawn, in windows. */
const MARGIN_WINDOWS = 0.5;

export class TreeScene {
  constructor(svg) {
    this.svg = svg;
    this.world = make("g", { class: "world", role: "presentation" });
    this.edges = make("path", { class: "edges" });
    this.dots = make("path", { class: "dots" });
    this.far = make("g", { class: "far" });
    this.nodes = make("g", { class: "nodes", role: "presentation" });
    this.ring = make("rect", { class: "ring", rx: 12, hidden: "" });
    this.world.append(this.edges, this.dots, this.far, this.ring, this.nodes);
    svg.append(this.world);
    this.view = { x: 0, y: 0, scale: 1 }; // screen = world * scale + (x, y)
    this.window = { width: 0, height: 0 };
    this.drawn = new Map(); // id -> {group, signature}
    this.covered = null; // the part of the world that is drawn, and at which zoom
    this.marks = { selected: null, active: null, matches: null };
    /** How often the parts were worked out anew: tests see that moving is cheap. */
    this.redraws = 0;
    this.frame = 0;
  }

  setLayout(layout) {
    this.layout = layout;
    this.covered = null;
    this.ask();
  }

  setWindow(width, height) {
    this.window = { width, height };
    this.covered = null;
    this.ask();
  }

  setMarks(marks) {
    this.marks = marks;
    this.covered = null;
    this.ask();
  }

  moveTo(view) {
    const scale = Math.min(MOST_SCALE, Math.max(LEAST_SCALE, view.scale));
    this.view = { x: view.x, y: view.y, scale };
    this.ask();
  }

  /** Draws in the next frame; many changes before it cost one drawing. */
  ask() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  /** The part of the world that the window shows. */
  visible(margin = 0) {
    const { x, y, scale } = this.view;
    const width = this.window.width / scale;
    const height = this.window.height / scale;
    return {
      x1: -x / scale - width * margin,
      y1: -y / scale - height * margin,
      x2: (-x + this.window.width) / scale + width * margin,
      y2: (-y + this.window.height) / scale + height * margin,
    };
  }

  draw() {
    if (!this.layout || !this.window.width) return;
    const { x, y, scale } = this.view;
    this.world.setAttribute("transform", `translate(${x.toFixed(2)} ${y.toFixed(2)}) scale(${scale.toFixed(5)})`);
    if (this.covers(this.visible())) return;
    this.redraws += 1;
    const part = this.visible(MARGIN_WINDOWS);
    const isFar = scale < FAR_SCALE;
    this.covered = { ...part, scale, isFar };
    this.svg.classList.toggle("is-far", isFar);
    // Lines stay visible from afar.
    this.world.style.setProperty("--line-width", `${Math.max(1.5, 0.8 / scale)}px`);
    const boxes = this.layout.boxes.filter((box) => meets(part, box.x, box.y, box.x + box.width, box.y + box.height));
    this.drawEdges(part);
    this.drawNear(isFar ? [] : boxes);
    this.drawFar(isFar ? boxes : []);
    this.drawRing();
  }

  covers(shown) {
    const c = this.covered;
    if (!c || c.isFar !== this.view.scale < FAR_SCALE) return false;
    // Zoomed in by much, far too much is drawn; zoomed out, the window outgrows what is drawn by itself.
    if (this.view.scale > c.scale * 2) return false;
    return c.x1 <= shown.x1 && c.y1 <= shown.y1 && c.x2 >= shown.x2 && c.y2 >= shown.y2;
  }

  drawEdges(part) {
    const { lines, trunks, elbows } = this.layout;
    let path = "";
    let dots = "";
    for (const l of lines) if (meets(part, l.x1, l.y, l.x2, l.y)) path += `M${l.x1} ${l.y}H${l.x2}`;
    for (const t of trunks) {
      if (!meets(part, t.x, t.y1, t.x, t.y2)) continue;
      path += `M${t.x} ${t.y1}V${t.y2}`;
      if (t.dot) dots += `M${t.x - 3} ${t.y1}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0`;
    }
    for (const e of elbows) {
      if (!meets(part, e.x1, e.y1, e.x2, e.y2)) continue;
      const reach = Math.min(e.y2 - e.y1, e.x2 - e.x1);
      path += e.straight
        ? `M${e.x1} ${e.y1}H${e.x2}`
        : `M${e.x1} ${e.y1}C${e.x1} ${e.y1 + reach * 0.6} ${e.x1 + reach * 0.4} ${e.y2} ${e.x1 + reach} ${e.y2}H${e.x2}`;
    }
    this.edges.setAttribute("d", path);
    this.dots.setAttribute("d", dots);
  }

  drawNear(boxes) {
    const wanted = new Set(boxes.map((box) => box.id));
    for (const [id, { group }] of this.drawn) {
      if (wanted.has(id)) continue;
      group.remove();
      this.drawn.delete(id);
    }
    for (const box of boxes) {
      const looks = this.looks(box);
      const kept = this.drawn.get(box.id);
      if (kept?.signature === looks.signature) continue;
      const group = kept?.group ?? this.makeNode(box.id);
      this.dress(group, box, looks);
      this.drawn.set(box.id, { group, signature: looks.signature });
    }
  }

  makeNode(id) {
    const group = make("g", { id: `node-${id}`, role: "treeitem", "data-id": id });
    group.append(make("rect", { class: "box", rx: 9 }), make("text", { class: "label" }), make("title", {}));
    this.nodes.append(group);
    return group;
  }

  looks(box) {
    const v = box.volume;
    const { selected, active, matches } = this.marks;
    const color = hexColor(v.color);
    const classes = ["node", v.kind, v.state === "ok" ? "ok" : "gone"];
    if (v.mounts.length) classes.push("mounted");
    if (v.kind === "live" && v.state === "ok" && wantsLightInk(color)) classes.push("light-ink");
    if (v.volume_id === active) classes.push("active");
    if (matches) classes.push(matches.has(v.volume_id) ? "match" : "no-match");
    const label = fit(ownName(v), box.width);
    const isSelected = v.volume_id === selected;
    const at = `${box.x} ${box.y} ${box.width} ${box.row}`;
    return {
      classes: classes.join(" "), color, label, isSelected,
      signature: [at, classes.join(" "), color, label, v.name, isSelected].join("|"),
    }; // prettier-ignore
  }

  dress(group, box, looks) {
    const [rect, text, title] = group.children;
    group.setAttribute("class", looks.classes);
    group.setAttribute("transform", `translate(${box.x} ${box.y})`);
    group.setAttribute("aria-label", describe(box.volume));
    group.setAttribute("aria-level", String(box.column + 1));
    group.setAttribute("aria-selected", String(looks.isSelected));
    group.style.setProperty("--own", looks.color);
    set(rect, { width: box.width, height: box.height });
    set(text, { x: box.width / 2, y: box.height / 2 });
    if (text.textContent !== looks.label) text.textContent = looks.label;
    title.textContent = describe(box.volume);
  }

  drawFar(boxes) {
    const paths = new Map();
    for (const box of boxes) {
      const v = box.volume;
      const { matches } = this.marks;
      const dim = matches && !matches.has(v.volume_id) ? "no-match" : "";
      const kind = v.state === "ok" ? v.kind : "gone";
      const key = `${kind} ${dim}|${hexColor(v.color)}`;
      const d = `M${box.x} ${box.y}h${box.width}v${box.height}h${-box.width}z`;
      paths.set(key, (paths.get(key) ?? "") + d);
    }
    const old = [...this.far.children];
    let index = 0;
    for (const [key, d] of paths) {
      const [classes, color] = key.split("|");
      const path = old[index] ?? this.far.appendChild(make("path", {}));
      path.setAttribute("class", `far-box ${classes}`);
      path.style.setProperty("--own", color);
      path.setAttribute("d", d);
      index += 1;
    }
    for (const path of old.slice(index)) path.remove();
  }

  /** The ring around the open node, and the one that keys have reached. */
  drawRing() {
    const box = this.layout.byId.get(this.marks.active) ?? this.layout.byId.get(this.marks.selected);
    this.ring.toggleAttribute("hidden", !box);
    if (!box) return;
    const away = Math.max(4, 2 / this.view.scale);
    set(this.ring, {
      x: box.x - away, y: box.y - away, width: box.width + 2 * away, height: box.height + 2 * away, rx: 9 + away,
    }); // prettier-ignore
  }

  /** The node at a point of the window. */
  hit(windowX, windowY) {
    const { x, y, scale } = this.view;
    const worldX = (windowX - x) / scale;
    const worldY = (windowY - y) / scale;
    const slack = 3 / scale;
    return (
      this.layout?.boxes.find(
        (box) =>
          worldX >= box.x - slack && worldX <= box.x + box.width + slack &&
          worldY >= box.y - slack && worldY <= box.y + box.height + slack,
      ) ?? null
    ); // prettier-ignore
  }
}

/** One line about a node, for tooltips and screen readers. */
export function describe(v) {
  if (v.kind === "zero") return "zero: the empty volume that all others descend from";
  const what = v.state === "ok" ? (v.kind === "live" ? "volume" : "snapshot") : `deleted ${v.kind === "live" ? "volume" : "snapshot"}`;
  const mounted = v.mounts.length ? ", mounted" : "";
  return `${v.name}, ${what}${mounted}, ${ago(v.created_ns)}${v.description ? `: ${v.description}` : ""}`;
}

function meets(part, x1, y1, x2, y2) {
  return x2 >= part.x1 && x1 <= part.x2 && y2 >= part.y1 && y1 <= part.y2;
}

function make(tag, attributes) {
  return set(document.createElementNS(SVG, tag), attributes);
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

let pen = null;
const widths = new Map();

/** Width of a label in the tree's font. */
export function labelWidth(text) {
  if (!widths.has(text)) {
    if (!pen) {
      pen = document.createElement("canvas").getContext("2d");
      const style = getComputedStyle(document.documentElement);
      pen.font = `600 12.5px ${style.getPropertyValue("--font")}`;
    }
    if (widths.size > 50_000) widths.clear();
    widths.set(text, pen.measureText(text).width);
  }
  return widths.get(text);
}

/** The text, shortened in the middle where it is wider than its box: names differ at their ends. */
function fit(text, boxWidth) {
  const room = boxWidth - 22;
  if (labelWidth(text) <= room) return text;
  let kept = Math.max(4, Math.floor((text.length * room) / labelWidth(text)) - 1);
  const cut = (length) => `${text.slice(0, Math.ceil(length / 2))}…${text.slice(text.length - Math.floor(length / 2))}`;
  while (kept > 4 && labelWidth(cut(kept)) > room) kept -= 1;
  return cut(kept);
}
