"""What became of the messages: outcomes by operator, and how long carriers take to deliver.

Counted when a fate is decided. A fate that replaces another (an expired message that was delivered
after all) is counted too, and what it replaces is counted as corrected: outcomes less corrections
is how many messages stand where.
"""

from datetime import datetime
from typing import Final

from prometheus_client import Counter, Histogram

from shared.codes import Outcome, Track
from shared.event import Event
from shared.labels import OTHER, UNKNOWN, Bounded, Children

_LABELS: Final = ["operator", "sent_as", "track", "outcome"]

OUTCOMES: Final = Children(
    Counter(
        "mms_outcomes_total",
        "Fates decided, by operator-id, what it was sent as (MMS; SMS when it fell back) and track",
        _LABELS,
    )
)
CORRECTED: Final = Children(
    Counter("mms_outcomes_corrected_total", "Fates that another one has replaced since", _LABELS)
)
DELIVERY_TIME: Final = Children(
    Histogram(
        "mms_delivery_seconds",
        "Provider's time from sent to delivered, by operator-id; messages that have both",
        ["operator"],
        buckets=(1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900, 3600, 14400, 43200, 86400, 259200),
    )
)

_SENT_AS: Final = {"mms": "MMS", "sms": "SMS"}

operator_label: Final = Bounded()
"""The operator-id is the provider's input: only so many of them become labels."""


def decided(event: Event) -> None:
    """Count one fate."""
    known = event.data
    track = event.type.split(".")[1]
    operator = operator_label(known.operator_id)
    sent_as = UNKNOWN if known.sent_as is None else _SENT_AS.get(known.sent_as.lower(), OTHER)
    OUTCOMES[operator, sent_as, track, known.outcome].inc()
    if known.corrects is not None:
        CORRECTED[operator, sent_as, track, known.corrects].inc()
    first_delivery = known.outcome is Outcome.DELIVERED and known.corrects is not known.outcome
    if first_delivery and track == Track.MESSAGE and known.sent_at and known.completed_at:
        sent, delivered = map(datetime.fromisoformat, (known.sent_at, known.completed_at))
        DELIVERY_TIME[operator,].observe(max(0.0, (delivered - sent).total_seconds()))
