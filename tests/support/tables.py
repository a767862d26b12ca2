"""The tables of the manual that repeat what the code says.

A page has them between `<!-- generated: name -->` and `<!-- end -->`. To write all of them:

    .venv/bin/python -m tests.support.tables
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
from tests.support.documents import PAGES, ROOT
from workers.admin.plan.capacity import MEASURED, Load
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
        plans.append(plan(load, MEASURED, Settings()))
    names = [need.what for need in plans[0]]
    shown = [f"`{name}`" if name.startswith("MMS_") else name for name in names]
    amounts = zip(*([need.amount for need in needs] for needs in plans), strict=True)
    rows = [[name, *row] for name, row in zip(shown, amounts, strict=True)]
    return _grid(columns, [kept, *rows])


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
}
"""What writes each generated table."""


if __name__ == "__main__":
    for page in PAGES:
        write(page)
