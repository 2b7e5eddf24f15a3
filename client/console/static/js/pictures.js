// What each operation does to the tree, in a picture of a few shapes: what is there in grey, what comes in the accent.

import { h } from "./vdom.js";

const box = (x, y, kind, width = 15) => h("rect", { class: kind, x, y: y - 5, width, height: 10, rx: 3 });
const line = (d, kind = "p-line") => h("path", { class: kind, d });
const arrow = (x, y, way) =>
  line(way === "left" ? `M${x + 4} ${y - 4}l-4 4 4 4` : way === "down" ? `M${x - 4} ${y - 4}l4 4 4-4` : `M${x - 4} ${y - 4}l4 4-4 4`, "p-new-line");

const PICTURES = {
  // zero, and a volume that begins at it
  create: () => [box(6, 12, "p-old", 12), line("M12 17v5q0 8 8 8h10", "p-new-line"), box(31, 30, "p-new", 27)],
  // the volume goes one step on, a frozen point stays behind
  snapshot: () => [line("M4 21h8"), line("M27 21h12", "p-new-line"), box(12, 21, "p-new"), box(40, 21, "p-old", 18)],
  // from the line before the volume, the volume untouched
  clone: () => [
    line("M4 12h36"), box(40, 12, "p-old", 18), line("M20 12v10q0 8 8 8h11", "p-new-line"),
    h("circle", { class: "p-dot", cx: 20, cy: 12, r: 2.5 }), box(40, 30, "p-new", 18),
  ], // prettier-ignore
  // the same from a snapshot's box
  clone_snapshot: () => [
    line("M4 12h8M27 12h13"), box(12, 12, "p-old"), box(40, 12, "p-old", 18),
    line("M19.5 17v5q0 8 8 8h12", "p-new-line"), box(40, 30, "p-new", 18),
  ], // prettier-ignore
  clone_backed: () => [
    line("M4 12h8M27 12h13"), box(12, 12, "p-new"), box(40, 12, "p-old", 18),
    line("M19.5 17v5q0 8 8 8h12", "p-new-line"), box(40, 30, "p-new", 18),
  ], // prettier-ignore
  mount: () => [
    line("M4 21h10"), h("rect", { class: "p-heavy", x: 15, y: 14.5, width: 20, height: 13, rx: 4 }),
    line("M36 21h8", "p-new-line"), line("M46 15.5h4l2 2.5h6v9.5h-12z", "p-new-line"),
  ], // prettier-ignore
  set: () => [
    line("M4 21h14"), box(19, 21, "p-new", 22),
    line("M46 15h12M46 21h12M46 27h12"), h("circle", { class: "p-dot", cx: 50, cy: 15, r: 2.5 }),
    h("circle", { class: "p-dot", cx: 55, cy: 21, r: 2.5 }), h("circle", { class: "p-dot", cx: 49, cy: 27, r: 2.5 }),
  ], // prettier-ignore
  rename: () => [
    line("M4 21h12"), h("rect", { class: "p-old", x: 17, y: 14, width: 40, height: 14, rx: 4 }),
    line("M23 21h18", "p-new-line"), line("M48 17v8M46 17h4M46 25h4", "p-new-line"),
  ], // prettier-ignore
  // the volume's head goes back to the snapshot
  rollback: () => [
    line("M4 26h6M25 26h17"), box(10, 26, "p-new"), box(42, 26, "p-old", 17),
    line("M50 19q0 -9 -9 -9h-14q-9 0 -9 8", "p-new-line"), arrow(18, 19, "down"),
  ], // prettier-ignore
  // what the snapshot has comes into the volume
  restore: () => [
    line("M4 26h6M25 26h17"), box(10, 26, "p-old"), box(42, 26, "p-new", 17),
    line("M18 19q0 -9 9 -9h14q9 0 9 8", "p-new-line"), arrow(50, 19, "down"),
  ], // prettier-ignore
  delete: () => [
    line("M4 21h16"), h("rect", { class: "p-gone", x: 21, y: 14, width: 24, height: 14, rx: 4 }),
    line("M29.5 17.5l7 7M36.5 17.5l-7 7", "p-danger"),
  ], // prettier-ignore
};

export function picture(name) {
  return h(
    "svg",
    { class: "picture", viewBox: "0 0 64 42", width: 64, height: 42, "aria-hidden": "true", focusable: "false" },
    (PICTURES[name] ?? PICTURES.set)(),
  );
}
