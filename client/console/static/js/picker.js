// Choosing a node of the tree by name: a field that filters, with a list below. Keyboard: arrows, Enter, Escape.

import { hexColor } from "./color.js";
import { ago } from "./format.js";
import { icon } from "./icons.js";
import { h } from "./vdom.js";

/** As many are listed; the rest is found by typing. */
const MOST_LISTED = 40;

/**
 * A picker for one place; keep it as long as the place is there.
 * candidates(): volumes, the likeliest first. onPick(volume). changed(): asks for the place to be rendered again.
 */
export class Picker {
  constructor({ label, candidates, onPick, changed, placeholder = "Choose a node" }) {
    Object.assign(this, { label, candidates, onPick, changed, placeholder });
    this.id = `picker-${Math.random().toString(36).slice(2, 8)}`;
    this.open = false;
    this.text = "";
    this.active = 0;
  }

  found() {
    const wanted = this.text.trim().toLowerCase();
    const all = this.candidates();
    return (wanted ? all.filter((v) => v.name.toLowerCase().includes(wanted)) : all).slice(0, MOST_LISTED);
  }

  show(open) {
    if (open === this.open) return;
    this.open = open;
    this.text = "";
    this.active = 0;
    this.changed();
  }

  pick(volume) {
    this.show(false);
    if (this.input) this.input.value = volume.name;
    this.onPick(volume);
  }

  onKey(event) {
    const found = this.open ? this.found() : [];
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!this.open) return this.show(true);
      const step = event.key === "ArrowDown" ? 1 : -1;
      this.active = (this.active + step + found.length) % Math.max(1, found.length);
      this.changed();
      document.getElementById(`${this.id}-${this.active}`)?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter" && this.open) {
      event.preventDefault();
      if (found[this.active]) this.pick(found[this.active]);
    } else if (event.key === "Escape" && this.open) {
      event.stopPropagation();
      event.preventDefault();
      this.input.value = this.chosenName;
      this.show(false);
    }
    return undefined;
  }

  /** `chosen`: the volume that is chosen now, if any. */
  view(chosen) {
    this.chosenName = chosen?.name ?? "";
    if (this.input && !this.open && this.input.value !== this.chosenName) this.input.value = this.chosenName;
    const found = this.open ? this.found() : [];
    return h(
      "div",
      { class: "picker", key: this.id },
      h("input", {
        class: "input", type: "text", role: "combobox", autocomplete: "off", spellcheck: "false",
        "aria-label": this.label, "aria-expanded": String(this.open), "aria-controls": `${this.id}-list`,
        "aria-activedescendant": this.open && found.length ? `${this.id}-${this.active}` : undefined,
        placeholder: this.placeholder, initial: this.chosenName,
        ref: (node) => { this.input = node; },
        onFocus: (event) => event.target.select(),
        onClick: () => this.show(true),
        onInput: (event) => {
          this.open = true;
          this.text = event.target.value;
          this.active = 0;
          this.changed();
        },
        onKeydown: (event) => this.onKey(event),
        onBlur: () => {
          if (!this.input.isConnected) return;
          this.input.value = this.chosenName;
          this.show(false);
        },
      }), // prettier-ignore
      icon("down"),
      this.open &&
        h(
          "ul",
          { class: "picker-list", id: `${this.id}-list`, role: "listbox", "aria-label": this.label },
          found.map((volume, index) =>
            h(
              "li",
              {
                key: volume.volume_id,
                id: `${this.id}-${index}`,
                role: "option",
                "aria-selected": String(index === this.active),
                // Before the field loses its focus, which closes the list.
                onPointerdown: (event) => {
                  event.preventDefault();
                  this.pick(volume);
                },
              },
              swatch(volume),
              volume.name,
              h("span", { class: "when" }, ago(volume.created_ns)),
            ),
          ),
          !found.length && h("li", { class: "none" }, this.text ? "No node has that in its name" : "Nothing to choose"),
        ),
    );
  }
}

export function swatch(volume) {
  const kind = volume.state === "ok" ? volume.kind : "gone";
  return h("i", { class: `swatch-small ${kind}`, style: { "--own": hexColor(volume.color) }, "aria-hidden": "true" });
}
