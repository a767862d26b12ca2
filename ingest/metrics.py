"""What the ingress counts. No label ever holds a phone number or an id."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

ANSWERS: Final = Counter(
    "mms_ingest_answers_total", "Requests answered, by HTTP status and source", ["status", "source"]
)
ANSWER_TIME: Final = Histogram(
    "mms_ingest_answer_seconds",
    "Time from a request's headers to its answer",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
BATCH_SIZE: Final = Histogram(
    "mms_ingest_batch_postbacks",
    "Postbacks in a batch",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
PUBLISHES: Final = Counter(
    "mms_ingest_publishes_total",
    "Batches sent to RabbitMQ: confirmed, not_taken, unknown",
    ["result"],
)
SPOOLED: Final = Counter("mms_ingest_spooled_total", "Postbacks written to the spool")
SPOOL_POSTBACKS: Final = Gauge("mms_ingest_spool_postbacks", "Postbacks in the spool now")
SPOOL_AGE: Final = Gauge("mms_ingest_spool_age_seconds", "Age of the oldest batch in the spool")
BREAKER_OPEN: Final = Gauge(
    "mms_ingest_breaker_open", "1 while postbacks bypass RabbitMQ, 0 otherwise"
)
WAITING: Final = Gauge("mms_ingest_waiting", "Postbacks that wait for a durable answer now")
