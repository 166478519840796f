// Which photo, with which options, became which address of the server's: a photo that comes again
// is not sent again. Only this browser knows; the address cannot be reckoned from the photo.

const NAME = "bgx-results";
const MOST = 1000;

/** SHA-256 of a file in hex; null where the browser does not offer it (plain HTTP, not localhost). */
export async function hash(file) {
  if (!globalThis.crypto?.subtle) return null;
  const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function load() {
  try {
    return new Map(JSON.parse(localStorage.getItem(NAME)) ?? []);
  } catch {
    return new Map();
  }
}

function store(known) {
  try {
    localStorage.setItem(NAME, JSON.stringify([...known].slice(-MOST)));
  } catch {
    // Full or forbidden: then photos are sent again.
  }
}

export function recall(key) {
  return load().get(key);
}

export function remember(key, result) {
  const known = load();
  known.delete(key);
  known.set(key, result);
  store(known);
}

export function forget(key) {
  const known = load();
  known.delete(key);
  store(known);
}
