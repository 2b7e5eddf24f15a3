// Jobs: what the pool does in the background, how far it is, and pause, resume, cancel where a job allows them.

import * as api from "./api.js";
import { failure } from "./fields.js";
import { ago, count, duration, number, percent, size } from "./format.js";
import { icon } from "./icons.js";
import { store } from "./store.js";
import { toast } from "./toasts.js";
import { h, render } from "./vdom.js";

/** Progress is pushed when it changes much; while one looks, it is asked for as often as this. */
const LOOK_MS = 2000;

const KINDS = {
  reclaim: ["Freeing space of", "what only a deleted node held"],
  reap: ["Cleaning up", "what was unlinked or truncated"],
  rebuild: ["Rebuilding", "made anew on other nodes"],
  repair: ["Repairing", "made anew from the other shards"],
  drain: ["Emptying", "everything moves to other nodes"],
  rebalance: ["Levelling", "until each node holds its share"],
  scrub: ["Checking", "everything is read on the nodes and compared with its checksums"],
};
const STATES = { running: "running", waiting: "waiting", paused: "paused" };
const ACTIONS = { pause: ["Pause", "pause", "Paused"], resume: ["Resume", "play", "Resumed"], cancel: ["Cancel", "stop", "Cancelled"] };

export class JobsView {
  constructor(container) {
    this.container = container;
    this.errors = new Map();
    this.busy = new Set();
    this.stopWatching = store.watch(() => this.render());
    this.timer = setInterval(() => {
      if (store.lists.jobs?.length && !document.hidden) store.refresh("jobs");
    }, LOOK_MS);
    this.render();
  }

  follow() {}

  dispose() {
    this.stopWatching();
    clearInterval(this.timer);
    render(this.container);
  }

  render() {
    const { jobs } = store.lists;
    const running = (jobs ?? []).filter((job) => job.state === "running").length;
    render(
      this.container,
      h(
        "div",
        { class: "view" },
        h("div", { class: "view-head" }, h("h1", {}, "Jobs"), jobs?.length ? h("span", { class: "quiet" }, `${running} of ${count(jobs.length, "job")} running`) : null),
        jobs
          ? jobs.length
            ? h("ul", { class: "card" }, jobs.map((job) => this.job(job)))
            : h("div", { class: "empty" }, icon("check"), h("b", {}, "Nothing to do"), "Freeing space after a deletion, and the like, shows here.")
          : h("p", { class: "loading" }, store.errors.jobs?.message ?? "Loading…"),
      ),
    );
  }

  job(job) {
    const [what, line] = KINDS[job.kind] ?? [job.kind, ""];
    const share = job.total_bytes ? Math.min(1, job.done_bytes / job.total_bytes) : null;
    const left = job.state === "running" && job.left_s >= 0 && (job.rate > 0 || job.left_s > 0) ? `${duration(Math.ceil(job.left_s))} left` : "";
    return h(
      "li",
      { class: "job", key: job.job_id, "data-job": job.job_id },
      h(
        "div",
        { class: "what" },
        h("b", {}, `${what} ${job.subject}`),
        line && h("span", { class: "quiet small" }, line),
      ),
      h(
        "div",
        { class: "buttons" },
        job.allowed.filter((action) => action in ACTIONS).map((action) =>
          h(
            "button",
            { key: action, type: "button", class: "button tiny", disabled: this.busy.has(job.job_id), onClick: () => this.control(job, action) },
            icon(ACTIONS[action][1]),
            ACTIONS[action][0],
          ),
        ),
      ),
      h(
        "div",
        { class: "progress" },
        h(
          "div",
          {
            class: share === null ? "bar unknown" : "bar",
            role: "progressbar",
            "aria-label": `${what} ${job.subject}`,
            "aria-valuemin": 0,
            "aria-valuemax": 100,
            "aria-valuenow": share === null ? undefined : Math.round(100 * share),
          },
          share !== null && h("i", { style: { width: `${(100 * share).toFixed(1)}%` } }),
        ),
        h(
          "div",
          { class: "numbers" },
          h("span", {}, job.total_bytes ? `${size(job.done_bytes)} of ${size(job.total_bytes)}, ${percent(job.done_bytes, job.total_bytes)}` : `${number(job.done)} rows, ${size(job.done_bytes)}`),
          h(
            "span",
            {},
            [job.state === "running" && job.rate > 0 ? `${size(job.rate)}/s` : STATES[job.state] ?? job.state, left, `began ${ago(job.started_ns)}`].filter(Boolean).join(" · "),
          ),
        ),
      ),
      failure(this.errors.get(job.job_id)),
    );
  }

  async control(job, action) {
    this.busy.add(job.job_id);
    this.errors.delete(job.job_id);
    this.render();
    try {
      await api.controlJob(job.job_id, action);
      toast(`${ACTIONS[action][2]}: ${job.subject}`);
      await store.refresh("jobs");
    } catch (error) {
      this.errors.set(job.job_id, error);
    }
    this.busy.delete(job.job_id);
    this.render();
  }
}
