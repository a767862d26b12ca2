"""The KEDA objects of the chart: KEDA's schemas accept them, and its scalers too.

The schemas are those of KEDA's CRDs (2.16.1), as pydantic models in a wheel. This file makes them
strict, as `kubectl apply` is. In a CRD the metadata of a trigger are only strings: what each scaler
needs there is from KEDA's pages about its scalers, 2.16, and is the same in 2.20.
"""

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from cloudcoil.models.keda import v1alpha1

from shared.rabbitmq import topology
from tests.support.chart import CHART, rendered

Object = dict[str, Any]

KINDS = {
    "ScaledObject": v1alpha1.ScaledObject,
    "TriggerAuthentication": v1alpha1.TriggerAuthentication,
}

TEXT: Object = {"type": "string", "minLength": 1}
NUMBER: Object = {"type": "string", "pattern": r"^\d+(\.\d+)?$"}
SWITCH: Object = {"enum": ["true", "false"]}

SCALERS: dict[str, Object] = {
    "rabbitmq": {
        "properties": {
            "queueName": TEXT,
            "mode": {"enum": ["QueueLength", "MessageRate"]},
            "value": NUMBER,
            "activationValue": NUMBER,
            "protocol": {"enum": ["auto", "amqp", "http"]},
            "vhostName": TEXT,
            "useRegex": SWITCH,
            "pageSize": NUMBER,
            "operation": {"enum": ["sum", "max", "avg"]},
            "timeout": NUMBER,
            "excludeUnacknowledged": SWITCH,
            "unsafeSsl": SWITCH,
            "host": TEXT,
            "hostFromEnv": TEXT,
            "usernameFromEnv": TEXT,
            "passwordFromEnv": TEXT,
        },
        "required": ["queueName", "mode", "value"],
        "additionalProperties": False,
        # Only the management API knows rates and can search.
        "if": {"properties": {"protocol": {"const": "amqp"}}, "required": ["protocol"]},
        "then": {
            "properties": {
                "mode": {"const": "QueueLength"},
                "useRegex": {"const": "false"},
                "excludeUnacknowledged": {"const": "false"},
                "timeout": False,
            }
        },
    },
    "prometheus": {
        "properties": {
            "serverAddress": {"type": "string", "pattern": "^https?://"},
            "query": TEXT,
            "threshold": NUMBER,
            "activationThreshold": NUMBER,
            "namespace": TEXT,
            "customHeaders": TEXT,
            "ignoreNullValues": SWITCH,
            "queryParameters": TEXT,
            "unsafeSsl": SWITCH,
            "authModes": TEXT,
        },
        "required": ["serverAddress", "query", "threshold"],
        "additionalProperties": False,
    },
}


@functools.cache
def schema(kind: str) -> Object:
    """The JSON schema of a kind, without any field that it does not name."""
    whole: Object = KINDS[kind].model_json_schema()
    whole["required"] = ["apiVersion", "kind", "metadata", "spec"]
    for each in (whole, *whole["$defs"].values()):
        if "properties" in each:
            each.setdefault("additionalProperties", False)
    return whole


@functools.cache
def made() -> dict[str, Object]:
    """The KEDA objects of the chart, by kind."""
    text = rendered({"autoscaling": {"enabled": True}})["autoscaling"]
    objects = [each for each in yaml.safe_load_all(text) if each]
    return {each["kind"]: each for each in objects}


def faults(objects: dict[str, Object]) -> list[str]:
    """Everything that KEDA would refuse, or accept and then not use."""
    found = []
    for kind, each in objects.items():
        errors = jsonschema.Draft202012Validator(schema(kind)).iter_errors(each)
        found += [f"{kind} {error.json_path}: {error.message}" for error in errors]
    return found or list(_scaler_faults(objects))


def _scaler_faults(objects: dict[str, Object]) -> Iterator[str]:
    authentication = objects["TriggerAuthentication"]
    parameters = {each["parameter"] for each in authentication["spec"]["secretTargetRef"]}
    for trigger in objects["ScaledObject"]["spec"]["triggers"]:
        kind, metadata = trigger["type"], trigger["metadata"]
        for error in jsonschema.Draft202012Validator(SCALERS[kind]).iter_errors(metadata):
            yield f"{kind} {error.json_path}: {error.message}"
        refers = trigger.get("authenticationRef", {}).get("name")
        if refers not in (None, authentication["metadata"]["name"]):
            yield f"{kind}: there is no TriggerAuthentication {refers}"
        has_host = {"host", "hostFromEnv"} & metadata.keys() or (refers and "host" in parameters)
        if kind == "rabbitmq" and not has_host:
            yield "rabbitmq: no host is set"


