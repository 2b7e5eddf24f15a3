// The forms of what takes something away: roll back, restore, delete. They say what would be lost, freed and broken
// before it happens, and what cannot be brought back asks for the name to be typed.

import * as api from "./api.js";
import { choiceField, selectField, textField } from "./fields.js";
import { confirmField, Form } from "./form.js";
import { ago, count, dateTime, ownName, size } from "./format.js";
import { routeTo } from "./router.js";
import { store } from "./store.js";
import { h } from "./vdom.js";

// ---------------------------------------------------------------- roll back, restore

function keepFields(form, volume) {
  const discards = form.values.what === "discard";
  return [
    choiceField(
      "what",
      "What the volume holds now",
      [
        ["keep", "Keep what it holds now", "As one more snapshot of it"],
        ["discard", "Discard what it holds now", "It cannot be brought back"],
      ],
      { initial: "keep" },
    ),
    !discards &&
      textField(form.key, "keep", "Name of that snapshot", { prefix: `${volume.name}@`, hint: "Left empty, it is named by the time" }),
    discards && confirmField(form, volume.name),
  ];
}

async function rollBack(values, snapshotName, volume) {
  const discards = values.what === "discard";
  const body = { confirm: discards ? values.confirm.trim() : volume.name };
  if (discards) body.discard = true;
  else if (values.keep?.trim()) body.keep = values.keep.trim();
  const reply = await api.rollBack(snapshotName, body);
  // Without `kept` nothing was kept, or the message is empty.
  const kept = reply.kept?.name ? `; what it held is ${reply.kept.name}` : "";
  return { said: `${volume.name} is ${snapshotName} again${kept}`, show: volume.volume_id };
}

export class RollBackForm extends Form {
  view(volume) {
    const snapshots = store
      .children(volume.volume_id)
      .filter((v) => v.kind === "snapshot" && v.state === "ok")
      .sort((a, b) => b.created_ns - a.created_ns);
    return [
      selectField(
        this.key,
        "snapshot",
        "To the snapshot",
        snapshots.map((v) => [v.name, `${ownName(v)}   (${ago(v.created_ns)})`]),
        { initial: snapshots[0]?.name ?? "" },
      ),
      keepFields(this, volume),
    ];
  }

  label() {
    return "Roll back";
  }

  danger() {
    return this.values.what === "discard";
  }

  ready(volume) {
    return !this.danger() || this.values.confirm?.trim() === volume.name;
  }

  submit(values, volume) {
    return rollBack(values, values.snapshot, volume);
  }
}

export class RestoreForm extends Form {
  view(volume) {
    const live = store.byId.get(volume.parent_id);
    this.live = live;
    return [
      h(
        "p",
        {},
        "A file or a folder: ",
        h("a", { href: routeTo("browse", volume.name) }, "browse this snapshot"),
        " and restore it from there, in place or beside what is there now.",
      ),
      this.canRollBack() && [
        h("h3", {}, `All of ${live.name}: roll it back to ${dateTime(volume.created_ns)}`),
        keepFields(this, live),
      ],
    ];
  }

  canRollBack() {
    return this.live?.state === "ok" && this.live.allowed.includes("rollback");
  }

  hasSubmit() {
    return this.canRollBack();
  }

  label() {
    return `Roll ${this.live?.name ?? "it"} back`;
  }

  danger() {
    return this.values.what === "discard";
  }

  ready() {
    return !this.danger() || this.values.confirm?.trim() === this.live.name;
  }

  submit(values, volume) {
    return rollBack(values, volume.name, this.live);
  }
}

// ---------------------------------------------------------------- delete

export class DeleteForm extends Form {
  async begin(volume) {
    try {
      this.freed = await api.getFreed([volume.name]);
    } catch (error) {
      this.freedError = error;
    }
    this.changed();
  }

  view(volume) {
    return [
      h(
        "div",
        { class: "freed" },
        this.freed
          ? h(
              "div",
              {},
              h("div", { class: "big" }, size(this.freed.stored_bytes)),
              h("div", { class: "quiet small" }, `of stored data is freed: ${size(this.freed.logical_bytes)} that no other node refers to`),
            )
          : h("div", { class: "quiet" }, this.freedError ? this.freedError.message : "Counting what would be freed…"),
        h("ul", {}, consequences(volume)),
      ),
      confirmField(this, volume.name),
    ];
  }

  label() {
    return "Delete";
  }

  danger() {
    return true;
  }

  ready(volume) {
    return this.values.confirm?.trim() === volume.name;
  }

  async submit(values, volume) {
    await api.deleteVolume(volume.name, values.confirm.trim());
    return { said: `Deleted ${volume.name}: its space is freed in the background`, show: null };
  }
}

/** What becomes of mounts, snapshots and clones, a line each. */
function consequences(volume) {
  const below = store.children(volume.volume_id);
  const snapshots = below.filter((v) => v.kind === "snapshot").length;
  const clones = below.filter((v) => v.kind === "live").length;
  const lines = [];
  for (const mount of volume.mounts) {
    lines.push(h("li", { class: "grave" }, `Mounted by ${mount}: that mount gives errors from then on, until it is unmounted`));
  }
  const stay = [];
  if (snapshots) stay.push(count(snapshots, "snapshot"));
  if (clones) stay.push(count(clones, "clone"));
  if (stay.length) {
    lines.push(h("li", {}, `${stay.join(" and ")} of it stay as they are`));
    lines.push(h("li", {}, "It is shown as deleted until nothing descends from it any more"));
  } else {
    lines.push(h("li", {}, "Nothing descends from it: it leaves the tree when its space is freed"));
  }
  lines.push(h("li", {}, "This cannot be undone"));
  return lines;
}
