// The last five minutes of the pool's figures, one sample a second. Pure: no clock, no document.
//
// The server sends running totals, each second while they change; a second without news is a second without work. The
// totals begin again at nothing when the coordinator restarts: what is less than before is a new beginning.

export const WINDOW_S = 300;

export class Figures {
  constructor() {
    /** Oldest first: {second, readRate, writeRate, operations, latencyMs}; rates in bytes and operations a second. */
    this.samples = [];
    this.last = null;
  }

  /** Takes in totals {read_bytes, written_bytes, operations, busy_us, at_ms}. */
  add(totals) {
    const before = this.last;
    this.last = totals;
    if (before === null || totals.operations < before.operations || totals.read_bytes < before.read_bytes) return;
    const gapS = (totals.at_ms - before.at_ms) / 1000;
    if (gapS <= 0) return;
    // Totals are sent every second while they change: after a longer gap, what came anew belongs to its end.
    const spanS = Math.min(gapS, 1.5);
    const operations = totals.operations - before.operations;
    this.put({
      second: Math.round(totals.at_ms / 1000),
      readRate: (totals.read_bytes - before.read_bytes) / spanS,
      writeRate: (totals.written_bytes - before.written_bytes) / spanS,
      operations: operations / spanS,
      latencyMs: operations ? (totals.busy_us - before.busy_us) / operations / 1000 : null,
    });
  }

  put(sample) {
    while (this.samples.length && this.samples.at(-1).second >= sample.second) this.samples.pop();
    this.samples.push(sample);
    const oldest = sample.second - WINDOW_S;
    while (this.samples.length && this.samples[0].second < oldest) this.samples.shift();
  }

  /** WINDOW_S + 1 samples, one a second, that end at `second`; seconds without news are still. */
  series(second) {
    const found = new Map(this.samples.map((sample) => [sample.second, sample]));
    const still = { readRate: 0, writeRate: 0, operations: 0, latencyMs: null };
    return Array.from({ length: WINDOW_S + 1 }, (_, index) => {
      const at = second - WINDOW_S + index;
      return found.get(at) ?? { second: at, ...still };
    });
  }

  /** The newest sample, or a still one when it is older than `fresh` seconds. */
  now(second, fresh = 2) {
    const newest = this.samples.at(-1);
    if (newest && second - newest.second <= fresh) return newest;
    return { second, readRate: 0, writeRate: 0, operations: 0, latencyMs: null };
  }
}
