// Line icons of 20 units, one path each, in the colour of the text around them.

import { h } from "./vdom.js";

const PATHS = {
  tree: "M3 5h14M7 5v5a4 4 0 0 0 4 4h6M3 5h.01M17 5h.01M17 14h.01",
  folder: "M2.5 6a1.5 1.5 0 0 1 1.5-1.5h3.6l2 2H16A1.5 1.5 0 0 1 17.5 8v6.5A1.5 1.5 0 0 1 16 16H4a1.5 1.5 0 0 1-1.5-1.5z",
  file: "M5 2.5h6.5L15.5 6.5v11h-10.5zM11.5 2.5v4h4",
  link: "M8.5 11.5a3 3 0 0 0 4.3 0l2.7-2.7a3 3 0 0 0-4.3-4.3l-1 1M11.5 8.5a3 3 0 0 0-4.3 0l-2.7 2.7a3 3 0 0 0 4.3 4.3l1-1",
  special: "M10 3.5v13M3.5 10h13",
  disks: "M3.5 4.5h13v4.5h-13zM3.5 11h13v4.5h-13zM6 6.8h.01M6 13.2h.01",
  jobs: "M4 10a6 6 0 1 1 2 4.5M4 16v-3.5h3.5M10 7v3.2l2.2 1.4",
  live: "M2.5 11h3l2.5-6 4 10.5 2.5-6.5h3",
  search: "M8.8 14.1a5.3 5.3 0 1 0 0-10.6 5.3 5.3 0 0 0 0 10.6zM12.7 12.7 16.5 16.5",
  close: "M5 5l10 10M15 5 5 15",
  back: "M12 4.5 6.5 10l5.5 5.5",
  forward: "M8 4.5 13.5 10 8 15.5",
  down: "M4.5 7.5 10 13l5.5-5.5",
  plus: "M10 4v12M4 10h12",
  minus: "M4 10h12",
  fit: "M3.5 7.5v-4h4M12.5 3.5h4v4M16.5 12.5v4h-4M7.5 16.5h-4v-4",
  sun: "M10 13.2a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.4zM10 2.5v1.6M10 15.9v1.6M2.5 10h1.6M15.9 10h1.6M4.7 4.7l1.1 1.1M14.2 14.2l1.1 1.1M4.7 15.3l1.1-1.1M14.2 5.8l1.1-1.1",
  moon: "M16 11.8A6.6 6.6 0 0 1 8.2 4a6.6 6.6 0 1 0 7.8 7.8z",
  copy: "M7 7h9v9.5H7zM13 7V3.5H4V13h3",
  check: "M4 10.5 8.2 14.7 16.2 6",
  download: "M10 3v9.5M6 9l4 4 4-4M3.5 16.5h13",
  compare: "M6.5 3.5 3 7l3.5 3.5M3 7h10M13.5 9.5 17 13l-3.5 3.5M17 13H7",
  pause: "M7 4.5v11M13 4.5v11",
  play: "M6.5 4.5v11l9-5.5z",
  stop: "M5.5 5.5h9v9h-9z",
  warning: "M10 3.5 17.5 16.5h-15zM10 8.5v3.5M10 14.3h.01",
  clock: "M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM10 6.5V10l2.5 1.5",
  swap: "M6 4v12M3 13l3 3 3-3M14 16V4M11 7l3-3 3 3",
  restore: "M4 8.5h8a4 4 0 0 1 0 8H8M4 8.5 7.5 5M4 8.5 7.5 12",
};

export function icon(name, className = "icon") {
  return h(
    "svg",
    { class: className, viewBox: "0 0 20 20", width: 20, height: 20, "aria-hidden": "true", focusable: "false" },
    h("path", { d: PATHS[name] }),
  );
}
