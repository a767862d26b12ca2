// The page of deploy/dashboards, without a browser. test_dashboards.py runs this with `node --test`.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import * as grafana from "../../deploy/dashboards/grafana.mjs";
import { KINDS, load } from "../../deploy/dashboards/panel.mjs";

const FILES = new URL("../../deploy/grafana/", import.meta.url);
const dashboards = readdirSync(FILES)
  .filter((name) => name.endsWith(".json"))
  .map((name) => JSON.parse(readFileSync(new URL(name, FILES))));
const panels = dashboards.flatMap((dashboard) => dashboard.panels);
const view = { from: 1000, to: 1900, width: 400, variables: { operator: ".*" } };

/** A Prometheus that returns the same response for every query. */
function answering(data) {
  const asked = [];
  globalThis.fetch = async (path) => {
    asked.push(new URL(path, "http://page"));
    return { json: async () => data };
  };
  return asked;
}
const vector = (...result) => ({ status: "success", data: { result } });

test("numbers are written with their unit", () => {
  for (const [value, unit, decimals, written] of [
    [0, "short", undefined, "0"],
    [14185, "locale", 0, "14,185"],
    [14185, "short", undefined, "14.2k"],
    [-20.4, "locale", 0, "-20"],
    [-0.2, "locale", 0, "0"],
    [0.8271, "percentunit", 1, "82.7%"],
    [1, "percentunit", undefined, "100%"],
    [0.0042, "s", undefined, "4.2 ms"],
    [0.000081, "s", undefined, "81 µs"],
    [0, "s", undefined, "0 s"],
    [113.4, "s", undefined, "1.89 min"],
    [90000, "s", undefined, "1.04 d"],
    [20, "reqps", undefined, "20 req/s"],
    [0.25, "ops", undefined, "0.25 ops/s"],
    [7, "furlong", undefined, "7 furlong"],
    [NaN, "short", undefined, "NaN"],
  ]) {
    assert.equal(grafana.format(value, unit, decimals), written);
  }
});

test("every unit and panel type of the dashboards is known", () => {
  for (const panel of panels) {
    if (panel.type !== "row") assert.ok(KINDS.has(panel.type), panel.type);
    const overrides = panel.fieldConfig?.overrides ?? [];
    const units = overrides.flatMap(({ properties }) => properties).filter(({ id }) => id === "unit");
    for (const unit of [panel.fieldConfig?.defaults?.unit, ...units.map(({ value }) => value)]) {
      if (unit) assert.ok(unit in grafana.UNITS, unit);
    }
  }
});

test("a step is no shorter than a scrape, and a rate spans four", () => {
  assert.equal(grafana.stepFor(300, 400), 15);
  assert.equal(grafana.stepFor(6 * 3600, 400), 120);
  assert.equal(grafana.builtIn(900, 15).__rate_interval, "60s");
  assert.equal(grafana.builtIn(21600, 120).__rate_interval, "135s");
});

test("variables get their values, and other names stay", () => {
  const values = { operator: "(a|b)", __range: "900s" };
  const query = 'x{o=~"$operator",p=~"${operator:regex}"}[$__range] $unknown';
  const filled = 'x{o=~"(a|b)",p=~"(a|b)"}[900s] $unknown';
  assert.equal(grafana.substitute(query, values), filled);
});

test("selected options are used literally, whatever clients have sent", () => {
  assert.equal(grafana.chosen({ allValue: ".*" }, []), ".*");
  assert.equal(grafana.chosen({}, ["31003", 'a.b"\\']), '(31003|a\\\\.b\\"\\\\\\\\)');
});

test("every variable of the dashboards can be filled", () => {
  for (const variable of dashboards.flatMap(({ templating }) => templating.list)) {
    assert.ok(variable.type === "datasource" || grafana.labelValues(variable), variable.name);
  }
});

test("axes end at round numbers, and times at whole minutes", () => {
  assert.deepEqual(grafana.ticks(0, 19.7, 5, "reqps"), [0, 5, 10, 15, 20]);
  assert.deepEqual(grafana.ticks(0, 113, 4, "s"), [0, 30, 60, 90, 120]);
  assert.deepEqual(grafana.ticks(0, 1, 4, "percentunit"), [0, 0.25, 0.5, 0.75, 1]);
  assert.ok(grafana.timeTicks(1000, 1900, 5).every((at) => at % 300 === 0));
});

test("an override changes the series of its name, and a threshold colours", () => {
  const panel = panels.find(({ title }) => title === "Not accounted for");
  assert.equal(grafana.fieldOf(panel, "postbacks").unit, "locale");
  const share = grafana.fieldOf(panel, "of those answered 200");
  assert.equal(share.unit, "percentunit");
  assert.equal(grafana.colourOf(share, -0.5), "green");
  assert.equal(grafana.colourOf(share, 0.02), "red");
});

test("a series is stacked on the series before it, also across gaps", () => {
  const one = { points: [{ at: 0, value: 2 }, { at: 15, value: 3 }] };
  const other = { points: [{ at: 15, value: 4 }] };
  assert.deepEqual(grafana.stack([one, other])[1].points, [{ at: 15, value: 4, base: 3 }]);
});

test("each panel has data, or says that there is none", async () => {
  for (const panel of panels.filter(({ type }) => type !== "row")) {
    const values = [[1005, "1"], [1020, "NaN"], [1035, "3"]];
    const asked = answering(vector({ metric: { operator: "31003" }, value: [1900, "2"], values }));
    const found = await load(panel, view);
    assert.equal(found.state, "data", panel.title);
    assert.equal(asked.length, panel.targets.length);
    for (const { searchParams } of asked) assert.doesNotMatch(searchParams.get("query"), /\$/);

    answering(vector());
    assert.equal((await load(panel, view)).state, "empty");
    answering(vector({ metric: {}, value: [1900, "NaN"], values: [[1005, "NaN"]] }));
    assert.equal((await load(panel, view)).state, "empty");
    answering({ status: "error", error: "no such function" });
    await assert.rejects(load(panel, view), /no such function/);
  }
});

test("a panel of an unknown type is reported as unknown", async () => {
  assert.equal((await load({ type: "heatmap", targets: [] }, view)).state, "unknown");
});

test("the page never turns text into HTML", () => {
  const page = new URL("../../deploy/dashboards/", import.meta.url);
  for (const name of readdirSync(page).filter((each) => each.endsWith(".mjs"))) {
    const code = readFileSync(new URL(name, page), "utf8");
    assert.doesNotMatch(code, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b/, name);
  }
});
