// The forms of what adds to a node or changes it: clone, snapshot, properties, rename, mount.

import * as api from "./api.js";
import { colorField, PROTECTIONS, selectField, textField } from "./fields.js";
import { Form } from "./form.js";
import { count, ownName, parseSize, sizeInput, volumePart } from "./format.js";
import { icon } from "./icons.js";
import { store } from "./store.js";
import { copyText } from "./toasts.js";
import { h } from "./vdom.js";

const NAME_HINT = "Letters, digits, . _ and -";

// ---------------------------------------------------------------- settings, shared by new, clone and properties

/** Fields for settings. `compact`: what differs from the source, none needed. */
function settingsFields(form, volume, { isNew = false } = {}) {
  const from = isNew ? { protection: "", compression: "zstd", minimum_nodes: 0, quota_bytes: 0, shared: false } : volume;
  return [
    textField(form.key, "protection", "Protection", {
      initial: from.protection,
      placeholder: "the pool's default",
      list: PROTECTIONS,
      mono: true,
      hint: isNew ? "ec:K+M, mirror:N or single" : "For what is written from now on",
    }),
    h(
      "div",
      { class: "two" },
      selectField(form.key, "compression", "Compression", [["zstd", "zstd"], ["none", "none"]], {
        initial: from.compression || "zstd",
      }),
      textField(form.key, "quota", "Quota", {
        initial: sizeInput(from.quota_bytes),
        placeholder: "no limit",
        hint: "Logical bytes: 500 GiB",
      }),
    ),
    textField(form.key, "minimum_nodes", "Least number of nodes to write", {
      initial: from.minimum_nodes ? String(from.minimum_nodes) : "",
      placeholder: "as the protection needs",
      hint: "Lower lets writing go on with less protection while nodes are down",
    }),
    selectField(form.key, "shared", "Hosts that may write at once", [["no", "one"], ["yes", "several"]], {
      initial: from.shared ? "yes" : "no",
      hint: "Several see each other's changes at once, and write slower",
    }),
  ];
}

/** What differs from `before`, as the server wants it. Throws a plain Error where a field cannot be read. */
function changedSettings(values, before, custom) {
  const changes = {};
  const differs = (name, value) => {
    if (value !== undefined && value !== (before[name] ?? "")) changes[name] = value;
  };
  differs("description", values.description?.trim());
  differs("color", custom ?? values.color);
  if (values.protection?.trim()) differs("protection", values.protection.trim());
  differs("compression", values.compression);
  // A size is shown rounded: only one that was typed anew is meant.
  if (values.quota !== undefined && values.quota.trim() !== sizeInput(before.quota_bytes ?? 0)) {
    const bytes = parseSize(values.quota);
    if (Number.isNaN(bytes)) throw new Error(`'${values.quota}' is no size: write it like 500 GiB, or nothing for no limit`);
    changes.quota_bytes = bytes;
  }
  if (values.shared !== undefined && (values.shared === "yes") !== Boolean(before.shared)) {
    changes.shared = values.shared === "yes";
  }
  if (values.minimum_nodes !== undefined) {
    const typed = values.minimum_nodes.trim();
    const nodes = typed === "" ? 0 : Number(typed);
    if (!Number.isInteger(nodes) || nodes < 0) throw new Error(`'${typed}' is no number of nodes`);
    if (nodes !== (before.minimum_nodes ?? 0)) changes.minimum_nodes = nodes;
  }
  return changes;
}

function descriptionField(form, initial) {
  return textField(form.key, "description", "Description", { initial, placeholder: "One line for people" });
}

function colorOf(form, volume) {
  return colorField(form.key, volume.color, form.custom ?? null, (hex, element) => {
    form.custom = hex;
    // A colour of one's own is none of the palette's.
    if (hex !== null) for (const radio of element.querySelectorAll("[name=color]")) radio.checked = false;
    form.changed();
  });
}

export class SettingsForm extends Form {
  view(volume) {
    const isLive = volume.kind === "live";
    return [
      colorOf(this, volume),
      descriptionField(this, volume.description),
      isLive && settingsFields(this, volume),
    ];
  }

  async submit(values, volume) {
    const changes = changedSettings(values, volume, this.custom ?? (values.color === undefined ? volume.color : null));
    if (volume.kind === "snapshot") for (const name of Object.keys(changes)) if (!["description", "color"].includes(name)) delete changes[name];
    if (!Object.keys(changes).length) return { said: "Nothing changed", show: volume.volume_id };
    await api.setVolume(volume.name, changes);
    return { said: `Saved ${volume.name}`, show: volume.volume_id };
  }
}

