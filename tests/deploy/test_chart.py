"""The Helm chart: Helm renders it, and Kubernetes' own schemas accept the manifests."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local.services import command
from tests.support.chart import lint, rendered

KUBERNETES = ("1.25", "1.37")
"""The oldest that the chart names and the newest whose schemas we have."""

VALUES: Mapping[str, Mapping[str, Any]] = {
    "defaults": {},
    "everything": {
        "autoscaling": {"enabled": True},
        "settings": {"MMS_REPLICAS": "3"},
        "ingress": {
            "processes": 4,
            "settings": {"MMS_OPEN": "1"},
            "spool": {"storageClassName": "fast"},
            "affinity": {"podAntiAffinity": {}},
        },
        "worker": {"processes": 2, "affinity": {"podAntiAffinity": {}}},
        "networkPolicy": {
            "servers": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "egress": [{"ports": [{"port": 4318, "protocol": "TCP"}]}],
        },
        "monitoring": {"enabled": True, "labels": {"release": "stack"}},
    },
    "no network policy": {"networkPolicy": {"enabled": False}},
}


def test_lint() -> None:
    found = lint()
    assert not found["errors"]
    assert all(each["severity"] <= 1 for each in found["messages"]), found


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_kubernetes_accepts_it(values: Mapping[str, Any], version: str, tmp_path: Path) -> None:
    manifests = rendered(values)
    # Kubernetes has no schemas for these: see test_keda.py and test_monitoring.py.
    for name in ("autoscaling", "monitoring", "NOTES"):
        manifests.pop(name, None)
    paths = []
    for name, text in manifests.items():
        if text.strip():
            paths.append(tmp_path / f"{name}.yaml")
            paths[-1].write_text(text)
    done = subprocess.run(
        (command("kubernetes-validate"), "--strict", "-k", version, *map(str, paths)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed for resource ") >= 6


def test_keda_scales_by_depth_and_lag() -> None:
    text = rendered(VALUES["everything"])["autoscaling"]
    assert "kind: ScaledObject" in text
    assert "queueName: mms.postbacks.state" in text
    assert "mms_worker_lag_seconds_bucket" in text
    assert "replicas:" not in rendered(VALUES["everything"])["worker"], (
        "KEDA sets the number of replicas"
    )
    assert "kind: ScaledObject" not in rendered({}).get("autoscaling", "")


def test_the_collector_of_traces_can_be_reached() -> None:
    policies = yaml.safe_load_all(rendered(VALUES["everything"])["networkpolicy"])
    for policy in filter(None, policies):
        assert {"ports": [{"port": 4318, "protocol": "TCP"}]} in policy["spec"]["egress"]


def test_probes_security_and_disruption_budgets_are_there() -> None:
    manifests = rendered(VALUES["everything"])
    for name in ("ingress", "worker"):
        text = manifests[name]
        for wanted in (
            "readOnlyRootFilesystem: true",
            "runAsNonRoot: true",
            "path: /readyz",
            "path: /healthz",
            "kind: PodDisruptionBudget",
            "terminationGracePeriodSeconds: 40",
            "enableServiceLinks: false",
        ):
            assert wanted in text, f"{name}: {wanted}"
    assert "kind: StatefulSet" in manifests["ingress"]
    assert "mountPath: /var/lib/mms-postbacks" in manifests["ingress"]
    assert manifests["networkpolicy"].count("kind: NetworkPolicy") == 2
