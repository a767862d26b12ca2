"""The metrics of a worker's own work. No label holds a phone number or an id."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from shared.postback.codes import CODES
from shared.postback.dead_letter import Reason
from shared.process.metric_labels import Children

BATCHES: Final = Children(
    Counter(
        "mms_worker_batches_total",
        "Batches delivered by RabbitMQ: first, redelivered",
        ["delivery"],
    )
)
BATCH_SIZE: Final = Histogram(
    "mms_worker_batch_postbacks",
    "Postbacks in a batch",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
PROCESSED: Final = Counter("mms_worker_absorbed_total", "Postbacks in acknowledged batches")
POSTBACKS: Final = Children(
    Counter(
        "mms_worker_postbacks_total",
        "Postbacks merged into the state and acknowledged, by code: new, duplicate",
        ["code", "result"],
    )
)
DEAD_LETTERS: Final = Children(
    Counter(
        "mms_worker_dead_letters_total",
        "Postbacks that became dead letters and were acknowledged, by reason",
        ["reason"],
    )
)
PASSTHROUGH: Final = Counter(
    "mms_worker_passthrough_total",
    "Postbacks of other origins, published as passthrough events and acknowledged",
)
UNKNOWN_STATUS: Final = Children(
    Counter(
        "mms_unknown_status_total",
        "Postbacks with a status text that is in no table, by code; the log has the texts",
        ["code"],
    )
)
EVENTS: Final = Children(
    Counter(
        "mms_worker_events_total",
        "Events published, by type; counts an event each time that it is published",
        ["type"],
    )
)
EVENTS_REFUSED: Final = Counter(
    "mms_worker_events_refused_total",
    "Events that a subscriber's queue refused; only mms.events.log has them",
)
UNPUBLISHABLE: Final = Children(
    Counter(
        "mms_worker_unpublishable_total",
        "Messages that RabbitMQ can never accept: event (its postback becomes a dead letter),"
        " dead letter (published with body and reason alone), body (only the archive has it)",
        ["kind"],
    )
)
FAILED: Final = Counter(
    "mms_worker_failed_postbacks_total",
    "Postbacks that became dead letters because of an unexpected error",
)
REDIS_TIME: Final = Histogram(
    "mms_worker_redis_seconds",
    "Time to merge one window into Redis",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
LAG: Final = Histogram(
    "mms_worker_lag_seconds",
    "Time from the receipt of a batch's first postback to its delivery to a worker",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 60, 300, 900, 3600, 14400),
)
CONSUMING: Final = Gauge(
    "mms_worker_consuming", "1 while this worker consumes the input queue, 0 otherwise"
)

# All label values exist from the start, so that a rate begins at zero.
for _code, _row in CODES.items():
    if _row.refined:
        UNKNOWN_STATUS[_code,].inc(0)
    for _result in ("new", "duplicate"):
        POSTBACKS[_code, _result].inc(0)
for _reason in Reason:
    DEAD_LETTERS[_reason,].inc(0)
for _kind in ("event", "dead letter", "body"):
    UNPUBLISHABLE[_kind,].inc(0)
for _delivery in ("first", "redelivered"):
    BATCHES[_delivery,].inc(0)