export class CloneForm extends Form {
  view(volume) {
    const isNew = volume.kind === "zero";
    const isBacked = this.operation === "clone_backed";
    const source = isNew ? { ...volume, description: "", color: "" } : volume;
    return [
      textField(this.key, "name", isNew ? "Name" : "Name of the clone", { focus: true, required: true, hint: NAME_HINT }),
      isBacked &&
        textField(this.key, "snapshot", "Name of the snapshot behind it", {
          prefix: `${volume.name}@`,
          placeholder: this.values.name,
          hint: "Left empty, it is named as the clone",
        }),
      isNew
        ? [colorOf(this, source), descriptionField(this, ""), settingsFields(this, source, { isNew })]
        : h(
            "details",
            {},
            h("summary", {}, icon("down"), "Settings that differ from the source's"),
            h("div", { class: "form" }, colorOf(this, source), descriptionField(this, source.description), settingsFields(this, source)),
          ),
    ];
  }

  label(volume) {
    return volume.kind === "zero" ? "Create volume" : this.operation === "clone_backed" ? "Snapshot and clone" : "Clone";
  }

  async submit(values, volume) {
    const name = values.name.trim();
    if (volume.kind === "zero") {
      const before = { description: "", color: "", protection: "", compression: "zstd" };
      const made = await api.createVolume({ name, ...changedSettings(values, before, this.custom) });
      return { said: `Created ${name}`, show: made.volume_id };
    }
    const custom = this.custom ?? (values.color === undefined ? volume.color : null);
    const body = { name, ...changedSettings(values, volume, custom) };
    if (this.operation === "clone_backed") {
      body.backed = true;
      if (values.snapshot.trim()) body.snapshot = values.snapshot.trim();
    }
    const made = await api.cloneVolume(volume.name, body);
    return { said: `Cloned ${volume.name} as ${name}`, show: made.snapshot.volume_id };
  }
}

// ---------------------------------------------------------------- snapshot, rename, mount

export class SnapshotForm extends Form {
  view(volume) {
    return textField(this.key, "snapshot", "Name of the snapshot", {
      prefix: `${volume.name}@`,
      focus: true,
      required: true,
      hint: volume.mounts.length ? "Its mount is asked to write out everything first" : NAME_HINT,
    });
  }

  label() {
    return "Take snapshot";
  }

  async submit(values, volume) {
    const reply = await api.createSnapshot(volume.name, values.snapshot.trim());
    const late = reply.holder_flushed ? "" : ". A mount did not answer in time: it holds the last state that was written out";
    return { said: `Took ${reply.snapshot.name}${late}`, show: volume.volume_id };
  }
}

export class RenameForm extends Form {
  view(volume) {
    const isSnapshot = volume.kind === "snapshot";
    const snapshots = store.children(volume.volume_id).filter((v) => v.kind === "snapshot" && v.state === "ok").length;
    return textField(this.key, "name", "New name", {
      prefix: isSnapshot ? `${volumePart(volume.name)}@` : undefined,
      initial: ownName(volume),
      focus: true,
      required: true,
      hint: snapshots ? `Its ${count(snapshots, "snapshot")} will be named after it too` : NAME_HINT,
    });
  }

  label() {
    return "Rename";
  }

  async submit(values, volume) {
    const typed = values.name.trim();
    const name = volume.kind === "snapshot" ? `${volumePart(volume.name)}@${typed}` : typed;
    await api.renameVolume(volume.name, name);
    return { said: `Renamed to ${name}`, show: volume.volume_id };
  }
}

export class MountForm extends Form {
  view(volume) {
    const folder = `~/${volume.name.replace("@", "-")}`;
    const command = (text) =>
      h(
        "div",
        { class: "command" },
        h("code", {}, text),
        h("button", { type: "button", class: "button tiny icon-only plain", "aria-label": `Copy: ${text}`, title: "Copy", onClick: () => copyText(text) }, icon("copy")),
      );
    return [
      h("p", { class: "quiet" }, "Mounts are made where they are used. On that machine, type:"),
      command(`redfs mount ${volume.name} ${folder}`),
      h("p", { class: "quiet" }, "And to unmount it, after everything is safe in the pool:"),
      command(`redfs umount ${folder}`),
      volume.kind === "snapshot" && h("p", { class: "quiet small" }, "A snapshot never changes: it is mounted read-only."),
    ];
  }

  hasSubmit() {
    return false;
  }
}
