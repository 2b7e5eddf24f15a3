// A file or folder in the side panel: what it is, its versions across the volume's snapshots, download, and bringing it
// into a live volume: restored where it was, beside what is there now, or cloned into another volume. No data is copied.

import * as api from "./api.js";
import { choiceField, failure, focusFirst, readForm, submitButtons, textField } from "./fields.js";
import { ago, count, dateTime, ownName, permissions, size, volumePart } from "./format.js";
import { icon } from "./icons.js";
import { encodePath, lastName, shownPath } from "./paths.js";
import { Picker } from "./picker.js";
import { store } from "./store.js";
import { toast } from "./toasts.js";
import { h } from "./vdom.js";

export class FilePanel {
  /** onCopied: the folder that is shown may have changed. */
  constructor(changed, onCopied) {
    this.changed = changed;
    this.onCopied = onCopied;
    this.asked = "";
    this.versions = null;
    this.error = null;
    this.copying = null; // {source: node's name, kind: restore | clone, key}
    this.busy = false;
    this.picker = new Picker({
      label: "Volume to clone into",
      candidates: () => (store.lists.volumes ?? []).filter((v) => v.kind === "live" && v.state === "ok"),
      onPick: (volume) => {
        this.copying.target = volume;
        this.changed();
      },
      changed,
      placeholder: "Choose a volume",
    });
  }

  follow(node, path, entry) {
    this.node = node;
    this.path = path;
    if (entry) this.entry = entry;
    const asked = node && path !== null ? `${node.volume_id} ${path}` : "";
    if (asked === this.asked) return;
    this.asked = asked;
    this.entry = entry;
    this.stop();
    this.versions = null;
    this.error = null;
    this.copying = null;
    if (asked) {
      this.fresh = true;
      this.load();
    }
  }

  async load() {
    const running = new AbortController();
    this.running = running;
    this.error = null;
    try {
      this.versions = await api.getVersions(volumePart(this.node.name), this.path, running.signal);
    } catch (error) {
      if (running.signal.aborted) return;
      this.error = error;
    }
    this.changed();
  }

  stop() {
    this.running?.abort();
  }

  settle() {
    if (this.fresh && this.element?.isConnected) {
      this.fresh = false;
      this.element.focus({ preventScroll: true });
    }
    if (this.freshForm && this.element?.isConnected) {
      this.freshForm = false;
      focusFirst(this.element);
    }
  }

  view(onClose) {
    const name = shownPath(lastName(this.path));
    const { entry, node } = this;
    return h(
      "aside",
      { class: "panel", "aria-label": name, tabindex: -1, key: "file", ref: (element) => { this.element = element; } },
      h(
        "header",
        { class: "panel-head" },
        h(
          "div",
          { class: "title" },
          h("h1", {}, h("span", {}, name)),
          h("div", { class: "under" }, h("span", { class: "chip" }, entry?.kind ?? "not here"), h("span", { class: "chip" }, `in ${node.name}`)),
        ),
        h("button", { type: "button", class: "button plain icon-only", "aria-label": "Close", title: "Close (Esc)", onClick: onClose }, icon("close")),
      ),
      h(
        "div",
        { class: "panel-body", key: this.asked },
        entry && entryFacts(entry),
        entry && this.actions(),
        this.copying?.place === "top" && this.copyForm(),
        h(
          "section",
          { "aria-label": "Versions" },
          h("div", { class: "section-head" }, h("h3", {}, `Versions across ${volumePart(node.name)}`)),
          this.versions ? this.versionList() : !this.error && h("p", { class: "loading" }, "Looking…"),
          failure(this.error),
        ),
      ),
    ); // prettier-ignore
  }

  actions() {
    const { node, path } = this;
    return h(
      "div",
      { class: "panel-links" },
      h("a", { class: "button", href: api.downloadUrl(node.name, path), download: "" }, icon("download"), this.entry.kind === "folder" ? "Download as tar" : "Download"),
      node.kind === "snapshot" && this.liveOf(node) && h("button", { type: "button", class: "button", onClick: () => this.begin("restore", node, "top") }, icon("restore"), "Restore"),
      h("button", { type: "button", class: "button", onClick: () => this.begin("clone", node, "top") }, icon("copy"), "Clone into…"),
    );
  }

  liveOf(node) {
    const live = node.kind === "snapshot" ? store.byId.get(node.parent_id) : node;
    return live?.state === "ok" ? live : null;
  }

  versionList() {
    if (!this.versions.length) return h("p", { class: "quiet small" }, "This volume has no snapshots.");
    // Newest first: what one looks for is mostly near the present.
    return h("ol", { class: "versions" }, [...this.versions].reverse().map((version) => this.version(version)));
  }

