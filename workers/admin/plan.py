"""`mms-admin plan`: from the measured cost of a postback to how many of what, with the arithmetic.

`deploy/docs/scaling-and-capacity.md` explains the same arithmetic. It asks no server.
"""

import math
from collections.abc import Sequence
from typing import Final

import click
import msgspec

from shared.errors import SettingsError
from shared.settings.load import load_settings
from shared.settings.settings import Settings
from shared.settings.units import parse_seconds
from workers.admin import console

MICRO: Final = 1e-6


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What one postback costs; half of all are terminal and make an event.

    Attributes:
        ingress, worker, rabbitmq, redis: CPU microseconds of each for one postback. RabbitMQ's is
            for one node without replicas: taking it, keeping it, handing it on, and the event.
        record_bytes: of Redis's memory for one message with two postbacks and a reference.
        event_bytes: one event in the log.
        envelope_bytes: what a postback takes in a batch beside its body.
    """

    ingress: float
    worker: float
    rabbitmq: float
    redis: float
    record_bytes: float
    event_bytes: float
    envelope_bytes: float


MEASURED: Final = Costs(
    ingress=85,
    worker=150,
    rabbitmq=100,
    redis=25,
    record_bytes=960,
    event_bytes=850,
    envelope_bytes=40,
)
"""From tests/bench/RESULTS.md, with room: two virtual cores of an AMD EPYC, Python 3.11."""

QUEUE_BYTES: Final = 50e6
"""Bytes a second that one quorum queue and its stream are trusted with: an assumption, to be
measured on your disks. Beyond it there must be several RabbitMQ clusters."""

LOG_EVENTS: Final = 20_000
"""Events a second that one exchange with its log is trusted with: an assumption as well."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be carried, and on what.

    Attributes:
        rate: postbacks a second at the peak.
        mean: the mean rate over days as a share of the peak; decides what is stored.
        body: bytes of a postback's body.
        per_message: postbacks for one message.
        retention: seconds that the archive and the event log are to reach back.
        ttl: seconds that a record is kept.
        busy: how much of a core may be in use at the peak.
        replicas: RabbitMQ nodes that hold each message.
        node_cores: cores of a RabbitMQ node.
        shard_bytes: memory of a Redis shard.
    """

    rate: float
    mean: float = 1.0
    body: float = 450
    per_message: float = 2.0
    retention: float = 8 * 86400
    ttl: float = 7 * 86400
    busy: float = 0.6
    replicas: int = 3
    node_cores: int = 8
    shard_bytes: float = 32 * 2.0**30


class Need(msgspec.Struct, frozen=True):
    """One line of a plan: how much of what, and the arithmetic that leads to it."""

    what: str
    amount: str
    because: str


def plan(load: Load, costs: Costs = MEASURED, given: Settings | None = None) -> list[Need]:
    """What a load needs.

    Args:
        given: the settings to judge; None: the defaults.
    """
    given = given or Settings()
    return [
        *_processes(load, costs),
        *_rabbitmq(load, costs),
        *_redis(load, costs),
        *_limits(load, costs, given),
    ]


def ingresses(load: Load, costs: Costs = MEASURED) -> int:
    """How many `mms-ingest`; two at least, so that one may be restarted."""
    return max(2, _cores(load, costs.ingress))


def workers(load: Load, costs: Costs = MEASURED) -> int:
    """How many `mms-worker`; two at least."""
    return max(2, _cores(load, costs.worker))


def clusters(load: Load, costs: Costs = MEASURED) -> int:
    """How many RabbitMQ clusters of `replicas` nodes each."""
    cores = load.rate * costs.rabbitmq * MICRO / load.busy
    return max(
        math.ceil(cores / load.node_cores),
        math.ceil(load.rate * _stored(load, costs) / QUEUE_BYTES),
        math.ceil(load.rate / load.per_message / LOG_EVENTS),
    )


def shards(load: Load, costs: Costs = MEASURED) -> int:
    """How many Redis masters, for CPU and for memory."""
    return max(_cores(load, costs.redis), math.ceil(redis_bytes(load, costs) / load.shard_bytes))


def redis_bytes(load: Load, costs: Costs = MEASURED) -> float:
    """Memory of all records that are kept at once."""
    return load.rate * load.mean / load.per_message * load.ttl * costs.record_bytes


def archive_bytes(load: Load, costs: Costs = MEASURED) -> float:
    """The archive's size on each node that holds it."""
    return load.rate * load.mean * load.retention * _stored(load, costs)


def log_bytes(load: Load, costs: Costs = MEASURED) -> float:
    """The event log's size on each node that holds it."""
    return load.rate * load.mean / load.per_message * load.retention * costs.event_bytes


def _cores(load: Load, micro: float) -> int:
    """Processes that use one core each."""
    return math.ceil(load.rate * micro * MICRO / load.busy)


def _stored(load: Load, costs: Costs) -> float:
    return load.body + costs.envelope_bytes


def _processes(load: Load, costs: Costs) -> Sequence[Need]:
    def because(micro: float) -> str:
        cores = load.rate * micro * MICRO
        return f"{load.rate:,.0f}/s x {micro:g} µs = {cores:.1f} cores, {load.busy:.0%} busy"

    return [
        Need("mms-ingest", f"{ingresses(load, costs):,}", because(costs.ingress)),
        Need("mms-worker", f"{workers(load, costs):,}", because(costs.worker)),
    ]


