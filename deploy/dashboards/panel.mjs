// Loads a panel of the JSON: runs its queries, names and colours its series.
//
// It uses no DOM, so a test can load every panel without a browser.

import { builtIn, colourOf, fieldOf, nameOf, stack, stepFor, substitute } from "./grafana.mjs";
import { query, queryRange } from "./prometheus.mjs";

// Grafana's order of colours, for series without a colour of their own.
const PALETTE = ["green", "yellow", "blue", "orange", "red", "purple", "cyan", "pink"];

/** The panel types that can be drawn; for others the page shows their type. */
export const KINDS = new Set(["timeseries", "stat", "bargauge"]);

/**
 * The series of a panel: `state` is "data" or "empty", or "unknown" for a type that cannot be drawn.
 *
 * @param panel a panel of the dashboard's JSON.
 * @param view `from`, `to` (seconds), `width` (pixels of the panel) and `variables` (values by name).
 */
export async function load(panel, view) {
  if (!KINDS.has(panel.type)) return { state: "unknown", series: [] };
  const range = view.to - view.from;
  const step = stepFor(range, view.width);
  const values = { ...view.variables, ...builtIn(range, step) };
  const answers = await Promise.all(
    (panel.targets ?? []).filter((target) => !target.hide).map(async (target) => {
      const expression = substitute(target.expr, values);
      const found = target.instant
        ? (await query(expression, view.to)).map(asLine)
        : await queryRange(expression, ...whole(view, step), step);
      return found.map(({ labels, points }) => ({ name: nameOf(target, labels), points }));
    }),
  );
  const named = answers
    .flatMap((found) => found.sort((one, other) => one.name.localeCompare(other.name, "en")))
    .filter(({ points }) => points.some(({ value }) => Number.isFinite(value)));
  const series = named.map((one, order) => styled(panel, one, order));
  const stacked = panel.fieldConfig?.defaults?.custom?.stacking?.mode === "normal";
  return { state: series.length ? "data" : "empty", series: stacked ? stack(series) : series, step };
}

function styled(panel, { name, points }, order) {
  const field = fieldOf(panel, name);
  const value = points.at(-1).value;
  const own = panel.type === "timeseries" ? field.color?.fixedColor : colourOf(field, value);
  return { name, points, value, field, colour: own ?? PALETTE[order % PALETTE.length] };
}

const asLine = ({ labels, value }) => ({ labels, points: [{ at: 0, value }] });
// The first and last multiple of the step in the time range: points keep their place when it moves.
const whole = ({ from, to }, step) => [Math.ceil(from / step) * step, Math.floor(to / step) * step];
