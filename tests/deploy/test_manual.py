"""The manual: its tables and figures are equal to the code and to the benchmark."""

import inspect
import json
import re
import tomllib
from pathlib import Path

import ingest.main
import workers.main
from deploy.local import site
from ingest.access_control import password_checks
from ingest.http import connection, connections, content_coding, server, tls_handshake
from shared.postback import codes, normalise, record
from shared.postback.codes import CODES, Outcome, Track
from shared.postback.dead_letter import Reason, dead_letter_of
from shared.postback.dialects import fields
from shared.postback.envelope import Arrival
from shared.postback.event import Event, event_of
from shared.postback.normalise import decode
from shared.postback.stored import read_record
from shared.process import metric_labels
from shared.rabbitmq import topology
from shared.redis import version
from shared.settings import password, sources
from shared.settings.describe import describe
from shared.settings.load import load_settings
from shared.settings.settings import Settings
from tests.support import plan_costs, tables
from tests.support.documents import PAGES, ROOT, blocks, table, words
from tests.support.hashes import as_hash
from workers.admin import topic
from workers.admin.plan.capacity import MEASURED

EVENTS = "deploy/docs/events-and-codes.md"
RULES_OF_SOURCES = "deploy/docs/access-control.md"
SCALING = "deploy/docs/scaling-and-capacity.md"
DEFAULTS = Settings()


def test_the_parts_of_a_rule() -> None:
    rows = table(RULES_OF_SOURCES, "part")
    assert [words(row[0])[0] for row in rows] == list(sources.PARTS)


def test_the_example_of_a_rule_is_one(tmp_path: Path) -> None:
    (block,) = blocks(ROOT / RULES_OF_SOURCES, "toml")
    example = block.replace("<16 characters or more>", "0123456789abcdef")
    example = re.sub(r"scrypt[^\"]*", str(password.hashed(b"x")), example)
    path = tmp_path / "mms.toml"
    path.write_text(example)
    rule = load_settings({"MMS_CONFIG": str(path)}).rules["acme"]
    assert rule.token
    assert rule.basic
    assert rule.allow
    assert rule.rate == 500


def test_generated_tables_are_equal_to_the_code() -> None:
    """`python -m tests.support.tables` writes them."""
    found: dict[str, str] = {}
    for page in PAGES:
        found |= tables.generated(page)
    assert found == {name: write() for name, write in tables.TABLES.items()}


def test_the_names_in_rabbitmq() -> None:
    names = [words(row[0])[0] for row in table(EVENTS, "name")]
    assert set(names) == {*topology.EXCHANGES, *topology.QUEUES}


def test_the_fields_of_an_event() -> None:
    fields = {words(row[0])[0] for row in table(EVENTS, "field")}
    assert fields == set(Event.__struct_fields__) - {"specversion", "datacontenttype"}
    data = {name for row in table(EVENTS, "field of `data`") for name in words(row[0])}
    assert data == set(record.Known.__struct_encode_fields__)


def test_the_outcomes() -> None:
    tracks: dict[Outcome, set[str]] = {outcome: set() for outcome in Outcome}
    statuses = {outcome for _, outcome in codes._STATUS_WORDS.values()}  # noqa: SLF001
    for code in CODES.values():
        for outcome in {code.outcome} | (statuses if code.refined else set()):
            tracks[outcome].add(code.track)
    rows = table(EVENTS, "outcome")
    assert {words(row[0])[0] for row in rows} == set(tracks)
    for row in rows:
        outcome = Outcome(words(row[0])[0])
        assert set(row[1].split(", ")) == tracks[outcome], outcome
        phase = codes.phase_of(Track(row[1].split(", ")[0]), outcome)
        assert row[2] == ("yes" if phase >= codes.TERMINAL_PHASE else "no"), outcome


def test_the_reasons_of_dead_letters() -> None:
    rows = table("deploy/docs/recovery.md", "reason")
    assert [words(row[0])[0] for row in rows] == list(Reason)


def test_the_headers_of_dead_letters() -> None:
    dead_letter = dead_letter_of(Arrival(1, "default", "", b""), Reason.MALFORMED, "error", "id")
    headers = dead_letter.properties().headers or {}
    text = (ROOT / "deploy/docs/recovery.md").read_text()
    assert set(re.findall(r"`(x-[a-z-]+)`", text)) == set(headers)


def test_the_statuses_of_responses() -> None:
    rows = table(RULES_OF_SOURCES, "status")
    files = [*(ROOT / "ingest" / "http").glob("*.py"), ROOT / "ingest/access_control/policy.py"]
    text = "".join(path.read_text() for path in files)
    assert {row[0] for row in rows} == {"200", *re.findall(r"\b(?:4[0-2]\d|503)\b", text)}


