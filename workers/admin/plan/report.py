"""The lines of a plan: how much of what, with the arithmetic, and how long the limits last."""

from collections.abc import Sequence
from typing import Final

import msgspec

from shared.settings.settings import Settings
from workers.admin.plan import capacity
from workers.admin.plan.capacity import (
    EVENT_RATE_LIMIT,
    MEASURED,
    MICRO,
    QUEUE_BYTES_LIMIT,
    Costs,
    Load,
)


class Need(msgspec.Struct, frozen=True):
    """One line of a plan.

    Attributes:
        what: a process, a server or a setting.
        amount: how much of it.
        because: the arithmetic.
    """

    what: str
    amount: str
    because: str


def plan(load: Load, costs: Costs = MEASURED, settings: Settings | None = None) -> list[Need]:
    """Everything that a load needs.

    Args:
        settings: their limits are compared with the load; None: the defaults.
    """
    settings = settings or Settings()
    return [
        *_processes(load, costs),
        *_rabbitmq(load, costs),
        *_redis(load, costs),
        _price(load, costs),
        *_limits(load, costs, settings),
    ]


def _processes(load: Load, costs: Costs) -> Sequence[Need]:
    def because(micro: float) -> str:
        cores = load.rate * micro * MICRO
        return f"{load.rate:,.0f}/s x {micro:g} µs = {cores:.1f} cores, {load.busy:.0%} busy"

    return [
        Need("mms-ingest", f"{capacity.ingresses(load, costs):,}", because(costs.ingress)),
        Need("mms-worker", f"{capacity.workers(load, costs):,}", because(costs.worker)),
    ]


def _rabbitmq(load: Load, costs: Costs) -> Sequence[Need]:
    count = capacity.clusters(load, costs)
    cores = load.rate * costs.rabbitmq * MICRO
    stored = load.rate * capacity.stored_bytes(load, costs)
    archive = capacity.archive_bytes(load, costs) / count
    log = capacity.log_bytes(load, costs) / count
    return [
        Need(
            "RabbitMQ",
            f"{count:,} x {load.replicas} nodes of {load.node_cores} cores",
            f"{costs.rabbitmq:g} µs = {cores:.1f} cores; "
            f"{_size(stored)}/s, at most {_size(QUEUE_BYTES_LIMIT)}/s a queue; "
            f"{load.rate / load.per_message:,.0f} events/s, at most {EVENT_RATE_LIMIT:,}/s a log",
        ),
        Need(
            "disk of each node",
            _size(archive + log),
            f"archive {_size(archive)} and event log {_size(log)}, {_span(load.retention)} of both",
        ),
    ]


def _redis(load: Load, costs: Costs) -> Sequence[Need]:
    cores = load.rate * costs.redis * MICRO
    whole = capacity.redis_bytes(load, costs)
    return [
        Need(
            "Redis shards",
            f"{capacity.shards(load, costs):,}",
            f"CPU: {costs.redis:g} µs = {cores:.1f} cores; "
            f"memory: {_size(whole)} at {_size(load.shard_bytes)} each",
        ),
        Need(
            "Redis memory",
            _size(whole),
            f"{load.rate * load.mean / load.per_message:,.0f} messages/s x {_span(load.ttl)} "
            f"x {costs.record_bytes:g} B; as much again for each replica",
        ),
    ]


def _price(load: Load, costs: Costs) -> Need:
    return Need(
        "cores and memory",
        f"{capacity.price(load, costs):,.0f} € a month",
        f"{capacity.cores(load, costs):,} cores at {load.core_price:g} €, Redis memory at "
        f"{load.gib_price:g} € a GiB; no replica of Redis, no disk, no network",
    )


def _limits(load: Load, costs: Costs, settings: Settings) -> Sequence[Need]:
    """The limits in the settings: whether they suffice, and how long an outage they cover."""
    count = capacity.clusters(load, costs)
    stored = capacity.stored_bytes(load, costs)
    archive = max(capacity.archive_bytes(load, costs), capacity.log_bytes(load, costs)) / count
    queue = settings.queue_max_bytes * count / (load.rate * stored)
    spool = settings.spool_max_bytes * capacity.ingresses(load, costs) / (load.rate * stored)
    reach = settings.archive_max_bytes * load.retention / archive
    advice = "enough" if reach >= load.retention else f"set it to {_size(archive * 1.1)} or more"
    return [
        Need(
            "MMS_ARCHIVE_MAX_BYTES",
            advice,
            f"{_size(settings.archive_max_bytes)} hold {_span(reach)} in each cluster",
        ),
        Need(
            "MMS_QUEUE_MAX_BYTES",
            f"covers {_span(queue)}",
            "without workers or Redis at the peak: "
            f"{_size(settings.queue_max_bytes)} in each cluster",
        ),
        Need(
            "MMS_SPOOL_MAX_BYTES",
            f"covers {_span(spool)}",
            f"without RabbitMQ at the peak: {_size(settings.spool_max_bytes)} for each ingress",
        ),
        Need("MMS_STATE_TTL", _span(load.ttl), "only the memory of Redis grows with it"),
    ]


_SIZES: Final = ((2.0**50, "PiB"), (2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"))
_SPANS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def _size(amount: float) -> str:
    for size, unit in _SIZES:
        if amount >= size:
            return f"{amount / size:,.3g} {unit}"
    return f"{amount / 1024:,.3g} KiB"


def _span(amount: float) -> str:
    for size, unit in _SPANS:
        if amount >= size:
            return f"{amount / size:,.3g} {unit}"
    return f"{amount:,.3g} s"
