// Asks Prometheus, through the server that serves this page.

/** The samples of a vector at one moment (seconds): [{labels, value}]. */
export async function query(expression, at) {
  const { result } = await ask("query", { query: expression, time: at });
  return result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
}

/** Series over a time range: [{labels, points: [{at, value}]}], `at` in seconds; no NaN, no infinity. */
export async function queryRange(expression, from, to, step) {
  const { result } = await ask("query_range", { query: expression, start: from, end: to, step });
  return result.map(({ metric, values }) => ({
    labels: metric,
    points: values
      .map(([at, value]) => ({ at, value: Number(value) }))
      .filter(({ value }) => Number.isFinite(value)),
  }));
}

/** The values of a metric's label in a time range, sorted. */
export async function labelValues({ metric, label }, from, to) {
  const values = await ask(`label/${label}/values`, { "match[]": metric, start: from, end: to });
  return values.sort();
}

async function ask(endpoint, parameters) {
  const response = await fetch(`/api/v1/${endpoint}?${new URLSearchParams(parameters)}`, {
    signal: AbortSignal.timeout(20_000),
  });
  const body = await response.json();
  if (body.status !== "success") throw new Error(body.error ?? `status ${response.status}`);
  return body.data;
}
