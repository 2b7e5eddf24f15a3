// The home view: the volume tree, with its panel. Glues the layout, the scene and the gestures to keys, search and route.

import { count, ownName } from "./format.js";
import { icon } from "./icons.js";
import { NodePanel } from "./node_panel.js";
import { go } from "./router.js";
import { store } from "./store.js";
import { attachGestures, panBy, zoomAt } from "./tree_gestures.js";
import { layoutTree, neighbour } from "./tree_layout.js";
import { labelWidth, TreeScene } from "./tree_scene.js";
import { h, render } from "./vdom.js";

const ZOOM_STEP = 1.25;
const PAN_STEP_PX = 80;
/** From here on, the first look shows the tree's beginning at a readable size, not all of it. */
const LEAST_FIRST_SCALE = 0.62;
const LEAST_READABLE_SCALE = 0.5;
const READABLE_SCALE = 0.8;
const EDGE_PX = 36;

export class TreeView {
  constructor(container, app) {
    this.container = container;
    this.app = app;
    this.route = { subject: "", query: {} };
    this.active = null;
    this.matches = null;
    this.layout = null;
    this.isPlaced = false;
    this.isLeft = false;
    this.isFitted = false; // all of it is shown, and nobody has moved since
    this.panel = new NodePanel(() => this.renderFrame());
    this.renderFrame();
    this.scene = new TreeScene(this.svg);
    this.svg.scene = this.scene; // for tests
    attachGestures(this.svg, this.scene, { onTap: (x, y) => this.tapped(x, y), onMoved: () => this.moved() });
    this.svg.addEventListener("mousemove", (event) => this.hovered(event));
    this.svg.addEventListener("keydown", (event) => this.onKey(event));
    this.sizes = new ResizeObserver(() => this.resized());
    this.sizes.observe(this.stage);
    this.stopWatching = store.watch((changed) => this.update(changed));
    this.resized();
    this.update(new Set(["volumes"]));
  }

  dispose() {
    this.isLeft = true;
    this.stopWatching();
    this.sizes.disconnect();
    this.panel.dispose();
    render(this.container);
  }

  // ---------------------------------------------------------------- data and route

  update(changed) {
    if (changed.has("volumes") && store.lists.volumes) {
      const keep = this.anchor();
      this.layout = layoutTree(store.lists.volumes, (volume) => labelWidth(ownName(volume)));
      this.scene.setLayout(this.layout);
      if (this.active !== null && !this.layout.byId.has(this.active)) this.active = null;
      this.findMatches();
      if (!this.isPlaced) this.placeFirst();
      else this.holdAnchor(keep);
      this.mark();
    }
    if (!changed.has("figures") || changed.size > 1) this.renderFrame();
  }

  follow(route) {
    const opened = route.subject !== this.route.subject && route.subject !== "";
    this.route = route;
    this.renderFrame();
    this.mark();
    if (opened) {
      this.active = null;
      // The panel takes room: what was clicked must not be below it.
      this.resized();
      if (this.selected()) this.reveal(this.selected().volume_id);
    }
  }

  /** The node that is open. */
  selected() {
    return this.route.subject === "" ? null : (store.byId.get(Number(this.route.subject)) ?? null);
  }

  /** What must stay where it is on the screen when the tree grows: the open node, or the one nearest the middle. */
  anchor() {
    if (!this.layout) return null;
    const id = this.active ?? this.selected()?.volume_id;
    const box = this.layout.byId.get(id) ?? this.scene.hit(this.scene.window.width / 2, this.scene.window.height / 2);
    return box ? { id: box.id, x: box.x, y: box.y } : null;
  }

  holdAnchor(before) {
    const after = before && this.layout.byId.get(before.id);
    if (!after) return;
    const { scale } = this.scene.view;
    if (after.x !== before.x || after.y !== before.y) panBy(this.scene, (before.x - after.x) * scale, (before.y - after.y) * scale);
  }

  // ---------------------------------------------------------------- where one looks

  resized() {
    const frame = this.stage.getBoundingClientRect();
    this.scene.setWindow(frame.width, frame.height);
    if (!this.layout) return;
    if (!this.isPlaced) this.placeFirst();
    else if (this.isFitted) this.fit();
  }

  placeFirst() {
    const { width, height } = this.scene.window;
    if (!width || !height || !this.layout.boxes.length) return;
    this.isPlaced = true;
    const whole = this.fitScale();
    if (whole >= LEAST_FIRST_SCALE) return this.fit();
    const scale = width < 600 ? 0.85 : 0.9;
    // All of its height, where that can be: else from the top.
    const y = this.layout.height * scale < height ? (height - this.layout.height * scale) / 2 : 0;
    this.scene.moveTo({ scale, x: 0, y });
    return this.moved();
  }

