// The operations that a node may offer, by the names of the server's `allowed`: what each is called, what it does in a
// line, its picture, and the form behind it. A node shows those that its `allowed` names, in this order.

import { DeleteForm, RestoreForm, RollBackForm } from "./destructive_forms.js";
import { CloneForm, MountForm, RenameForm, SettingsForm, SnapshotForm } from "./operation_forms.js";

const LIVE = {
  snapshot: {
    title: "Snapshot",
    line: "Freeze it as it is now, under a name. It goes on, one step ahead.",
    picture: "snapshot",
    form: SnapshotForm,
  },
  clone: {
    title: "Clone",
    line: "A writable copy from this instant. This volume is not touched.",
    picture: "clone",
    form: CloneForm,
  },
  clone_backed: {
    title: "Backed clone",
    line: "A snapshot first, then a clone of it: both go on from a named point.",
    picture: "clone_backed",
    form: CloneForm,
  },
  mount: { title: "Mount", line: "As an ordinary folder, on this or another machine.", picture: "mount", form: MountForm },
  set: {
    title: "Properties",
    line: "Colour, description, protection, compression, quota.",
    picture: "set",
    form: SettingsForm,
  },
  rename: { title: "Rename", line: "Its snapshots follow.", picture: "rename", form: RenameForm },
  rollback: {
    title: "Roll back",
    line: "Make it what one of its snapshots is, at once.",
    picture: "rollback",
    form: RollBackForm,
  },
  delete: {
    title: "Delete",
    line: "Free what nothing else needs. Snapshots and clones stay.",
    picture: "delete",
    form: DeleteForm,
    danger: true,
  },
};

const SNAPSHOT = {
  clone: {
    title: "Clone",
    line: "A writable volume that begins here.",
    picture: "clone_snapshot",
    form: CloneForm,
  },
  mount: { title: "Mount", line: "Read-only, as an ordinary folder.", picture: "mount", form: MountForm },
  restore: {
    title: "Restore",
    line: "Bring back a file, a folder or all of it.",
    picture: "restore",
    form: RestoreForm,
  },
  set: { title: "Properties", line: "Colour and description.", picture: "set", form: SettingsForm },
  rename: { title: "Rename", line: "It stays with its volume.", picture: "rename", form: RenameForm },
  delete: {
    title: "Delete",
    line: "Free what only it still holds. Clones of it stay.",
    picture: "delete",
    form: DeleteForm,
    danger: true,
  },
};

const ZERO = {
  clone: {
    title: "New volume",
    line: "Every volume begins as a clone of the empty one.",
    picture: "create",
    form: CloneForm,
  },
};

const BY_KIND = { zero: ZERO, live: LIVE, snapshot: SNAPSHOT };

/** [[name, operation]] that may be asked for on a node now. */
export function operationsOf(volume) {
  const known = BY_KIND[volume.kind] ?? {};
  return Object.entries(known).filter(([name]) => volume.allowed.includes(name));
}
