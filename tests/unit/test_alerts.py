"""Every metric in an alert or a panel is exported by a job in the configuration of Prometheus."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from prometheus_client import REGISTRY

import ingest.metrics
import workers.metrics
import workers.outcome_metrics
from tests.support.rabbitmq_metrics import RABBITMQ

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
PROMETHEUS: Final = DEPLOY / "prometheus"
OURS: Final = (ingest.metrics, workers.metrics, workers.outcome_metrics)

_NAME: Final = re.compile(r"(?<![\w$])(?:mms|rabbitmq|haproxy|redis)(?:_\w+|:[\w:]+)")


def used() -> dict[str, str]:
    """Every metric in a rule or a panel, with the file that uses it."""
    rules = (PROMETHEUS / "rules.yml").read_text()
    expressions = re.sub(r"^ *(summary|runbook|#).*$", "", rules, flags=re.MULTILINE)
    found = dict.fromkeys(_NAME.findall(expressions), "rules.yml")
    for dashboard in (DEPLOY / "grafana").glob("*.json"):
        for expression in re.findall(r'"expr": "((?:[^"\\]|\\.)*)"', dashboard.read_text()):
            found |= dict.fromkeys(_NAME.findall(expression), dashboard.name)
    return found


def exported(configuration: str) -> set[str]:
    """The metrics that the jobs of a configuration export, and those that the rules record."""
    rules = (PROMETHEUS / "rules.yml").read_text()
    names = set(re.findall(r"- record: (\S+)", rules))
    jobs = set(re.findall(r"- job_name: (\S+)", configuration))
    if {"mms-ingest", "mms-worker"} <= jobs:
        names |= _names()
    if "rabbitmq" in jobs and "metrics_path: /metrics/detailed" in configuration:
        families = re.search(r"family: \[(.*)\]", configuration)
        for family in families[1].split(", ") if families else ():
            names |= RABBITMQ[family]
    return names


def _names() -> set[str]:
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        family.name + suffix
        for family in REGISTRY.collect()
        for suffix in suffixes[family.type]
        if family.name.startswith("mms_")
    }


@pytest.mark.parametrize("name", ["prometheus.yml", "containers.yml"])
def test_every_metric_that_is_used_is_exported(name: str) -> None:
    names = exported((PROMETHEUS / name).read_text())
    assert used().keys() > {"mms_worker_consuming", "rabbitmq_detailed_queue_messages"}
    assert {metric: where for metric, where in used().items() if metric not in names} == {}


def test_compose_enables_the_plugin_that_exports_them() -> None:
    assert "rabbitmq_prometheus" in (DEPLOY / "rabbitmq" / "enabled_plugins").read_text()
    assert "./rabbitmq/enabled_plugins:/etc/rabbitmq/" in (DEPLOY / "compose.yaml").read_text()


def test_alertmanager_names_alerts_that_exist() -> None:
    """An inhibition with a misspelt alert suppresses nothing, and nothing reports it."""
    text = (PROMETHEUS / "alertmanager.yml").read_text()
    rules = (PROMETHEUS / "rules.yml").read_text()
    named = {
        alert
        for _, alerts in re.findall(r'alertname(=~?)"([^"]+)"', text)
        for alert in alerts.split("|")
    }
    assert len(named) > 3
    assert named <= set(re.findall(r"- alert: (\S+)", rules))
    causes = re.findall(r'source_matchers: .*alertname="(\w+)"', text)
    effects = re.findall(r'target_matchers:\s*(?:-|\[)\s*.?alertname=~?"([^"]+)"', text)
    assert len(causes) == len(effects) == text.count("source_matchers")
    for cause, effect in zip(causes, effects, strict=True):
        assert cause not in effect.split("|"), "an alert would suppress itself"


def test_alertmanager_accepts_it() -> None:
    """By Alertmanager's own tool where Debian's prometheus-alertmanager is installed."""
    text = (PROMETHEUS / "alertmanager.yml").read_text()
    receivers = set(re.findall(r"- name: (\S+)", text))
    assert set(re.findall(r"receiver: (\S+)", text)) == receivers
    if amtool := shutil.which("amtool"):
        path = PROMETHEUS / "alertmanager.yml"
        subprocess.run((amtool, "check-config", path), check=True, capture_output=True, timeout=30)
