"""What a worker counts. No label ever holds a phone number or an id."""

from typing import Final

from prometheus_client import Counter, Histogram

BATCHES: Final = Counter(
    "mms_worker_batches_total", "Batches taken from the queue: first, redelivered", ["delivery"]
)
POSTBACKS: Final = Counter(
    "mms_worker_postbacks_total", "Postbacks merged, by code: new, duplicate", ["code", "result"]
)
EVENTS: Final = Counter("mms_worker_events_total", "Events emitted, by type", ["type"])
EVENTS_REFUSED: Final = Counter(
    "mms_worker_events_refused_total", "Events that a subscriber's queue refused; in the log only"
)
DEAD_LETTERS: Final = Counter(
    "mms_worker_dead_letters_total", "Postbacks sent to the dead letters, by reason", ["reason"]
)
REDIS_TIME: Final = Histogram(
    "mms_worker_redis_seconds",
    "Time to merge one window",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
LAG: Final = Histogram(
    "mms_worker_lag_seconds",
    "Time from a batch's first postback to its worker",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600),
)
