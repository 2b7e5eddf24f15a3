// What the forms behind a node's operations have in common.
//
// A form is an object with view(volume) and submit(values, volume): the request, then what is said when it worked and
// which node to show next (null: none). It is kept while the node around it changes; its fields own what was typed.

import { textField } from "./fields.js";
import { h } from "./vdom.js";

export class Form {
  /** `changed` asks for the panel to be rendered again. */
  constructor(volume, operation, changed) {
    this.key = `${volume.volume_id} ${operation}`;
    this.operation = operation;
    this.changed = changed;
    this.values = {};
    this.begin(volume);
  }

  begin() {}

  /** What the form says in all its fields, kept as it is typed for what depends on it. */
  heard(values) {
    this.values = values;
  }

  label() {
    return "Save";
  }

  danger() {
    return false;
  }

  ready() {
    return true;
  }

  hasSubmit() {
    return true;
  }
}

/** What destroys something asks for the name to be typed; the server asks for it once more. */
export function confirmField(form, name) {
  return textField(form.key, "confirm", ["Type ", h("b", { class: "mono" }, name), " to confirm"], { mono: true });
}
