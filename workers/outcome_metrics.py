"""Count outcomes by operator, and the time that carriers take to deliver.

An outcome is counted when a merge changes the outcome of a track: once for each change, however
often a postback arrives. An outcome that replaces another one is counted too, and the replaced one
is counted as corrected (an expired message that was delivered after all). So outcomes minus
corrections is the number of messages that have this outcome now. A worker that dies between Redis's
write and this count leaves the change uncounted.
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
        "Outcomes decided, by operator-id, track and sent-as (SMS when it fell back)",
        _LABELS,
    )
)
CORRECTED: Final = Children(
    Counter("mms_outcomes_corrected_total", "Outcomes that a later one has replaced", _LABELS)
)
DELIVERY_TIME: Final = Children(
    Histogram(
        "mms_delivery_seconds",
        "Time from sent to delivered by the provider's timestamps, by operator-id",
        ["operator"],
        buckets=(1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900, 3600, 14400, 43200, 86400, 259200),
    )
)

_SENT_AS: Final = {"mms": "MMS", "sms": "SMS"}

operator_label: Final = Bounded()
"""The provider sends the operator-id, so only a limited number becomes labels."""


def count(record: Record, track: Track, before: Postback | None) -> None:
    """Count a change of a track's outcome.

    The labels come from the deciding postback alone. So a correction has the same labels as the
    outcome that it corrects, whatever other postbacks added in between.

    Args:
        record: after the change; the track's outcome is terminal.
        before: the postback that decided the track before; None if its outcome was not terminal.
    """
    now = record.of(track)[0].postback
    labels = _labels(now, track)
    corrected = None if before is None else _labels(before, track)
    if labels == corrected:  # another postback with the same outcome
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
