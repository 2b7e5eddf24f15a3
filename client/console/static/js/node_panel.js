// The side panel: what is known of a node, the operations that it allows, and the form of the one that was chosen.
//
// The panel outlives refreshes: a form in it is kept, with what was typed, while the node around it changes.

import { Compare } from "./compare.js";
import { hexColor } from "./color.js";
import { failure, focusFirst, readForm, submitButtons } from "./fields.js";
import { ago, count, dateTime, ownName, percent, size } from "./format.js";
import { icon } from "./icons.js";
import { operationsOf } from "./operations.js";
import { picture } from "./pictures.js";
import { go, routeTo } from "./router.js";
import { Schedules } from "./schedules.js";
import { store } from "./store.js";
import { toast } from "./toasts.js";
import { h } from "./vdom.js";

export class NodePanel {
  /** `changed` asks for another rendering. */
  constructor(changed) {
    this.changed = changed;
    this.form = null;
    this.busy = false;
    this.error = null;
    this.part = "";
  }

  /** Takes in where the route stands: which node, which operation of it, compared with what. */
  follow(volume, query) {
    const part = volume ? `${volume.volume_id} ${query.do ?? ""} ${query.compare !== undefined}` : "";
    if (part !== this.part) {
      this.part = part;
      this.form = null;
      this.error = null;
      this.busy = false;
      if (this.schedules?.volumeId !== volume?.volume_id) this.schedules = null;
      this.fresh = true;
    }
    if (!volume) return;
    const operation = query.do && operationsOf(volume).find(([name]) => name === query.do)?.[1];
    if (operation && !this.form) this.form = new operation.form(volume, query.do, this.changed);
    // What was begun may not be allowed any more: the form goes, and the list says what is.
    if (!operation) this.form = null;
    if (query.compare === undefined) {
      this.compare?.stop();
      this.compare = null;
    } else {
      this.compare ??= new Compare(this.changed);
      this.compare.follow(volume, store.byId.get(Number(query.compare)) ?? null);
    }
    if (volume.kind === "live" && volume.state === "ok") this.schedules ??= new Schedules(volume.volume_id, this.changed);
  }

  /** The view is left: what is still under way shows nothing any more, and leads nowhere. */
  dispose() {
    this.part = "";
    this.compare?.stop();
  }

  /** After rendering: a part that is new takes the focus. */
  settle(element) {
    if (!this.fresh || !element) return;
    this.fresh = false;
    element.querySelector(".panel-body").scrollTop = 0;
    if (this.form || this.compare) focusFirst(element);
    else element.focus({ preventScroll: true });
  }

  view(volume, query, onClose) {
    const operation = this.form && operationsOf(volume).find(([name]) => name === query.do);
    const back = () => go("tree", volume.volume_id);
    return h(
      "aside",
      { class: "panel", "aria-label": volume.name, tabindex: -1, key: "panel", ref: (node) => { this.element = node; } },
      head(volume, operation || this.compare ? back : null, onClose),
      h(
        "div",
        { class: "panel-body", key: this.part },
        this.compare
          ? this.compare.view(volume)
          : operation
            ? this.formView(volume, operation, back)
            : [links(volume), facts(volume), usage(volume), operations(volume), this.schedules?.view(volume)],
      ),
    ); // prettier-ignore
  }

  formView(volume, [name, operation], back) {
    const { form } = this;
    return h(
      "form",
      {
        class: "form",
        key: form.key,
        novalidate: true,
        "data-operation": name,
        onInput: (event) => {
          form.heard(readForm(event.currentTarget));
          this.changed();
        },
        onSubmit: (event) => {
          event.preventDefault();
          this.submit(event.currentTarget, volume);
        },
      },
      h("div", { class: "section-head" }, h("div", {}, h("h2", {}, operation.title), h("p", { class: "quiet small" }, operation.line)), picture(operation.picture)),
      form.view(volume),
      failure(this.error),
      form.hasSubmit()
        ? submitButtons(form.label(volume), {
            busy: this.busy,
            danger: form.danger(),
            disabled: !form.ready(volume),
            onCancel: back,
          })
        : h("div", { class: "buttons" }, h("button", { type: "button", class: "button", onClick: back }, "Done")),
    );
  }

  async submit(element, volume) {
    const { form, part } = this;
    if (this.busy || !form.hasSubmit() || !form.ready(volume)) return;
    this.busy = true;
    this.error = null;
    this.changed();
    try {
      const { said, show } = await form.submit(readForm(element), volume);
      toast(said);
      // The push brings it too; asking at once shows it sooner.
      await Promise.race([store.refresh("volumes"), new Promise((resolve) => setTimeout(resolve, 1500))]);
      // Only where the person still is: they may have gone on meanwhile.
      if (this.part === part) go("tree", show === null ? "" : show, {}, { replace: true });
    } catch (error) {
      if (this.form === form) this.error = error;
    }
    if (this.part === part) this.busy = false;
    this.changed();
  }
}

const KINDS = { zero: "empty volume", live: "volume", snapshot: "snapshot" };
const STATES = { deleting: "being deleted", deleted: "deleted" };

