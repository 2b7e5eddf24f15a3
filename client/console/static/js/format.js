// Numbers, sizes, times and names for people. Pure: data in, text out.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes in binary units: 999 B, 1.5 KiB, 12.3 GiB. */
export function size(bytes) {
  let count = bytes;
  let unit = 0;
  while (count >= 1023.95 && unit < UNITS.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${count.toFixed(unit === 0 ? 0 : 1).replace(/\.0$/, "")} ${UNITS[unit]}`;
}

/** What a person typed for a size, in bytes: "10 GiB", "1.5T", "500M", "" for none. NaN where it is no size. */
export function parseSize(text) {
  const typed = text.trim();
  if (typed === "") return 0;
  const match = /^(\d+(?:[.,]\d+)?)\s*([kmgtp]?)(i?b)?$/i.exec(typed);
  if (!match) return NaN;
  const power = ["", "k", "m", "g", "t", "p"].indexOf(match[2].toLowerCase());
  return Math.round(Number(match[1].replace(",", ".")) * 1024 ** power);
}

/** A size as a person would type it back; "" for none. */
export function sizeInput(bytes) {
  return bytes ? size(bytes) : "";
}

/** Seconds in two units at most: 4 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function duration(seconds) {
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  const pair = (big, bigUnit, small, smallUnit) => (small ? `${big} ${bigUnit} ${small} ${smallUnit}` : `${big} ${bigUnit}`);
  if (whole < 3600) return pair(Math.floor(whole / 60), "min", whole % 60, "s");
  if (whole < 86400) return pair(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
  return pair(Math.floor(whole / 86400), "d", Math.floor((whole % 86400) / 3600), "h");
}

/** What a person typed for a time span, in seconds: "1h", "30 min", "2 d", "90". NaN where it is none. */
export function parseDuration(text) {
  const match = /^(\d+(?:[.,]\d+)?)\s*(s|sec|m|min|h|d|w)?$/i.exec(text.trim());
  if (!match) return NaN;
  const unit = { s: 1, sec: 1, m: 60, min: 60, h: 3600, d: 86400, w: 604800 }[(match[2] ?? "s").toLowerCase()];
  return Math.round(Number(match[1].replace(",", ".")) * unit);
}

/** A whole number with thin groups: 12,345. */
export function number(value) {
  return Math.round(value).toLocaleString("en-US");
}

/** "1 node", "6 nodes". */
export function count(value, thing, plural = `${thing}s`) {
  return `${number(value)} ${value === 1 ? thing : plural}`;
}

export function percent(part, whole) {
  return whole ? `${Math.round((100 * part) / whole)} %` : "0 %";
}

/** Date and time in this browser's time zone: 24 Nov 2024, 22:08. */
export function dateTime(ns) {
  if (!ns) return "unknown";
  const date = new Date(ns / 1e6);
  const day = date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
  const time = date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  return `${day}, ${time}`;
}

/** How long ago, roughly: just now, 5 min ago, 3 h ago, 12 d ago. */
export function ago(ns, nowMs = Date.now()) {
  const seconds = (nowMs - ns / 1e6) / 1000;
  if (seconds < -1) return `in ${roughly(-seconds)}`;
  return seconds < 10 ? "just now" : `${roughly(seconds)} ago`;
}

function roughly(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** Milliseconds with a sensible number of digits. */
export function latency(ms) {
  if (ms >= 100) return `${ms.toFixed(0)} ms`;
  if (ms >= 1) return `${ms.toFixed(1)} ms`;
  return `${(ms * 1000).toFixed(0)} µs`;
}

/** A snapshot's own part of its name; other nodes' whole name. */
export function ownName(volume) {
  const at = volume.kind === "snapshot" ? volume.name.indexOf("@") : -1;
  return at < 0 ? volume.name : volume.name.slice(at + 1);
}

/** The volume that a snapshot's name begins with. */
export function volumePart(name) {
  return name.split("@", 1)[0];
}

/** drwxr-xr-x for a mode's permission bits. */
export function permissions(mode, kind) {
  const letters = "rwxrwxrwx";
  let text = { folder: "d", symlink: "l", file: "-" }[kind] ?? "?";
  for (let bit = 0; bit < 9; bit += 1) text += mode & (1 << (8 - bit)) ? letters[bit] : "-";
  return text;
}
