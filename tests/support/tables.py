"""The tables of the manual that repeat what the code says.

A page has them between `<!-- generated: name -->` and `<!-- end -->`. To write all of them:

    .venv/bin/python -m tests.support.tables

It also writes the costs that `mms-admin plan` counts with, from the figures of the benchmark.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

import ingest.metrics
import workers.metrics
import workers.outcome_metrics
from shared.postback import codes
from shared.process import multiprocess
from shared.settings.describe import describe
from shared.settings.settings import Settings
from tests.support import plan_costs
from tests.support.documents import PAGES, ROOT
from workers.admin.plan import capacity
from workers.admin.plan.capacity import Load
from workers.admin.plan.report import plan

RULES: Final = ROOT / "deploy" / "prometheus" / "rules.yml"
METRICS: Final = (ingest.metrics, workers.metrics, workers.outcome_metrics)
"""The modules that put metrics into the usual registry."""

_GENERATED: Final = re.compile(
    r"(?<=<!-- generated: )(\w+)( -->\n)(.*?)(?=<!-- end -->)", re.DOTALL
)


def generated(page: Path) -> dict[str, str]:
    """The generated tables of a page, as they are in the file, by name."""
    return {name: text for name, _, text in _GENERATED.findall(page.read_text())}


def write(page: Path) -> None:
    """Write the generated tables of a page."""
    text = page.read_text()
    page.write_text(_GENERATED.sub(lambda match: match[1] + match[2] + TABLES[match[1]](), text))


def _settings() -> str:
    rows = [
        (f"`{row.variable}`", f"`{row.default}`" if row.default else "", row.description)
        for row in describe()
    ]
    return _grid(("setting", "default", ""), rows)


def metrics() -> list[tuple[str, str, str, str]]:
    """Each metric of our processes: name, type, labels and help text."""
    rows = []
    for each in _collectors():
        (family,) = each.describe()
        name = f"{family.name}{'_total' if family.type == 'counter' else ''}"
        labels = ", ".join(f"`{label}`" for label in each._labelnames)  # noqa: SLF001
        rows.append((name, family.type, labels, family.documentation))
    return rows


def _metrics() -> str:
    rows = [(f"`{name}`", *rest) for name, *rest in metrics()]
    return _grid(("metric", "type", "labels", ""), rows)


def _collectors() -> list[MetricWrapperBase]:
    """Every metric of our processes, by name."""
    known = {*REGISTRY._collector_to_names, *multiprocess._REGISTRY._collector_to_names}  # noqa: SLF001
    ours = [each for each in known if isinstance(each, MetricWrapperBase)]
    return sorted(ours, key=lambda each: each._name)  # noqa: SLF001


def _alerts() -> str:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    rows = [
        (
            f"`{rule['alert']}`",
            rule["labels"]["severity"],
            _plain(rule["annotations"]["summary"]),
            _plain(rule["annotations"]["runbook"]),
        )
        for rule in rules
    ]
    return _grid(("alert", "severity", "what it says", "what to do first"), rows)


def _plain(text: str) -> str:
    """A template of Prometheus for people: `{{ $labels.job }}` is `<job>`."""
    return re.sub(r"\{\{ \$(?:labels\.)?(\w+)[^}]*\}\}", r"`<\1>`", text)


def _codes() -> str:
    rows = [
        (f"`{name}`", code.track, f"`{code.outcome}`", "yes" if code.refined else "")
        for name, code in codes.CODES.items()
    ]
    return _grid(("code", "track", "outcome", "status text"), rows)


def _statuses() -> str:
    rows: dict[str, str] = {}
    for written, outcome in codes._STATUS_WORDS.values():  # noqa: SLF001 (also the code's only)
        rows[f"`{written}`"] = f"`{outcome}`"
    return _grid(("last word", "outcome"), list(rows.items()))


def _sizes() -> str:
    """The plan for four rates, as `mms-admin plan --mean 0.4` prints it."""
    columns, plans = ["peak, postbacks/s"], []
    kept = ["`MMS_ARCHIVE_MAX_AGE`"]
    for rate, ttl, retention in _SIZES:
        load = Load(rate=rate, mean=0.4, ttl=ttl * _HOUR, retention=retention * _HOUR)
        columns.append(f"{rate:,}")
        kept.append(f"{retention} h" if retention < _LONG else f"{retention // 24} d")
        plans.append(plan(load, _MEASURED, Settings()))
    names = [need.what for need in plans[0]]
    shown = [f"`{name}`" if name.startswith("MMS_") else name for name in names]
    amounts = zip(*([need.amount for need in needs] for needs in plans), strict=True)
    rows = [[name, *row] for name, row in zip(shown, amounts, strict=True)]
    return _grid(columns, [kept, *rows])


def _costs() -> str:
    """The costs that the plan counts with, and those of small batches."""
    small = plan_costs.costs(plan_costs.SMALL_BATCHES)
    rows = [
        ("`mms-ingest`", f"{_MEASURED.ingress:g} µs of CPU", f"{small.ingress:g} µs"),
        (
            "`mms-worker`",
            f"{_MEASURED.worker:g} µs of CPU, half of all postbacks with an event",
            f"{small.worker:g} µs",
        ),
        (
            "RabbitMQ, one node",
            f"{_MEASURED.rabbitmq:g} µs of CPU: receive, store, archive, deliver, and the event",
            f"{small.rabbitmq:g} µs",
        ),
        (
            "Redis",
            f"{_MEASURED.redis:g} µs of CPU, one thread, `appendfsync always`",
            f"{small.redis:g} µs",
        ),
        (
            "Redis memory",
            f"{_MEASURED.record_bytes:g} bytes for a message with two postbacks and a reference",
            "",
        ),
        ("archive", f"body + {_MEASURED.envelope_bytes:g} bytes", ""),
        ("event log", f"{_MEASURED.event_bytes:g} bytes for an event with all usual fields", ""),
    ]
    return _grid(("part", "cost", "at 1,000/s"), rows)


def _euros() -> str:
    """What some rates of messages need, as `mms-admin plan --mean 0.4 --ttl 1d` computes it."""
    rows = []
    for messages in (1_000, 10_000, 100_000):
        load = Load(rate=messages * 2, mean=0.4, ttl=24 * _HOUR)
        cores, price = capacity.cores(load, _MEASURED), capacity.price(load, _MEASURED)
        memory = capacity.redis_bytes(load, _MEASURED) / 2**30
        rows.append(
            (
                f"{messages:,}",
                f"{cores:,}",
                f"{memory:,.0f}",
                f"{price:,.0f} €",
                f"{messages / price:,.1f}",
            )
        )
    columns = ("messages/s at the peak", "cores", "GiB of Redis", "a month", "messages/s for a €")
    return _grid(columns, rows)


_MEASURED: Final = plan_costs.costs()
_HOUR: Final = 3600
_LONG: Final = 48
_SIZES: Final = ((1_000, 168, 192), (10_000, 72, 96), (100_000, 24, 36), (1_000_000, 6, 12))
"""Rate at the peak, and hours that a record and the archive are kept."""


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "settings": _settings,
    "metrics": _metrics,
    "alerts": _alerts,
    "codes": _codes,
    "statuses": _statuses,
    "sizes": _sizes,
    "costs": _costs,
    "euros": _euros,
}
"""What writes each generated table."""


if __name__ == "__main__":
    plan_costs.write()
    for page in PAGES:
        write(page)
