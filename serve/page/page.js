"use strict";
// One page, no build: uploads go to /v1/predict, maps come from /v1/map. Text is set as text, never as HTML.

const $ = (id) => document.getElementById(id);
const KEPT = 50;
const state = { cards: [], card: null, files: [], scans: [], eyes: [], at: 0, recent: [], asked: 0 };

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const percent = (value) => `${(100 * value).toFixed(1)} %`;

async function ask(path, options) {
  let found;
  try {
    found = await fetch(path, options);
  } catch {
    throw new Error("The server cannot be reached.");
  }
  if (found.ok) return found;
  const told = await found.json().catch(() => ({}));
  const error = new Error(told.error ? `${told.error}. ${told.help ?? ""}` : `The server responded with status ${found.status}.`);
  error.code = told.code;
  throw error;
}

function show_error(error) {
  $("status").textContent = "";
  $("error").textContent = (error.code ? `${error.code}: ` : "") + error.message;
  $("error").hidden = false;
}

function query(more = {}) {
  const chosen = state.card;
  return new URLSearchParams({ ...(chosen && { model: chosen.name, version: chosen.version }), ...more }).toString();
}

function form() {
  const body = new FormData();
  for (const file of state.files) body.append("file", file, file.name);
  return body;
}

async function predict(files) {
  if (!files.length) return;
  state.files = [...files];
  const number = ++state.asked;
  const names = state.files.map((file) => file.name).join(", ");
  $("error").hidden = true;
  $("status").textContent = `Classifying ${names} …`;
  try {
    const found = await (await ask(`v1/predict?${query({ previews: "true" })}`, { method: "POST", body: form() })).json();
    if (number !== state.asked) return; // another file was chosen meanwhile
    take(found);
    $("status").textContent = `Done: ${names}`;
  } catch (error) {
    if (number === state.asked) show_error(error);
  }
}

function take(found) {
  state.scans = found.records.filter((record) => !record.eye);
  state.eyes = found.records.filter((record) => record.eye);
  state.served = found.served;
  if (!state.scans.length && !state.eyes.length) throw new Error("There is no image in this upload.");
  const slider = $("slider");
  slider.max = String(state.scans.length);
  slider.value = "1";
  $("slider-field").hidden = state.scans.length < 2;
  $("result").hidden = false;
  show_eyes();
  show_scan(0);
  remember(found);
  $("result-title").focus();
}

function words_of(record) {
  if (record.status === "error") return "No answer";
  if (record.labels) return record.labels.length ? record.labels.join(", ") : "No class";
  return record.label ?? "No label";
}

const side = (eye) => ({ R: "Right eye", L: "Left eye" })[eye.laterality] ?? "Eye, side not known";

function show_eyes() {
  const place = $("eyes");
  place.replaceChildren();
  for (const record of state.eyes) {
    const box = element("div", undefined, { class: "eye" });
    box.append(element("h3", side(record.eye)));
    box.append(element("p", words_of(record), { class: "label" }));
    if (record.refer) box.append(element("p", refer_of(record), { class: "warning" }));
    if (rules_of(record)) box.append(element("p", rules_of(record), { class: "quiet" }));
    const how = `${record.eye.usable} of ${record.eye.frames} B-scans, by ${record.eye.aggregation.method}`;
    const best = record.confidence === null ? "" : `${percent(record.confidence)}; `;
    box.append(element("p", best + how, { class: "quiet" }));
    for (const note of record.notes) box.append(element("p", `${note.code}: ${note.message}`, { class: "quiet" }));
    place.append(box);
  }
}

function show_scan(index) {
  state.at = index;
  const record = state.scans[index];
  const count = state.scans.length;
  const title = record.frame === undefined ? "Image" : `B-scan ${record.frame + 1}`;
  $("result-file").textContent = record.file;
  $("scan-title").textContent = count > 1 ? `${title} (${index + 1} of ${count})` : title;
  $("slider-value").textContent = `${index + 1} of ${count}`;
  $("slider").setAttribute("aria-valuetext", `${index + 1} of ${count}: ${words_of(record)}`);
  $("label").textContent = words_of(record);
  show_unlike(record);
  show_rules(record);
  show_probabilities(record);
  const notes = record.notes.map((note) => `${note.code}: ${note.message}`);
  if (record.error) notes.push(`${record.error.code}: ${record.error.message} (${record.error.help})`);
  $("notes").replaceChildren(...notes.map((text) => element("li", text)));
  show_preview(record, title);
  $("map-figure").hidden = true;
  $("map-button").hidden = record.label === null;
}

function show_unlike(record) {
  const box = $("unlike");
  box.hidden = record.out_of_distribution !== true;
  box.textContent = box.hidden
    ? ""
    : "This image is unlike the training images: it gets no label, and its probabilities are unreliable.";
}

const refer_of = (record) => `A person is to decide: ${record.refer_because.join("; ")}.`;

function rules_of(record) {
  const parts = [];
  if (record.set) parts.push(`Prediction set: ${record.set.join(", ") || "no class"}.`);
  if (record.flagged) parts.push(`Operating points reached: ${record.flagged.join(", ") || "none"}.`);
  return parts.join(" ");
}

