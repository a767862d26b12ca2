"""How many processes, nodes and shards a load needs: the arithmetic, without any server.

`deploy/docs/scaling-and-capacity.md` explains the same arithmetic.
"""

import math
from importlib.resources import files
from typing import Final

import msgspec

MICRO: Final = 1e-6


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of one postback. Half of all postbacks are terminal and lead to an event.

    Attributes:
        ingress, worker, rabbitmq, redis: CPU microseconds of each for one postback. RabbitMQ's is
            that of one node without replicas: publish, storage, delivery, and the event.
        record_bytes: memory of Redis for one message with two postbacks and a reference.
        event_bytes: bytes of one event in the log.
        envelope_bytes: bytes of a postback in a batch, without its body.
    """

    ingress: float
    worker: float
    rabbitmq: float
    redis: float
    record_bytes: float
    event_bytes: float
    envelope_bytes: float


MEASURED: Final = msgspec.json.decode(
    (files(__package__ or "") / "measured.json").read_bytes(), type=Costs
)
"""Generated from the benchmark's figures, see `tests/support/plan_costs.py`."""

QUEUE_BYTES_LIMIT: Final = 50e6
"""Bytes a second for one quorum queue and its stream. This is an assumption: measure it on your
disks. A higher rate needs several RabbitMQ clusters."""

EVENT_RATE_LIMIT: Final = 20_000
"""Events a second for one exchange with its log. This is an assumption too."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The traffic and the machines.

    Attributes:
        rate: postbacks a second at the peak.
        mean: the mean rate over days as a share of the peak; determines the storage.
        body: bytes of a postback's body.
        per_message: postbacks for one message.
        retention: seconds of traffic that the archive and the event log must hold.
        ttl: seconds that a record is kept.
        busy: share of a core that may be in use at the peak.
        replicas: RabbitMQ nodes that store each message.
        node_cores: cores of a RabbitMQ node.
        shard_bytes: memory of a Redis shard.
        core_price, gib_price: euros a month for a core, and for a GiB of memory. The defaults are
            assumptions: about what a large cloud asks without a contract.
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
    core_price: float = 20
    gib_price: float = 4


def ingresses(load: Load, costs: Costs = MEASURED) -> int:
    """The number of `mms-ingest` processes; at least two, so that one can be restarted."""
    return max(2, _cores(load, costs.ingress))


def workers(load: Load, costs: Costs = MEASURED) -> int:
    """The number of `mms-worker` processes; at least two."""
    return max(2, _cores(load, costs.worker))


def clusters(load: Load, costs: Costs = MEASURED) -> int:
    """The number of RabbitMQ clusters with `replicas` nodes each."""
    cores = load.rate * costs.rabbitmq * MICRO / load.busy
    return max(
        math.ceil(cores / load.node_cores),
        math.ceil(load.rate * stored_bytes(load, costs) / QUEUE_BYTES_LIMIT),
        math.ceil(load.rate / load.per_message / EVENT_RATE_LIMIT),
    )


def shards(load: Load, costs: Costs = MEASURED) -> int:
    """The number of Redis masters, for CPU and memory."""
    return max(_cores(load, costs.redis), math.ceil(redis_bytes(load, costs) / load.shard_bytes))


def redis_bytes(load: Load, costs: Costs = MEASURED) -> float:
    """Memory of all records that exist at once."""
    return load.rate * load.mean / load.per_message * load.ttl * costs.record_bytes


def cores(load: Load, costs: Costs = MEASURED) -> int:
    """Cores: one for each process, and those of RabbitMQ's nodes and of Redis."""
    rabbitmq = load.replicas * _cores(load, costs.rabbitmq)
    return ingresses(load, costs) + workers(load, costs) + rabbitmq + _cores(load, costs.redis)


def price(load: Load, costs: Costs = MEASURED) -> float:
    """Euros a month for the cores and for the memory of Redis; no disk and no network."""
    memory = redis_bytes(load, costs) / 2**30
    return cores(load, costs) * load.core_price + memory * load.gib_price


def archive_bytes(load: Load, costs: Costs = MEASURED) -> float:
    """The archive's size on each node that holds it."""
    return load.rate * load.mean * load.retention * stored_bytes(load, costs)


def log_bytes(load: Load, costs: Costs = MEASURED) -> float:
    """The event log's size on each node that holds it."""
    return load.rate * load.mean / load.per_message * load.retention * costs.event_bytes


def _cores(load: Load, micro: float) -> int:
    """The number of processes that use one core each."""
    return math.ceil(load.rate * micro * MICRO / load.busy)


def stored_bytes(load: Load, costs: Costs) -> float:
    """Bytes of one postback in the input queue and in the archive."""
    return load.body + costs.envelope_bytes
