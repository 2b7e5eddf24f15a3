// Short notes that something worked. Failures are shown where they happened, never here.

import { icon } from "./icons.js";
import { h, render } from "./vdom.js";

const SHOWN_MS = 4000;
/** More at once cannot be read. */
const MOST = 3;

let notes = [];
let nextId = 1;

export function toast(text) {
  const note = { id: nextId, text };
  nextId += 1;
  notes = [...notes, note].slice(-MOST);
  show();
  setTimeout(() => {
    notes = notes.filter((other) => other !== note);
    show();
  }, SHOWN_MS);
}

function show() {
  render(
    document.getElementById("toasts"),
    notes.map((note) => h("div", { key: note.id, class: "toast" }, icon("check"), note.text)),
  );
}

/** Puts a text on the clipboard; says so. Where the browser forbids it, the text can still be selected. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied");
  } catch {
    toast("Select the text to copy it: this browser lets no page do it");
  }
}
