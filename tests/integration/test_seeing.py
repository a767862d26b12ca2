"""A real Prometheus reads real processes: figures that add up, dashboards that answer, an alert."""

import functools
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from deploy.local.child import running
from deploy.local.dashboards import Dashboards
from deploy.local.ports import HOST, free_port
from deploy.local.prometheus import CONFIGURATION, Prometheus
from deploy.local.servers import RabbitMQ, Redis
from deploy.local.services import Service, command
from shared.settings.settings import Settings
from tests.conftest import SMALL
from tests.support.processes import Processes, environment, until
from tests.support.rabbitmq_metrics import RABBITMQ

DASHBOARDS = sorted((CONFIGURATION.parent / "grafana").glob("*.json"))
DEPLOY_TESTS = Path(__file__).parents[1] / "deploy"
CHROMIUM = shutil.which("chromium")
QUICK = {"15s": "1s", "[5m]": "[30s]", "for: 2m": "for: 1s"}
"""Intervals of the configuration, shortened for a test. What a rule says stays as it is."""

GRAFANA = {"$__range": "5m", "$__rate_interval": "30s", "$operator": ".*"}
"""What Grafana puts in the place of its variables."""

SENT = b'{"origin":"MMS_MT","code":"N101","tracking-id":"SEEN-%d","operator-id":"31003"}'
GARBAGE = (b"not a postback", b'{"origin":"MMS_MT","code":"X999"}', b'{"code":"N101"}')
INBOUND = (b'{"origin":"SMS_MO","from":"15550100001"}', b'{"origin":"SMS_MT","code":"S1"}')


