// A volume's snapshot schedules in its panel: what there is, adding, changing, removing.

import * as api from "./api.js";
import { failure, focusFirst, readForm, submitButtons, textField } from "./fields.js";
import { ago, count, duration, parseDuration } from "./format.js";
import { icon } from "./icons.js";
import { store } from "./store.js";
import { toast } from "./toasts.js";
import { h } from "./vdom.js";

export class Schedules {
  constructor(volumeId, changed) {
    this.volumeId = volumeId;
    this.changed = changed;
    this.editing = null; // null, "" (a new one) or a label
    this.removing = null;
    this.error = null;
    this.busy = false;
  }

  view(volume) {
    const all = (store.lists.schedules ?? []).filter((schedule) => schedule.volume === volume.name);
    if (!volume.allowed.includes("snapshot") && !all.length) return null;
    return h(
      "section",
      { "aria-label": "Scheduled snapshots", key: "schedules" },
      h(
        "div",
        { class: "section-head" },
        h("h3", {}, "Scheduled snapshots"),
        this.editing === null &&
          h("button", { type: "button", class: "button tiny plain", onClick: () => this.edit("") }, icon("plus"), "Add"),
      ),
      h(
        "ul",
        { class: "rows" },
        all.map((schedule) => h("li", { key: schedule.label }, this.editing === schedule.label ? this.form(volume, schedule) : this.row(volume, schedule))),
        this.editing === "" && h("li", { key: "a new one" }, this.form(volume, null)),
      ),
      !all.length && this.editing === null && h("p", { class: "quiet small" }, "None: snapshots are taken by hand."),
      this.editing === null && failure(this.error),
    );
  }

  row(volume, schedule) {
    if (this.removing === schedule.label) {
      return [
        h("div", { class: "grow" }, h("b", {}, `Remove ${schedule.label}?`), h("span", {}, "Its snapshots stay, and are not pruned any more")),
        h("button", { type: "button", class: "button tiny danger", disabled: this.busy, onClick: () => this.remove(volume, schedule) }, "Remove"),
        h("button", { type: "button", class: "button tiny", onClick: () => this.ask(null) }, "Keep"),
      ];
    }
    const next = schedule.next_ns ? `, next ${schedule.next_ns / 1e6 > Date.now() ? ago(schedule.next_ns) : "now"}` : "";
    return [
      h(
        "div",
        { class: "grow" },
        h("b", {}, schedule.label),
        h("span", {}, `every ${duration(schedule.every_s)}, ${count(schedule.keep, "snapshot")} kept${next}`),
        schedule.last_error && h("span", { class: "bad" }, schedule.last_error),
      ),
      h("button", { type: "button", class: "button tiny plain", "aria-label": `Change ${schedule.label}`, onClick: () => this.edit(schedule.label) }, "Change"),
      h("button", { type: "button", class: "button tiny plain icon-only", "aria-label": `Remove ${schedule.label}`, title: "Remove", onClick: () => this.ask(schedule.label) }, icon("close")),
    ];
  }

  form(volume, schedule) {
    const key = `schedule ${volume.volume_id} ${this.editing}`;
    return h(
      "form",
      {
        class: "form grow",
        key,
        novalidate: true,
        ref: (node) => queueMicrotask(() => focusFirst({ querySelector: (q) => node.querySelector(q) })),
        onSubmit: (event) => {
          event.preventDefault();
          this.save(volume, schedule, readForm(event.currentTarget));
        },
        onKeydown: (event) => {
          if (event.key !== "Escape") return;
          event.stopPropagation();
          this.edit(null);
        },
      },
      !schedule && textField(key, "label", "Label", { focus: true, placeholder: "hourly", hint: `Snapshots are named ${volume.name}@LABEL-TIME` }),
      h(
        "div",
        { class: "two" },
        textField(key, "every", "Every", { initial: schedule ? typedBack(schedule.every_s) : "", placeholder: "1h", hint: "30 min, 6h, 1d", focus: Boolean(schedule) }),
        textField(key, "keep", "Keep the newest", { initial: schedule ? String(schedule.keep) : "", placeholder: "24" }),
      ),
      failure(this.error),
      submitButtons(schedule ? "Save schedule" : "Add schedule", { busy: this.busy, onCancel: () => this.edit(null) }),
    );
  }

  edit(label) {
    this.editing = label;
    this.removing = null;
    this.error = null;
    this.changed();
  }

  ask(label) {
    this.removing = label;
    this.error = null;
    this.changed();
  }

  async save(volume, schedule, values) {
    await this.run(async () => {
      const label = schedule?.label ?? values.label.trim();
      if (!label) throw new Error("Give it a label: its snapshots are named after it");
      const every = parseDuration(values.every);
      if (Number.isNaN(every)) throw new Error(`'${values.every}' is no time span: write it like 30 min, 6h or 1d`);
      const keep = Number(values.keep);
      if (!Number.isInteger(keep) || keep < 1) throw new Error(`'${values.keep}' is no number of snapshots to keep`);
      await api.setSchedule(volume.name, label, { every_s: every, keep });
      this.editing = null;
      toast(`Saved the schedule ${label} of ${volume.name}`);
    });
  }

  async remove(volume, schedule) {
    await this.run(async () => {
      await api.removeSchedule(volume.name, schedule.label);
      this.removing = null;
      toast(`Removed the schedule ${schedule.label} of ${volume.name}`);
    });
  }

  async run(work) {
    if (this.busy) return;
    this.busy = true;
    this.error = null;
    this.changed();
    try {
      await work();
      store.refresh("schedules");
    } catch (error) {
      this.error = error;
    }
    this.busy = false;
    this.changed();
  }
}

/** Seconds as a person would type them. */
function typedBack(seconds) {
  for (const [unit, name] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds % unit === 0) return `${seconds / unit} ${name}`;
  }
  return `${seconds} s`;
}