LIMITS = {
    "body, compressed and decompressed": f"{DEFAULTS.max_body // 1024} KiB",
    "members of a compressed body; time to decompress it": (
        f"{content_coding.MAX_MEMBERS}; {content_coding.TIME_LIMIT:g} s"
    ),
    "headers of a request": (
        f"{connections.MAX_HEADERS}, of {connections.MAX_LINE // 1024} KiB each"
    ),
    "time for headers; for the body; for a response to be read": (
        f"{connection.HEADERS_LIMIT:g} s; {server.RESPONSE_LIMIT:g} s; {connection.WRITE_LIMIT:g} s"
    ),
    "connections of one ingress": f"{DEFAULTS.max_connections:,}",
    "time for a TLS handshake": f"{tls_handshake.HANDSHAKE_LIMIT:g} s",
    "postbacks that wait for a durable response": f"{DEFAULTS.max_waiting:,}",
    "postbacks per second of a source": (
        f"{DEFAULTS.rate_per_source:g}" if DEFAULTS.rate_per_source else "no limit"
    ),
    "password checks that wait, per source and client address": f"{password_checks.MAX_WAITING}",
    "spool": f"{DEFAULTS.spool_max_bytes // 2**30} GiB",
    "input queue and dead letters, each": f"{DEFAULTS.queue_max_bytes // 2**30} GiB",
    "archive and event log, each": (
        f"{DEFAULTS.archive_max_bytes // 2**30} GiB, {DEFAULTS.archive_max_age / 86400:g} days"
    ),
    "deliveries of a batch": f"{DEFAULTS.delivery_limit}",
    "time that a record is kept": f"{DEFAULTS.state_ttl / 86400:g} days",
    "postbacks of a record": f"{record.MAX_POSTBACKS_KEPT}",
    "fields; depth; digits of a number in a body": (
        f"{fields.MAX_FIELDS}; {fields.MAX_DEPTH}; {fields.MAX_DIGITS:,}"
    ),
    "values of the metrics' label `operator`": (
        f"{inspect.signature(metric_labels.Bounded).parameters['most'].default}"
    ),
}


def test_the_defaults_that_change_with_size() -> None:
    defaults = {row.variable: row.default for row in describe()}
    for names, written, *_ in table(SCALING, "setting"):
        amounts = [each.replace(" ", "").replace(",", "") for each in written.split(", ")]
        known = [defaults[name] for name in words(names)]
        assert amounts == known[: len(amounts)]


def test_the_admin_ports() -> None:
    rows = table("deploy/docs/observability.md", "process")
    ports = {"`mms-ingest`": ingest.main.ADMIN_PORT, "`mms-worker`": workers.main.ADMIN_PORT}
    assert dict(rows) == {name: str(port) for name, port in ports.items()}


def test_the_ports_of_a_site() -> None:
    text = " ".join((ROOT / "deploy/docs/deployment.md").read_text().split())
    ingresses, admin = zip(*site.INGRESSES.values(), strict=True)
    assert (
        f"Ports: proxy {site.PROXY}, ingresses {ingresses[0]} and {ingresses[1]}, admin ports"
        f" {admin[0]} and {admin[1]} (ingresses), {' and '.join(map(str, site.WORKERS.values()))}"
        f" (workers), {site.PROXY_ADMIN} (HAProxy), Prometheus {site.PROMETHEUS}."
    ) in text
    assert f"http://127.0.0.1:{site.DASHBOARDS}" in text


def test_the_limits() -> None:
    assert {row[0]: row[1] for row in table("SECURITY.md", "limit")} == LIMITS


def test_the_limits_for_every_client() -> None:
    text = " ".join((ROOT / RULES_OF_SOURCES).read_text().split())
    headers = f"{connections.MAX_HEADERS} headers of {connections.MAX_LINE // 1024} KiB."
    times = f"{connection.HEADERS_LIMIT:g} s for the headers of a request and"
    body = f"{server.RESPONSE_LIMIT:g} s"
    for sentence in (
        f"{times} {body} for its body; at most {headers}",
        f"{connection.WRITE_LIMIT:g} s for the client to read a response.",
        f"{content_coding.TIME_LIMIT:g} s, with at most {content_coding.MAX_MEMBERS} members",
        f"the body did not arrive within {body}",
    ):
        assert sentence in text