class Site(NamedTuple):
    """Two ingresses with a spool each, two workers, and who watches them."""

    settings: Settings
    rabbit: RabbitMQ
    redis: Redis
    ingresses: list[Service]
    workers: list[Service]
    urls: list[str]
    prometheus: Prometheus

    def total(self, metric: str) -> float:
        """The sum of a metric's samples over all series and processes."""
        samples = self.prometheus.query(f"sum({metric})")
        return float(samples[0]["value"][1]) if samples else 0.0

    def simulate(self, *arguments: str) -> int:
        """How many of the simulated provider's postbacks were answered 200."""
        done = subprocess.run(
            [command("mms-simulate"), *self.urls, "--json", *arguments],
            env=environment(self.settings),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return int(json.loads(done.stdout)["ledger"]["attempts"]["200"])

    def post(self, *bodies: bytes) -> int:
        """POST to the ingresses in turn; how many were answered 200."""
        for number, body in enumerate(bodies):
            request = urllib.request.Request(self.urls[number % len(self.urls)], body)
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.status == 200
        return len(bodies)

    def figures(self) -> dict[str, float]:
        """The conservation row's, since the processes started."""
        total = self.total
        return {
            "answered": total('mms_ingest_answers_total{status="200"}'),
            "new": total('mms_worker_postbacks_total{result="new"}'),
            "duplicate": total('mms_worker_postbacks_total{result="duplicate"}'),
            "dead": total("mms_worker_dead_letters_total"),
            "passthrough": total("mms_worker_passthrough_total"),
            "queue": total("mms_ingest_published_total") - total("mms_worker_absorbed_total"),
            "spool": total("mms_ingest_spooled_total") - total("mms_ingest_drained_total"),
        }

    def balances(self, answered: int, **expected: float) -> bool:
        """Whether the figures have reached this, and add up."""
        figures = self.figures()
        return (
            figures["answered"] == answered == sum(figures.values()) - figures["answered"]
            and figures | expected == figures
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    seen_at = free_port()
    rabbit = RabbitMQ(
        directory / "rabbitmq",
        plugins=("rabbitmq_prometheus",),
        config=(f"prometheus.tcp.ip = {HOST}", f"prometheus.tcp.port = {seen_at}"),
    )
    redis = Redis(directory / "redis")
    processes = Processes(directory)
    with running(rabbit, redis):
        try:
            settings = Settings(
                amqp_url=rabbit.url,
                redis_url=redis.url,
                spool_max_bytes=SMALL,
                queue_max_bytes=SMALL,
                archive_max_bytes=SMALL,
            )
            each = [
                msgspec.structs.replace(
                    settings, ingest_port=free_port(), spool_path=str(directory / f"spool-{at}.db")
                )
                for at in range(2)
            ]
            ingresses = [processes.start_ingest(one) for one in each]
            workers = [processes.start_worker(settings) for _ in range(2)]
            prometheus = Prometheus(
                directory / "prometheus",
                {
                    "mms-ingest": [f"{HOST}:{one.admin_port}" for one in ingresses],
                    "mms-worker": [f"{HOST}:{one.admin_port}" for one in workers],
                    "rabbitmq": [f"{HOST}:{seen_at}"],
                },
                changes=QUICK,
            )
            with running(prometheus):
                urls = [f"http://{HOST}:{one.ingest_port}/postbacks" for one in each]
                yield Site(settings, rabbit, redis, ingresses, workers, urls, prometheus)
        finally:
            processes.stop()


def test_all_postbacks_answered_200_are_accounted_for(site: Site) -> None:
    answered = int(site.figures()["answered"])
    answered += site.simulate("--count", "300", "--format", "mixed", "--duplicates", "0.3")
    answered += site.post(*GARBAGE) + site.post(*INBOUND)
    assert until(lambda: site.balances(answered, queue=0, spool=0)), site.figures()
    assert site.figures()["passthrough"] >= len(INBOUND)
    dead = site.figures()["dead"]
    assert dead >= len(GARBAGE)
    assert site.figures()["duplicate"] > 0

    site.redis.pause()  # unacknowledged batches count as being in the queue
    try:
        waiting = site.post(*[SENT % number for number in range(6)])
        answered += waiting
        assert until(lambda: site.balances(answered, queue=waiting, spool=0)), site.figures()
    finally:
        site.redis.resume()
    assert until(lambda: site.balances(answered, queue=0, spool=0, dead=dead), 30), site.figures()


def test_while_rabbitmq_is_away_the_spool_fills_and_an_alert_fires(site: Site) -> None:
    answered = int(site.figures()["answered"])
    assert "MmsBreakerOpen" not in site.prometheus.firing()
    site.rabbit.stop()
    try:
        spooled = site.post(*[SENT % number for number in range(100, 107)])
        answered += spooled
        assert until(lambda: site.balances(answered, spool=spooled)), site.figures()
        assert until(lambda: site.total("mms_ingest_spool_postbacks") == spooled)
        assert site.total("max(mms_ingest_spool_age_seconds)") > 0
        assert until(lambda: "MmsBreakerOpen" in site.prometheus.firing(), 30)
    finally:
        site.rabbit.start()
    assert until(lambda: site.balances(answered, queue=0, spool=0), 60), site.figures()
    assert until(lambda: "MmsBreakerOpen" not in site.prometheus.firing(), 30)


@pytest.fixture(scope="module")
def traffic(site: Site) -> None:
    """Simulated runs; two, because a series that is new has no increase yet."""
    wanted = _scraped(site)
    for seed in ("1", "2"):
        sent = site.simulate("--count", "300", "--seed", seed, "--format", "mixed")
        assert sent > 300
        site.post(*GARBAGE, *INBOUND)
        wanted += sent
        assert until(functools.partial(_has_scraped, site, wanted), 30)
        assert until(lambda: site.figures()["queue"] == 0, 30)


def _has_scraped(site: Site, postbacks: float) -> bool:
    return _scraped(site) >= postbacks


def _scraped(site: Site) -> float:
    """Postbacks that workers are done with, as far as Prometheus knows."""
    found = site.prometheus.query("sum(mms_worker_absorbed_total)")
    return sum(float(sample["value"][1]) for sample in found)


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_of_a_dashboard_answers_with_data(site: Site, dashboard: Path) -> None:
    panels = json.loads(dashboard.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert len(queries) > 20
    silent = set(queries)

    def all_answer() -> bool:
        silent.difference_update([each for each in silent if _numbers(site, each)])
        return not silent

    assert until(all_answer, 30), "\n".join(silent)


def _numbers(site: Site, query: str) -> bool:
    """Whether a query as Grafana would send it gives at least one number."""
    for variable, value in GRAFANA.items():
        query = query.replace(variable, value)
    return any(sample["value"][1] != "NaN" for sample in site.prometheus.query(query))


@pytest.fixture(scope="module")
def page(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboards]:
    """What draws the dashboards where there is no Grafana."""
    log = tmp_path_factory.mktemp("page") / "dashboards.log"
    server = Dashboards(site.prometheus.url, log_path=log)
    with running(server):
        yield server


@pytest.mark.usefixtures("traffic")
@pytest.mark.skipif(not shutil.which("node"), reason="node, which runs the page's code, is missing")
def test_the_page_finds_data_for_every_panel(page: Dashboards) -> None:
    states: dict[str, str] = {}

    def all_have_data() -> bool:
        done = subprocess.run(
            ["node", str(DEPLOY_TESTS / "panels.mjs"), page.url],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        states.update(json.loads(done.stdout))
        return set(states.values()) == {"data"}

    assert until(all_have_data, 30), [name for name, state in states.items() if state != "data"]
    assert len(states) == sum(len(_panels(dashboard)) for dashboard in DASHBOARDS)


@pytest.mark.usefixtures("traffic")
@pytest.mark.skipif(not CHROMIUM, reason="chromium, a browser to look at the page with, is missing")
@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_a_browser_draws_every_panel(page: Dashboards, dashboard: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(CHROMIUM or "", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
            *("--disable-sync", f"--user-data-dir={tmp_path}", "--virtual-time-budget=8000"),
            *("--dump-dom", f"{page.url}/#{dashboard.stem}/5m"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    drawn = dict(re.findall(r'id="panel-(\d+)"[^>]* data-state="(\w+)"', done.stdout))
    assert set(drawn) == {str(panel["id"]) for panel in _panels(dashboard)}
    assert set(drawn.values()) <= {"data", "empty"}, drawn
    assert list(drawn.values()).count("empty") == done.stdout.count(">No data<")
    assert "<svg" in done.stdout


def _panels(dashboard: Path) -> list[dict[str, Any]]:
    """All that have something to show."""
    panels = json.loads(dashboard.read_text())["panels"]
    return [panel for panel in panels if panel["type"] != "row"]


@pytest.mark.parametrize("name", sorted(set().union(*RABBITMQ.values())))
def test_rabbitmq_exports_what_we_ask_for(site: Site, name: str) -> None:
    assert until(lambda: bool(site.prometheus.query(name)), 30)


def test_the_rules_and_the_configuration_are_what_prometheus_takes() -> None:
    for check in (("config", "prometheus.yml"), ("rules", "rules.yml")):
        subprocess.run(["promtool", "check", *check], cwd=CONFIGURATION, check=True, timeout=30)


def test_every_alert_fires_when_it_should_and_not_when_all_is_well() -> None:
    tests = "rules_test.yml"
    subprocess.run(["promtool", "test", "rules", tests], cwd=CONFIGURATION, check=True, timeout=60)
    fired = (CONFIGURATION / tests).read_text()
    for name in re.findall(r"- alert: (\w+)", (CONFIGURATION / "rules.yml").read_text()):
        assert f'alertname="{name}"' in fired


def test_every_alert_says_what_to_do() -> None:
    rules = (CONFIGURATION / "rules.yml").read_text()
    assert rules.count("- alert: ") == rules.count("runbook: ") == rules.count("summary: ")
