// The REST API of `redfs console`, one function a call. Every failure is an ApiError with the server's own words.

const BASE = "/api/v1";

export class ApiError extends Error {
  /** `code` as in core/errors.py; "offline" where no answer came. */
  constructor(code, message, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/** `filePath` is a percent-encoded path in a volume: it goes into the address as it is. */
async function call(method, path, { query, filePath, body, signal } = {}) {
  const wanted = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null);
  const parts = [new URLSearchParams(wanted).toString()];
  if (filePath !== undefined) parts.push(`path=${filePath}`);
  const search = parts.filter(Boolean).join("&");
  const headers = { Accept: "application/json" };
  // Another site's page cannot send this header without asking first, and is refused then.
  if (method !== "GET") headers["X-RedFS-Console"] = "1";
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let reply;
  try {
    reply = await fetch(`${BASE}${path}${search ? `?${search}` : ""}`, {
      method,
      headers,
      signal,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("offline", "The console does not answer: is `redfs console` still running?", 0);
  }
  const text = await reply.text();
  let data = null;
  try {
    data = text ? JSON.parse(text) : null;
  } catch {
    data = null;
  }
  if (reply.ok) return data;
  const said = data?.error;
  throw new ApiError(said?.code ?? "error", said?.message ?? `The console answered ${reply.status}`, reply.status);
}

const named = (name) => encodeURIComponent(name);

export const getStatus = () => call("GET", "/status");
export const getVolumes = () => call("GET", "/volumes");
export const getNodes = () => call("GET", "/nodes");
export const getJobs = () => call("GET", "/jobs");
export const getSchedules = () => call("GET", "/schedules");

export const createVolume = (body) => call("POST", "/volumes", { body });
export const setVolume = (name, body) => call("PATCH", `/volumes/${named(name)}`, { body });
export const deleteVolume = (name, confirm) => call("DELETE", `/volumes/${named(name)}`, { query: { confirm } });
export const renameVolume = (name, newName) =>
  call("POST", `/volumes/${named(name)}/rename`, { body: { new_name: newName } });
export const createSnapshot = (volume, snapshot) =>
  call("POST", `/volumes/${named(volume)}/snapshots`, { body: { snapshot } });
export const cloneVolume = (source, body) => call("POST", `/volumes/${named(source)}/clones`, { body });
export const rollBack = (snapshot, body) => call("POST", `/volumes/${named(snapshot)}/rollback`, { body });

export const setSchedule = (volume, label, body) =>
  call("PUT", `/volumes/${named(volume)}/schedules/${named(label)}`, { body });
export const removeSchedule = (volume, label) => call("DELETE", `/volumes/${named(volume)}/schedules/${named(label)}`);

export const controlJob = (id, action) => call("POST", `/jobs/${id}/${action}`);
export const startJob = (kind) => call("POST", "/jobs", { body: { kind } });

export const getFreed = (names, signal) => call("POST", "/freed", { body: { names }, signal });
export const getDiff = (before, after, limit, signal) => call("GET", "/diff", { query: { before, after, limit }, signal });

export const browse = (name, path, after, limit, signal) =>
  call("GET", `/browse/${named(name)}`, { query: { after, limit }, filePath: path, signal });
export const getVersions = (volume, path, signal) =>
  call("GET", `/versions/${named(volume)}`, { filePath: path, signal });
export const copyFiles = (body) => call("POST", "/copies", { body });
export const downloadUrl = (name, path) => `${BASE}/download/${named(name)}?path=${path}`;

export const eventsUrl = `${BASE}/events`;
