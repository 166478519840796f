// Before and after, with a divider between them.

const template = document.querySelector("#compare");

/** Puts the two pictures into a stage. after may be null: then only the photo is shown. */
export function compare(stage, before, after, name) {
  const own = template.content.firstElementChild.cloneNode(true);
  const range = own.querySelector("input");
  range.ariaLabel = `Before and after: ${name}`;
  const photo = own.querySelector(".before");
  photo.alt = `${name}, before`;
  photo.src = before;
  // Browsers do not show every format that bgx reads.
  photo.addEventListener("error", () => photo.remove());
  if (after) {
    const cutout = own.querySelector(".after img");
    cutout.alt = `${name}, after`;
    cutout.src = after;
    own.classList.add("ready");
  }
  const move = () => {
    own.style.setProperty("--cut", `${range.value}%`);
    own.classList.toggle("whole", range.value === "0");
  };
  range.addEventListener("input", move);
  move();
  stage.querySelector(".compare")?.remove();
  stage.prepend(own);
  return own;
}