function show_rules(record) {
  $("refer").hidden = !record.refer;
  $("refer").textContent = record.refer ? refer_of(record) : "";
  $("rules").textContent = rules_of(record);
  $("rules").hidden = !$("rules").textContent;
}

function show_probabilities(record) {
  const rows = Object.entries(record.probabilities ?? {}).sort((one, other) => other[1] - one[1]);
  $("probabilities").hidden = !rows.length;
  $("probabilities").tBodies[0].replaceChildren(
    ...rows.map(([name, value]) => {
      const row = element("tr");
      const cell = element("td");
      cell.append(element("meter", undefined, { min: "0", max: "1", value: String(value), "aria-hidden": "true" }), percent(value));
      row.append(element("th", name, { scope: "row" }), cell);
      return row;
    }),
  );
  $("calibration").textContent = rows.length ? calibration_of(state.card) : "";
}

function calibration_of(card) {
  const known = card && card.calibration;
  const parts = [];
  if (known && known.temperature && known.temperature.reason === null) {
    parts.push(`Temperature scaling is folded into the file (T = ${known.temperature.folded.toFixed(2)}).`);
  }
  if (known && known.error) {
    parts.push(`Expected calibration error ${percent(known.error.ece)} on ${known.error.images} images (${known.error.set}).`);
  }
  return parts.length ? parts.join(" ") : "The calibration of these probabilities was not measured: treat them as scores.";
}

function show_preview(record, title) {
  const picture = $("preview");
  picture.hidden = !record.preview;
  $("no-preview").hidden = Boolean(record.preview);
  $("no-preview").textContent = record.preview ? "" : "No preview is available.";
  if (record.preview) {
    picture.src = record.preview;
    picture.alt = `${title} of ${record.file}`;
  }
}

async function show_map() {
  const button = $("map-button");
  const index = state.at;
  const asked = state.asked;
  button.disabled = true;
  $("error").hidden = true;
  $("status").textContent = "Computing the heat map …";
  try {
    const found = await (await ask(`v1/map?${query({ frame: String(index) })}`, { method: "POST", body: form() })).json();
    if (index !== state.at || asked !== state.asked) return;
    if (!found.map) throw new Error("Without a label there is no heat map.");
    $("map").src = found.map;
    $("map").alt = `The preprocessed image, and the same with its heat map. ${found.caption.join(" ")}`;
    $("map-figure").hidden = false;
    $("status").textContent = "The heat map is ready.";
  } catch (error) {
    show_error(error);
  } finally {
    button.disabled = false;
  }
}

function remember(found) {
  const answers = state.eyes.length ? state.eyes : state.scans;
  for (const record of answers) {
    const name = record.eye ? `${record.file} (${side(record.eye).toLowerCase()})` : record.file;
    state.recent.unshift([name, words_of(record), record.confidence === null ? "" : percent(record.confidence),
      `${found.served.model} ${found.served.version}`, new Date().toLocaleTimeString()]);
  }
  state.recent.length = Math.min(state.recent.length, KEPT);
  $("recent").tBodies[0].replaceChildren(
    ...state.recent.map((cells) => {
      const row = element("tr");
      row.append(...cells.map((text, place) => (place ? element("td", text) : element("th", text, { scope: "row" }))));
      return row;
    }),
  );
}

function show_card(card) {
  state.card = card;
  const verdict = card.verdict ? `${card.verdict.word}${card.verdict.set ? ` on ${card.verdict.set}` : ""}` : "not verified here";
  const rows = [
    ["Artifact", `${card.name}, version ${card.version}`],
    ["Network", `${card.model}, ${card.target} ${card.precision}`],
    ["Classes", card.classes.join(", ")],
    ["Input", `${card.input.size} x ${card.input.size} px, ${card.input.channels === 1 ? "grey" : "RGB"}, ${card.input.resize}`],
    ["Trained on", [card.lineage.dataset, card.lineage.recipe && `recipe ${card.lineage.recipe}`].filter(Boolean).join(", ") || "not recorded"],
    ["Verdict of octc verify", verdict],
    ["Decision", Object.values(card.rules).flat().join("; ") || "the most likely class"],
    ["Calibration", calibration_of(card)],
    ["Similarity to the training images", card.likeness_checked ? "checked for every image" : "not checked: the artifact has no description of them"],
    ["Engine", `${card.engine.runtime} ${card.engine.version}, engines: ${card.engines}, threads per engine: ${card.engine.threads}, for a single request: ${card.threads_alone}`],
    ["SHA-256 of artifact.json", card.sha256],
  ];
  $("card").replaceChildren(...rows.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
}

function listen() {
  const drop = $("drop");
  $("file").addEventListener("change", (event) => predict(event.target.files));
  $("slider").addEventListener("input", (event) => show_scan(Number(event.target.value) - 1));
  $("map-button").addEventListener("click", show_map);
  $("model").addEventListener("change", (event) => show_card(state.cards[Number(event.target.value)]));
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop") predict(event.dataTransfer.files);
    });
  }
}

async function begin() {
  listen();
  try {
    state.cards = (await (await ask("v1/models")).json()).models;
  } catch (error) {
    show_error(error);
    return;
  }
  $("model").replaceChildren(
    ...state.cards.map((card, place) => element("option", `${card.name} (${card.version})`, { value: String(place) })),
  );
  show_card(state.cards[0]);
}

begin();
