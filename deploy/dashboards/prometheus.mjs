// Asks Prometheus, by the server that serves this page.

/** A vector's samples now: [{labels, value}]. */
export async function query(expression, at) {
  const { result } = await ask("query", { query: expression, time: at });
  return result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
}

/** Its series over a time: [{labels, points: [{at, value}]}], `at` in seconds; no NaN, no infinity. */
export async function queryRange(expression, from, to, step) {
  const { result } = await ask("query_range", { query: expression, start: from, end: to, step });
  return result.map(({ metric, values }) => ({
    labels: metric,
    points: values
      .map(([at, value]) => ({ at, value: Number(value) }))
      .filter(({ value }) => Number.isFinite(value)),
  }));
}

/** The values that a metric's label had in that time, sorted. */
export async function labelValues({ metric, label }, from, to) {
  const values = await ask(`label/${label}/values`, { "match[]": metric, start: from, end: to });
  return values.sort();
}

async function ask(what, parameters) {
  const response = await fetch(`/api/v1/${what}?${new URLSearchParams(parameters)}`, {
    signal: AbortSignal.timeout(20_000),
  });
  const answer = await response.json();
  if (answer.status !== "success") throw new Error(answer.error ?? `status ${response.status}`);
  return answer.data;
}
