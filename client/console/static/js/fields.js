// The parts that forms are made of. Inputs own their values; a form reads them all at once when it is sent.

import { hexColor, PALETTE } from "./color.js";
import { icon } from "./icons.js";
import { h } from "./vdom.js";

let nextId = 1;
const ids = new Map();

/** A stable element id for a field of a form, so that its label and hint can name it. */
function idOf(form, name) {
  const key = `${form} ${name}`;
  if (!ids.has(key)) {
    ids.set(key, `field-${nextId}`);
    nextId += 1;
  }
  return ids.get(key);
}

/** A line of text. `prefix` stands before what is typed (VOLUME@). */
export function textField(form, name, label, options = {}) {
  const { initial = "", hint, prefix, placeholder, required, pattern, list, type = "text", onInput, focus, mono } = options;
  const id = idOf(form, name);
  const input = h("input", {
    id, name, type, initial, placeholder, required, pattern, onInput,
    class: mono ? "input mono" : "input",
    list: list && `${id}-list`,
    autocomplete: "off", autocapitalize: "off", spellcheck: "false",
    "aria-describedby": hint ? `${id}-hint` : undefined,
    "data-autofocus": focus,
  }); // prettier-ignore
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    prefix ? h("div", { class: "with-prefix" }, h("span", {}, prefix), input) : input,
    list && h("datalist", { id: `${id}-list` }, list.map(([value, text]) => h("option", { value }, text))),
    hint && h("div", { class: "hint", id: `${id}-hint` }, hint),
  );
}

export function selectField(form, name, label, choices, { initial = "", hint, onInput } = {}) {
  const id = idOf(form, name);
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    h(
      "select",
      { id, name, class: "input", initial, onInput, "aria-describedby": hint ? `${id}-hint` : undefined },
      choices.map(([value, text]) => h("option", { key: value, value }, text)),
    ),
    hint && h("div", { class: "hint", id: `${id}-hint` }, hint),
  );
}

/** One of a few, each with a line that says what it means: [value, title, line]. */
export function choiceField(name, label, choices, { initial, onInput } = {}) {
  return h(
    "fieldset",
    { class: "field" },
    h("legend", { class: "sr-only" }, label),
    choices.map(([value, title, line]) =>
      h(
        "label",
        { class: "choice", key: value },
        h("input", { type: "radio", name, value, initial: value === initial, onInput }),
        h("div", {}, h("b", {}, title), h("span", {}, line)),
      ),
    ),
  );
}

/** The palette, none, and any other. The form reads "color": "", or "#rrggbb", or what was stored before. */
export function colorField(form, stored, custom, onCustom) {
  const known = PALETTE.some(([hex]) => hex === stored);
  const own = stored !== "" && !known ? stored : null;
  const chosen = custom ?? own;
  const id = idOf(form, "custom color");
  return h(
    "fieldset",
    { class: "field" },
    h("legend", { class: "field-label" }, "Colour"),
    h(
      "div",
      { class: "colors" },
      PALETTE.map(([hex, name]) =>
        h(
          "label",
          { key: hex, title: name, style: { "--own": hex } },
          h("input", { type: "radio", name: "color", value: hex, "aria-label": name, initial: hex === stored, onInput: () => onCustom(null) }),
          h("i", {}),
        ),
      ),
      h(
        "label",
        { class: "none", title: "No colour", key: "none" },
        h("input", { type: "radio", name: "color", value: "", "aria-label": "No colour", initial: stored === "", onInput: () => onCustom(null) }),
        h("i", {}),
      ),
      h(
        "label",
        { class: chosen ? "custom chosen" : "custom", title: "Another colour", key: "custom", style: { "--own": hexColor(chosen ?? "") } },
        h("input", {
          id, type: "color", "aria-label": "Another colour", initial: hexColor(chosen ?? ""),
          onInput: (event) => onCustom(event.target.value, event.target.form),
        }), // prettier-ignore
        h("i", {}),
      ),
    ),
  );
}

export const PROTECTIONS = [
  ["single", "one copy, survives no loss"],
  ["mirror:2", "two copies, survives any 1 node"],
  ["mirror:3", "three copies, survives any 2"],
  ["ec:2+1", "survives any 1, costs 1.5×"],
  ["ec:4+1", "raid5: survives any 1, costs 1.25×"],
  ["ec:4+2", "raid6: survives any 2, costs 1.5×"],
  ["ec:8+2", "survives any 2, costs 1.25×"],
  ["ec:8+3", "survives any 3, costs 1.4×"],
];

/** In a form, in place: the server's own words. */
export function failure(error) {
  return error && h("div", { class: "failure", role: "alert" }, icon("warning"), h("div", {}, error.message));
}

export function submitButtons(label, { busy, danger, disabled, onCancel }) {
  return h(
    "div",
    { class: "buttons" },
    h(
      "button",
      { type: "submit", class: danger ? "button danger" : "button primary", disabled: busy || disabled },
      busy ? "Working…" : label,
    ),
    onCancel && h("button", { type: "button", class: "button", onClick: onCancel }, "Cancel"),
  );
}

/** What a form says now, by name. Radios and checkboxes that are off are not in it. */
export function readForm(form) {
  return Object.fromEntries(new FormData(form).entries());
}

/** After a form came: the field to begin in, and its text selected. */
export function focusFirst(container) {
  const field = container.querySelector("[data-autofocus]") ?? container.querySelector("form .input:not(:disabled)") ?? container.querySelector("input");
  field?.focus({ preventScroll: true });
  if (field?.type === "text") field.select();
}
