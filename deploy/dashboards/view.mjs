// The page: which dashboard, which time range, which variables; drawn again at intervals.
//
// The selection is in the address (#carriers/15m), so it can be reloaded and shared.

import { element } from "./dom.mjs";
import { body, note } from "./draw.mjs";
import { chosen, labelValues, seconds } from "./grafana.mjs";
import { load } from "./panel.mjs";
import * as prometheus from "./prometheus.mjs";

const RANGES = ["5m", "15m", "1h", "6h"];
const FIRST_RANGE = "15m"; // a site that was just started has no data of an hour
const by = (id) => document.getElementById(id);

let shown; // the dashboard's JSON
let range = FIRST_RANGE;
let picked = {}; // selected options by variable, for this dashboard; none means all
let drawing; // the latest call of draw: the result of an earlier call is dropped
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

/** Draw, unless the page is hidden. */
function redraw() {
  if (!document.hidden) (shown ? draw() : open()).catch(failed);
}

/** The place of a panel on the page: where its file puts it in Grafana's grid of 24 columns. */
function frame(panel) {
  const { x, y, w, h } = panel.gridPos;
  const kind = panel.type === "row" ? "h2" : "section";
  const place = element(kind, { class: panel.type === "row" ? "row" : "panel", id: `panel-${panel.id}` });
  for (const [name, value] of Object.entries({ x: x + 1, y: y + 1, w, h })) {
    place.style.setProperty(`--${name}`, value);
  }
  if (panel.type === "row") {
    const inside = panel.panels?.length ?? 0;
    place.textContent = panel.title + (inside ? ` (collapsed: ${inside} panels that only Grafana shows)` : "");
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

/** The values of the dashboard's variables by name; also fills their menus with the options. */
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

/** The options of a variable; none if Prometheus is down, which every panel shows itself. */
function optionsOf(source, { from, to }) {
  return prometheus.labelValues(source, from, to).catch(() => []);
}

function choose(variable, options, known) {
  const id = `variable-${variable.name}`;
  const old = by(id);
  if (old?.open) return; // the menu is open
  const mine = picked[variable.name] ?? [];
  const none = known ? "all" : "cannot be selected here";
  const label = () => `${variable.label ?? variable.name}: ${picked[variable.name]?.join(", ") || none}`;
  const summary = element("summary", {}, label());
  const boxes = options.map((option) => {
    const box = element("input", { type: "checkbox", value: option });
    box.checked = mine.includes(option);
    return element("label", {}, box, option);
  });
  const chooser = element("details", { id }, summary, element("div", {}, ...boxes));
  chooser.addEventListener("change", () => {
    picked[variable.name] = [...chooser.querySelectorAll(":checked")].map((box) => box.value);
    summary.textContent = label();
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
