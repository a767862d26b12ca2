// Reads the JSON of a Grafana dashboard: times, variables, units, colours, fields. Pure functions.
//
// Only what deploy/grafana uses. Anything unknown is shown as it is in the file, so that it is noticed:
// a unit follows its number, a variable stays in its query.

const SPANS = { s: 1, m: 60, h: 3600, d: 86400 };

/** Seconds of a span such as "15m" or "now-1h"; NaN if it is none. */
export function seconds(span) {
  const [, count, unit] = /^(?:now-)?(\d+)([smhd])$/.exec(span) ?? [];
  return count * SPANS[unit];
}

/** Seconds between two scrapes, as in deploy/prometheus. */
export const SCRAPE = 15;

const STEPS = [15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400];

/** Seconds between two points of a line: at least a scrape, and about two pixels. */
export function stepFor(range, width) {
  return STEPS.find((step) => step >= (2 * range) / width) ?? STEPS.at(-1);
}

/** The values of Grafana's own variables; both parameters in seconds. */
export function builtIn(range, step) {
  return {
    __range: `${range}s`,
    __interval: `${step}s`,
    __rate_interval: `${Math.max(step + SCRAPE, 4 * SCRAPE)}s`,
  };
}

/** A query with its variables replaced: $name, ${name}, or ${name:format}. */
export function substitute(expression, values) {
  return expression.replace(
    /\$(?:(\w+)|\{(\w+)(?::\w+)?\})/g,
    (whole, bare, braced) => values[bare ?? braced] ?? whole,
  );
}

/** The value of a variable for the options that the user selected; none selected means all. */
export function chosen(variable, options) {
  if (options.length === 0) return variable.allValue ?? ".*";
  const pattern = options.map((each) => each.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
  return `(${pattern.replace(/[\\"]/g, "\\$&")})`; // it is used between the quotes of a query
}

/** The metric and the label of a query `label_values(metric, label)`; undefined for other queries. */
export function labelValues(variable) {
  const query = variable.query?.query ?? variable.query ?? "";
  const [, metric, label] = /^label_values\((.+),\s*(\w+)\)$/.exec(query) ?? [];
  return label && { metric, label };
}

/** The name of a series: the legend of its target with the labels filled in, else all its labels. */
export function nameOf(target, labels) {
  if (target.legendFormat && target.legendFormat !== "__auto") {
    return target.legendFormat.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => labels[label] ?? "");
  }
  const { __name__: metric = "", ...rest } = labels;
  const pairs = Object.entries(rest).map(([label, value]) => `${label}="${value}"`);
  return pairs.length ? `${metric}{${pairs.join(", ")}}` : metric;
}

/** How a series is to be shown: the panel's defaults with what its overrides say for this name. */
export function fieldOf(panel, name) {
  const field = structuredClone(panel.fieldConfig?.defaults ?? {});
  for (const { matcher, properties } of panel.fieldConfig?.overrides ?? []) {
    if (matcher.id !== "byName" || matcher.options !== name) continue;
    for (const { id, value } of properties) {
      const path = id.split(".");
      const last = path.pop();
      path.reduce((at, key) => (at[key] ??= {}), field)[last] = value;
    }
  }
  return field;
}

// What Grafana uses for a field without thresholds, whatever its unit.
const THRESHOLDS = [{ value: null, color: "green" }, { value: 80, color: "red" }];

/** The name of the colour for a value: fixed, or of the highest threshold that the value reaches. */
export function colourOf(field, value) {
  if (field.color?.mode === "fixed") return field.color.fixedColor;
  const steps = field.thresholds?.steps ?? THRESHOLDS;
  return steps.findLast((step) => step.value === null || value >= step.value)?.color;
}

// For a unit: from which size on a number is divided by that size, and what is written after it.
const COUNT = [[1e9, "B"], [1e6, "M"], [1e3, "k"], [1, ""]];
const TIME = [[86400, " d"], [3600, " h"], [60, " min"], [1, " s"], [1e-3, " ms"], [1e-6, " µs"]];
export const UNITS = {
  none: { sizes: [[1, ""]] },
  locale: { sizes: [[1, ""]], grouped: true },
  short: { sizes: COUNT },
  s: { sizes: TIME },
  percentunit: { sizes: [[0.01, "%"]] },
  reqps: { sizes: COUNT, after: " req/s" },
  ops: { sizes: COUNT, after: " ops/s" },
};

/** A number with its unit, for people; `decimals` as in the file, else three figures. */
export function format(value, unit = "short", decimals = undefined) {
  if (!Number.isFinite(value)) return String(value);
  const known = UNITS[unit] ?? { sizes: [[1, ""]], after: ` ${unit}` };
  const size = Math.abs(value) || 1;
  const [divisor, suffix] = known.sizes.find(([from]) => size >= from) ?? known.sizes.at(-1);
  const scaled = value / divisor;
  const figures = 2 - Math.floor(Math.log10(Math.abs(scaled) || 1));
  const text = new Intl.NumberFormat("en", {
    minimumFractionDigits: decimals ?? 0,
    maximumFractionDigits: decimals ?? Math.min(Math.max(figures, 0), 6),
    useGrouping: known.grouped ?? false,
    signDisplay: "negative", // no -0
  }).format(scaled);
  return `${text}${suffix}${known.after ?? ""}`;
}

/** Round numbers for an axis from `low` to `high`, about `count` at most; the first and last are its ends. */
export function ticks(low, high, count, unit) {
  const span = high - low || Math.abs(high) || 1;
  const step = roundStep(span / count, unit === "s" && span > 60);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, at) => (first + at) * step);
}

function roundStep(rough, isTime) {
  if (isTime) return STEPS.find((step) => step >= rough) ?? Math.ceil(rough / 86400) * 86400;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= rough * 0.999);
}

/** Whole steps of local time between two moments (seconds), for the time axis. */
export function timeTicks(from, to, count) {
  const step = STEPS.find((each) => (to - from) / each <= count) ?? STEPS.at(-1);
  const offset = new Date(from * 1000).getTimezoneOffset() * 60;
  const found = [];
  for (let at = Math.ceil((from - offset) / step) * step + offset; at <= to; at += step) found.push(at);
  return found;
}

/** Stacks each series on those before it: its points get `base`, where the area begins. */
export function stack(series) {
  const sums = new Map();
  return series.map((one) => ({
    ...one,
    points: one.points.map(({ at, value }) => {
      const base = sums.get(at) ?? 0;
      sums.set(at, base + value);
      return { at, value, base };
    }),
  }));
}
