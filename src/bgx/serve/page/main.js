// The page: photos come in, cards show what becomes of them.

import { compare } from "./compare.js";
import { readDrop, sort } from "./gather.js";
import { adapt, describe, offer, readQuery } from "./options.js";
import { Refused, cut } from "./send.js";
import { zip } from "./zip.js";

const AT_ONCE = 3;
const REFUSED_FOR_EVER = new Set([400, 413, 415, 422]);
const SUFFIXES = { "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/avif": "avif" };

const find = (selector) => document.querySelector(selector);
const drop = find("#drop");
const fields = find("#fields");
const cards = find("#cards");
const viewer = find("#viewer");
const template = find("#card");

const photos = []; // { file, card, state, result, control, before, after }
let config = { revision: "", max_body: Infinity };
let atWork = 0;

// Photos ------------------------------------------------------------------------------------------

function add(files) {
  const { photos: found, others } = sort(files);
  note(others && !found.length ? "These are no pictures." : "");
  for (const file of found) {
    const card = template.content.firstElementChild.cloneNode(true);
    const photo = { file, card, before: URL.createObjectURL(file), state: "waiting" };
    card.querySelector(".name").textContent = file.name;
    card.querySelector(".name").title = file.name;
    card.querySelector(".remove").ariaLabel = `Remove ${file.name}`;
    card.querySelector(".remove").addEventListener("click", () => remove(photo));
    card.querySelector(".progress").ariaLabel = file.name;
    card.querySelector(".again").ariaLabel = `Try again: ${file.name}`;
    card.querySelector(".again").addEventListener("click", () => queue(photo));
    card.querySelector(".enlarge").ariaLabel = `Large view of ${file.name}`;
    card.querySelector(".enlarge").addEventListener("click", () => show(photo));
    photos.push(photo);
    cards.append(card);
    compare(card.querySelector(".stage"), photo.before, null, file.name);
    queue(photo);
  }
}

function remove(photo) {
  photo.control?.abort();
  photos.splice(photos.indexOf(photo), 1);
  for (const address of [photo.before, photo.after]) if (address) URL.revokeObjectURL(address);
  const next = photo.card.nextElementSibling ?? photo.card.previousElementSibling;
  photo.card.remove();
  next?.querySelector(".remove").focus();
  summarise();
}

/** Has it made with the options as they are now. */
function queue(photo) {
  photo.control?.abort();
  photo.control = null;
  setState(photo, "waiting", "Waiting");
  work();
}

function work() {
  while (atWork < AT_ONCE) {
    const photo = photos.find((one) => one.state === "waiting" && !one.control);
    if (!photo) break;
    atWork++;
    make(photo).finally(() => {
      atWork--;
      work();
    });
  }
  summarise();
}

async function make(photo) {
  const control = new AbortController();
  photo.control = control;
  if (photo.file.size > config.max_body) {
    setState(photo, "failed", `Larger than the ${bytes(config.max_body)} that this server takes`);
    return;
  }
  try {
    const result = await cut(photo.file, readQuery(fields), {
      key: sessionStorage.getItem("bgx-key"),
      revision: config.revision,
      signal: control.signal,
      tell: (progress) => tell(photo, control, progress),
    });
    if (photo.control === control) finish(photo, result);
  } catch (error) {
    if (photo.control !== control || error.name === "AbortError") return;
    if (error instanceof Refused && error.status === 401) askForKey();
    const words = error instanceof Refused ? error.message : "This file could not be read";
    setState(photo, "failed", sentence(words));
    // The same photo would be refused again.
    photo.card.querySelector(".again").hidden = REFUSED_FOR_EVER.has(error.status);
  }
}

function tell(photo, control, { state, share = 0, seconds }) {
  if (photo.control !== control) return;
  const words = {
    reading: "Reading",
    sending: `Sending, ${Math.round(share)} %`,
    working: "Removing the background",
    waiting: `The server is busy; again in ${seconds} s`,
    lost: `The server cannot be reached; again in ${seconds} s`,
  };
  setState(photo, state === "working" ? "working" : "waiting", words[state], share);
}

function finish(photo, result) {
  if (photo.after) URL.revokeObjectURL(photo.after);
  photo.result = result;
  photo.after = URL.createObjectURL(result.blob);
  compare(photo.card.querySelector(".stage"), photo.before, photo.after, photo.file.name);
  const save = photo.card.querySelector(".save");
  save.href = photo.after;
  save.download = nameOf(photo);
  save.ariaLabel = `Download ${save.download}`;
  save.title = save.ariaLabel;
  const size = result.width ? `${result.width} × ${result.height} · ` : "";
  setState(photo, "done", `${size}${bytes(result.blob.size)}`);
  photo.card.classList.toggle("doubtful", result.doubtful);
}

function setState(photo, state, words, share = 0) {
  photo.state = state;
  const { card } = photo;
  card.classList.remove("waiting", "working", "done", "failed", "doubtful");
  card.classList.add(state);
  const line = card.querySelector(".state");
  line.textContent = words;
  line.title = words;
  const bar = card.querySelector(".progress");
  bar.style.setProperty("--share", share);
  bar.ariaValueNow = Math.round(share);
  bar.ariaValueText = words;
  card.querySelector(".again").hidden = state !== "failed";
  card.querySelector(".save").hidden = state !== "done";
  if (state === "done" || state === "failed") summarise();
}

