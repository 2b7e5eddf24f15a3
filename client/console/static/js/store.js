// What the page knows of the pool, kept fresh by the server's push, and who wants to hear of changes.
//
// An event names the lists that changed; each is fetched again, never twice at once, and not more often than it can be
// answered: a burst of changes costs one fetch after the first. When the stream is lost the browser connects again by
// itself, and the stream's first event names everything, so nothing is missed.

import * as api from "./api.js";
import { Figures } from "./figures.js";

const LISTS = {
  volumes: api.getVolumes,
  status: api.getStatus,
  nodes: api.getNodes,
  jobs: api.getJobs,
  schedules: api.getSchedules,
};
// Which lists an event's word makes stale. The pool's status counts nodes, space and jobs.
const STALE = { tree: ["volumes", "status"], nodes: ["nodes", "status"], jobs: ["jobs"], schedules: ["schedules"] };
/** A list is not fetched again before this much time, nor before twice as long as fetching it took last time. */
const LEAST_PAUSE_MS = 80;
/** After a failed fetch. */
const RETRY_MS = 2000;
/** When nothing has come by push, the lists are fetched all the same. */
const UNPROMPTED_MS = 400;
/** The browser gives a stream up for good on an HTTP error; this much later the page opens a new one. */
const REOPEN_MS = 2000;

class Store extends EventTarget {
  constructor() {
    super();
    this.lists = { volumes: null, status: null, nodes: null, jobs: null, schedules: null };
    this.errors = {};
    /** When each list was fetched: what it says in "seconds ago" counts from then. */
    this.fetchedMs = {};
    this.byId = new Map();
    this.byName = new Map();
    this.figures = new Figures();
    this.connected = null; // null: not known yet
    this.away = null; // why the console cannot reach the coordinator
    this.running = new Map(); // list -> {again}
  }

  /** The stream's first event names everything, and all is fetched then. Where none comes soon, without it. */
  start() {
    this.openStream();
    setTimeout(() => {
      for (const list of Object.keys(LISTS)) if (!this.lists[list] && !this.running.has(list)) this.refresh(list);
    }, UNPROMPTED_MS);
  }

  openStream() {
    const source = new EventSource(api.eventsUrl);
    source.addEventListener("open", () => this.setConnected(true));
    source.addEventListener("error", () => {
      this.setConnected(false);
      if (source.readyState !== EventSource.CLOSED) return;
      setTimeout(() => this.openStream(), REOPEN_MS);
    });
    source.addEventListener("changed", (event) => {
      const changed = JSON.parse(event.data);
      const stale = new Set(Object.keys(STALE).flatMap((word) => (changed[word] ? STALE[word] : [])));
      for (const list of stale) this.refresh(list);
    });
    source.addEventListener("coordinator", (event) => {
      const { reachable, error } = JSON.parse(event.data);
      this.away = reachable ? null : (error?.message ?? "The coordinator does not answer");
      this.tell("connection");
    });
    source.addEventListener("figures", (event) => {
      this.figures.add(JSON.parse(event.data));
      this.tell("figures");
    });
  }

  setConnected(connected) {
    if (connected === this.connected) return;
    this.connected = connected;
    this.tell("connection");
  }

  /** Fetches a list again, soon. Resolves when an answer that began after this call is there. */
  refresh(list) {
    const running = this.running.get(list);
    if (running) {
      running.again ??= deferred();
      return running.again.promise;
    }
    const done = deferred();
    this.fetchList(list, done);
    return done.promise;
  }

  async fetchList(list, done) {
    const state = { again: null };
    this.running.set(list, state);
    const began = performance.now();
    let pause = LEAST_PAUSE_MS;
    try {
      const data = await LISTS[list]();
      this.accept(list, data);
      pause = Math.max(LEAST_PAUSE_MS, 2 * (performance.now() - began));
    } catch (error) {
      this.errors[list] = error;
      this.tell(list);
      pause = RETRY_MS;
      state.again ??= deferred();
    }
    done.resolve();
    await new Promise((resolve) => setTimeout(resolve, pause));
    this.running.delete(list);
    if (state.again) this.fetchList(list, state.again);
  }

  accept(list, data) {
    delete this.errors[list];
    this.lists[list] = data;
    this.fetchedMs[list] = Date.now();
    if (list === "volumes") {
      this.byId = new Map(data.map((volume) => [volume.volume_id, volume]));
      // A deleted node has no name any more: another may have it.
      this.byName = new Map(data.filter((v) => v.state === "ok").map((volume) => [volume.name, volume]));
      this.tree = null;
    }
    this.tell(list);
  }

  /** The nodes right below each node, by parent's id. */
  children(id) {
    if (!this.tree) {
      this.tree = new Map();
      for (const volume of this.lists.volumes ?? []) {
        if (!this.tree.has(volume.parent_id)) this.tree.set(volume.parent_id, []);
        this.tree.get(volume.parent_id).push(volume);
      }
    }
    return this.tree.get(id) ?? [];
  }

  tell(what) {
    this.dispatchEvent(new CustomEvent("change", { detail: what }));
  }

  /** Calls back after changes, once a frame, with the set of what changed. Returns how to stop. */
  watch(callback) {
    let changed = new Set();
    let asked = false;
    const heard = (event) => {
      changed.add(event.detail);
      if (asked) return;
      asked = true;
      // A frame, or soon: a page in the background gets no frames, and must not fall behind for ever.
      const once = () => {
        if (!asked) return;
        asked = false;
        const news = changed;
        changed = new Set();
        callback(news);
      };
      requestAnimationFrame(once);
      setTimeout(once, 100);
    };
    this.addEventListener("change", heard);
    return () => {
      asked = false;
      this.removeEventListener("change", heard);
    };
  }
}

function deferred() {
  let resolve;
  const promise = new Promise((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

export const store = new Store();
