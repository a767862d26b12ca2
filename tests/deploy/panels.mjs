// Loads every panel without a browser and prints one JSON object: the state of each panel by dashboard
// and title. Its argument is the URL of the page's server.

import { load } from "../../deploy/dashboards/panel.mjs";

const [, , url] = process.argv;
const plain = globalThis.fetch;
globalThis.fetch = (path, options) => plain(new URL(path, url), options);

const to = Date.now() / 1000;
const view = { from: to - 300, to, width: 400, variables: { operator: ".*" } };
const states = {};
for (const name of await (await fetch("/dashboards")).json()) {
  const { panels } = await (await fetch(`/dashboards/${name}`)).json();
  for (const panel of panels.filter(({ type }) => type !== "row")) {
    states[`${name}/${panel.id} ${panel.title}`] = (await load(panel, view)).state;
  }
}
console.log(JSON.stringify(states));
