"""What ours and each peer guarantee, beside what it costs."""

from collections.abc import Callable, Mapping
from typing import Final

from tests.bench import faults, ingress, worker
from tests.bench.measure import Spread, number
from tests.bench.results import Table

STACKS: Final = {
    ingress.OURS: worker.OURS,
    ingress.NODE: worker.NODE,
    ingress.ONE_CONFIRM: "",
    ingress.FASTSTREAM: worker.FASTSTREAM,
    ingress.CELERY: worker.CELERY,
}
"""Each ingress with the worker of the same libraries, if there is one."""

_QUORUM: Final = "yes, quorum queue"
_CLIENTS: Final = "its clients' connections"
_SCRIPTS: Final = "yes, with our scripts"

STATED: Final = {
    "durable before 200": (
        "yes, quorum queue and archive, or fsynced spool",
        *(_QUORUM, _QUORUM, _QUORUM, _QUORUM),
    ),
    "memory of the ingress is limited by": (
        "limits of its own",
        *(_CLIENTS, _CLIENTS, _CLIENTS, "its clients' connections and 40 threads"),
    ),
    "order does not matter": ("yes", _SCRIPTS, "", _SCRIPTS, _SCRIPTS),
    "events at least once": (
        *("yes", "yes, acknowledged after their confirm", ""),
        *("yes, acknowledged after their confirm", "yes, acknowledged after their confirm"),
    ),
    "what cannot be decoded": (
        *("dead letter, can be replayed", "dropped after 20 deliveries", ""),
        *("delivered again and again", "logged, then dropped"),
    ),
}
"""By the code and the settings of each, in the order of `STACKS`."""


def table(figures: Mapping[str, Spread]) -> Table:
    """One column for each stack that was measured; `-` where a section was not run."""
    columns = [name for name in STACKS if f"ingress.{name}.rate" in figures]
    rows = []
    for guarantee, texts in STATED.items():
        by_name = dict(zip(STACKS, texts, strict=True))
        rows.append((guarantee, *(by_name[name] or "no worker" for name in columns)))
    for fault in faults.FAULTS:
        found = (figures[f"ingress.{name}.{fault}"].median for name in columns)
        rows.append((f"observed answer: {fault}", *map(_status, found)))
    for cost, key in _COSTS.items():
        rows.append((cost, *(_cost(figures, key(name)) for name in columns)))
    return Table("What each guarantees, and what it costs", ["", *columns], rows)


_COSTS: Final[dict[str, Callable[[str], str]]] = {
    "ingress, requests/s": lambda name: f"ingress.{name}.rate",
    "ingress, CPU µs": lambda name: f"ingress.{name}.cpu",
    "ingress, RabbitMQ CPU µs": lambda name: f"ingress.{name}.rabbitmq",
    "worker, postbacks/s": lambda name: f"worker.{STACKS[name]}.rate",
    "worker, CPU µs": lambda name: f"worker.{STACKS[name]}.worker",
    "worker, RabbitMQ CPU µs": lambda name: f"worker.{STACKS[name]}.rabbitmq",
}


def _status(status: float) -> str:
    if status == faults.NO_ANSWER:
        return f"none within {faults.TIME_LIMIT:.0f} s"
    return f"{status:.0f}"


def _cost(figures: Mapping[str, Spread], key: str) -> str:
    return number(figures[key].median) if key in figures else "-"
