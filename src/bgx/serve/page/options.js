// What is chosen, as the query of a request.

const FRAMINGS = {
  crop: { crop: "true" },
  margin: { margin: "6%" },
  square: { canvas: "square", fill: "85%" },
};

/** Fills the choices from the server's own list. */
export function offer(form, config) {
  const models = form.querySelector("[name=model]");
  models.append(...config.models.map((name, index) => new Option(name, index ? name : "")));
  models.closest("label").hidden = config.models.length < 2;
  const presets = form.querySelector("[name=preset]");
  for (const [name, rule] of Object.entries(config.presets)) {
    const option = new Option(name, name);
    option.title = rule;
    presets.append(option);
  }
}

/** The query of the chosen options; the same choices give the same text. */
export function readQuery(form) {
  const query = new URLSearchParams();
  const value = (name) => form.querySelector(`[name=${name}]`).value;
  for (const name of ["model", "preset", "format", "resize", "keep"]) {
    if (value(name)) query.set(name, value(name));
  }
  const background = value("background") === "colour" ? value("colour") : value("background");
  if (background) query.set("background", background);
  for (const [name, text] of Object.entries(FRAMINGS[value("framing")] ?? {})) {
    query.set(name, text);
  }
  return query.toString();
}

/** In words, for the closed panel. */
export function describe(form) {
  const chosen = [...form.querySelectorAll("select")]
    .filter((select) => select.value)
    .map((select) => select.selectedOptions[0].text.replace(" …", ""));
  return chosen.length ? `· ${chosen.join(" · ")}` : "";
}

/** Shows the colour only where one is asked for; the unset choices say what a preset does. */
export function adapt(form) {
  const colour = form.querySelector("[name=background]").value === "colour";
  form.querySelector(".colour").hidden = !colour;
  const preset = form.querySelector("[name=preset]").value;
  const unset = { background: "Transparent", format: "PNG", resize: "As the photo", keep: "All", framing: "Whole photo" };
  for (const [name, text] of Object.entries(unset)) {
    form.querySelector(`[name=${name}]`).options[0].text = preset ? `As ${preset} asks` : text;
  }
}