// Words -------------------------------------------------------------------------------------------

function sentence(text) {
  const plain = text.replace(/^picture: /, "");
  return plain[0].toUpperCase() + plain.slice(1);
}

function bytes(count) {
  return count < 1e6 ? `${Math.max(1, Math.round(count / 1e3))} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

function nameOf(photo) {
  const stem = photo.file.name.replace(/\.[^.]*$/, "") || "photo";
  return `${stem}-cut.${SUFFIXES[photo.result.blob.type] ?? "png"}`;
}

function summarise() {
  const count = (state) => photos.filter((photo) => photo.state === state).length;
  const done = count("done");
  const doubtful = photos.filter((photo) => photo.state === "done" && photo.result.doubtful).length;
  const failed = count("failed");
  let words = `${done} of ${photos.length} done`;
  if (doubtful) words += `, ${doubtful} to look at closely`;
  if (failed) words += `, ${failed} failed`;
  const line = find("#summary");
  if (line.textContent !== words) line.textContent = words;
  find("#bar").hidden = !photos.length;
  find("#all").disabled = !done;
  drop.classList.toggle("small", photos.length > 0);
  document.title = photos.length && done < photos.length ? `${done}/${photos.length} · bgx` : "bgx: photos without their background";
}

function note(words) {
  find("#note").textContent = words;
  find("#note").hidden = !words;
}

// Downloads ---------------------------------------------------------------------------------------

async function downloadAll() {
  const used = new Map();
  const files = photos.filter((photo) => photo.state === "done").map((photo) => {
    const name = nameOf(photo);
    // Some systems would unpack A.png over a.png.
    const folded = name.normalize().toLowerCase();
    const times = used.get(folded) ?? 0;
    used.set(folded, times + 1);
    return { name: times ? name.replace(/(\.\w+)$/, `-${times + 1}$1`) : name, blob: photo.result.blob };
  });
  const button = find("#all");
  button.disabled = true;
  try {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await zip(files));
    link.download = "cut-outs.zip";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    note(error instanceof RangeError ? `${error.message}; download them one by one.` : String(error));
  }
  button.disabled = false;
}

// Large view --------------------------------------------------------------------------------------

let shown = null;

function show(photo) {
  shown = photo;
  const stage = viewer.querySelector(".stage");
  const own = compare(stage, photo.before, photo.after, photo.file.name);
  viewer.querySelector("p").textContent = photo.file.name;
  viewer.className = cards.className.replace("cards", "");
  if (!viewer.open) viewer.showModal();
  own.querySelector("input").focus();
}

function step(by) {
  const done = photos.filter((photo) => photo.state === "done");
  if (done.length) show(done[(done.indexOf(shown) + by + done.length) % done.length]);
}

viewer.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (event.target === viewer || button?.hasAttribute("data-close")) viewer.close();
  else if (button?.dataset.step) step(Number(button.dataset.step));
});
viewer.addEventListener("keydown", (event) => {
  if (event.key === "PageDown") step(1);
  else if (event.key === "PageUp") step(-1);
  else return;
  event.preventDefault();
});
viewer.addEventListener("close", () => {
  shown?.card.querySelector(".enlarge").focus();
  viewer.querySelector(".compare")?.remove();
});

// Ways in -----------------------------------------------------------------------------------------

for (const input of [find("#files"), find("#folder")]) {
  input.addEventListener("change", () => {
    add([...input.files]);
    input.value = "";
  });
}

let inside = 0;
addEventListener("dragenter", (event) => {
  inside++;
  if (event.dataTransfer?.types.includes("Files")) drop.classList.add("over");
});
addEventListener("dragleave", () => {
  if (--inside <= 0) drop.classList.remove("over");
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", async (event) => {
  event.preventDefault();
  inside = 0;
  drop.classList.remove("over");
  const { files, unread } = await readDrop(event.dataTransfer);
  add(files);
  if (unread.length) note(`Cannot be read: ${unread.join(", ")}`);
});
addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) add([...event.clipboardData.files]);
});

let patience;
fields.addEventListener("input", () => {
  adapt(fields);
  find("#chosen").textContent = describe(fields);
  clearTimeout(patience);
  // A colour is dragged through many others.
  patience = setTimeout(() => photos.forEach(queue), 350);
});

find("#all").addEventListener("click", downloadAll);
find("#clear").addEventListener("click", () => {
  for (const photo of [...photos]) remove(photo);
  find("#files").focus();
});
for (const ground of document.querySelectorAll("[name=ground]")) {
  ground.addEventListener("change", () => {
    cards.className = `cards ${ground.value}`;
  });
}

function askForKey() {
  find("#key-form").hidden = false;
  find("#key").focus();
}
find("#key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("bgx-key", find("#key").value.trim());
  find("#key-form").hidden = true;
  photos.filter((photo) => photo.state === "failed").forEach(queue);
});

// Start -------------------------------------------------------------------------------------------

find("#choices").open = innerWidth > 600;
const answer = await fetch("/page/config.json").catch(() => null);
if (answer?.ok) {
  config = await answer.json();
  offer(fields, config);
  if (config.needs_key && !sessionStorage.getItem("bgx-key")) askForKey();
} else {
  note("The server cannot be reached.");
}
document.documentElement.dataset.ready = "yes";
