// Where one is, kept in the address after the #, so that back, forward, bookmarks and reload work.
//
//   #/tree            #/tree/12 (a node's id: names change)      #/tree/12?do=snapshot     #/tree/12?compare=15
//   #/browse/photos@before?path=/a/b&file=/a/b/c.txt (paths as the API encodes them)                 #/nodes    #/jobs    #/live

export const VIEWS = ["tree", "browse", "nodes", "jobs", "live"];

export function parseRoute(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [view, subject = ""] = path.split("/", 2);
  return {
    view: VIEWS.includes(view) ? view : "tree",
    subject: decode(subject),
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

export function routeTo(view, subject = "", query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = new URLSearchParams(given).toString();
  return `#/${view}${subject === "" ? "" : `/${encodeURIComponent(subject)}`}${search ? `?${search}` : ""}`;
}

export function go(view, subject, query, { replace = false } = {}) {
  const wanted = routeTo(view, subject, query);
  if (wanted === location.hash) return;
  if (replace) {
    history.replaceState(null, "", wanted);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = wanted;
  }
}
