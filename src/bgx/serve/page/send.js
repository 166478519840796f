// One photo's way to the server and back. A full queue is waited for; it is no error.

import { forget, hash, recall, remember } from "./memory.js";

const MOST_LOST = 5;

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * The cut-out of a file: { blob, address, width, height, doubtful }.
 *
 * tell is called with { state, share } as it goes on: reading, sending (share: percent), working,
 * waiting for a place and lost (seconds until it tries again). Throws Refused, and AbortError where the signal says so.
 */
export async function cut(file, query, { key, revision, signal, tell }) {
  tell({ state: "reading" });
  const digest = await hash(file);
  const name = digest && `${digest}?${query}#${revision}`;
  const known = name && recall(name);
  if (known) {
    const again = await fetch(known.address, { signal }).catch(rethrowAbort);
    if (again?.ok) return { ...known, blob: await again.blob() };
    forget(name);
  }
  const result = await persist(() => post(file, query, key, signal, tell), signal, tell);
  const { blob, ...facts } = result;
  if (name && facts.address) remember(name, facts);
  return result;
}

/** Tries until there is a place, or the server cannot be reached several times over. */
async function persist(attempt, signal, tell) {
  for (let lost = 0; ; ) {
    const answer = await attempt();
    if (answer.blob) return answer;
    if (answer.lost && ++lost >= MOST_LOST) throw new Refused("The server cannot be reached", 0);
    if (!answer.lost) lost = 0;
    const [state, seconds] = answer.lost ? ["lost", 2 ** lost] : ["waiting", answer.seconds];
    await wait(seconds, signal, (left) => tell({ state, seconds: left }));
  }
}

async function wait(seconds, signal, tell) {
  // Not all of them at the same moment.
  const end = Date.now() + 1000 * seconds * (1 + Math.random() / 4);
  for (let left = end - Date.now(); left > 0; left = end - Date.now()) {
    tell(Math.ceil(left / 1000));
    await new Promise((done) => setTimeout(done, Math.min(left, 500)));
    signal.throwIfAborted();
  }
}

/** XMLHttpRequest, because fetch does not tell how far an upload is. */
function post(file, query, key, signal, tell) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const request = new XMLHttpRequest();
    request.open("POST", `/cutouts${query ? `?${query}` : ""}`);
    request.responseType = "blob";
    request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
    // No key has other characters, and a header can have few of them: the server will refuse it.
    if (key) request.setRequestHeader("X-API-Key", key.replace(/[^!-~]/g, "?"));
    request.upload.onprogress = (event) => {
      tell({ state: "sending", share: (100 * event.loaded) / event.total });
    };
    request.upload.onload = () => tell({ state: "working" });
    request.onload = () => resolve(readAnswer(request));
    request.onerror = () => resolve({ lost: true });
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => request.abort(), { once: true });
    tell({ state: "sending", share: 0 });
    request.send(file);
  });
}

async function readAnswer(request) {
  const header = (name) => request.getResponseHeader(name);
  if (request.status === 200) {
    return {
      blob: request.response,
      address: header("Content-Location"),
      width: Number(header("X-Width")),
      height: Number(header("X-Height")),
      doubtful: header("X-Doubtful") === "true",
    };
  }
  const { status } = request;
  // 503 without this time is no full queue, but a network that cannot be loaded.
  if (status === 429 || (status === 503 && header("Retry-After"))) {
    return { seconds: Number(header("Retry-After")) || 3 };
  }
  const problem = await request.response?.text().then(JSON.parse).catch(() => null);
  // The page of a proxy whose server is stopped.
  if (!problem && [502, 503, 504].includes(status)) return { lost: true };
  throw new Refused(problem?.title ?? `The server answered ${status}`, status);
}

function rethrowAbort(error) {
  if (error.name === "AbortError") throw error;
  return null;
}