  fitScale() {
    const { width, height } = this.scene.window;
    return Math.min(width / this.layout.width, (height - 40) / this.layout.height, 1.15);
  }

  /** All of it in the window. */
  fit() {
    if (!this.layout) return;
    const { width, height } = this.scene.window;
    const scale = this.fitScale();
    this.scene.moveTo({
      scale,
      x: Math.max(0, (width - this.layout.width * scale) / 2),
      y: Math.max(0, (height - 40 - this.layout.height * scale) / 2),
    });
    this.moved();
    this.isFitted = true;
  }

  zoom(factor) {
    zoomAt(this.scene, factor, this.scene.window.width / 2, this.scene.window.height / 2);
    this.moved();
  }

  /** Moves just so far that a node can be seen, and so near that its name can be read. */
  reveal(id) {
    const box = this.layout?.byId.get(id);
    if (!box) return;
    if (this.scene.view.scale < LEAST_READABLE_SCALE) {
      this.scene.moveTo({ ...this.scene.view, scale: READABLE_SCALE });
      this.moved();
    }
    const { x, y, scale } = this.scene.view;
    const { width, height } = this.scene.window;
    const shift = (start, length, room) => {
      if (start < EDGE_PX) return EDGE_PX - start;
      if (start + length > room - EDGE_PX) return room - EDGE_PX - start - length;
      return 0;
    };
    const dx = shift(box.x * scale + x, box.width * scale, width);
    const dy = shift(box.y * scale + y, box.height * scale, height - 30);
    if (!dx && !dy) return;
    panBy(this.scene, dx, dy);
    this.moved();
  }

  /** After every move: what is shown is not all any more, unless `fit` says so. */
  moved() {
    this.isFitted = false;
    const percent = `${Math.round(this.scene.view.scale * 100)} %`;
    if (this.percent && this.percent.textContent !== percent) this.percent.textContent = percent;
  }

  // ---------------------------------------------------------------- pointer and keys

  tapped(x, y) {
    const box = this.scene.hit(x, y);
    this.svg.focus({ preventScroll: true });
    if (box) this.open(box.id);
    else if (this.active !== null) this.activate(null);
  }

  hovered(event) {
    if (event.buttons) return;
    const frame = this.svg.getBoundingClientRect();
    const over = this.scene.hit(event.clientX - frame.left, event.clientY - frame.top) !== null;
    this.svg.classList.toggle("over-node", over);
  }

  open(id) {
    const compare = this.panel.compare;
    const other = store.byId.get(id);
    if (compare?.isPicking && other?.state === "ok" && other.kind !== "zero" && other.volume_id !== this.selected()?.volume_id) {
      go("tree", this.route.subject, { compare: id });
      return;
    }
    this.opener = id;
    go("tree", id);
  }

  close() {
    const id = this.selected()?.volume_id ?? null;
    go("tree");
    this.svg.focus({ preventScroll: true });
    this.activate(id);
  }

  /** Escape takes back one step: the form, the panel, the search, the key's place. Returns whether there was one. */
  escape() {
    if (this.route.query.do || this.route.query.compare !== undefined) go("tree", this.route.subject);
    else if (this.route.subject !== "") this.close();
    else if (this.active !== null) this.activate(null);
    else return false;
    return true;
  }

  activate(id) {
    this.active = id;
    if (id !== null) this.reveal(id);
    this.mark();
  }

  onKey(event) {
    if (event.altKey || (event.ctrlKey && !["+", "-", "=", "0"].includes(event.key)) || event.metaKey) return;
    const handled = this.handleKey(event);
    if (handled) event.preventDefault();
  }

  handleKey(event) {
    const { key } = event;
    if (key.startsWith("Arrow") && event.shiftKey) {
      const step = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
      panBy(this.scene, step[0] * PAN_STEP_PX, step[1] * PAN_STEP_PX);
      this.moved();
    } else if (key.startsWith("Arrow")) this.walk(key);
    else if (key === "Enter" || key === " ") {
      if (this.active !== null) this.open(this.active);
    } else if (key === "Home") this.activate(this.layout?.boxes[0]?.id ?? null);
    else if (key === "+" || key === "=") this.zoom(ZOOM_STEP);
    else if (key === "-") this.zoom(1 / ZOOM_STEP);
    else if (key === "0") this.fit();
    else return false;
    return true;
  }

