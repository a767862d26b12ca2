// Draws panels: a table from the type of a panel to the function that draws it.

import { chart, legend } from "./chart.mjs";
import { element } from "./dom.mjs";
import { format } from "./grafana.mjs";

const TYPES = { timeseries, stat, bargauge };

/** The body of a panel, from what `load` returned. */
export function body(panel, found, size) {
  if (found.state === "unknown") {
    return note(`This page cannot draw a panel of type “${panel.type}”. Grafana can.`);
  }
  return found.state === "empty" ? note("No data") : TYPES[panel.type](panel, found, size);
}

/** A sentence in place of a drawing. */
export const note = (text) => element("p", { class: "note" }, text);

function timeseries(panel, found, { from, to, width, height }) {
  const names = legend(found.series, width);
  const plot = { from, to, width, height: height - names.height, title: panel.title };
  return element("div", {}, element("div", { class: "plot" }, chart(found, plot)), names.list);
}

function stat(panel, { series }) {
  const coloured = panel.options?.colorMode !== "none";
  const values = series.map(({ name, value, field, colour }) => {
    const text = format(value, field.unit, field.decimals);
    const number = element("span", { class: `number ${coloured ? `c-${colour}` : ""}` }, text);
    return element("div", {}, number, ...(series.length > 1 ? [element("small", {}, name)] : []));
  });
  return element("div", { class: "stat" }, ...values);
}

function bargauge(panel, { series }) {
  const high = Math.max(...series.map(({ value, field }) => field.max ?? value)) || 1;
  const bars = series.flatMap(({ name, value, field, colour }) => {
    const low = field.min ?? 0;
    const bar = element("span", { class: `bar c-${colour}` });
    bar.style.width = `${100 * Math.min(Math.max((value - low) / (high - low), 0), 1)}%`;
    return [
      element("span", {}, name),
      element("span", { class: "track" }, bar),
      element("span", { class: "value" }, format(value, field.unit, field.decimals)),
    ];
  });
  return element("div", { class: "bars" }, ...bars);
}
