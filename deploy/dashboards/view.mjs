// The page: which dashboard, over which time, with which variables; drawn anew every so often.
//
// What is chosen stands in the address (#carriers/15m), so that it can be reloaded and sent on.

import { element } from "./dom.mjs";
import { body, note } from "./draw.mjs";
import { chosen, labelValues, seconds } from "./grafana.mjs";
import { load } from "./panel.mjs";
import * as prometheus from "./prometheus.mjs";

const RANGES = ["5m", "15m", "1h", "6h"];
const FIRST_RANGE = "15m"; // a site that was just started has no hour to show
const by = (id) => document.getElementById(id);

let shown; // the dashboard's JSON
let range = FIRST_RANGE;
let picked = {}; // options by variable, for this dashboard; none means all
let drawing; // the latest call of draw: an earlier one that comes back late is dropped
let timer;

async function open() {
  const names = await fetchJson("/dashboards");
  const [name, span] = location.hash.slice(1).split("/");
  const current = names.includes(name) ? name : names[0];
  range = seconds(span) ? span : FIRST_RANGE;
  const opened = await fetchJson(`/dashboards/${current}`);
  if (opened.uid !== shown?.uid) picked = {};
  shown = opened;
  by("names").replaceChildren(...names.map((each) => link(each, `#${each}/${range}`, each === current)));
  by("ranges").replaceChildren(
    ...RANGES.map((each) => link(each, `#${current}/${each}`, each === range)),
  );
  by("title").textContent = document.title = shown.title;
  by("description").textContent = shown.description ?? "";
  by("panels").replaceChildren(...shown.panels.map(frame));
  by("variables").replaceChildren();
  await draw();
}

async function draw() {
  const mine = (drawing = Symbol("drawing"));
  clearTimeout(timer);
  const to = Date.now() / 1000;
  const view = { from: to - seconds(range), to };
  view.variables = await variables(view);
  await Promise.all(shown.panels.map((panel) => fill(panel, view, () => drawing === mine)));
  if (drawing !== mine) return;
  by("refreshed").textContent = `as of ${new Date().toLocaleTimeString([], { hourCycle: "h23" })}`;
  timer = setTimeout(redraw, (seconds(shown.refresh) || 30) * 1000);
}

/** Draw, unless nobody looks. */
function redraw() {
  if (!document.hidden) (shown ? draw() : open()).catch(failed);
}

/** A panel's place on the page, where its file puts it in Grafana's grid of 24 columns. */
function frame(panel) {
  const { x, y, w, h } = panel.gridPos;
  const kind = panel.type === "row" ? "h2" : "section";
  const place = element(kind, { class: panel.type === "row" ? "row" : "panel", id: `panel-${panel.id}` });
  for (const [name, value] of Object.entries({ x: x + 1, y: y + 1, w, h })) {
    place.style.setProperty(`--${name}`, value);
  }
  if (panel.type === "row") {
    const inside = panel.panels?.length ?? 0;
    place.textContent = panel.title + (inside ? ` (closed: ${inside} panels that only Grafana opens)` : "");
    return place;
  }
  const about = panel.description && element("span", { class: "about", title: panel.description }, "i");
  place.append(element("h3", {}, panel.title, ...(about ? [about] : [])), element("div", { class: "body" }));
  return place;
}

async function fill(panel, view, current) {
  if (panel.type === "row") return;
  const place = by(`panel-${panel.id}`);
  const room = place.querySelector(".body");
  const size = { width: room.clientWidth, height: room.clientHeight };
  try {
    const found = await load(panel, { ...view, ...size });
    if (!current()) return;
    room.replaceChildren(body(panel, found, { ...view, ...size }));
    place.dataset.state = found.state;
  } catch (error) {
    if (!current()) return;
    room.replaceChildren(note(error.message));
    place.dataset.state = "error";
  }
}

/** The dashboard's variables by name, and their choosers filled with what there is to choose. */
async function variables(view) {
  const found = {};
  for (const variable of shown.templating?.list ?? []) {
    if (variable.type === "datasource") continue; // there is one Prometheus
    const source = variable.type === "query" && labelValues(variable);
    const options = source ? await optionsOf(source, view) : [];
    found[variable.name] = chosen(variable, picked[variable.name] ?? []);
    choose(variable, options, Boolean(source));
  }
  return found;
}

/** What there is to choose; nothing if Prometheus is away, which every panel says for itself. */
function optionsOf(source, { from, to }) {
  return prometheus.labelValues(source, from, to).catch(() => []);
}

function choose(variable, options, known) {
  const id = `variable-${variable.name}`;
  const old = by(id);
  if (old?.open) return; // somebody is choosing
  const mine = picked[variable.name] ?? [];
  const none = known ? "all" : "cannot be chosen here";
  const said = () => `${variable.label ?? variable.name}: ${picked[variable.name]?.join(", ") || none}`;
  const summary = element("summary", {}, said());
  const boxes = options.map((option) => {
    const box = element("input", { type: "checkbox", value: option });
    box.checked = mine.includes(option);
    return element("label", {}, box, option);
  });
  const chooser = element("details", { id }, summary, element("div", {}, ...boxes));
  chooser.addEventListener("change", () => {
    picked[variable.name] = [...chooser.querySelectorAll(":checked")].map((box) => box.value);
    summary.textContent = said();
    redraw();
  });
  chooser.addEventListener("toggle", () => chooser.open || redraw());
  if (old) old.replaceWith(chooser);
  else by("variables").append(chooser);
}

function link(text, href, current) {
  return element("a", { href, ...(current && { "aria-current": "page" }) }, text);
}

async function fetchJson(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: status ${response.status}`);
  return response.json();
}

function failed(error) {
  by("refreshed").textContent = error.message;
  clearTimeout(timer);
  timer = setTimeout(redraw, 5000);
}

let resized;
window.addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(redraw, 200);
});
window.addEventListener("hashchange", () => open().catch(failed));
document.addEventListener("visibilitychange", redraw);
open().catch(failed);
