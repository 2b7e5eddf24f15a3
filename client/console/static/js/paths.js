// Paths in a volume are bytes. The API and the address bar hold them percent-encoded, as they stand in a URL; what people
// read and type is text. An encoded path is never encoded again: it goes behind ?path= as it is.

const reader = new TextDecoder("utf-8", { fatal: false });

/** What a person typed, encoded; absolute. */
export function encodePath(text) {
  const encoded = text.trim().split("/").map(encodeURIComponent).join("/");
  return encoded.startsWith("/") ? encoded : `/${encoded}`;
}

/** An encoded path for people: what is no UTF-8 shows as U+FFFD. */
export function shownPath(encoded) {
  const bytes = [];
  for (let at = 0; at < encoded.length; at += 1) {
    const isEscape = encoded[at] === "%" && /^[0-9a-f]{2}$/i.test(encoded.slice(at + 1, at + 3));
    bytes.push(isEscape ? parseInt(encoded.slice(at + 1, at + 3), 16) : encoded.charCodeAt(at));
    if (isEscape) at += 2;
  }
  return reader.decode(new Uint8Array(bytes));
}

/** The folder that an encoded path lies in. */
export function folderOf(encoded) {
  return encoded.slice(0, encoded.lastIndexOf("/")) || "/";
}

/** The last name of an encoded path, encoded. */
export function lastName(encoded) {
  return encoded.slice(encoded.lastIndexOf("/") + 1);
}