def test_the_versions_that_are_supported() -> None:
    text = " ".join((ROOT / "deploy/docs/deployment.md").read_text().split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: "
    pythons = [each.removeprefix(prefix) for each in project["classifiers"] if prefix in each]
    redis, valkey = (version.OLDEST[name][0] for name in ("redis", "valkey"))
    assert (
        f"RabbitMQ 3.10 to 4.x, Redis {redis} and 8, Valkey {valkey},"
        f" Python {pythons[0]} to {pythons[-1]}, on Linux."
    ) in text
    chart = (ROOT / "deploy/helm/mms-postbacks/Chart.yaml").read_text()
    oldest = re.search(r"Kubernetes ([\d.]+);", text)
    assert oldest
    assert f'kubeVersion: ">={oldest[1]}.0-0"' in chart


def test_the_times_of_proxy_ingress_and_chart() -> None:
    text = " ".join((ROOT / "deploy/docs/deployment.md").read_text().split())
    interval = re.search(r"HAProxy asks `/readyz` of each ingress every (\d+) ms", text)
    assert interval
    proxy = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
    assert f"check inter {interval[1]}ms fall 2" in proxy
    assert "serves for one more second" in text
    assert ingest.main.SHUTDOWN_NOTICE == 1
    assert 2 * int(interval[1]) / 1000 < ingest.main.SHUTDOWN_NOTICE
    assert "removes one worker per minute" in text
    scaling = ROOT / "deploy/helm/mms-postbacks/templates/autoscaling.yaml"
    assert "{type: Pods, value: 1, periodSeconds: 60}" in scaling.read_text()


def test_the_ports_of_the_compose_file() -> None:
    text = " ".join((ROOT / "deploy/docs/deployment.md").read_text().split())
    compose = (ROOT / "deploy/compose.yaml").read_text()
    proxy, prometheus, grafana = re.findall(r'"127\.0\.0\.1:(\d+):', compose)
    assert (
        f"Postbacks go to 127.0.0.1:{proxy}. Prometheus is on port {prometheus}."
        f" Grafana is on port {grafana} "
    ) in text


def test_the_limits_of_a_body() -> None:
    rows = {row[0]: row[1] for row in table(EVENTS, "limit")}
    assert rows["fields or elements of a body"] == f"{fields.MAX_FIELDS}"
    assert rows["depth of nesting"] == f"{fields.MAX_DEPTH}"
    assert rows["digits of a number"] == f"{fields.MAX_DIGITS:,}"
    assert rows["unknown fields"] == f"{normalise.MAX_EXTRA}; they are kept"
    own = {name: limit for name, limit in normalise.LIMITS.items() if limit != normalise.MAX_ID}
    assert rows["characters of an id"] == (
        f"{normalise.MAX_ID}; of a client reference {own.pop('client-reference')},"
        f" of `status-details` {own.pop('status-details'):,},"
        f" of another field {normalise.MAX_TEXT:,}"
    )
    assert not own


def test_the_first_postback_makes_the_events_that_the_readme_subscribes_to() -> None:
    text = (ROOT / "README.md").read_text()
    posted = re.search(r"curl .*? -d '(.*?)'", text, re.DOTALL)
    binding = re.search(r'queue\.bind\("([\w.]+)", "([^"]+)"\)', text)
    assert posted
    assert binding
    assert binding[1] == topology.EVENTS
    normalised = decode("default", posted[1].encode())
    found = read_record(normalised.key, as_hash([normalised]))
    assert found
    event = event_of(found, normalised.track)
    assert topic.matches(binding[2], event.routing_key)
    assert event.type == "mms.message.delivered"
    assert f"mms-admin show {event.subject} " in text
    assert f"mms-admin show --ref {event.data.client_reference} " in text


def test_the_figures_of_the_readme() -> None:
    """They are those of the benchmark, rounded against us."""
    results = json.loads((ROOT / "tests" / "bench" / "results.json").read_text())["figures"]
    text = " ".join((ROOT / "README.md").read_text().split())
    found = re.search(r"sustain ([\d,]+) postbacks/s .* within (\d+) ms .* within (\d+) ms", text)
    assert found
    sustained, answer, event = (float(each.replace(",", "")) for each in found.groups())
    ours = "end-to-end.mms-ingest + mms-worker"
    assert sustained <= results[f"{ours}.sustained"]["median"] < 1.1 * sustained
    assert answer - 1 < results[f"{ours}.1,000/s.answer.p99"]["median"] <= answer
    assert event - 1 < results[f"{ours}.1,000/s.event.p99"]["median"] <= event


def test_the_plan_counts_with_the_figures_of_the_benchmark() -> None:
    assert plan_costs.costs() == MEASURED
