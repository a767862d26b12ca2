"""`make site`: traffic through the proxy while ingresses restart, and the metrics in Prometheus."""

import asyncio
import json
import os
import re
import signal
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.services import command
from shared.settings.settings import Settings
from tests.support.live import Live
from tests.support.processes import environment, until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(settings: Settings, tmp_path: Path) -> Iterator[Live]:
    """A site on the session's servers, ready."""
    servers = {"MMS_AMQP_URL": settings.amqp_url, "MMS_REDIS_URL": settings.redis_url}
    limits = {name: environment(settings)[name] for name in _LIMITS}
    started = Live("deploy.local.site", tmp_path / "var", servers | limits)
    started.line("Ctrl-C stops everything")
    yield started
    started.end()


_LIMITS = ("MMS_SPOOL_MAX_BYTES", "MMS_QUEUE_MAX_BYTES", "MMS_ARCHIVE_MAX_BYTES")


async def test_every_response_is_200_while_ingresses_restart(
    site: Live, settings: Settings
) -> None:
    simulator = await asyncio.create_subprocess_exec(
        command("mms-simulate"),
        printed(site, r"Send postbacks to (\S+)"),
        *("--count", "700", "--rate", "150", "--resend-after", "1s", "--verify", "--json"),
        env=os.environ | environment(settings),
        stdout=asyncio.subprocess.PIPE,
    )
    await asyncio.sleep(2)
    first, second = (ingress(site.pid, number) for number in (1, 2))
    os.kill(first, signal.SIGTERM)  # as an upgrade does it
    await asyncio.to_thread(site.line, "mms-ingest 1 is ready")
    await asyncio.sleep(2)  # the proxy sees it again
    os.kill(second, signal.SIGKILL)
    await asyncio.to_thread(site.line, "mms-ingest 2 is ready")
    async with asyncio.timeout(60):
        out, _ = await simulator.communicate()
    result = json.loads(out)
    assert simulator.returncode == 0, result
    assert set(result["ledger"]["attempts"]) == {"200"}, result


def test_prometheus_scrapes_all_processes(site: Live) -> None:
    prometheus = printed(site, r"Prometheus: (\S+)")
    wanted = {"mms-ingest": 2, "mms-worker": 2, "haproxy": 1}

    def up() -> bool:
        answer = query(prometheus, "count by (job) (up == 1)")
        return {each["metric"]["job"]: int(each["value"][1]) for each in answer} == wanted

    assert until(up, within=40), query(prometheus, "up")
    assert query(prometheus, "mms_worker_lag_seconds_count")
    assert query(prometheus, "haproxy_server_status")
    dashboards = printed(site, r"Dashboards: (\S+)")
    assert query(dashboards, "haproxy_server_status")
    groups = ask(f"{prometheus}/api/v1/rules")["data"]["groups"]
    assert {Path(group["file"]).name for group in groups} == {"rules.yml"}
    assert site.interrupt() == 0, site.said


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_dashboards_answer_with_data_from_a_simulated_run(tmp_path: Path) -> None:
    """On servers of its own, as deploy/docs/deployment.md sets them up."""
    site = Live("deploy.local.site", tmp_path / "var", {})
    try:
        await asyncio.to_thread(site.line, "Ctrl-C stops everything")
        url = printed(site, r"Send postbacks to (\S+)")
        env = dict(re.findall(r"export (\w+)=(\S+)", (tmp_path / "var" / "env").read_text()))
        simulator = await asyncio.create_subprocess_exec(
            command("mms-simulate"),
            url,
            *("--count", "2500", "--rate", "60", "--duplicates", "0.05", "--verify"),
            env=os.environ | env,
            stdout=asyncio.subprocess.PIPE,
        )
        prometheus = printed(site, r"Prometheus: (\S+)")
        silent = {
            target["expr"]
            for dashboard in (ROOT / "deploy" / "grafana").glob("*.json")
            for panel in json.loads(dashboard.read_text())["panels"]
            for target in panel.get("targets", [])
        }
        assert len(silent) > 40
        async with asyncio.timeout(100):
            while silent:
                await asyncio.sleep(3)
                silent = {each for each in silent if not numbers(prometheus, each)}
        await simulator.communicate()
        assert simulator.returncode == 0
    finally:
        site.end()
    assert not silent


def numbers(prometheus: str, expression: str) -> bool:
    """Whether a query as Grafana would send it gives at least one number."""
    for variable, value in {
        "$__range": "5m",
        "$__rate_interval": "1m",
        "$operator": ".*",
    }.items():
        expression = expression.replace(variable, value)
    return any(sample["value"][1] != "NaN" for sample in query(prometheus, expression))


def printed(site: Live, pattern: str) -> str:
    """The part of its output that the group of the pattern matches."""
    found = re.search(pattern, "".join(site.said))
    assert found is not None
    return found[1]


def ingress(parent: int, number: int) -> int:
    """The process of one of a site's ingresses."""
    for thread in Path(f"/proc/{parent}/task").iterdir():
        for pid in (thread / "children").read_text().split():
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            if f"ingest-{number}/spool.db".encode() in environ:
                return int(pid)
    raise AssertionError(number)


def query(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """The samples that an expression has now."""
    url = f"{prometheus}/api/v1/query?query={urllib.parse.quote(expression)}"
    answer: list[dict[str, Any]] = ask(url)["data"]["result"]
    return answer


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)
