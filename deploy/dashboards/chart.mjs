// Lines over time as SVG: areas, gaps where there is no data, one axis for each unit (two at most), and
// the values at the pointer.

import { format, ticks, timeTicks } from "./grafana.mjs";
import { element, svg } from "./dom.mjs";

const BOTTOM = 18;
const TOP = 6;
const CHARACTER = 6.2; // pixels, the width of most characters

/** Draw the series that `load` returned, in a figure of this size in pixels. */
export function chart({ series, step }, { from, to, width, height, title }) {
  const units = [...new Set(series.map(({ field }) => field.unit ?? "short"))].slice(0, 2);
  const unitOf = ({ field: { unit = "short" } }) => (units.includes(unit) ? unit : units[0]);
  const axes = units.map((unit) => {
    const own = series.filter((one) => unitOf(one) === unit);
    return axisOf(own, unit, height);
  });
  const left = roomFor(axes[0]);
  const right = axes[1] ? roomFor(axes[1]) : 8;
  const x = (at) => left + ((at - from) / (to - from)) * (width - left - right);
  const axisFor = (one) => axes[units.indexOf(unitOf(one))];

  const root = svg("svg", { width, height, role: "img", "aria-label": title });
  for (const at of axes[0].ticks) {
    const y = axes[0].y(at);
    root.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y, y2: y }));
    root.append(label(left - 6, y + 4, "end", axes[0].text(at)));
  }
  for (const at of axes[1]?.ticks ?? []) {
    root.append(label(width - right + 6, axes[1].y(at) + 4, "start", axes[1].text(at)));
  }
  for (const at of timeTicks(from, to, (width - left) / 70)) {
    root.append(svg("line", { class: "grid", x1: x(at), x2: x(at), y1: TOP, y2: height - BOTTOM }));
    if (x(at) < width - 3 * CHARACTER) root.append(label(x(at), height - 4, "middle", clock(at)));
  }
  for (const one of series) root.append(...lines(one, axisFor(one), x, step));
  root.append(...pointer(root, series, { x, step, from, to, left, right, width, height }));
  return root;
}

function axisOf(series, unit, height) {
  const field = series[0].field;
  const tops = series.flatMap(({ points }) => points.map(({ value, base = 0 }) => value + base));
  const low = field.min ?? Math.min(...tops);
  const high = field.max ?? Math.max(...tops, low);
  const found = ticks(low, high > low ? high : low + 1, Math.max(2, height / 36), unit);
  const [first, last] = [found[0], found.at(-1)];
  const y = (value) => height - BOTTOM - ((value - first) / (last - first)) * (height - BOTTOM - TOP);
  return { ticks: found, y, text: (value) => format(value, unit) };
}

const roomFor = (axis) => 12 + CHARACTER * Math.max(...axis.ticks.map((at) => axis.text(at).length));

const label = (x, y, anchor, text) => svg("text", { x, y, "text-anchor": anchor }, text);

/** A line and the area below it, one piece for each run of points without a gap. */
function lines({ points, colour, field }, axis, x, step) {
  const opacity = (field.custom?.fillOpacity ?? 0) / 100;
  return pieces(points, step).flatMap((piece) => {
    const spot = (at, value) => `${x(at).toFixed(1)},${axis.y(value).toFixed(1)}`;
    const top = piece.map(({ at, value, base = 0 }) => spot(at, value + base));
    if (piece.length === 1) {
      const [cx, cy] = top[0].split(",");
      return [svg("circle", { class: `dot c-${colour}`, cx, cy, r: 2 })];
    }
    const under = piece.map(({ at, base = axis.ticks[0] }) => spot(at, base)).reverse();
    const area = svg("path", { class: `area c-${colour}`, d: `M${[...top, ...under].join("L")}Z` });
    area.style.opacity = points[0].base === undefined ? opacity : Math.max(opacity, 0.25);
    return [area, svg("path", { class: `line c-${colour}`, d: `M${top.join("L")}` })];
  });
}

function pieces(points, step) {
  const found = [];
  for (const point of points) {
    const piece = found.at(-1);
    if (piece && point.at - piece.at(-1).at <= 1.5 * step) piece.push(point);
    else found.push([point]);
  }
  return found;
}

/** A line at the pointer, and beside it the time and the value of every series, largest first. */
function pointer(root, series, { x, step, from, to, left, right, width, height }) {
  const line = svg("line", { class: "pointer", y1: TOP, y2: height - BOTTOM, visibility: "hidden" });
  const tip = element("div", { class: "tip", hidden: "" });
  const area = svg("rect", { class: "touch", x: left, y: 0, width: width - left - right, height });
  area.addEventListener("pointermove", ({ clientX }) => {
    const away = clientX - area.getBoundingClientRect().left;
    const wanted = from + (away / (width - left - right)) * (to - from);
    const at = Math.round(wanted / step) * step;
    const here = series
      .map((one) => ({ one, point: one.points.find((point) => Math.abs(point.at - at) < step / 2) }))
      .filter(({ point }) => point)
      .sort((one, other) => other.point.value - one.point.value);
    if (!here.length) return hide();
    for (const end of ["x1", "x2"]) line.setAttribute(end, x(at));
    line.setAttribute("visibility", "visible");
    tip.replaceChildren(
      element("b", {}, clock(at, true)),
      ...here.map(({ one, point }) => {
        const value = format(point.value, one.field.unit, one.field.decimals);
        return element("div", {}, swatch(one), one.name, element("i", {}, value));
      }),
    );
    tip.hidden = false;
    root.after(tip);
    tip.style.left = `${x(at) > width / 2 ? x(at) - tip.offsetWidth - 10 : x(at) + 10}px`;
  });
  const hide = () => {
    line.setAttribute("visibility", "hidden");
    tip.hidden = true;
  };
  area.addEventListener("pointerleave", hide);
  return [line, area];
}

/** A small field in a series' colour. */
export const swatch = ({ colour }) => element("span", { class: `swatch c-${colour}` });

/** The names of the series below it, in a height of one to three lines; more are scrolled to. */
export function legend(series, width) {
  const wide = series.reduce((sum, { name }) => sum + 28 + CHARACTER * name.length, 0);
  const height = 17 * Math.min(3, Math.ceil((1.1 * wide) / width));
  const names = series.map((one) => element("li", {}, swatch(one), one.name));
  const list = element("ul", { class: "legend" }, ...names);
  list.style.height = `${height}px`;
  return { list, height: height + 5 };
}

const clock = (at, precise = false) =>
  new Date(at * 1000).toLocaleTimeString([], {
    hour: "2-digit",
    minute: "2-digit",
    hourCycle: "h23",
    ...(precise && { second: "2-digit" }),
  });