def _rabbitmq(load: Load, costs: Costs) -> Sequence[Need]:
    count = clusters(load, costs)
    cores = load.rate * costs.rabbitmq * MICRO
    archive, log = archive_bytes(load, costs) / count, log_bytes(load, costs) / count
    return [
        Need(
            "RabbitMQ",
            f"{count:,} x {load.replicas} nodes of {load.node_cores} cores",
            f"{costs.rabbitmq:g} µs = {cores:.1f} cores; "
            f"{_size(load.rate * _stored(load, costs))}/s, at most {_size(QUEUE_BYTES)}/s a queue; "
            f"{load.rate / load.per_message:,.0f} events/s, at most {LOG_EVENTS:,}/s a log",
        ),
        Need(
            "disk of each node",
            _size(archive + log),
            f"archive {_size(archive)} and event log {_size(log)}, {_span(load.retention)} of both",
        ),
    ]


def _redis(load: Load, costs: Costs) -> Sequence[Need]:
    cores = load.rate * costs.redis * MICRO
    whole = redis_bytes(load, costs)
    return [
        Need(
            "Redis shards",
            f"{shards(load, costs):,}",
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


def _limits(load: Load, costs: Costs, given: Settings) -> Sequence[Need]:
    """Limits that are reached sooner than is wanted, and how much outage they cover."""
    count = clusters(load, costs)
    stored = _stored(load, costs)
    archive = max(archive_bytes(load, costs), log_bytes(load, costs)) / count
    queue = given.queue_max_bytes * count / (load.rate * stored)
    spool = given.spool_max_bytes * ingresses(load, costs) / (load.rate * stored)
    reach = given.archive_max_bytes * load.retention / archive
    wanted = "enough" if reach >= load.retention else f"set it to {_size(archive * 1.1)} or more"
    return [
        Need(
            "MMS_ARCHIVE_MAX_BYTES",
            wanted,
            f"{_size(given.archive_max_bytes)} reach back {_span(reach)} in each cluster",
        ),
        Need(
            "MMS_QUEUE_MAX_BYTES",
            f"covers {_span(queue)}",
            f"of workers or Redis away at the peak: {_size(given.queue_max_bytes)} in each cluster",
        ),
        Need(
            "MMS_SPOOL_MAX_BYTES",
            f"covers {_span(spool)}",
            f"of RabbitMQ away at the peak: {_size(given.spool_max_bytes)} for each ingress",
        ),
        Need("MMS_STATE_TTL", _span(load.ttl), "memory of Redis grows with it, nothing else does"),
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


class _Span(click.ParamType[float]):
    """A span of time as the settings take it."""

    name = "span"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return float(parse_seconds(value)) if isinstance(value, str) else value
        except ValueError:
            self.fail(f"{value!r} is not like 30m, 12h or 7d", param, ctx)


@click.command("plan")
@click.option("--rate", type=click.FloatRange(1), required=True, help="Postbacks/s at the peak.")
@click.option(
    "--mean",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="The mean rate over days as a share of the peak.",
)
@click.option(
    "--body", type=click.FloatRange(1), default=450, show_default=True, help="Bytes of a body."
)
@click.option("--retention", type=_Span(), help="Of archive and event log. [MMS_ARCHIVE_MAX_AGE]")
@click.option("--ttl", type=_Span(), help="Of a record. [MMS_STATE_TTL]")
@click.option(
    "--busy",
    type=click.FloatRange(0.1, 1),
    default=0.6,
    show_default=True,
    help="Share of a core that may be in use at the peak.",
)
@click.option(
    "--node-cores", type=click.IntRange(1), default=8, show_default=True, help="Of a RabbitMQ node."
)
@click.option(
    "--shard-gib", type=click.FloatRange(1), default=32, show_default=True, help="Of a Redis shard."
)
@console.json_option
def show_plan(
    *,
    rate: float,
    mean: float,
    body: float,
    retention: float | None,
    ttl: float | None,
    busy: float,
    node_cores: int,
    shard_gib: float,
    as_json: bool,
) -> None:
    """Work out how many processes, nodes and shards a rate needs, and what gives out first.

    From the cost of a postback as `make bench` measures it; the page
    deploy/docs/scaling-and-capacity.md explains the arithmetic and what was not measured.

    \b
    Examples:
      mms-admin plan --rate 1000
      mms-admin plan --rate 50000 --mean 0.4 --ttl 1d --retention 3d
    """  # noqa: D301 (click reads the backslash)
    try:
        given = load_settings()
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    load = Load(
        rate=rate,
        mean=mean,
        body=body,
        retention=given.archive_max_age if retention is None else retention,
        ttl=given.state_ttl if ttl is None else ttl,
        busy=busy,
        node_cores=node_cores,
        shard_bytes=shard_gib * 2**30,
    )
    needs = plan(load, MEASURED, given)
    if as_json:
        for need in needs:
            console.print_json(need)
        return
    title = f"{rate:,.0f} postbacks/s of {body:,.0f} bytes at the peak"
    rows = [(need.what, need.amount, need.because) for need in needs]
    console.print_table(title, ["what", "how much", "because"], rows)