function head(volume, onBack, onClose) {
  const gone = volume.state !== "ok";
  const parent = store.byId.get(volume.parent_id);
  return h(
    "header",
    { class: "panel-head" },
    onBack && h("button", { type: "button", class: "button plain icon-only", "aria-label": "Back to the node", title: "Back", onClick: onBack }, icon("back")),
    h(
      "div",
      { class: "title" },
      h(
        "h1",
        {},
        h("i", { class: gone ? "swatch gone" : "swatch", style: { "--own": hexColor(volume.color) }, "aria-hidden": "true" }),
        h("span", {}, ownName(volume)),
      ),
      h(
        "div",
        { class: "under" },
        h("span", { class: "chip" }, gone ? `${STATES[volume.state] ?? volume.state} ${KINDS[volume.kind]}` : KINDS[volume.kind]),
        volume.kind === "snapshot" && parent && h("a", { class: "chip", href: routeTo("tree", parent.volume_id) }, `of ${parent.name}`),
        volume.kind === "live" && parent && parent.kind !== "zero" && h("a", { class: "chip", href: routeTo("tree", parent.volume_id) }, `from ${parent.name}`),
        volume.mounts.length > 0 && h("span", { class: "chip" }, h("i", { class: "dot ok" }), "mounted"),
      ),
    ),
    h("button", { type: "button", class: "button plain icon-only", "aria-label": "Close", title: "Close (Esc)", onClick: onClose }, icon("close")),
  );
}

function links(volume) {
  if (volume.state !== "ok" || volume.kind === "zero") return null;
  return h(
    "div",
    { class: "panel-links" },
    h("a", { class: "button", href: routeTo("browse", volume.name) }, icon("folder"), "Browse files"),
    h("button", { type: "button", class: "button", onClick: () => go("tree", volume.volume_id, { compare: "with" }) }, icon("compare"), "Compare"),
  );
}

function facts(volume) {
  const rows = [];
  const add = (name, ...value) => rows.push(h("dt", { key: `${name} name` }, name), h("dd", { key: name }, ...value));
  if (volume.kind === "snapshot") add("Name", h("span", { class: "mono" }, volume.name));
  if (volume.description) add("Description", volume.description);
  add("Created", dateTime(volume.created_ns), h("span", { class: "sub" }, ` · ${ago(volume.created_ns)}`));
  if (volume.kind !== "zero") {
    add("Colour", volume.color || "none");
    add("Protection", h("span", { class: "mono" }, volume.protection));
    if (volume.minimum_nodes) add("Least nodes", String(volume.minimum_nodes));
    add("Compression", volume.compression);
    if (volume.kind === "live") add("Quota", volume.quota_bytes ? quota(volume) : "no limit");
    if (volume.in_shared_mode) add("Shared", "by several hosts now");
    else if (volume.shared) add("Shared", "several hosts may write");
    if (volume.schedule_id) add("Made by", scheduleName(volume));
    if (volume.origin) add("Received", h("span", { class: "mono small" }, volume.origin));
    volume.mounts.forEach((mount, index) => add(index ? `Mount ${index + 1}` : "Mounted by", h("span", { class: "mono small" }, mount)));
  }
  return h("dl", { class: "facts" }, rows);
}

function quota(volume) {
  const used = volume.usage?.logical_bytes ?? 0;
  return `${size(volume.quota_bytes)}, ${percent(used, volume.quota_bytes)} used`;
}

function scheduleName(volume) {
  const schedule = store.lists.schedules?.find((other) => other.schedule_id === volume.schedule_id);
  return schedule ? `the schedule ${schedule.label}` : "a schedule";
}

function usage(volume) {
  const u = volume.usage;
  if (!u || volume.kind === "zero") return null;
  const shared = Math.max(0, u.stored_bytes - u.stored_alone_bytes);
  const cell = (value, name, title) => h("div", { title }, h("b", {}, size(value)), h("span", {}, name));
  return h(
    "section",
    { class: "usage", "aria-label": "Space" },
    h(
      "div",
      { class: "usage-numbers" },
      cell(u.logical_bytes, "logical", "Plain bytes that its files refer to"),
      cell(u.stored_bytes, "stored", "The same, compressed"),
      cell(u.logical_alone_bytes, "alone", "Plain bytes that no other node of the tree shows"),
    ),
    h(
      "div",
      { class: "bar", role: "img", "aria-label": `${size(u.stored_alone_bytes)} stored for it alone, ${size(shared)} shared` },
      h("i", { style: { width: `${u.stored_bytes ? (100 * u.stored_alone_bytes) / u.stored_bytes : 0}%` } }),
      h("i", { class: "second", style: { width: `${u.stored_bytes ? (100 * shared) / u.stored_bytes : 0}%` } }),
    ),
    h(
      "div",
      { class: "key" },
      h("span", {}, `${size(u.stored_alone_bytes)} stored for it alone`),
      h("span", {}, `${size(shared)} shared`),
    ),
  );
}

function operations(volume) {
  if (volume.state !== "ok") {
    const below = store.children(volume.volume_id).length;
    return h("p", { class: "quiet" }, below
      ? `It was deleted. It stays in the tree because ${count(below, "node descends", "nodes descend")} from it, and goes by itself.`
      : "It was deleted, and leaves the tree when its space is freed.");
  } // prettier-ignore
  const found = operationsOf(volume);
  if (!found.length) return null;
  return h(
    "section",
    { "aria-label": "Operations" },
    h(
      "div",
      { class: "operations" },
      found.map(([name, operation]) =>
        h(
          "button",
          {
            key: name,
            type: "button",
            class: operation.danger ? "operation danger" : "operation",
            "data-operation": name,
            onClick: () => go("tree", volume.volume_id, { do: name }),
          },
          picture(operation.picture),
          h("div", {}, h("b", {}, operation.title), h("span", {}, operation.line)),
        ),
      ),
    ),
  );
}