  version(version) {
    const node = store.byId.get(version.volume_id);
    const isLive = node?.kind !== "snapshot";
    const name = node ? (isLive ? "now" : ownName(node)) : version.node;
    const same = version.exists && version.same_as_previous === true;
    const changed = version.exists && version.same_as_previous !== null;
    const what = !version.exists
      ? "not there"
      : `${version.kind === "file" ? size(version.size) : version.kind}, ${same ? "as before" : `${changed ? "changed" : "of"} ${dateTime(version.mtime_ns)}`}`;
    return h(
      "li",
      { key: version.volume_id, class: version.exists ? (same ? "same" : "changed") : "absent", "data-node": version.node },
      h("i", { class: "mark", "aria-hidden": "true" }),
      h("div", {}, h("b", {}, name), h("span", {}, what), !isLive && h("span", {}, ago(version.created_ns))),
      version.exists &&
        h(
          "div",
          { class: "buttons" },
          h("a", { class: "button tiny icon-only plain", href: api.downloadUrl(version.node, this.path), download: "", "aria-label": `Download as in ${name}`, title: "Download" }, icon("download")),
          !isLive &&
            this.liveOf(node) &&
            h("button", { type: "button", class: "button tiny", "aria-label": `Restore from ${name}`, onClick: () => this.begin("restore", node, version.volume_id) }, "Restore"),
        ),
      this.copying?.place === version.volume_id && h("div", { class: "version-form" }, this.copyForm()),
    );
  }

  // ---------------------------------------------------------------- restore and clone

  begin(kind, node, place) {
    const live = this.liveOf(node);
    const version = this.versions?.find((other) => other.volume_id === node.volume_id);
    const isFolder = (version?.kind ?? this.entry?.kind) === "folder";
    this.copying = {
      kind, source: node, place, isFolder,
      target: kind === "restore" ? live : null,
      values: {},
      key: `${kind} ${node.volume_id} ${this.path}`,
    }; // prettier-ignore
    this.copyError = null;
    this.freshForm = true;
    this.changed();
  }

  copyForm() {
    const { copying } = this;
    const isRestore = copying.kind === "restore";
    const cancel = () => {
      this.copying = null;
      this.changed();
    };
    const beside = besideName(shownPath(this.path), copying.source);
    const how = copying.values.how ?? (copying.isFolder ? "beside" : "replace");
    return h(
      "form",
      {
        class: "form",
        key: copying.key,
        novalidate: true,
        "data-operation": copying.kind,
        onInput: (event) => {
          copying.values = readForm(event.currentTarget);
          this.changed();
        },
        onSubmit: (event) => {
          event.preventDefault();
          this.submit(readForm(event.currentTarget));
        },
        onKeydown: (event) => {
          if (event.key !== "Escape") return;
          event.stopPropagation();
          cancel();
        },
      },
      isRestore
        ? h("h2", {}, `Restore into ${copying.target.name}`)
        : h("div", { class: "field" }, h("span", { class: "field-label" }, "Into the live volume"), this.picker.view(copying.target)),
      isRestore &&
        choiceField(
          "how",
          "Where to",
          [
            ["replace", "Where it was", copying.isFolder ? "Its place must be free: what is there now stays" : "What is there now gives way, at once and whole"],
            ["beside", "Beside it", "What is there now stays as it is"],
          ],
          { initial: copying.isFolder ? "beside" : "replace" },
        ),
      (!isRestore || how === "beside") &&
        textField(copying.key, "path", "Path there", {
          initial: isRestore ? beside : shownPath(this.path),
          mono: true,
          hint: isRestore ? undefined : "An existing folder: into it, under its own name",
        }),
      failure(this.copyError),
      submitButtons(isRestore ? "Restore" : "Clone", { busy: this.busy, disabled: !copying.target, onCancel: cancel }),
      h("p", { class: "quiet small" }, "No data is copied: both share it until one changes."),
    );
  }

  async submit(values) {
    const { copying } = this;
    if (this.busy || !copying.target) return;
    const isRestore = copying.kind === "restore";
    const replace = isRestore && values.how === "replace";
    this.busy = true;
    this.copyError = null;
    this.changed();
    try {
      const reply = await api.copyFiles({
        source: copying.source.name,
        source_path: this.path,
        target: copying.target.name,
        target_path: replace || values.path.trim() === shownPath(this.path) ? this.path : encodePath(values.path),
        replace: replace && !copying.isFolder,
      });
      toast(`${isRestore ? "Restored" : "Cloned"} ${count(reply.files, "file")} to ${copying.target.name}:${shownPath(reply.path)}`);
      this.copying = null;
      this.load();
      this.onCopied();
    } catch (error) {
      this.copyError = error;
    }
    this.busy = false;
    this.changed();
  }
}

function entryFacts(entry) {
  const row = (name, value) => [h("dt", {}, name), h("dd", {}, value)];
  return h(
    "dl",
    { class: "facts" },
    entry.kind === "file" && row("Size", `${size(entry.size)}`),
    row("Changed", dateTime(entry.mtime_ns)),
    row("Mode", h("span", { class: "mono" }, permissions(entry.mode, entry.kind))),
    row("Owner", h("span", { class: "num" }, `${entry.uid}:${entry.gid}`)),
    entry.target && row("Leads to", h("span", { class: "mono" }, entry.target)),
  );
}

/** /a/notes.txt from the snapshot monday: /a/notes.monday.txt */
export function besideName(path, node) {
  const slash = path.lastIndexOf("/");
  const name = path.slice(slash + 1);
  const dot = name.lastIndexOf(".");
  const own = ownName(node);
  return `${path.slice(0, slash + 1)}${dot > 0 ? `${name.slice(0, dot)}.${own}${name.slice(dot)}` : `${name}.${own}`}`;
}
