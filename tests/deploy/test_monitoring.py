"""The chart: its objects for the Prometheus operator, its notes and the schema of its values."""

import copy
import json
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.chart import CHART, rendered

RULES = CHART.parents[1] / "prometheus" / "rules.yml"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


def objects(**values: Any) -> list[dict[str, Any]]:
    """The objects that `monitoring` renders; none by default."""
    text = rendered({"monitoring": {"enabled": True, **values}})["monitoring"]
    return [each for each in yaml.safe_load_all(text) if each]


def test_no_object_is_rendered_by_default() -> None:
    assert not rendered({}).get("monitoring", "").strip()


def test_every_pod_is_scraped_with_the_job_name_of_the_rules() -> None:
    monitors = [each for each in objects() if each["kind"] == "PodMonitor"]
    manifests = rendered({})
    jobs = {}
    for monitor in monitors:
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        (relabeling,) = endpoint["relabelings"]
        assert relabeling["targetLabel"] == "job"
        wanted = monitor["spec"]["selector"]["matchLabels"]
        component = wanted["app.kubernetes.io/component"]
        jobs[component] = relabeling["replacement"]
        pods = [
            each["spec"]["template"]
            for each in yaml.safe_load_all(manifests[component])
            if each and each["kind"] in {"StatefulSet", "Deployment"}
        ]
        (pod,) = pods
        assert wanted.items() <= pod["metadata"]["labels"].items()
        ports = [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
        assert endpoint["port"] in ports
    assert jobs == {"ingress": "mms-ingest", "worker": "mms-worker"}


def test_the_rules_are_equal_to_those_of_prometheus() -> None:
    (rule,) = [each for each in objects() if each["kind"] == "PrometheusRule"]
    assert rule["spec"] == yaml.safe_load(RULES.read_text())
    assert not [each for each in objects(rules=False) if each["kind"] == "PrometheusRule"]


def test_the_objects_have_the_labels_of_the_values() -> None:
    for each in objects(labels={"release": "stack"}):
        assert each["metadata"]["labels"]["release"] == "stack"


def test_the_notes_name_missing_settings() -> None:
    assert "do not start until each source has a rule" in rendered({})["NOTES"]
    notes = rendered({"ingress": {"settings": {"MMS_OPEN": "1"}}, "monitoring": {"enabled": True}})
    assert "do not start" not in notes["NOTES"]
    assert "family=queue_coarse_metrics" in notes["NOTES"]
    assert "mms-admin doctor --process demo-mms-postbacks-ingress-each:9090" in notes["NOTES"]


def test_the_schema_accepts_the_defaults() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(DEFAULTS, SCHEMA)


def test_every_value_is_in_the_schema() -> None:
    def compare(values: dict[str, Any], schema: dict[str, Any]) -> None:
        for name, value in values.items():
            assert name in schema["properties"], name
            if isinstance(value, dict) and "properties" in schema["properties"][name]:
                compare(value, schema["properties"][name])

    compare(DEFAULTS, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("ingres",), {}),
        (("ingress", "replica"), 3),
        (("ingress", "replicas"), "3"),
        (("ingress", "spool", "maxBytes"), "1 gig"),
        (("ingress", "settings"), {"MMS_REPLICAS": 3}),
        (("settings",), {"AMQP_URL": "amqp://"}),
        (("existingSecret",), ""),
        (("worker", "processes"), 0),
        (("networkPolicy", "amqpPort"), 70000),
        (("monitoring", "interval"), "often"),
    ],
)
def test_the_schema_finds_a_mistake_in_the_values(path: tuple[str, ...], value: object) -> None:
    values = copy.deepcopy(DEFAULTS)
    part = values
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, SCHEMA)
