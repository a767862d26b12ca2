"""What became of the messages: outcomes by operator, and how long carriers take to deliver.

Counted when a merge has changed a track's outcome, which happens once for each change, however
often a postback comes. An outcome that replaces another (an expired message that was
delivered after all) is counted too, and what it replaces is counted as corrected: outcomes less
corrections is how many messages stand where. A worker that dies between Redis's write and this
count leaves the change uncounted.
"""

from datetime import datetime
from typing import Final

from prometheus_client import Counter, Histogram

from shared.postback.codes import Outcome, Track
from shared.postback.postback import Postback
from shared.postback.record import Record
from shared.process.metric_labels import OTHER, UNKNOWN, Bounded, Children

_LABELS: Final = ["operator", "sent_as", "track", "outcome"]

OUTCOMES: Final = Children(
    Counter(
        "mms_outcomes_total",
        "Outcomes decided, by operator-id, track and what it was sent as (SMS when it fell back)",
        _LABELS,
    )
)
CORRECTED: Final = Children(
    Counter("mms_outcomes_corrected_total", "Outcomes that another one has replaced since", _LABELS)
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


def decided(record: Record, track: Track, before: Postback | None) -> None:
    """Count a change of what decides a track.

    The labels are the deciding postback's own, so that a correction takes away exactly what was
    counted; what other postbacks add later does not move it.

    Args:
        record: as it is now; the track's outcome is terminal.
        before: the postback that decided the track before; None if its outcome was not terminal.
    """
    now = record.of(track)[0].postback
    labels = _labels(now, track)
    corrected = None if before is None else _labels(before, track)
    if labels == corrected:  # another postback says the same
        return
    OUTCOMES[labels].inc()
    if corrected is not None:
        CORRECTED[corrected].inc()
    first = before is None or before.outcome is not Outcome.DELIVERED
    if now.outcome is Outcome.DELIVERED and first and track is Track.MESSAGE:
        known = record.known(track)
        if known.sent_at and known.completed_at:
            sent, completed = map(datetime.fromisoformat, (known.sent_at, known.completed_at))
            seconds = max(0.0, (completed - sent).total_seconds())
            DELIVERY_TIME[operator_label(now.operator_id),].observe(seconds)


def _labels(decides: Postback, track: Track) -> tuple[str, str, str, str]:
    sent_as = UNKNOWN
    if decides.sent_as is not None:
        sent_as = _SENT_AS.get(decides.sent_as.lower(), OTHER)
    return operator_label(decides.operator_id), sent_as, track, decides.outcome
