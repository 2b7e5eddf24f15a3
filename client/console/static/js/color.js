// Volumes' colours: what the pool stores ("", a name, "#rrggbb") as something to draw, and text that reads on it.

/** The picker's colours: white text on each passes 4.5 to 1, black on amber. */
export const PALETTE = [
  ["#c8352b", "Red"],
  ["#c4501a", "Orange"],
  ["#e0a526", "Amber"],
  ["#5f7d18", "Moss"],
  ["#237a4b", "Green"],
  ["#17787d", "Teal"],
  ["#2579b8", "Sky"],
  ["#3a5fd0", "Blue"],
  ["#6b4fcf", "Violet"],
  ["#a545b5", "Plum"],
  ["#c73e77", "Rose"],
  ["#8a6a52", "Brown"],
];

export const NEUTRAL = "#6f7682";

// The terminal's names that CSS does not know, or means otherwise by.
const TERMINAL = {
  black: "#3b3f46", red: "#c8352b", green: "#237a4b", yellow: "#e0a526", blue: "#3a5fd0", magenta: "#a545b5",
  cyan: "#17787d", white: "#c9cdd3", bright_black: "#6f7682", bright_red: "#e5564b", bright_green: "#44b377",
  bright_yellow: "#efc14d", bright_blue: "#6286ee", bright_magenta: "#c86fd6", bright_cyan: "#3fb8bd",
  bright_white: "#eceff3",
}; // prettier-ignore

const known = new Map();
let pen = null;

/** "#rrggbb" for what the pool stores; the neutral one for none, or for one that nobody knows. */
export function hexColor(stored) {
  const text = (stored ?? "").trim().toLowerCase();
  if (text === "") return NEUTRAL;
  if (/^#[0-9a-f]{6}$/.test(text)) return text;
  if (text in TERMINAL) return TERMINAL[text];
  if (!known.has(text)) known.set(text, parseCss(text));
  return known.get(text);
}

function parseCss(text) {
  pen ??= document.createElement("canvas").getContext("2d");
  pen.fillStyle = "#000000";
  pen.fillStyle = text.replace(/\d+$/, "").replaceAll("_", "");
  const first = pen.fillStyle;
  return /^#[0-9a-f]{6}$/.test(first) && (first !== "#000000" || text === "black") ? first : NEUTRAL;
}

/** Relative luminance as WCAG defines it, 0 to 1. */
export function luminance(hex) {
  const part = (at) => {
    const value = parseInt(hex.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5);
}

/** Whether white text reads better on this colour than black. */
export function wantsLightInk(hex) {
  return 1.05 / (luminance(hex) + 0.05) >= (luminance(hex) + 0.05) / 0.05;
}