  walk(key) {
    if (!this.layout) return;
    const from = this.active ?? this.selected()?.volume_id ?? null;
    if (from === null) this.activate(this.layout.boxes[0]?.id ?? null);
    else this.activate(neighbour(this.layout, from, key) ?? from);
  }

  // ---------------------------------------------------------------- search

  search(text) {
    this.text = text.trim().toLowerCase();
    this.findMatches();
    this.mark();
    if (this.matches?.size) this.reveal([...this.matches][0]);
  }

  findMatches() {
    this.matches = null;
    if (!this.text || !this.layout) return;
    const found = this.layout.boxes.filter(({ volume: v }) => `${v.name} ${v.description}`.toLowerCase().includes(this.text));
    this.matches = new Set(found.map((box) => box.id));
  }

  /** Enter in the search field goes from match to match. Returns "2 of 5" for it. */
  nextMatch(step) {
    const ids = [...(this.matches ?? [])];
    if (!ids.length) return;
    const index = ids.indexOf(this.active);
    this.activate(ids[index < 0 ? (step > 0 ? 0 : ids.length - 1) : (index + step + ids.length) % ids.length]);
  }

  searchState() {
    if (!this.matches) return "";
    const index = [...this.matches].indexOf(this.active);
    return index < 0 ? String(this.matches.size || "none") : `${index + 1} of ${this.matches.size}`;
  }

  // ---------------------------------------------------------------- what is shown

  mark() {
    const selected = this.selected()?.volume_id ?? null;
    this.scene.setMarks({ selected, active: this.active, matches: this.matches });
    this.svg.classList.toggle("is-searching", this.matches !== null);
    if (this.active === null) this.svg.removeAttribute("aria-activedescendant");
    else this.svg.setAttribute("aria-activedescendant", `node-${this.active}`);
    this.app.showSearchState(this.searchState());
  }

  renderFrame() {
    if (this.isLeft) return; // what its forms had under way may end now
    const volume = this.selected();
    this.panel.follow(volume, this.route.query);
    const volumes = store.lists.volumes;
    const nodes = volumes ? volumes.length - 1 : 0;
    render(
      this.container,
      h(
        "div",
        { class: "tree-view" },
        h(
          "div",
          { class: "tree-stage", ref: (node) => { this.stage = node; } },
          h("h1", { class: "sr-only" }, "Volume tree"),
          h("svg", {
            class: "tree", tabindex: 0, role: "tree", "aria-label": `Volume tree, ${count(nodes, "node")}. Arrow keys walk, Enter opens.`,
            ref: (node) => { this.svg = node; },
          }),
          nodes > 0 && legend(),
          this.zoomButtons(),
          this.panel.compare?.isPicking && h("div", { class: "corner tree-hint" }, `Click the node to compare ${volume.name} with`),
          volumes && nodes === 0 && emptyTree(volumes),
          !volumes && h("div", { class: "tree-empty" }, h("p", { class: "quiet" }, store.errors.volumes?.message ?? "Loading…")),
        ),
        volume && this.panel.view(volume, this.route.query, () => this.close()),
      ),
    ); // prettier-ignore
    this.panel.settle(volume ? this.panel.element : null);
  }

  zoomButtons() {
    const button = (name, label, onClick) =>
      h("button", { type: "button", class: "button icon-only", "aria-label": label, title: label, onClick }, icon(name));
    return h(
      "div",
      { class: "corner tree-zoom", role: "group", "aria-label": "Zoom" },
      button("minus", "Zoom out (-)", () => this.zoom(1 / ZOOM_STEP)),
      h("span", { class: "percent num", ref: (node) => { this.percent = node; } }),
      button("plus", "Zoom in (+)", () => this.zoom(ZOOM_STEP)),
      button("fit", "Show all (0)", () => this.fit()),
    ); // prettier-ignore
  }
}

function legend() {
  const part = (kind, text) => h("span", {}, h("i", { class: kind }), text);
  return h(
    "div",
    { class: "corner tree-legend", "aria-hidden": "true" },
    part("live", "volume"), part("snapshot", "snapshot"), part("mounted", "mounted"), part("gone", "deleted"),
  ); // prettier-ignore
}

function emptyTree(volumes) {
  const zero = volumes.find((volume) => volume.kind === "zero");
  return h(
    "div",
    { class: "tree-empty" },
    h(
      "div",
      { class: "empty" },
      icon("tree"),
      h("b", {}, "No volumes yet"),
      h("span", {}, "Every volume begins as a clone of the empty one."),
      zero && h("button", { type: "button", class: "button primary", onClick: () => go("tree", zero.volume_id, { do: "clone" }) }, "New volume"),
    ),
  );
}