def test_keda_accepts_it() -> None:
    assert made().keys() == KINDS.keys()
    assert faults(made()) == []


def test_it_names_the_deployment_the_queue_the_metric_and_the_secret() -> None:
    spec = made()["ScaledObject"]["spec"]
    worker = next(yaml.safe_load_all(rendered({})["worker"]))
    assert spec["scaleTargetRef"]["name"] == worker["metadata"]["name"]
    assert worker["kind"] == "Deployment", "the kind that KEDA uses for a target without one"
    depth, lag = (trigger["metadata"] for trigger in spec["triggers"])
    assert depth["queueName"] == topology.STATE_QUEUE
    assert "mms_worker_lag_seconds_bucket" in lag["query"]
    (secret,) = made()["TriggerAuthentication"]["spec"]["secretTargetRef"]
    values = (CHART / "values.yaml").read_text()
    assert secret["key"] in values, "values.yaml says that the Secret must have it"
    assert secret["name"] == yaml.safe_load(values)["existingSecret"]


def renamed(*path: str | int) -> Callable[[dict[str, Object]], None]:
    """Misspell the last name of a path."""

    def change(objects: dict[str, Object]) -> None:
        place = _at(objects, path[:-1])
        place[f"{path[-1]}s"] = place.pop(path[-1])

    return change


def replaced(*path: str | int, by: object) -> Callable[[dict[str, Object]], None]:
    """Put something else at the end of a path."""

    def change(objects: dict[str, Object]) -> None:
        _at(objects, path[:-1])[path[-1]] = by

    return change


def _at(objects: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        objects = objects[step]
    return objects


SPEC = ("ScaledObject", "spec")
HPA = (*SPEC, "advanced", "horizontalPodAutoscalerConfig")
DEPTH = (*SPEC, "triggers", 0)
LAG = (*SPEC, "triggers", 1)
SECRET = ("TriggerAuthentication", "spec", "secretTargetRef", 0)

MISTAKES = (
    renamed("ScaledObject", "apiVersion"),
    replaced("ScaledObject", "apiVersion", by="keda.sh/v1"),
    renamed("ScaledObject", "metadata", "labels"),
    renamed(*SPEC, "scaleTargetRef"),
    renamed(*SPEC, "scaleTargetRef", "name"),
    renamed(*SPEC, "minReplicaCount"),
    replaced(*SPEC, "maxReplicaCount", by="10"),
    renamed(*SPEC, "pollingInterval"),
    renamed(*SPEC, "advanced"),
    renamed(*HPA, "behavior"),
    renamed(*HPA, "behavior", "scaleDown"),
    renamed(*HPA, "behavior", "scaleDown", "policies"),
    renamed(*HPA, "behavior", "scaleDown", "policies", 0, "periodSeconds"),
    replaced(*HPA, "behavior", "scaleDown", "stabilizationWindowSeconds", by=3601),
    renamed(*SPEC, "triggers"),
    renamed(*DEPTH, "authenticationRef"),
    replaced(*DEPTH, "authenticationRef", "name", by="another"),
    replaced(*DEPTH, "metadata", "value", by=50),
    replaced(*DEPTH, "metadata", "value", by="many"),
    replaced(*DEPTH, "metadata", "mode", by="QueueDepth"),
    replaced(*DEPTH, "metadata", "mode", by="MessageRate"),
    replaced(*DEPTH, "metadata", "protocol", by="amqps"),
    renamed(*DEPTH, "metadata", "queueName"),
    renamed(*LAG, "metadata"),
    renamed(*LAG, "metadata", "serverAddress"),
    renamed(*LAG, "metadata", "ignoreNullValues"),
    replaced(*LAG, "metadata", "ignoreNullValues", by=True),
    renamed("TriggerAuthentication", "spec", "secretTargetRef"),
    renamed(*SECRET, "key"),
    replaced(*SECRET, "parameter", by="hosts"),
)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake: Callable[[dict[str, Object]], None]) -> None:
    objects = copy.deepcopy(made())
    mistake(objects)
    assert faults(objects)
