"""The metrics of the ingress. No label holds a phone number or an id.

Counters and gauges add up over processes: of several processes that share one spool, only the one
that drains it reports how full it is.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from shared.process.metric_labels import Children

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

RESPONSES: Final = Children(
    Counter(
        "mms_ingest_answers_total",
        "Requests by source and HTTP status of the response",
        ["status", "source"],
    )
)
RESPONSE_TIME: Final = Histogram(
    "mms_ingest_answer_seconds", "Time from a request's headers to its response", buckets=_BUCKETS
)
IN_FLIGHT: Final = Gauge("mms_ingest_in_flight", "Requests that wait for their response now")
WAITING: Final = Gauge("mms_ingest_waiting", "Postbacks that wait for a batch now")
BATCH_SIZE: Final = Histogram(
    "mms_ingest_batch_postbacks",
    "Postbacks in a batch",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
PUBLISHES: Final = Children(
    Counter(
        "mms_ingest_publishes_total",
        "Batches sent to RabbitMQ: confirmed, not_taken, too_large, unknown",
        ["result"],
    )
)
CONFIRM_TIME: Final = Histogram(
    "mms_ingest_confirm_seconds",
    "Time from a batch's publish to RabbitMQ's confirm",
    buckets=_BUCKETS,
)
PUBLISHED: Final = Counter("mms_ingest_published_total", "Postbacks that RabbitMQ has confirmed")
SPOOLED: Final = Counter("mms_ingest_spooled_total", "Postbacks written to the spool")
DRAINED: Final = Counter(
    "mms_ingest_drained_total", "Postbacks removed from the spool after RabbitMQ's confirm"
)
SPOOL_POSTBACKS: Final = Gauge("mms_ingest_spool_postbacks", "Postbacks in the spool now")
SPOOL_AGE: Final = Gauge("mms_ingest_spool_age_seconds", "Age of the oldest batch in the spool")
SET_ASIDE: Final = Gauge(
    "mms_ingest_set_aside_postbacks",
    "Postbacks kept in the spool that are too large for RabbitMQ (max_message_size)",
)
BREAKER_OPEN: Final = Gauge(
    "mms_ingest_breaker_open", "1 while postbacks bypass RabbitMQ, 0 otherwise"
)
CONNECTIONS_CLOSED: Final = Counter(
    "mms_ingest_connections_closed_total",
    "Connections closed by the ingress: too_many (MMS_MAX_CONNECTIONS), slow (headers took too"
    " long), unread (the client does not read its responses)",
    ["reason"],
)

for _result in ("confirmed", "not_taken", "too_large", "unknown"):
    PUBLISHES[_result,].inc(0)  # rates need the zero at the start
